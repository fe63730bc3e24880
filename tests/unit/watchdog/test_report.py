"""The status: unknown rather than stale, an age for everything heard, and no word that nobody stands behind."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.watchdog import peers_lab

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer, Outbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Beat, Health, NodeVerdict, PathEvidence, Role, TieBreakerSeen, Verdicts
from pgvigil.lifecheck.settings import PgpoolWatchdogSettings
from pgvigil.watchdog.beliefs import STALE_NS, Beliefs
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.record import Document, QuorumRule, Stamp, Voter, blank_record
from pgvigil.watchdog.drift.exchange import Exchange
from pgvigil.watchdog.outside import Outside
from pgvigil.watchdog.pools.opening import Unwatched
from pgvigil.watchdog.process import Main, core_settings
from pgvigil.watchdog.settings import Settings, VipAddress
from pgvigil.watchdog.status.report import Report
from pgvigil.watchdog.vip.status import VipStatus

NOW = 1000 * NS_PER_S
ADDRESS = VipAddress("10.0.0.100", 24)
NO_VIP = VipStatus("down", (), "missing", None, (), "", "", True)


class Node:
    """A real core and real beliefs inside a watchdog main that has no sockets."""

    def __init__(self, nodes: int = 3, methods: tuple[str, ...] = ("heartbeat", "process"), witness: bool = False):
        self.settings = _settings(nodes, methods, witness)
        record = blank_record("test", 1, 11)
        core = Watchdog(core_settings(self.settings), record, lambda limit: 0, NOW, 0)
        self.vip = NO_VIP
        self.main = SimpleNamespace(
            settings=self.settings,
            core=core,
            beliefs=Beliefs(tuple(range(2, nodes + 1))),
            vip=SimpleNamespace(status=lambda: self.vip),
            started_at_ns=NOW,
            processes=(),
            events=deque([(NOW, "began")]),
            pools=Unwatched(),
            drift=SimpleNamespace(exchange=Exchange(1, {1: "pg01", 2: "pg02"}, {})),
            outside=Outside(self.settings, cast(ControlServer, None), lambda on_connected: cast(Outbox, None)),
        )
        main = cast(Main, self.main)
        self.main.quorum = lambda: Main.quorum(main)
        self.main.role = lambda: Main.role(main)
        self.report = Report(main)
        core.step(NOW, events.Started())

    def hear(self, *peers: NodeVerdict, at_ns: int = NOW, pgpool: Health = Health.ALIVE) -> None:
        """Verdicts of lifecheck, told to the core too."""
        assert self.main.beliefs.take(Verdicts(at_ns, pgpool, NOW, "pgpool-II (pid 7) runs", peers, ()), at_ns)
        self.main.core.step(at_ns, self.main.beliefs.views(at_ns))

    def status(self, at_ns: int = NOW) -> dict[str, Any]:
        """As the command line gets it."""
        made: dict[str, Any] = json.loads(json.dumps(self.report.make(at_ns)))
        return made

    def row(self, node_id: int, at_ns: int = NOW) -> dict[str, Any]:
        """One node's line."""
        found: dict[str, Any] = next(row for row in self.status(at_ns)["nodes"] if row["id"] == node_id)
        return found


def _settings(nodes: int, methods: tuple[str, ...], witness: bool) -> Settings:
    made = peers_lab.settings(1, nodes, 9000)
    own = replace(made.nodes[0], witness=witness)
    lifecheck = replace(made.lifecheck, methods=methods, pgpool_pid_file="/run/pgpool.pid")
    return replace(made, nodes=(own, *made.nodes[1:]), lifecheck=lifecheck)


def verdict(node_id: int, health: Health = Health.ALIVE, role: Role = Role.LEADER) -> NodeVerdict:
    beat = Beat(role, 4, True, Health.ALIVE, 1, 5000, (1,), 30)
    path = PathEvidence("eth0", NOW - 20 * NS_PER_MS)
    return NodeVerdict(node_id, health, NOW - NS_PER_S, "heard on eth0", (path,), beat, NOW - 20 * NS_PER_MS)


