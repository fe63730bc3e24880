"""Reports of lifecheck become events: changes only, each once, in whole sentences."""

from __future__ import annotations

from dataclasses import replace

from pgvigil.ipc.frames import Beat, Health, NodeVerdict, PathEvidence, PathTrouble, Role, Verdicts
from pgvigil.lifecheck.core import sentence
from pgvigil.watchdog.chronicle import MAX_TEXT, MAX_TROUBLES, TROUBLE_PAUSE_NS, Chronicle

MS = 1_000_000
NOW = 1000_000 * MS
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)
LABELS = {2: "pg02", 3: "pg03"}
ETH0, ETH1 = PathEvidence("eth0", NOW), PathEvidence("eth1", NOW)
ALIVE = NodeVerdict(2, Health.ALIVE, NOW, "heard on eth0 and eth1", (ETH0, ETH1), BEAT, NOW)
DEAD = replace(ALIVE, health=Health.DEAD, evidence="silent on eth0 for 1004 ms", confirmed_by=(3,))


def report(*peers: NodeVerdict, at_ns: int = NOW, troubles: tuple[PathTrouble, ...] = ()) -> Verdicts:
    return Verdicts(at_ns, Health.ALIVE, NOW, "runs", peers, troubles)


def test_what_was_so_at_the_start_is_no_event_unless_somebody_is_dead() -> None:
    assert Chronicle(LABELS).take(report(ALIVE)) == []
    assert Chronicle(LABELS).take(report(DEAD)) == ["node pg02 dead: silent on eth0 for 1004 ms, confirmed by pg03"]


def test_a_change_is_told_once_with_all_its_evidence() -> None:
    chronicle = Chronicle(LABELS)
    chronicle.take(report(ALIVE))
    dead = replace(DEAD, query=Health.DEAD, query_evidence="query timed out")
    words = "node pg02 dead: silent on eth0 for 1004 ms, query timed out, confirmed by pg03"
    assert chronicle.take(report(dead)) == [words]
    assert chronicle.take(report(replace(dead, evidence="silent on eth0 for 2404 ms"))) == []
    assert chronicle.take(report(ALIVE)) == ["node pg02 alive: heard on eth0 and eth1"]


def test_a_path_is_an_event_of_its_own() -> None:
    chronicle = Chronicle(LABELS)
    chronicle.take(report(ALIVE))
    silent = PathEvidence("eth1", NOW, silent_since_ns=NOW)
    cut = replace(ALIVE, paths=(ETH0, silent))
    assert chronicle.take(report(cut, at_ns=NOW + 1004 * MS)) == [
        "path eth1 to pg02 dead: silent for 1004 ms; this alone moves nothing"
    ]
    assert chronicle.take(report(cut, at_ns=NOW + 2000 * MS)) == []
    healed = replace(ALIVE, paths=(ETH0, PathEvidence("eth1", NOW + 5000 * MS)))
    assert chronicle.take(report(healed, at_ns=NOW + 5100 * MS)) == [
        "path eth1 to pg02 alive: heard again after 5000 ms"
    ]


def test_a_pgpool_that_a_living_peer_has_and_nobody_can_query_is_an_event() -> None:
    chronicle = Chronicle(LABELS)
    chronicle.take(report(replace(ALIVE, query=Health.ALIVE, query_evidence="query answered in 4 ms")))
    dead = replace(ALIVE, query=Health.DEAD, query_evidence="query refused: Connection refused")
    told = ["pgpool-II of pg02 dead as queried from here: query refused: Connection refused"]
    assert chronicle.take(report(dead)) == told
    assert chronicle.take(report(dead)) == []
    evidence = "heard on eth0 and eth1, but no answer from its pgpool-II: query refused: Connection refused"
    assert sentence.evidence(dead, LABELS) == evidence
    alive = replace(ALIVE, query=Health.ALIVE, query_evidence="query answered in 5 ms")
    assert chronicle.take(report(alive)) == ["pgpool-II of pg02 alive as queried from here: query answered in 5 ms"]
    assert chronicle.take(report(replace(alive, query=Health.UNKNOWN, query_evidence="query not possible"))) == []


def test_the_paths_of_a_dead_node_are_no_events() -> None:
    chronicle = Chronicle(LABELS)
    chronicle.take(report(ALIVE))
    silent = replace(DEAD, paths=(replace(ETH0, silent_since_ns=NOW), replace(ETH1, silent_since_ns=NOW)))
    assert len(chronicle.take(report(silent))) == 1
    assert chronicle.take(report(ALIVE)) == ["node pg02 alive: heard on eth0 and eth1"]


def test_troubles_are_told_now_and_then_and_there_is_a_limit() -> None:
    chronicle = Chronicle(LABELS)
    trouble = PathTrouble(0, 1, 1, "lifecheck was late by 900 ms")
    assert chronicle.take(report(troubles=(trouble,))) == ["lifecheck was late by 900 ms"]
    again = replace(trouble, rejected=2, reason="lifecheck was late by 800 ms")
    assert chronicle.take(report(troubles=(again,), at_ns=NOW + TROUBLE_PAUSE_NS - 1)) == []
    assert chronicle.take(report(troubles=(again,), at_ns=NOW + TROUBLE_PAUSE_NS)) == [again.reason]
    absurd = PathTrouble(7, 7, 1, "\x07" * 8000)
    assert Chronicle(LABELS).take(report(troubles=(absurd,))) == ["?" * MAX_TEXT]
    many = tuple(PathTrouble(number, 9, 1, "x") for number in range(2 * MAX_TROUBLES))
    assert len(chronicle.take(report(troubles=many))) == MAX_TROUBLES - 1
