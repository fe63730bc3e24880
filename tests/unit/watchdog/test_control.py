"""Requests of the command line: who gets which answer, and that no request can end watchdog main."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from pgvigil.ipc import codec, frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.watchdog import control
from pgvigil.watchdog.control import MAX_WAITING, Control
from pgvigil.watchdog.core import events
from pgvigil.watchdog.status.report import Report


@dataclass
class Server:
    """Stands in for the socket."""

    asked: list[tuple[bytes, frames.Request]] = field(default_factory=list)
    said: list[tuple[bytes, frames.Reply]] = field(default_factory=list)
    socket: object = None

    def requests(self) -> Iterator[tuple[bytes, frames.Request]]:
        while self.asked:
            yield self.asked.pop(0)

    def reply(self, address: bytes, reply: frames.Reply) -> None:
        frames.unpack(frames.pack(reply, "watchdog main", 1, 1))  # as on the wire: it must fit
        self.said.append((address, reply))


@dataclass
class Words:
    """Stands in for the report."""

    status: dict[str, object] = field(default_factory=lambda: {"state": "leader"})

    def make(self, now_ns: int) -> dict[str, object]:
        return self.status

    def node_named(self, name: str) -> int | None:
        return {"pg02": 2, "2": 2}.get(name)

    def node_names(self) -> list[str]:
        return ["1 (pg01)", "2 (pg02)"]


class Desk:
    """A control with everything around it."""

    def __init__(self) -> None:
        self.server, self.words = Server(), Words()
        self.dispatched: list[events.Event] = []
        self.informed: list[tuple[str, ...]] = []
        self.control = Control(
            cast(ControlServer, self.server), cast(Report, self.words), self.dispatched.append, self.inform
        )

    def inform(self, address: bytes, request: frames.Request) -> None:
        self.informed.append(request.arguments)

    def ask(self, verb: str, *arguments: str, request_id: int = 7, address: bytes = b"a") -> list[frames.Reply]:
        """The replies to one request."""
        before = len(self.server.said)
        self.server.asked.append((address, frames.Request(request_id, verb, arguments)))
        self.control.serve()
        return [reply for _, reply in self.server.said[before:]]


def test_status_is_answered_at_once() -> None:
    (reply,) = Desk().ask("status")
    assert (reply.request_id, reply.final, reply.accepted) == (7, True, True)
    assert json.loads(reply.body) == {"state": "leader"}


def test_a_status_that_does_not_fit_is_refused_with_the_reason() -> None:
    desk = Desk()
    desk.words.status = {"sentence": "\x07" * codec.MAX_BIN_BYTES}
    (reply,) = desk.ask("status")
    assert (reply.accepted, reply.body) == (False, b"")
    assert f"at most {codec.MAX_BIN_BYTES}" in reply.message


@pytest.mark.parametrize("verb", ["", "stop", "x" * 8000])
def test_an_unknown_request_is_refused_and_the_known_ones_are_named(verb: str) -> None:
    (reply,) = Desk().ask(verb)
    assert (reply.final, reply.accepted) == (True, False)
    assert reply.message.startswith(f"unknown request '{verb[:100]}")
    assert len(reply.message) <= control.MAX_TEXT


def test_an_unknown_node_is_refused_without_asking_the_core() -> None:
    desk = Desk()
    (reply,) = desk.ask("switchover", "pg99")
    assert (reply.accepted, reply.message) == (False, "no node 'pg99', expected one of 1 (pg01), 2 (pg02)")
    assert desk.dispatched == []


def test_who_votes_is_the_cores_business() -> None:
    desk = Desk()
    assert desk.ask("node-add", "pg02") == []
    assert desk.ask("node-remove", "2") == []
    assert desk.ask("node-leave") == []
    assert desk.dispatched == [events.ChangeVoters(1, 2, 0), events.ChangeVoters(2, 0, 2), events.Leave(3)]
    for verb in ("node-add", "node-remove"):
        (reply,) = desk.ask(verb)
        assert (reply.accepted, "expected one of 1 (pg01)" in reply.message) == (False, True)


def test_every_answer_of_the_core_finds_its_asker_until_the_final_one() -> None:
    desk = Desk()
    assert desk.ask("switchover", "pg02", request_id=5, address=b"a") == []
    assert desk.ask("switchover", request_id=5, address=b"b") == []
    assert desk.ask("bootstrap", request_id=6, address=b"c") == []
    assert desk.dispatched == [events.SwitchOver(1, 2), events.SwitchOver(2, 0), events.Bootstrap(3)]
    desk.control.answer(events.Answer(2, False, True, "on its way"))
    desk.control.answer(events.Answer(2, True, True, "done"))
    desk.control.answer(events.Answer(2, True, True, "too late"))
    desk.control.answer(events.Answer(1, True, False, "refused"))
    assert desk.server.said == [
        (b"b", frames.Reply(5, False, True, "on its way", b"")),
        (b"b", frames.Reply(5, True, True, "done", b"")),
        (b"a", frames.Reply(5, True, False, "refused", b"")),
    ]


def test_not_more_than_so_many_wait_and_those_that_waited_long_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    now_ns = 10**12
    clock: Callable[[], int] = lambda: now_ns  # noqa: E731
    monkeypatch.setattr(control, "boottime_ns", clock)
    for _ in range(MAX_WAITING):
        assert desk.ask("switchover") == []
    (reply,) = desk.ask("switchover")
    assert (reply.accepted, "wait already" in reply.message) == (False, True)
    now_ns += control.REQUEST_LIFE_NS
    assert desk.ask("switchover") == []
    assert len(desk.dispatched) == MAX_WAITING + 1


def test_a_reload_is_remembered() -> None:
    desk = Desk()
    assert json.loads(desk.ask("last-reload")[0].body)["at_ns"] == 0
    desk.control.reload_done(frames.ReloadDone(False, "line 3: no"))
    answer = json.loads(desk.ask("last-reload")[0].body)
    assert (answer["accepted"], answer["message"]) == (False, "line 3: no")
    assert answer["at_ns"] > 0


def test_the_outcome_of_a_hand_over_by_signal_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    with caplog.at_level(logging.INFO, "pgvigil"):
        desk.control.hand_over_by_signal()
        desk.control.answer(events.Answer(control.BY_SIGNAL, True, False, "nobody could take over"))
    assert desk.dispatched == [events.SwitchOver(control.BY_SIGNAL, 0)]
    assert "hand-over by signal: nobody could take over" in caplog.text
    assert desk.server.said == []


def test_reports_from_outside_are_none_of_the_cores_business() -> None:
    desk = Desk()
    assert desk.ask("inform", "pg02", "dead") == []
    assert desk.informed == [("pg02", "dead")] and desk.dispatched == []
