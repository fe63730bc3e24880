"""The heartbeat method: paths, dead time, evidence, self-doubt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.frames import Beat, Health, Role
from pgvigil.lifecheck.core.detector import HeartbeatMethod
from pgvigil.lifecheck.core.verdict import Opinion

MS = 1_000_000
START = 1_000 * MS
DEADTIME = 1_000 * MS


def beat(term: int = 1, age_ms: int = 0) -> Beat:
    return Beat(Role.STANDBY, term, True, Health.ALIVE, 1, 1, (), age_ms)


def method(*interfaces: str) -> HeartbeatMethod:
    return HeartbeatMethod((2, 3), interfaces or ("eth0", "eth1"), DEADTIME, START)


def at(milliseconds: int) -> int:
    return START + milliseconds * MS


def hear(judge: HeartbeatMethod, milliseconds: int, path: int = 0, node_id: int = 2) -> None:
    assert judge.heard(node_id, path, at(milliseconds), beat(), at(milliseconds))


def view(judge: HeartbeatMethod, milliseconds: int, node_id: int = 2) -> Opinion:
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
    judge = method()
    hear(judge, 100, node_id=2)
    hear(judge, 300, node_id=3)
    assert judge.wake() == at(1100)
    assert view(judge, 1100).health is Health.DEAD
    assert judge.wake() == at(1300)
    assert view(judge, 1300, node_id=3).health is Health.DEAD
    assert judge.wake() is None


def test_our_own_standstill_is_held_against_nobody() -> None:
    judge = HeartbeatMethod((2,), ("eth0", "eth1"), DEADTIME, START)
    hear(judge, 100)
    judge.late(3000 * MS)
    assert view(judge, 3200).health is Health.ALIVE
    assert judge.wake() == at(4100)
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
