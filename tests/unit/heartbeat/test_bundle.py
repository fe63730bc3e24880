"""What waits, what goes at once, and that nothing waits for so long that a living node could be taken for dead."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.heartbeat.bundle import LONGEST_INTERVAL_MS, Bundle
from pgvigil.ipc.frames import Beat, Health, Heard, Role

MS = 1_000_000
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1000, (1, 2), 5)


def heard(at_ms: int, node_id: int = 2, beat: Beat = BEAT) -> Heard:
    return Heard(node_id, 0, at_ms * MS, beat)


def settled() -> Bundle:
    bundle = Bundle(200)
    assert bundle.add(heard(1000))
    bundle.take()
    return bundle


def test_the_first_goes_at_once() -> None:
    bundle = Bundle(200)
    assert bundle.add(heard(1000))
    assert bundle.take() == (heard(1000),)
    assert bundle.due_ns is None


def test_those_in_time_that_say_nothing_new_wait_for_each_other() -> None:
    bundle = Bundle(200, 1000)
    assert bundle.add(heard(1000))
    bundle.take()
    older = replace(BEAT, up_for_ms=1200, content_age_ms=205)
    assert not bundle.add(heard(1200, beat=older))
    assert bundle.due_ns == 1700 * MS
    assert not bundle.add(heard(1400))
    assert bundle.add(heard(1600))
    assert bundle.take() == (heard(1600),)


def test_with_the_shortest_dead_time_they_wait_for_one_interval() -> None:
    bundle = settled()
    assert not bundle.add(heard(1200))
    assert bundle.due_ns == 1450 * MS
    assert bundle.add(heard(1400))


def test_peers_go_together() -> None:
    bundle = settled()
    assert bundle.add(heard(1050, 3))
    bundle.take()
    assert not bundle.add(heard(1200))
    assert not bundle.add(heard(1250, 3))
    assert bundle.add(heard(1400))
    assert bundle.take() == (heard(1400), heard(1250, 3))


def test_a_lifecheck_that_starts_is_told_of_the_living_only() -> None:
    bundle = settled()
    bundle.add(heard(1200))
    bundle.take()
    bundle.add(heard(1250, 3))
    bundle.take()
    assert set(bundle.again(1300 * MS)) == {heard(1200), heard(1250, 3)}
    assert bundle.again(1501 * MS) == (heard(1250, 3),)
    assert bundle.again(5000 * MS) == ()
    assert bundle.due_ns is None


def test_news_and_late_ones_go_at_once() -> None:
    for changed in (
        replace(BEAT, role=Role.LEADER),
        replace(BEAT, term=2),
        replace(BEAT, electable=False),
        replace(BEAT, pgpool=Health.DEAD),
        replace(BEAT, priority=2),
        replace(BEAT, hears=(1,)),
    ):
        assert settled().add(heard(1200, beat=changed))
    assert settled().add(heard(1301))


def test_after_a_message_that_was_lost_the_next_goes_at_once() -> None:
    bundle = settled()
    bundle.forget()
    assert bundle.add(heard(1200))
    bundle.take()
    assert not bundle.add(heard(1400))


def test_one_that_is_repeated_counts_as_one_that_is_added() -> None:
    bundle, twin = settled(), settled()
    for now_ms in (1200, 1400, 1500, 1900, 2000, 2100):
        beat = replace(BEAT, up_for_ms=now_ms, content_age_ms=now_ms % 300)
        urgent = twin.add(heard(now_ms, beat=beat))
        assert bundle.repeat(2, now_ms * MS, now_ms, now_ms % 300) is urgent and bundle.due_ns == twin.due_ns
        if urgent:
            assert bundle.take() == twin.take() == (heard(now_ms, beat=beat),)
    assert bundle.again(2150 * MS) == twin.again(2150 * MS) != ()


def test_slow_heartbeats_never_wait() -> None:
    bundle = Bundle(LONGEST_INTERVAL_MS + 1)
    assert bundle.add(heard(1000))
    bundle.take()
    assert bundle.add(heard(1401))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 650)), max_size=60),
    st.integers(600, 3000),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_lifecheck_never_misses_a_living_node(
    arrivals: list[tuple[int, int]], deadtime_ms: int, restarts: list[int]
) -> None:
    """Every beat is there before the one before it has run out; lifecheck may be started again at any time."""
    interval_ms, deadtime_ns = 200, deadtime_ms * MS
    bundle, now_ms = Bundle(interval_ms, deadtime_ms), 1000
    known: dict[int, int] = {}
    waiting: dict[int, int] = {}

    def take(beats: tuple[Heard, ...], at_ns: int) -> None:
        for one in beats:
            first_ns = waiting.pop(one.node_id, None)
            if first_ns is not None and one.node_id in known and first_ns < known[one.node_id] + deadtime_ns:
                assert at_ns < known[one.node_id] + deadtime_ns
            known[one.node_id] = one.received_at_ns

    for number, (node_id, gap_ms) in enumerate(arrivals):
        now_ms += gap_ms
        if bundle.due_ns is not None and bundle.due_ns <= now_ms * MS:
            due_ns = bundle.due_ns
            take(bundle.take(), due_ns)
        if number in restarts:
            take(bundle.again(now_ms * MS), now_ms * MS)
        waiting.setdefault(node_id, now_ms * MS)
        if bundle.add(heard(now_ms, node_id)):
            take(bundle.take(), now_ms * MS)
