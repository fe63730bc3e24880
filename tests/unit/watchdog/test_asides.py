"""Messages between shells: a handler per topic, and nothing that arrives ends the process."""

from __future__ import annotations

import pytest

from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.watchdog.asides import MAX_BODY_BYTES, Asides
from pgvigil.watchdog.core.messages import Aside


class Ends:
    """Two ends of one wire."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Aside]] = []
        self.complaints: list[str] = []
        self.taken: list[tuple[int, bytes]] = []
        self.asides = Asides(7, lambda to, aside: self.sent.append((to, aside)), self.complaints.append)
        self.asides.on("hold", lambda sender, aside: self.taken.append((sender, aside.body)))


def test_what_is_said_is_numbered_and_taken_by_its_topic() -> None:
    ends = Ends()
    ends.asides.say(2, "hold", b"a")
    ends.asides.say(3, "hold", b"b")
    assert ends.sent == [(2, Aside("hold", 7, 1, b"a")), (3, Aside("hold", 7, 2, b"b"))]
    ends.asides.take(2, ends.sent[1][1])
    assert ends.taken == [(2, b"b")]


def test_what_nobody_handles_is_counted_and_named() -> None:
    ends = Ends()
    ends.asides.take(3, Aside("weather", 1, 1, b""))
    assert ends.taken == []
    assert "node 3: topic 'weather', expected one of hold" in ends.complaints[0]


def test_what_is_too_long_is_refused_on_both_ends() -> None:
    ends = Ends()
    with pytest.raises(InvariantError, match="at most 32768"):
        ends.asides.say(2, "hold", bytes(MAX_BODY_BYTES + 1))
    ends.asides.take(2, Aside("hold", 1, 1, bytes(MAX_BODY_BYTES + 1)))
    assert ends.taken == [] and "expected at most 32768" in ends.complaints[0]


def test_a_handler_that_does_not_understand_ends_nothing() -> None:
    ends = Ends()

    def refuse(sender: int, aside: Aside) -> None:
        raise PeerError("a body of 1 byte, expected 8")

    ends.asides.on("drift", refuse)
    ends.asides.take(2, Aside("drift", 1, 1, b"x"))
    assert "node 2: a body of 1 byte, expected 8" in ends.complaints[0]


def test_a_topic_has_one_handler() -> None:
    ends = Ends()
    with pytest.raises(InvariantError, match="has a handler already"):
        ends.asides.on("hold", lambda sender, aside: None)