def test_before_lifecheck_has_spoken_all_is_unknown() -> None:
    node = Node()
    assert (node.row(1)["pgpool"], node.row(1)["electable"]) == ("unknown", False)
    row = node.row(2)
    assert (row["role"], row["term"], row["health"], row["pgpool"]) == ("unknown", None, "unknown", "unknown")
    assert (row["electable"], row["age_ms"], row["since_ms"]) == (None, None, None)
    assert row["evidence"] == "lifecheck does not report"
    assert node.status()["leader_id"] is None


def test_what_an_alive_node_said_has_the_age_of_its_words() -> None:
    node = Node()
    node.hear(verdict(2), verdict(3, role=Role.STANDBY))
    row = node.row(2, NOW + 100 * NS_PER_MS)
    assert (row["role"], row["term"], row["pgpool"], row["electable"]) == ("leader", 4, "alive", True)
    assert (row["age_ms"], row["since_ms"]) == (150, 1100)
    quality = {"lost_permille": None, "round_trip_us": None, "jitter_us": None, "silent_ms": None}
    assert row["paths"] == [{"interface": "eth0", "last_heard_ms": 120, **quality}]


def test_a_dead_node_has_evidence_but_no_role() -> None:
    node = Node()
    node.hear(verdict(2, Health.DEAD))
    row = node.row(2)
    assert (row["health"], row["evidence"]) == ("dead", "heard on eth0")
    assert (row["role"], row["term"], row["pgpool"], row["electable"]) == ("unknown", None, "unknown", None)
    assert row["age_ms"] == 50


def test_a_node_that_was_never_heard_has_no_age() -> None:
    node = Node()
    path = PathEvidence("eth0", 0, 30, 400, 20)
    node.hear(NodeVerdict(2, Health.UNKNOWN, NOW, "not heard yet", (path,), None, 0))
    row = node.row(2)
    quality = {"lost_permille": 30, "round_trip_us": 400, "jitter_us": 20, "silent_ms": None}
    assert (row["age_ms"], row["paths"]) == (None, [{"interface": "eth0", "last_heard_ms": None, **quality}])


def test_a_dead_node_is_explained_by_all_that_speaks_against_it() -> None:
    node = Node()
    silent = PathEvidence("eth1", NOW - 3 * NS_PER_S, silent_since_ns=NOW - 3 * NS_PER_S)
    dead = replace(verdict(2, Health.DEAD), evidence="silent on eth1 for 3000 ms", paths=(silent,), confirmed_by=(3, 9))
    node.hear(replace(dead, query=Health.DEAD, query_evidence="query timed out"))
    row = node.row(2)
    third = node.settings.nodes[2].host
    assert row["evidence"] == f"silent on eth1 for 3000 ms, query timed out, confirmed by {third} and node 9"
    assert row["paths"][0]["silent_ms"] == 3000


def test_troubles_are_told_while_lifecheck_reports() -> None:
    node = Node()
    trouble = frames.PathTrouble(0, 1, 3, "lifecheck was late by 900 ms")
    assert node.main.beliefs.take(Verdicts(NOW, Health.ALIVE, NOW, "", (), (trouble,)), NOW)
    told = [{"path": 0, "node": 1, "count": 3, "reason": "lifecheck was late by 900 ms"}]
    assert node.status(NOW + STALE_NS - 1)["troubles"] == told and node.status(NOW + STALE_NS)["troubles"] == []


def test_troubles_with_absurd_reasons_leave_room_for_the_rest_of_the_status() -> None:
    node = Node()
    many = tuple(frames.PathTrouble(0, number, 2**62, "\x07" * 400) for number in range(64))
    assert node.main.beliefs.take(Verdicts(NOW, Health.ALIVE, NOW, "", (), many), NOW)
    assert len(json.dumps(node.report.make(NOW)["troubles"])) < 5000


