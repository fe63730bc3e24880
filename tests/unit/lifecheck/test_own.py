"""What the checks of the node itself come to."""

from __future__ import annotations

from pgvigil.ipc.frames import Check, Health
from pgvigil.lifecheck.core.own import OwnVerdict, judge_own

BEFORE = OwnVerdict(Health.ALIVE, 5, "pgpool-II is not checked")


def check(method: str, health: Health, evidence: str) -> Check:
    return Check(method, health, 1, evidence)


def test_without_a_check_of_pgpool_nothing_is_claimed_anew() -> None:
    assert judge_own((), BEFORE, 9) == BEFORE


def test_one_dead_check_of_pgpool_is_enough_and_only_its_evidence_is_shown() -> None:
    checks = (check("process", Health.ALIVE, "runs"), check("query", Health.DEAD, "query timed out"))
    assert judge_own(checks, BEFORE, 9) == OwnVerdict(Health.DEAD, 9, "query timed out")


def test_a_check_that_knows_nothing_counts_for_nothing() -> None:
    checks = (check("process", Health.ALIVE, "runs"), check("query", Health.UNKNOWN, "password refused"))
    assert judge_own(checks, BEFORE, 9) == OwnVerdict(Health.ALIVE, 5, "runs")


def test_the_host_makes_a_node_unfit_but_its_pgpool_not_dead() -> None:
    checks = (check("process", Health.ALIVE, "runs"), check("links", Health.DEAD, "interface eth0 is down"))
    assert judge_own(checks, BEFORE, 9) == OwnVerdict(Health.ALIVE, 5, "runs", "interface eth0 is down")
