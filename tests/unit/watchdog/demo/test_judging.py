"""Verdicts: what makes a phase, a scene and a row hold or fail."""

from __future__ import annotations

import dataclasses

from pgvigil.watchdog.demo.acceptance import row_of, table
from pgvigil.watchdog.demo.records import Outage, TwoAnswering
from pgvigil.watchdog.demo.scenes import Phase, judge, reasons
from pgvigil.watchdog.demo.stage import Measured

NEVER = TwoAnswering(0.0, 0, ())
CALM = Outage(gap_ms=3.0, lost=0, asked=500, owners=(1,), prober_gap_ms=2.5)
GOOD = Measured(light=CALM, pool=CALM, arp=NEVER, reach=NEVER, tcp=NEVER, arp_answers=100)


def seen(gap_ms: float = 3.0, lost: int = 0, owners: tuple[int, ...] = (1,)) -> Measured:
    return dataclasses.replace(GOOD, light=Outage(gap_ms, lost, 500, owners, 2.5))


def test_a_limit_of_nothing_allows_the_pause_between_two_questions_but_no_loss() -> None:
    phase = Phase("heal", 0, seen(gap_ms=7))
    assert phase.holds and phase.outage_ms == 0
    assert not Phase("heal", 0, seen(gap_ms=7, lost=1)).holds


def test_a_limit_of_nothing_does_not_allow_the_vip_to_move() -> None:
    phase = Phase("heal", 0, seen(owners=(1, 2)))
    assert not phase.holds
    assert reasons(phase) == ["heal: the VIP moved 1>2"]


def test_an_outage_up_to_the_limit_holds() -> None:
    assert Phase("cut", 1500, seen(gap_ms=1500, lost=9, owners=(1, 2))).holds
    assert not Phase("cut", 1500, seen(gap_ms=1501, lost=9, owners=(1, 2))).holds


def test_two_nodes_answering_fails_whatever_the_outage() -> None:
    two = TwoAnswering(0.0, 1, (7,))
    by_arp, by_packets = dataclasses.replace(GOOD, arp=two), dataclasses.replace(GOOD, reach=two)
    for measured in (by_arp, by_packets, dataclasses.replace(GOOD, tcp=two)):
        phase = Phase("cut", 1500, measured)
        assert not phase.holds
        assert "two nodes answered" in reasons(phase)[0]


def test_an_observer_that_heard_nobody_proves_nothing() -> None:
    phase = Phase("cut", 1500, dataclasses.replace(GOOD, arp_answers=0))
    assert not phase.holds and reasons(phase)


def test_pgpool_is_judged_at_its_own_port() -> None:
    measured = dataclasses.replace(GOOD, pool=Outage(4000.0, 9, 100, (78,), 10))
    assert Phase("kill", 3000, measured).holds
    assert not Phase("kill", 3000, measured, at_pool=True).holds


def test_a_miss_of_the_prober_itself_is_no_measurement() -> None:
    late = dataclasses.replace(GOOD, light=Outage(80.0, 0, 400, (1,), prober_gap_ms=77.0))
    assert not Phase("kill", 50, late).measures
    assert Phase("kill", 100, late).measures
    assert Phase("kill", 50, seen(gap_ms=80, lost=30)).measures


def test_a_scene_fails_with_its_second_phase() -> None:
    good, bad = Phase("cut", 1500, seen(1000, 9, (1, 2))), Phase("restore", 0, seen(30, 9, (2,)))
    result = judge("link cut", [good, bad])
    assert not result.holds
    assert (result.outage_ms, result.limit_ms) == (1000, 1500)
    assert "restore: 30 ms without an answer" in result.verdict


def test_a_row_reports_worst_and_median_and_every_failure() -> None:
    results = [judge("cut", [Phase("cut", 1500, seen(gap, 1, (1, 2)))]) for gap in (1000, 1100, 1600)]
    row = row_of("link-cut", results)
    assert (row.worst_ms, row.p50_ms, row.verdict) == (1600, 1100, "1 of 3 FAILED")
    assert not row.holds
    assert "1600 ms" in table([row])


def test_a_run_without_a_measurement_is_a_failure() -> None:
    row = row_of("link-cut", [], ["no lab: broken"])
    assert not row.holds and row.runs == 1
    assert "no lab: broken" in table([row])
