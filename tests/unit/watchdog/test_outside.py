"""`pgvigil inform` inside watchdog main: stamped, passed on, confirmed by lifecheck, repeated, forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from tests.unit.watchdog import peers_lab

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer, Outbox
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.codec import MAX_FRAME_BYTES
from pgvigil.ipc.frames import Health, OutsideReport, OutsideReports
from pgvigil.watchdog.outside import ANSWER_LIMIT_NS, MAX_REASON_BYTES, MAX_REPORTER_BYTES, MAX_WAITING, Outside


@dataclass
class Lifecheck:
    """Stands in for both sockets."""

    takes: bool = True
    got: list[OutsideReports] = field(default_factory=list)
    said: list[tuple[bytes, frames.Reply]] = field(default_factory=list)
    on_connected: Callable[[], None] | None = None

    def send(self, frame: frames.Frame) -> bool:
        frames.unpack(frames.pack(frame, "watchdog main", 1, 1))  # as on the wire: it must fit
        assert isinstance(frame, OutsideReports)
        if self.takes:
            self.got.append(frame)
        return self.takes

    def reply(self, address: bytes, reply: frames.Reply) -> None:
        self.said.append((address, reply))

    def close(self) -> None: ...


class Desk:
    """Node 1 of three (pg01, pg02, pg03)."""

    def __init__(self, without_pgpool: bool = False) -> None:
        self.lifecheck = Lifecheck()
        made = peers_lab.settings(1, 3, 9000)
        named = tuple(replace(node, host=f"pg0{node.id}") for node in made.nodes)
        file = None if without_pgpool else "/run/pgpool.pid"
        settings = replace(made, nodes=named, lifecheck=replace(made.lifecheck, pgpool_pid_file=file))
        self.outside = Outside(settings, cast(ControlServer, self.lifecheck), self._open)

    def _open(self, on_connected: Callable[[], None]) -> Outbox:
        self.lifecheck.on_connected = on_connected
        return cast(Outbox, self.lifecheck)

    def ask(self, *arguments: str) -> str:
        """The refusal, or nothing."""
        before = len(self.lifecheck.said)
        self.outside.request(b"a", frames.Request(7, "inform", arguments))
        replies = self.lifecheck.said[before:]
        assert all(not reply.accepted and reply.final and reply.request_id == 7 for _, reply in replies)
        return "".join(reply.message for _, reply in replies)


def test_a_report_is_confirmed_when_lifecheck_has_it_and_not_before() -> None:
    desk = Desk()
    assert desk.ask("pg02", "dead", " ping\x07 fails\n", "30", "ops") == ""
    (sent,) = desk.lifecheck.got
    (report,) = sent.reports
    assert (report.node_id, report.health, report.reason, report.reporter) == (2, Health.DEAD, "ping fails", "ops")
    assert report.until_ns - report.said_at_ns == 30 * NS_PER_S
    older = replace(report, said_at_ns=report.said_at_ns - 1)
    desk.outside.take(OutsideReports((older,)), boottime_ns())
    assert desk.lifecheck.said == []
    desk.outside.take(sent, boottime_ns())
    ((address, reply),) = desk.lifecheck.said
    assert (address, reply.request_id, reply.final, reply.accepted) == (b"a", 7, True, True)
    assert reply.message == "lifecheck counts pg02 as reported dead for 30 s, unless it is reported again"
    assert desk.outside.reports(boottime_ns()) == [report]


def test_what_lifecheck_could_not_take_is_repeated_and_its_asker_told_the_truth() -> None:
    desk = Desk()
    desk.lifecheck.takes = False
    assert desk.ask("2", "alive") == "" and desk.lifecheck.got == []
    desk.lifecheck.takes = True
    assert desk.lifecheck.on_connected is not None
    desk.lifecheck.on_connected()
    assert len(desk.lifecheck.got) == 1
    now_ns = boottime_ns()
    desk.outside.tick(now_ns)
    assert len(desk.lifecheck.got) == 2 and desk.lifecheck.said == []
    desk.outside.tick(now_ns + ANSWER_LIMIT_NS)
    ((_, reply),) = desk.lifecheck.said
    assert not reply.accepted and reply.message.startswith(frames.OUTCOME_UNKNOWN)
    desk.outside.tick(now_ns + ANSWER_LIMIT_NS)
    assert len(desk.lifecheck.said) == 1


def test_a_report_ends_by_itself_and_costs_nothing_afterwards() -> None:
    desk = Desk()
    desk.ask("pg03", "dead", "", "5")
    now_ns = boottime_ns()
    desk.outside.tick(now_ns + 5 * NS_PER_S)
    assert desk.outside.reports(now_ns + 5 * NS_PER_S) == [] and len(desk.lifecheck.got) == 1


def test_after_a_restart_of_watchdog_main_lifecheck_tells_what_counts() -> None:
    desk = Desk()
    now_ns = boottime_ns()
    report = OutsideReport(2, Health.DEAD, "", "ops", now_ns, now_ns + NS_PER_S)
    desk.outside.take(OutsideReports((report,)), now_ns)
    assert desk.outside.reports(now_ns) == [report]
    desk.outside.tick(now_ns)
    assert desk.lifecheck.got == [OutsideReports((report,))]


def test_two_reports_at_once_are_two() -> None:
    desk = Desk()
    desk.ask("pg02", "dead")
    desk.ask("pg02", "alive")
    first, second = (sent.reports[0] for sent in desk.lifecheck.got)
    assert first.said_at_ns < second.said_at_ns and second.reporter == "somebody"
    desk.outside.take(desk.lifecheck.got[1], boottime_ns())
    assert [reply.accepted for _, reply in desk.lifecheck.said] == [True, True], "the newer one stands for both"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no arguments; expected NODE alive|dead [REASON [SECONDS [REPORTER]]]"),
        (("pg02",), "1 argument;"),
        (("pg02", "ill"), "'ill' is no report"),
        (("pg02", "unknown"), "'unknown' is no report"),
        (("pg09", "dead"), "no node 'pg09', expected one of 1 (pg01), 2 (pg02), 3 (pg03)"),
        (("pg02", "dead", "", "0"), "'0' seconds, expected 1 to 86400"),
        (("pg02", "dead", "", "-1"), "expected 1 to 86400"),
        (("pg02", "dead", "", "9" * 40), "expected 1 to 86400"),
        (("pg02", "dead", "", "\u0663"), "expected 1 to 86400"),
        (("pg02", "dead", "", "", "", ""), "6 arguments"),
    ],
)
def test_what_is_no_report_is_refused_with_what_is_expected(arguments: tuple[str, ...], sentence: str) -> None:
    desk = Desk()
    assert sentence in desk.ask(*arguments)
    assert desk.lifecheck.got == []


def test_a_node_without_pgpool_takes_no_report_about_itself() -> None:
    assert Desk(without_pgpool=True).ask("pg01", "dead") == "this node has no pgpool-II that could be alive or dead"
    assert Desk().ask("pg01", "dead") == ""


def test_not_more_than_so_many_wait() -> None:
    desk = Desk()
    for _ in range(MAX_WAITING):
        assert desk.ask("pg02", "dead") == ""
    assert "wait already" in desk.ask("pg02", "dead")


def test_the_longest_words_on_all_nodes_fit_into_one_frame() -> None:
    desk = Desk()
    desk.ask("pg02", "dead", "\u20ac" * 999, "", "\u20ac" * 999)
    report = desk.lifecheck.got[0].reports[0]
    assert len(report.reason.encode()) <= MAX_REASON_BYTES and len(report.reporter.encode()) <= MAX_REPORTER_BYTES
    everyone = OutsideReports(tuple(replace(report, node_id=node) for node in range(1, 128)))
    assert len(frames.pack(everyone, "lifecheck", 1, 1)) < MAX_FRAME_BYTES
