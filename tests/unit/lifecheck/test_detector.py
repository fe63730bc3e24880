"""The heartbeat method: paths, dead time, evidence, self-doubt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.frames import Beat, Health, Role
from pgvigil.lifecheck.core.detector import HeartbeatMethod
from pgvigil.lifecheck.core.path import Fixed, PathChange
from pgvigil.lifecheck.core.verdict import Opinion

MS = 1_000_000
START = 1_000 * MS
DEADTIME = 1_000 * MS
LABELS = {2: "pg02", 3: "pg03"}


def beat(term: int = 1, age_ms: int = 0, hears: tuple[int, ...] = ()) -> Beat:
    return Beat(Role.STANDBY, term, True, Health.ALIVE, 1, 1, hears, age_ms)


def method(*interfaces: str) -> HeartbeatMethod:
    return HeartbeatMethod(LABELS, interfaces or ("eth0", "eth1"), Fixed(DEADTIME), 200 * MS, START)


def at(milliseconds: int) -> int:
    return START + milliseconds * MS


def hear(judge: HeartbeatMethod, milliseconds: int, path: int = 0, node_id: int = 2) -> None:
    assert judge.heard(node_id, path, at(milliseconds), beat(), at(milliseconds))


def view(judge: HeartbeatMethod, milliseconds: int, node_id: int = 2) -> Opinion:
    """With receivers that have nothing left to read at that instant."""
    for path in range(2):
        judge.quiet(path, at(milliseconds), at(milliseconds))
    judge.path_changes(node_id, at(milliseconds))
    opinion = judge.opinion(node_id, at(milliseconds))
    assert opinion is not None
    return opinion


def test_a_node_is_unknown_until_it_is_heard_and_dead_if_it_never_is() -> None:
    judge = method()
    assert view(judge, 999) == Opinion(Health.UNKNOWN, "not heard yet, for 999 ms")
    assert judge.wake() == at(1000)
    assert view(judge, 1000) == Opinion(Health.DEAD, "never heard on eth0 for 1000 ms and on eth1 for 1000 ms")


def test_a_silent_path_is_no_silent_node() -> None:
    judge = method()
    hear(judge, 100, path=0)
    hear(judge, 100, path=1)
    assert view(judge, 200) == Opinion(Health.ALIVE, "heard on eth0 and eth1")
    hear(judge, 1100, path=1)
    assert view(judge, 1200) == Opinion(Health.ALIVE, "heard on eth1; silent on eth0 for 1100 ms")


def test_death_comes_with_the_last_path_and_keeps_its_evidence() -> None:
    judge = method()
    hear(judge, 100, path=0)
    hear(judge, 106, path=1)
    assert view(judge, 1105).health is Health.ALIVE
    dead = view(judge, 1110)
    assert dead == Opinion(Health.DEAD, "silent on eth0 for 1010 ms and on eth1 for 1004 ms")
    assert view(judge, 9000) is dead


def test_a_dead_node_is_alive_with_its_first_heartbeat() -> None:
    judge = method()
    assert view(judge, 1000).health is Health.DEAD
    hear(judge, 1500)
    assert view(judge, 1500).health is Health.ALIVE


def test_an_old_heartbeat_that_was_queued_raises_nobody_from_the_dead() -> None:
    judge = method()
    assert view(judge, 5000).health is Health.DEAD
    assert judge.heard(2, 0, at(3000), beat(), at(5000))
    assert view(judge, 5000).health is Health.DEAD


def test_the_wake_is_the_first_death_to_come() -> None:
    judge = method("eth0")
    hear(judge, 100, node_id=2)
    hear(judge, 300, node_id=3)
    assert judge.wake() == at(1100)
    assert view(judge, 1100).health is Health.DEAD
    assert judge.wake() == at(1300)
    assert view(judge, 1300, node_id=3).health is Health.DEAD
    assert judge.wake() is None


def test_our_own_standstill_is_held_against_nobody() -> None:
    judge = HeartbeatMethod({2: "pg02"}, ("eth0", "eth1"), Fixed(DEADTIME), 200 * MS, START)
    hear(judge, 100)
    judge.late(3000 * MS)
    assert view(judge, 3200).health is Health.ALIVE
    assert judge.wake() == at(4000)  # the path that was never heard
    assert view(judge, 4100).health is Health.DEAD


def test_queued_heartbeats_do_not_shorten_the_grace() -> None:
    judge = method("eth0")
    hear(judge, 100)
    judge.late(3000 * MS)
    assert judge.heard(2, 0, at(300), beat(), at(3200))
    assert view(judge, 3200).health is Health.ALIVE


def test_strangers_and_unknown_paths_are_left_alone() -> None:
    judge = method("eth0")
    assert not judge.heard(9, 0, at(1), beat(), at(1))
    assert not judge.heard(2, 1, at(1), beat(), at(1))
    assert judge.opinion(9, at(1)) is None


def test_of_several_paths_the_words_said_last_count() -> None:
    judge = method()
    judge.heard(2, 0, at(500), beat(term=7, age_ms=10), at(500))
    judge.heard(2, 1, at(600), beat(term=6, age_ms=2000), at(600))
    assert judge.beat(2) == (beat(term=7, age_ms=10), at(500))
    assert judge.beat(3) == (None, 0)
    assert [path.last_heard_at_ns for path in judge.paths(2)] == [at(500), at(600)]


# --- paths ------------------------------------------------------------------------------------------------


def test_a_path_that_falls_silent_is_a_change_and_so_is_its_return() -> None:
    judge = method()
    hear(judge, 100, path=0)
    hear(judge, 100, path=1)
    hear(judge, 1000, path=1)
    assert judge.wake() == at(1000)  # node 3, never heard
    assert judge.path_changes(2, at(1099)) == ()
    judge.quiet(0, at(1050), at(1050))
    assert judge.path_changes(2, at(1100)) == (PathChange(2, "eth0", True, 1000),)
    assert judge.path_changes(2, at(1101)) == ()
    assert [path.silent for path in judge.paths(2)] == [True, False]
    hear(judge, 1500, path=0)
    assert judge.path_changes(2, at(1500)) == (PathChange(2, "eth0", False, 1400),)
    assert [path.silent for path in judge.paths(2)] == [False, False]


def test_a_standstill_of_ours_is_no_return_of_a_path() -> None:
    judge = method()
    hear(judge, 100, path=0)
    hear(judge, 1000, path=1)
    judge.quiet(0, at(1090), at(1090))
    assert len(judge.path_changes(2, at(1100))) == 1
    judge.late(3000 * MS)
    assert judge.path_changes(2, at(1101)) == () and judge.paths(2)[0].silent
    hear(judge, 5000, path=0)
    assert judge.path_changes(2, at(5000)) == (PathChange(2, "eth0", False, 4900),)


# --- our own receiver -------------------------------------------------------------------------------------


def raw(judge: HeartbeatMethod, milliseconds: int, node_id: int = 2) -> Opinion:
    """As `view`, but the receivers say nothing."""
    judge.path_changes(node_id, at(milliseconds))
    opinion = judge.opinion(node_id, at(milliseconds))
    assert opinion is not None
    return opinion


def test_a_receiver_that_stands_still_kills_nobody() -> None:
    judge = method("eth0")
    hear(judge, 100)
    judge.quiet(0, at(850), at(850))  # 250 ms before the end: a heartbeat may have come since
    unjudged = raw(judge, 3000)
    assert unjudged == Opinion(Health.UNKNOWN, "cannot be judged: the heartbeat receiver of eth0 does not report")
    assert judge.waits(2)
    hear(judge, 3100)
    assert raw(judge, 3100).health is Health.ALIVE and not judge.waits(2)


def test_silence_counts_when_the_receiver_has_read_everything() -> None:
    judge = method("eth0")
    hear(judge, 100)
    assert raw(judge, 3000).health is Health.UNKNOWN
    judge.quiet(0, at(3050), at(3051))
    assert raw(judge, 3051) == Opinion(Health.DEAD, "silent on eth0 for 2951 ms")


def test_one_path_with_a_standing_receiver_is_enough_for_doubt() -> None:
    judge = method()
    hear(judge, 100, path=0)
    hear(judge, 100, path=1)
    judge.quiet(1, at(1100), at(1100))
    assert raw(judge, 1100).health is Health.UNKNOWN
    judge.quiet(0, at(1200), at(1200))
    assert raw(judge, 1200).health is Health.DEAD


def test_a_word_from_the_future_is_no_word_for_later() -> None:
    judge = method("eth0")
    hear(judge, 100)
    judge.quiet(0, at(900_000), at(200))
    assert raw(judge, 1100).health is Health.UNKNOWN


# --- what others hear -------------------------------------------------------------------------------------


def says(judge: HeartbeatMethod, milliseconds: int, hears: tuple[int, ...], path: int = 0, node_id: int = 3) -> None:
    assert judge.heard(node_id, path, at(milliseconds), beat(hears=hears), at(milliseconds))


def test_a_peer_that_a_third_node_hears_is_not_dead() -> None:
    judge = method("eth0")
    hear(judge, 100)
    says(judge, 1000, hears=(2,))
    assert view(judge, 1104) == Opinion(Health.ALIVE, "silent on eth0 for 1004 ms here, but pg03 hears it")
    assert judge.paths(2)[0].silent


def test_a_word_that_is_taken_back_counts_no_more() -> None:
    judge = method("eth0")
    hear(judge, 100)
    says(judge, 700, hears=(2,))
    says(judge, 900, hears=())
    assert view(judge, 1104) == Opinion(Health.DEAD, "silent on eth0 for 1004 ms")
    assert judge.confirmed_by(2) == (3,)


def test_a_word_counts_while_its_path_is_heard() -> None:
    judge = method("eth0")
    hear(judge, 500)
    says(judge, 700, hears=(2,))
    assert view(judge, 1500).health is Health.ALIVE
    assert view(judge, 1699).health is Health.ALIVE
    assert view(judge, 1700) == Opinion(Health.DEAD, "silent on eth0 for 1200 ms")
    assert judge.confirmed_by(2) == ()


def test_nobody_is_kept_alive_for_more_than_three_dead_times() -> None:
    judge = method("eth0")
    hear(judge, 0)
    for milliseconds in range(200, 4200, 200):
        says(judge, milliseconds, hears=(2,))
        if milliseconds >= 1000:
            assert view(judge, min(milliseconds, 3999)).health is Health.ALIVE
            assert judge.wake() == min(at(4000), at(milliseconds + 1000))
    assert view(judge, 4000) == Opinion(Health.DEAD, "silent on eth0 for 4000 ms, although pg03 hears it")
    says(judge, 4200, hears=(2,))
    assert view(judge, 4200).health is Health.DEAD
    hear(judge, 4300)
    assert view(judge, 4300).health is Health.ALIVE


def test_nobody_vouches_for_himself_and_one_path_of_a_third_node_is_enough() -> None:
    judge = method()
    judge.heard(2, 0, at(100), beat(hears=(2, 3)), at(100))
    says(judge, 900, hears=(), path=0)
    assert view(judge, 1100).health is Health.DEAD
    judge = method()
    hear(judge, 100)
    says(judge, 900, hears=(), path=0)
    says(judge, 950, hears=(2,), path=1)
    assert view(judge, 1100).health is Health.ALIVE


def test_two_nodes_that_have_lost_a_third_do_not_keep_it_alive_by_echo() -> None:
    """Each says whom it hears directly; neither passes on what it believes of the dead one."""
    judges = {
        3: method("eth0"),
        4: HeartbeatMethod({2: "pg02", 3: "pg03"}, ("eth0",), Fixed(DEADTIME), 200 * MS, START),
    }
    hear(judges[3], 100)
    hear(judges[4], 100)
    for milliseconds in range(200, 1300, 100):
        heard = (2,) if milliseconds < 850 else ()
        says(judges[3], milliseconds, heard)
        says(judges[4], milliseconds, heard)
    assert [view(judge, 1300).health for judge in judges.values()] == [Health.DEAD, Health.DEAD]


# --- all together -----------------------------------------------------------------------------------------

EVENT = st.tuples(st.sampled_from(("hear", "late", "look")), st.integers(1, 700), st.integers(0, 1))


@given(st.lists(EVENT, max_size=60))
def test_no_node_dies_before_its_time_and_none_lives_beyond_it(events: list[tuple[str, int, int]]) -> None:
    judge = method()
    now, last, excused = 0, 0, 0
    for kind, pause, path in events:
        now += pause
        if kind == "late":
            judge.late(pause * MS)
            excused += pause
        elif kind == "hear":
            hear(judge, now, path)
            last, excused = now, 0
        health = view(judge, now).health
        if now - last < 1000:
            assert health is not Health.DEAD
        if now - last >= 1000 + excused and excused == 0:
            # Excused time on one path may outlast a later word on the other, so only the plain case is exact.
            assert health is Health.DEAD or judge.wake() is not None
        wake = judge.wake()
        assert wake is None or wake > at(now) or view(judge, now, 3).health is Health.DEAD
