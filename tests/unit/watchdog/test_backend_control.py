"""The requests about backends: what becomes of them, who may ask what, and who hears of calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest
from tests.unit.watchdog.backends import document
from tests.unit.watchdog.test_control import Server, Words

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog import backend_control, control
from pgvigil.watchdog.backend_control import BackendControl
from pgvigil.watchdog.control import Control
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.deciding import SWITCHOVER
from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.record import BackendRole, DecisionKind, Document, Intent
from pgvigil.watchdog.status.backends import View, listing
from pgvigil.watchdog.status.report import Report

CALL = ("down", "timeout_ms=9000", "d=2", "h=pg-c", "p=5434", "m=0")


class Callers:
    """Writes down who calls; a report on backend 1 is a person's doing, one on backend 3 the echo of an old order.

    Backend 2 is still down, backend 0 was never gone.
    """

    def __init__(self) -> None:
        self.log: list[str] = []

    def classify(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        on_known(backend_id == 1, "detached by hand on pg01" if backend_id == 1 else "")

    def still_down(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        self.log.append(f"still {backend_id}")
        on_known(backend_id == 2, "outdated, it is up")

    def cut_off(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        on_known(backend_id == 0, "PostgreSQL answers")

    def outdated(self, kind: DecisionKind, backend_id: int) -> bool:
        return backend_id == 3 and kind is not DecisionKind.FOLLOW

    def call_started(self, kind: DecisionKind, backend_id: int) -> None:
        self.log.append(f"{kind.value} {backend_id} started")

    def call_ended(self, kind: DecisionKind, backend_id: int) -> None:
        self.log.append(f"{kind.value} {backend_id} ended")


class Desk:
    """A control with the verbs of backends, and a second socket for the group."""

    def __init__(self, agreed: Document | None) -> None:
        self.server, self.group, self.callers = Server(), Server(), Callers()
        self.asked: list[events.AskDecision] = []
        self.control = Control(
            cast(ControlServer, self.server),
            cast(Report, Words()),
            lambda event: None,
            lambda address, request: None,
            cast(ControlServer, self.group),
        )
        backends = BackendControl(
            self.control, self.asked.append, lambda: agreed, lambda now_ns: listing(agreed, True, {}), self.callers
        )
        self.control.add(backends.verbs())

    def ask(self, verb: str, *arguments: str, group: bool = False) -> frames.Reply | None:
        """The reply to one request, if there is one at once."""
        server = self.group if group else self.server
        before = len(server.said)
        server.asked.append((b"a", frames.Request(7, verb, arguments)))
        self.control.serve()
        return server.said[before][1] if server.said[before:] else None


@pytest.fixture
def desk() -> Desk:
    return Desk(document(count=4))


@pytest.mark.parametrize(("verb", "kind"), [("backend-attach", DecisionKind.UP), ("backend-detach", DecisionKind.DOWN)])
def test_an_order_of_an_operator_is_marked_as_such(desk: Desk, verb: str, kind: DecisionKind) -> None:
    assert desk.ask(verb, "pg-b", "detached by alice") is None
    (asked,) = desk.asked
    assert (asked.kind, asked.backend_id, asked.operator, asked.reason) == (kind, 1, True, "detached by alice")
    assert asked.arguments == ()  # the leader fills them in from what is agreed
    assert asked.until_ns > boottime_ns() and desk.callers.log == []


def test_a_plain_promote_runs_no_failover_command_and_a_switchover_does(desk: Desk) -> None:
    assert desk.ask("backend-promote", "1", "x") is None
    assert desk.ask("backend-promote", "1", "x", "switchover") is None
    plain, switchover = desk.asked
    assert plain.kind is switchover.kind is DecisionKind.PROMOTE
    assert plain.arguments == () and switchover.arguments == (SWITCHOVER,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backend-detach", "pg-c", ""), "expected one of 2 (pg-c:5434), 3 (pg-c:5435)"),
        (("backend-detach",), "no backend ''"),
        (("backend-detach", "1", "x", "switchover"), "'switchover' after the reason"),
        (("backend-promote", "1", "x", "now"), "'now' after the reason"),
        (("backend-attach", "1", "x" * 500), "the reason has 500 letters"),
        (("backend-ask",), "expected one of down, up, follow"),
        (("backend-ask", "promote", "d=1"), "'promote', expected one of down, up, follow"),
        (("backend-ask", "down", "h=x"), "%d is '', expected the id of a backend"),
        (("backend-ask", "down", "d=-1"), "%d is '-1', expected the id of a backend"),
        (("backend-ask", "down", "d=1", "h=$(id)"), "%h is '$(id)'"),
        (("backend-ask", "down", "d=1", "x=1"), "'x' is no placeholder"),
        (("backend-ask", "down", "d=1", "timeout_ms=1"), "timeout_ms is '1', expected 1000 to 3600000"),
        (("backend-ask", "down", "d=1", "asked_ns=-1"), "asked_ns is '-1', expected nanoseconds"),
        (("backend-ask", "down", "d=1", "timeout_ms=99999999999"), "expected 1000 to 3600000"),
        (("backend-ask", "down", "d=1", "timeout_ms=001000000999999999"), "expected 1000 to 3600000"),
    ],
)
def test_what_is_refused_before_anybody_is_asked(desk: Desk, words: tuple[str, ...], said: str) -> None:
    reply = desk.ask(*words)
    assert reply is not None and (reply.final, reply.accepted) == (True, False)
    assert said in reply.message
    assert desk.asked == [] and desk.callers.log == []


def test_an_order_before_anything_was_agreed_is_refused() -> None:
    reply = Desk(None).ask("backend-detach", "1", "")
    assert reply is not None and "has not agreed on any backend yet" in reply.message


def test_a_report_of_pgpool_is_no_operators_and_pools_hears_of_the_call(desk: Desk) -> None:
    before_ns = boottime_ns()
    assert desk.ask("backend-ask", *CALL, group=True) is None
    (asked,) = desk.asked
    assert (asked.kind, asked.backend_id, asked.operator) == (DecisionKind.DOWN, 2, False)
    assert asked.arguments == CALL[2:] and asked.reason == "its pgpool-II reports a failure"
    assert 0 <= asked.until_ns - before_ns - 9000 * NS_PER_MS < 60_000 * NS_PER_MS
    assert desk.callers.log == ["down 2 started"]
    desk.control.answer(events.Answer(asked.request_id, False, True, "waits for consensus: 1 of 2"))
    assert desk.callers.log == ["down 2 started"]
    desk.control.answer(events.Answer(asked.request_id, True, False, "no consensus: quarantined"))
    assert desk.callers.log == ["down 2 started", "down 2 ended"]
    assert [(reply.final, reply.message) for _, reply in desk.group.said] == [
        (False, "waits for consensus: 1 of 2"),
        (True, "no consensus: quarantined"),
    ]
    assert desk.server.said == []


def test_what_a_person_did_at_pgpool_is_an_operators_word(desk: Desk) -> None:
    assert desk.ask("backend-ask", "down", "d=1") is None
    assert desk.ask("backend-ask", "up", "d=1") is None
    down, up = desk.asked
    assert (down.operator, down.reason) == (True, "detached by hand on pg01")
    assert (up.operator, up.reason) == (False, "it was attached at its pgpool-II")


def test_a_call_whose_answer_never_came_is_over_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.ask("backend-ask", *CALL) is None
    later_ns = boottime_ns() + (9000 + backend_control.GRACE_MS) * NS_PER_MS
    monkeypatch.setattr(control, "boottime_ns", lambda: later_ns)
    assert desk.ask("backend-ask", "up", "d=0") is None
    assert desk.callers.log == ["down 2 started", "down 2 ended", "up 0 started"]


@pytest.mark.parametrize("verb", ["switchover", "backend-detach", "backend-promote", "node-leave", "inform"])
def test_the_group_may_report_and_look_and_nothing_else(desk: Desk, verb: str) -> None:
    reply = desk.ask(verb, "1", "", group=True)
    assert reply is not None and not reply.accepted and "is not for members of control_group" in reply.message
    for allowed in ("status", "backend-list"):
        reply = desk.ask(allowed, group=True)
        assert reply is not None and reply.accepted


def test_the_list_has_what_was_agreed_and_what_each_pgpool_says() -> None:
    intents = (
        Intent("failover", "decision 5", "once", 1, 1, 1, "done", (), "ended with status 0"),
        Intent("follow_primary", "decision 5 backend 1", "once", 1, 1, 2, "pending"),
        Intent("failover", "decision 55", "once", 1, 1, 3, "done"),
    )
    seen = SeenBackend(2, "pg-c", 5434, SeenStatus.DOWN, BackendRole.STANDBY, True, 0)
    views = {1: View("pg01", (seen,), 300), 2: View("pg02", (), 0, "PCP refuses the password")}
    made = listing(document(down=(2,), intents=intents), True, views)
    backends = made["backends"]
    assert isinstance(backends, list) and len(backends) == 3
    assert backends[0]["pools"] == [] and backends[0]["role"] == "primary"
    assert backends[2] == {
        "id": 2, "host": "pg-c", "port": 5434, "status": "down", "role": "standby", "decision": 5,
        "reason": "its pgpool-II reports a failure",
        "pools": [
            {"node": 1, "label": "pg01", "status": "down", "role": "standby", "quarantined": True, "failed": True,
             "age_ms": 300},
        ],
    }  # fmt: skip
    decisions = made["decisions"]
    assert isinstance(decisions, list) and (made["decided"], made["agreed"]) == (5, True)
    assert [one["name"] for one in decisions[0]["commands"]] == ["failover", "follow_primary"]
    assert decisions[0]["commands"][0]["detail"] == "ended with status 0"
    assert json.loads(json.dumps(made))["pools"][1]["problem"] == "PCP refuses the password"


def test_without_a_document_the_list_is_empty() -> None:
    reply = Desk(None).ask("backend-list")
    assert reply is not None and json.loads(reply.body)["backends"] == []


@pytest.mark.parametrize("kind", ["down", "up"])
def test_the_echo_of_an_order_that_is_agreed_no_more_is_not_asked_for(kind: str, desk: Desk) -> None:
    reply = desk.ask("backend-ask", kind, "d=3")
    assert reply is not None and reply.final and reply.accepted and "agreed otherwise now" in reply.message
    assert desk.asked == [] and desk.callers.log == [f"{kind} 3 started", f"{kind} 3 ended"]
    assert desk.ask("backend-ask", "follow", "d=3") is None and len(desk.asked) == 1


def test_what_an_earlier_watchdog_main_was_asked_takes_back_nothing_newer(desk: Desk) -> None:
    """The command line asks again after a restart, and would get the number of a decision that it never knew."""
    before, since = f"asked_ns={boottime_ns() - 60_000 * NS_PER_MS}", f"asked_ns={boottime_ns()}"
    reply = desk.ask("backend-ask", "up", before, "d=2")
    assert reply is not None and (reply.final, reply.accepted) == (True, False)
    assert reply.message.startswith("unknown: watchdog main was restarted") and desk.callers.log == []
    reply = desk.ask("backend-ask", "down", before, "d=1")
    assert reply is not None and (reply.final, reply.message) == (True, "refused: outdated, it is up")
    assert desk.callers.log == ["down 1 started", "still 1", "down 1 ended"] and desk.asked == []
    assert desk.ask("backend-ask", "down", before, "d=2", "m=0") is None  # still down: it may be repeated
    assert desk.ask("backend-ask", "follow", before, "d=2") is None
    assert desk.ask("backend-ask", "up", since, "d=2") is None
    assert [one.kind for one in desk.asked] == [DecisionKind.DOWN, DecisionKind.FOLLOW, DecisionKind.UP]
    assert desk.asked[0].arguments == ("d=2", "m=0")


def test_what_failed_only_because_this_node_was_cut_off_is_not_asked_for(desk: Desk) -> None:
    reply = desk.ask("backend-ask", "down", "d=0")
    assert reply is not None and (reply.final, reply.accepted, reply.message) == (
        True, False, "refused: PostgreSQL answers",
    )  # fmt: skip
    assert desk.asked == [] and desk.callers.log == ["down 0 started", "down 0 ended"]
    assert desk.ask("backend-ask", "up", "d=0") is None and len(desk.asked) == 1
