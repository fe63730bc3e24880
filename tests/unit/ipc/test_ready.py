"""The link between the supervisor and a child."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, SignOfLife, make_pair

Pair = tuple[Link, Link, list[str]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = make_pair()
    said: list[str] = []
    parent, child = Link(ours, "parent", said.append), Link(theirs, "child", said.append)
    yield parent, child, said
    parent.close()
    child.close()


def test_frames_pass_both_ways(pair: Pair) -> None:
    parent, child, _ = pair
    assert child.send(frames.Ready("bound"))
    assert child.send(frames.Alive(True, "x"))
    assert parent.send(frames.StopOrder(frames.StopMode.FAST))
    arrived = parent.receive()
    assert [received.frame for received in arrived] == [frames.Ready("bound"), frames.Alive(True, "x")]
    assert [(received.sender, received.sequence) for received in arrived] == [("child", 1), ("child", 2)]
    assert [received.frame for received in child.receive()] == [frames.StopOrder(frames.StopMode.FAST)]
    assert parent.receive() == [] and not parent.closed


def test_the_end_of_the_other_side_is_seen_after_its_last_words(pair: Pair) -> None:
    parent, child, _ = pair
    child.send(frames.Ready("last words"))
    child.close()
    assert [received.frame for received in parent.receive()] == [frames.Ready("last words")]
    assert parent.closed
    assert parent.receive() == [] and parent.closed
    assert not parent.send(frames.ReopenLogsOrder())


def test_a_side_that_does_not_read_never_blocks_the_other(pair: Pair) -> None:
    parent, child, _ = pair
    taken = 0
    while child.send(frames.Alive(False, "x" * 4000)):
        taken += 1
        assert taken < 100_000
    assert taken > 0
    total = 0
    while arrived := parent.receive():
        assert len(arrived) <= 16
        total += len(arrived)
    assert total == taken and not parent.closed


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=100))
def test_a_broken_frame_is_dropped_and_said(data: bytes) -> None:
    ours, theirs = make_pair()
    said: list[str] = []
    link = Link(ours, "parent", said.append)
    theirs.send(data)
    theirs.send(frames.pack(frames.Ready("good"), "x", 1, 1))
    assert [received.frame for received in link.receive()] == [frames.Ready("good")]
    assert len(said) == 1 and "on the link parent" in said[0]
    assert not link.closed
    link.close()
    theirs.close()


def test_a_frame_that_is_too_long_is_dropped(pair: Pair) -> None:
    ours, theirs = make_pair()
    said: list[str] = []
    link = Link(ours, "parent", said.append)
    theirs.send(b"x" * 70_000)
    assert link.receive() == [] and len(said) == 1
    link.close()
    theirs.close()


def test_the_sign_of_life_comes_from_the_loop(pair: Pair) -> None:
    parent, child, _ = pair
    loop = Loop()
    life = SignOfLife(child, 20 * NS_PER_MS, lambda: frames.Alive(False, "well"))
    loop.join(life)
    loop.run_once()
    assert [received.frame for received in parent.receive()] == [frames.Alive(False, "well")]
    start_ns = boottime_ns()
    while not parent.receive():
        assert boottime_ns() - start_ns < 5 * NS_PER_S
        loop.run_once(10 * NS_PER_MS)
    loop.close()