def test_words_of_a_silent_lifecheck_become_unknown_at_once() -> None:
    node = Node()
    node.hear(verdict(2))
    assert node.row(2, NOW + STALE_NS - 1)["health"] == "alive"
    row = node.row(2, NOW + STALE_NS)
    assert (row["health"], row["role"], row["age_ms"]) == ("unknown", "unknown", None)
    # The core has not been told yet; the status does not wait for it.
    own = node.row(1, NOW + STALE_NS)
    assert (own["pgpool"], own["electable"]) == ("unknown", False)
    assert "lifecheck has been silent" in own["evidence"]


@pytest.mark.parametrize(("methods", "word"), [(("heartbeat", "process"), "alive"), (("heartbeat",), "not checked")])
def test_what_nobody_checks_is_not_called_alive(methods: tuple[str, ...], word: str) -> None:
    node = Node(methods=methods)
    node.hear(verdict(2))
    assert (node.row(1)["pgpool"], node.row(2)["pgpool"]) == (word, word)


def test_a_new_cluster_names_those_it_waits_for() -> None:
    status = Node().status()
    assert (status["state"], status["waiting_for"]) == ("founding", [2, 3])
    assert "pg02" in status["sentence"]
    assert "`pgvigil bootstrap`" in status["sentence"]


def test_a_leader_is_known_while_its_lease_runs() -> None:
    node = Node(nodes=1)
    node.hear()
    status = node.status()
    assert (status["state"], status["leader_id"], status["document"]["committed"]) == ("leader", 1, True)
    assert 0 < status["lease"]["left_ms"] <= status["lease"]["length_ms"] == 1000
    late = node.status(NOW + NS_PER_S)
    assert (late["leader_id"], late["lease"]["left_ms"]) == (None, None)


def test_a_followed_leader_is_known_for_a_lease_after_its_last_word() -> None:
    node = Node()
    node.main.core.leader_id, node.main.core.leader_heard_ns = 2, NOW
    assert node.status(NOW + NS_PER_S - 1)["leader_id"] == 2
    assert node.status(NOW + NS_PER_S)["leader_id"] is None


def test_a_standby_that_cannot_lead_says_why() -> None:
    node = Node(nodes=1)
    node.hear(pgpool=Health.DEAD)
    status = node.status()
    assert (status["state"], status["nodes"][0]["electable"]) == ("standby", False)
    assert "cannot lead now: its pgpool-II is dead" in status["sentence"]


def test_the_gate_has_time_left_only_while_it_is_open() -> None:
    node = Node()
    until_ns = NOW + 700 * NS_PER_MS
    node.vip = replace(NO_VIP, wanted="up", addresses=((ADDRESS, True),), gate="open", gate_until_ns=until_ns)
    vip = node.status()["vip"]
    assert (vip["gate"], vip["gate_left_ms"]) == ("open", 700)
    assert vip["addresses"] == [{"address": "10.0.0.100/24", "present": True}]
    assert node.status(until_ns + 1)["vip"]["gate_left_ms"] == 0
    node.vip = replace(node.vip, gate="closed")
    assert node.status()["vip"]["gate_left_ms"] is None


def test_processes_and_events_have_ages() -> None:
    node = Node()
    node.main.processes = (frames.ProcessInfo("lifecheck", 7, "running", 2, NOW, "killed by SIGKILL"),)
    status = node.status(NOW + 40 * NS_PER_MS)
    assert status["processes"] == [
        {
            "name": "lifecheck",
            "pid": 7,
            "state": "running",
            "restarts": 2,
            "up_ms": 40,
            "last_exit": "killed by SIGKILL",
        }
    ]
    assert status["events"] == [{"at_ns": NOW, "age_ms": 40, "text": "began"}]


