"""So many connections and no more: strangers cannot take what the peers need."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.watchdog.peers_lab import Node, address, free_port, run_for, run_until, settings

from pgvigil.watchdog.transport.doorman import MAX_PER_PEER, MAX_STRANGERS, Doorman
from pgvigil.watchdog.transport.links import allow_descriptors

STRANGER = "127.0.0.77"
OTHERS = 60
"""Descriptors that a node opens for itself meanwhile: links, monitors, a status or two."""


@contextmanager
def nodes(*made: Node) -> Iterator[None]:
    try:
        yield
    finally:
        for node in made:
            node.close()


def knock(held: ExitStack, source: str, port: int, times: int, node: Node) -> None:
    """Open connections and say nothing."""
    for number in range(times):
        held.enter_context(socket.create_connection((address(1), port), 5, (source, 0)))
        if number % 20 == 0:
            run_for([node], 5)
    run_for([node], 300)


def test_silent_strangers_cannot_take_all_descriptors() -> None:
    port = free_port()
    first = Node(settings(1, 3, port), 1)
    with nodes(first), ExitStack() as held:
        before = psutil.Process().num_fds()
        knock(held, STRANGER, port, 300, first)
        accepted = psutil.Process().num_fds() - before - 300
        assert accepted <= MAX_STRANGERS + OTHERS
        assert any(f"{STRANGER} opens too many connections at once" in line for line in first.said)
        second = Node(settings(2, 3, port), 1)
        with nodes(second):
            run_until([first, second], lambda: first.peers.describe()[0].connected)
            run_until([first, second], lambda: second.peers.describe()[0].connected)


def test_a_configured_host_is_told_by_its_name_and_keeps_what_it_has() -> None:
    port = free_port()
    first, second = Node(settings(1, 2, port), 1), Node(settings(2, 2, port), 1)
    with nodes(first, second), ExitStack() as held:
        run_until([first, second], lambda: first.connected() and second.connected())
        before = psutil.Process().num_fds()
        knock(held, address(2), port, 200, first)
        assert psutil.Process().num_fds() - before - 200 <= MAX_PER_PEER + OTHERS
        told = [line for line in first.said if "too many connections" in line]
        assert len(told) == 1 and told[0].startswith("pg02 (127.0.10.2) opens too many connections at once")
        assert first.connected() and second.connected()


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, (4096, 4096)),
        (1024, 524_288, (8192, 524_288)),
        (1024, resource.RLIM_INFINITY, (8192, resource.RLIM_INFINITY)),
        (20_000, 20_000, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_a_low_limit_of_descriptors_is_raised(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    allow_descriptors()
    assert asked == ([] if raised is None else [raised])


def test_who_leaves_makes_room() -> None:
    doorman = Doorman({"10.0.0.2"})
    assert all(doorman.admit(number, "10.9.9.9") for number in range(MAX_STRANGERS))
    assert not doorman.admit(1000, "10.8.8.8")
    assert doorman.admit(1001, "10.0.0.2")
    assert doorman.leave(1000) == "10.8.8.8"
    assert doorman.leave(5) == "10.9.9.9"
    assert doorman.leave(5) == ""
    assert doorman.admit(1002, "10.8.8.8")
    assert not doorman.admit(1003, "10.8.8.8")


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["10.0.0.2", "10.0.0.3", "10.9.9.9", "10.8.8.8"]),
                          st.booleans()), max_size=400))  # fmt: skip
def test_the_counts_are_those_of_what_is_open(steps: list[tuple[int, str, bool]]) -> None:
    peers = {"10.0.0.2", "10.0.0.3"}
    doorman = Doorman(peers)
    there: dict[int, str] = {}
    for descriptor, source, comes in steps:
        if not comes:
            assert doorman.leave(descriptor) == there.pop(descriptor, "")
            continue
        there[descriptor] = source
        same = [one for one in there.values() if one == source or not {one, source} & peers]
        assert doorman.admit(descriptor, source) == (
            len(same) <= (MAX_PER_PEER if source in peers else MAX_STRANGERS)
        )  # fmt: skip
