"""Verdicts over time: changes, news, and the combination of methods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgvigil.ipc.frames import Beat, Health, Heard, HeardTogether, PathEvidence, PathQuality, Role
from pgvigil.lifecheck.core.external import ExternalMethod
from pgvigil.lifecheck.core.judge import Judge, Late, Outcome
from pgvigil.lifecheck.core.path import Fixed, PathChange
from pgvigil.lifecheck.core.verdict import Opinion, combine

MS = 1_000_000
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)


def heard(node_id: int, path: int, at_ns: int, beat: Beat) -> HeardTogether:
    return HeardTogether((Heard(node_id, path, at_ns, beat),))


LABELS = {2: "pg02", 3: "pg03"}


def judge(*methods: str, paths: tuple[str, ...] = ("eth0",)) -> Judge:
    return Judge(LABELS, paths, methods or ("heartbeat", "process"), Fixed(1000 * MS), 200 * MS, 0)


def nothing_to_read(core: Judge, at_ns: int, path: int = 0) -> Outcome:
    return core.step(at_ns, HeardTogether((), path, at_ns))


def test_a_first_heartbeat_is_a_change_and_the_next_is_not() -> None:
    core = judge()
    outcome = core.step(5 * MS, heard(2, 0, 5 * MS, BEAT))
    assert [(verdict.node_id, verdict.health, verdict.since_ns) for verdict in outcome.changed] == [
        (2, Health.ALIVE, 5 * MS)
    ]
    assert outcome.news
    later = core.step(200 * MS, heard(2, 0, 200 * MS, replace(BEAT, up_for_ms=200, hears=(3,))))
    assert later.changed == () and not later.news
    assert core.count(Health.ALIVE) == 1


@pytest.mark.parametrize(
    "beat",
    [
        replace(BEAT, role=Role.LEADER),
        replace(BEAT, term=2),
        replace(BEAT, electable=False),
        replace(BEAT, pgpool=Health.DEAD),
    ],
)
def test_what_a_peer_says_of_itself_is_news(beat: Beat) -> None:
    core = judge()
    core.step(5 * MS, heard(2, 0, 5 * MS, BEAT))
    outcome = core.step(10 * MS, heard(2, 0, 10 * MS, beat))
    assert outcome.changed == () and outcome.news
    assert core.verdicts(10 * MS)[0].beat == beat


def test_death_is_reported_at_the_wake_with_its_instant() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    core.step(150 * MS, heard(3, 0, 150 * MS, BEAT))
    assert core.wake() == 1100 * MS
    assert nothing_to_read(core, 1050 * MS) == Outcome((), False)
    (dead,) = core.step(1100 * MS).changed
    assert (dead.node_id, dead.health, dead.evidence) == (2, Health.DEAD, "silent on eth0 for 1000 ms")
    assert dead.beat == BEAT and dead.beat_at_ns == 100 * MS
    assert core.step(1101 * MS).changed == ()
    assert core.verdicts(5000 * MS)[0].since_ns == 1100 * MS


def test_lateness_is_taken_before_the_time_that_passed() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    outcome = core.step(9000 * MS, Late(8500 * MS))
    assert outcome.changed == ()
    assert {verdict.node_id for verdict in nothing_to_read(core, 9600 * MS).changed} == {2, 3}


def test_without_the_heartbeat_method_nobody_is_judged_but_beats_are_passed_on() -> None:
    core = judge("external")
    outcome = core.step(5 * MS, heard(2, 0, 5 * MS, BEAT))
    assert outcome.changed == () and outcome.news
    assert core.step(9999 * MS).changed == () and core.wake() is None
    verdict = core.verdicts(9999 * MS)[0]
    assert (verdict.health, verdict.evidence) == (Health.UNKNOWN, "no method judges other nodes")
    assert verdict.beat == BEAT


def test_silence_is_seen_also_where_reports_alone_judge() -> None:
    """Beliefs call a node that is silent on all paths not electable, whatever was reported."""
    core = judge("external")
    core.add(ExternalMethod((2, 3)))
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    core.step(500 * MS, Late(300 * MS))
    assert core.wake() == 1300 * MS
    core.step(1400 * MS)
    nothing_to_read(core, 1400 * MS)
    (peer, _) = core.verdicts(1400 * MS)
    assert peer.health is Health.UNKNOWN and peer.paths[0].silent


def test_heartbeats_of_strangers_change_nothing() -> None:
    outcome = judge().step(5 * MS, heard(9, 0, 5 * MS, BEAT))
    assert outcome.changed == () and not outcome.news


def test_a_silent_path_is_told_but_moves_nothing() -> None:
    core = judge(paths=("eth0", "eth1"))
    core.step(100 * MS, HeardTogether((Heard(2, 0, 100 * MS, BEAT), Heard(2, 1, 100 * MS, BEAT))))
    core.step(1000 * MS, heard(2, 1, 1000 * MS, BEAT))
    core.step(1050 * MS, HeardTogether((), 0, 1050 * MS))
    outcome = core.step(1104 * MS)
    assert outcome.changed == () and outcome.news
    assert outcome.paths == (PathChange(2, "eth0", True, 1004),)
    assert core.verdicts(1104 * MS)[0].evidence == "heard on eth1; silent on eth0 for 1004 ms"
    back = core.step(2000 * MS, heard(2, 0, 2000 * MS, BEAT))
    assert back.paths == (PathChange(2, "eth0", False, 1900),)


def test_the_paths_of_a_node_that_dies_or_comes_back_are_part_of_its_own_verdict() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    nothing_to_read(core, 1050 * MS)
    died = core.step(1100 * MS)
    assert [verdict.node_id for verdict in died.changed] == [2] and died.paths == ()
    back = core.step(1500 * MS, heard(2, 0, 1500 * MS, BEAT))
    assert [verdict.health for verdict in back.changed] == [Health.ALIVE] and back.paths == ()


def test_a_word_of_a_third_node_changes_the_verdict_on_a_silent_one() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    core.step(900 * MS, heard(3, 0, 900 * MS, replace(BEAT, hears=(2,))))
    nothing_to_read(core, 1050 * MS)
    silent = core.step(1100 * MS)
    assert silent.changed == () and [change.node_id for change in silent.paths] == [2]
    (dead,) = core.step(1200 * MS, heard(3, 0, 1200 * MS, BEAT)).changed
    assert (dead.node_id, dead.evidence, dead.confirmed_by) == (2, "silent on eth0 for 1100 ms", (3,))


def test_a_receiver_that_reads_again_ends_the_doubt() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, BEAT))
    doubt = core.step(1100 * MS).changed
    assert [(verdict.node_id, verdict.health) for verdict in doubt] == [(2, Health.UNKNOWN)]
    assert [verdict.health for verdict in nothing_to_read(core, 1200 * MS).changed] == [Health.DEAD, Health.DEAD]


def test_a_receiver_that_never_reads_again_leaves_nothing_to_wait_for() -> None:
    core = judge()
    core.step(100 * MS, heard(2, 0, 100 * MS, replace(BEAT, hears=(3,))))
    core.step(100 * MS, heard(3, 0, 100 * MS, replace(BEAT, hears=(2,))))
    core.step(1100 * MS)
    assert core.wake() is None, "an instant of the past would let the loop go round without a pause"
    core.step(9000 * MS)
    assert core.wake() is None and core.count(Health.UNKNOWN) == 2
    assert len(nothing_to_read(core, 9100 * MS).changed) == 2 and core.count(Health.DEAD) == 2


def test_how_well_a_path_is_heard_is_told_and_decides_about_patience() -> None:
    patience = Patient()
    core = Judge(LABELS, ("eth0",), ("heartbeat",), patience, 200 * MS, 0)
    quality = PathQuality(2, 12, 5000, 100, 70, 310)
    together = Heard(2, 0, 2900 * MS, BEAT), Heard(3, 0, 2900 * MS, BEAT)
    core.step(2900 * MS, HeardTogether(together, 0, 0, (quality,)))
    assert patience.asked == [quality] and core.wake() == 3500 * MS
    assert core.verdicts(2900 * MS)[0].paths == (PathEvidence("eth0", 2900 * MS, 12, 310, 70),)


class Patient:
    """A detector that is asked."""

    ceiling_ns = 3000 * MS

    def __init__(self) -> None:
        self.asked: list[PathQuality] = []

    def deadtime_ns(self, quality: PathQuality) -> int:
        self.asked.append(quality)
        return 600 * MS


ALIVE, DEAD, UNKNOWN = Opinion(Health.ALIVE, "a"), Opinion(Health.DEAD, "d"), Opinion(Health.UNKNOWN, "u")


@pytest.mark.parametrize(
    ("opinions", "verdict"),
    [
        ([], Opinion(Health.UNKNOWN, "no method judges other nodes")),
        ([UNKNOWN], UNKNOWN),
        ([UNKNOWN, ALIVE], ALIVE),
        ([ALIVE, DEAD, UNKNOWN], DEAD),
        ([DEAD, DEAD], Opinion(Health.DEAD, "d, d")),
    ],
)
def test_one_dead_is_enough_and_silence_is_unknown(opinions: list[Opinion], verdict: Opinion) -> None:
    assert combine(opinions) == verdict


def test_heartbeats_that_came_together_are_judged_together() -> None:
    core = judge()
    outcome = core.step(
        5 * MS, HeardTogether((Heard(3, 0, 1 * MS, BEAT), Heard(9, 0, 2 * MS, BEAT), Heard(2, 0, 4 * MS, BEAT)))
    )
    assert [verdict.node_id for verdict in outcome.changed] == [2, 3] and outcome.news
    leader = replace(BEAT, role=Role.LEADER)
    outcome = core.step(300 * MS, HeardTogether((Heard(3, 0, 299 * MS, leader), Heard(2, 0, 300 * MS, BEAT))))
    assert outcome.changed == () and outcome.news
    assert core.step(400 * MS, HeardTogether((Heard(9, 0, 400 * MS, leader),))).news is False