def test_nodes_are_named_by_host_or_id() -> None:
    report = Node().report
    assert (report.node_named("pg02"), report.node_named("3"), report.node_named("pg04")) == (2, 3, None)
    assert report.node_names() == ["1 (pg01)", "2 (pg02)", "3 (pg03)"]


def test_a_witness_is_called_one() -> None:
    node = Node(witness=True)
    assert node.row(1)["role"] == "witness"
    assert node.row(1)["electable"] is False


def test_half_says_what_it_cannot_guarantee_and_whether_the_tie_breaker_answers() -> None:
    node = Node(nodes=2)
    assert node.status()["half"] is None
    core = node.main.core
    core.settings = replace(core.settings, quorum=QuorumRule.HALF, tie_breaker="10.0.0.9")
    half = node.status()["half"]
    assert (half["in_force"], half["tie_breaker"], half["asked_ms"]) == (False, "10.0.0.9", None)
    voters = (Voter(1, 11), Voter(2, 12))
    document = Document(Stamp(1, 1), 1, voters, 1000, False, (), (), QuorumRule.HALF, "10.0.0.254")
    core.record = replace(core.record, document=document)
    half = node.status()["half"]
    assert (half["in_force"], half["answers"], half["leads_by_half"]) == (True, False, False)
    assert "both reach 10.0.0.254, both lead" in half["not_guaranteed"]
    asked_ns = NOW - 400 * NS_PER_MS
    seen = TieBreakerSeen("10.0.0.254", NOW, asked_ns, asked_ns - 3 * NS_PER_S, "answered within 1.0 ms")
    assert node.main.beliefs.take_tie_breaker(seen, NOW)
    node.hear(verdict(2))
    half = node.status()["half"]
    assert (half["answers"], half["asked_ms"], half["evidence"]) == (True, 400, "answered within 1.0 ms")
    assert half["answered_for_ms"] == 3000
    assert node.status(NOW + 590 * NS_PER_MS)["half"]["answers"] is False  # a lease, less 1 %, after the asking


def test_reports_from_outside_have_an_age_and_an_end() -> None:
    node = Node()
    report = frames.OutsideReport(2, Health.DEAD, "ping fails", "ops", NOW - 2 * NS_PER_S, NOW + 28 * NS_PER_S)
    node.main.outside.take(frames.OutsideReports((report,)), NOW)
    assert node.status()["external"] == [
        {"id": 2, "health": "dead", "reason": "ping fails", "reporter": "ops", "age_ms": 2000, "left_ms": 28_000}
    ]
    assert node.status(NOW + 28 * NS_PER_S)["external"] == []


def test_pgpools_own_watchdog_is_shown_where_it_leads_and_unknown_when_lifecheck_is_silent() -> None:
    node = Node()
    assert node.status()["pgpool_watchdog"] is None
    beside = PgpoolWatchdogSettings("/run/.s.PGPOOLWD_CMD.9000", "/run/pgpool.pid", "", ())
    node.main.settings = replace(node.settings, lifecheck=replace(node.settings.lifecheck, pgpool_watchdog=beside))
    member = frames.WatchdogMember(10, 2, "10.0.0.2:9999", "leader", 3, Health.UNKNOWN)
    words = frames.PgpoolWatchdog(NOW - NS_PER_S, "", "10.0.0.2:9999", "exists", False, "10.0.0.100", (member,))
    node.main.outside.take(words, NOW)
    assert node.status()["pgpool_watchdog"] == {
        "trouble": None,
        "age_ms": 1000,
        "leader": "10.0.0.2:9999",
        "quorum": "exists",
        "escalated": False,
        "delegate_ip": "10.0.0.100",
        "nodes": [
            {"pgpool_node_id": 10, "id": 2, "name": "10.0.0.2:9999", "state": "leader", "priority": 3, "told": None}
        ],
    }
    silent = node.status(NOW + 5 * NS_PER_S)["pgpool_watchdog"]
    assert (silent["trouble"], silent["leader"], silent["nodes"]) == ("lifecheck does not report", None, [])
