"""Reports from outside: the newest counts, for its time, and then nobody has said anything."""

from __future__ import annotations

from pgvigil.ipc.frames import Beat, Health, Heard, HeardTogether, OutsideReport, Role
from pgvigil.lifecheck.core.external import ExternalMethod
from pgvigil.lifecheck.core.judge import Judge, Late, Told
from pgvigil.lifecheck.core.path import Fixed
from pgvigil.lifecheck.core.verdict import Opinion
from pgvigil.lifecheck.probes.external import ExternalProbe
from pgvigil.lifecheck.probes.reading import Reading

S = 1_000_000_000
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)


def report(node_id: int, health: Health, said_s: int, for_s: int = 30, reason: str = "ping fails") -> OutsideReport:
    return OutsideReport(node_id, health, reason, "ops", said_s * S, (said_s + for_s) * S)


def judge_of(method: str) -> Judge:
    return Judge({2: "pg02"}, ("eth0",), (method,), Fixed(S), S // 5, 0)


def test_the_newest_report_on_a_node_counts_until_its_end() -> None:
    method = ExternalMethod((2, 3))
    dead = report(2, Health.DEAD, 10)
    assert method.take([dead, report(2, Health.ALIVE, 9)], 11 * S) == (dead,)
    assert method.opinion(2, 12 * S) == Opinion(Health.DEAD, "reported dead by ops: ping fails")
    assert method.wake() == 40 * S
    assert method.health(2, 40 * S - 1) is Health.DEAD
    assert method.opinion(2, 41 * S) == Opinion(Health.UNKNOWN, "nobody has reported for 31 s")
    assert method.wake() is None and method.current(41 * S) == ()
    assert method.opinion(3, 41 * S) == Opinion(Health.UNKNOWN, "nobody has reported yet")


def test_a_later_report_replaces_an_earlier_one_and_one_that_has_ended() -> None:
    method = ExternalMethod((2,))
    method.take([report(2, Health.DEAD, 10)], 11 * S)
    assert method.take([report(2, Health.ALIVE, 12, reason="")], 12 * S)
    assert method.opinion(2, 13 * S) == Opinion(Health.ALIVE, "reported alive by ops")
    assert method.health(2, 50 * S) is Health.UNKNOWN
    assert method.take([report(2, Health.DEAD, 51)], 52 * S)
    assert method.health(2, 52 * S) is Health.DEAD and method.wake() == 81 * S


def test_reports_about_strangers_of_the_future_or_repeated_are_no_news() -> None:
    method = ExternalMethod((2,))
    known = report(2, Health.DEAD, 10)
    assert method.take([known], 11 * S) == (known,)
    assert method.take([known, report(9, Health.DEAD, 10), report(2, Health.ALIVE, 99)], 12 * S) == ()
    assert method.take([OutsideReport(2, Health.UNKNOWN, "", "ops", 11 * S, 90 * S)], 12 * S) == ()
    assert method.opinion(9, 12 * S) is None and method.health(9, 12 * S) is None
    assert method.current(12 * S) == (known,)


def test_our_own_standstill_counts_against_no_report() -> None:
    method = ExternalMethod((2,))
    method.take([report(2, Health.ALIVE, 10)], 10 * S)
    method.late(5 * S)
    assert method.health(2, 44 * S) is Health.ALIVE
    assert method.health(2, 45 * S) is Health.UNKNOWN
    method.late(60 * S)
    assert method.health(2, 46 * S) is Health.UNKNOWN, "what has ended stays ended"


def test_beside_heartbeats_a_report_of_dead_is_enough_and_one_of_alive_raises_nobody() -> None:
    judge, method = judge_of("heartbeat"), ExternalMethod((2,))
    judge.add(method)
    judge.step(S // 2, HeardTogether((Heard(2, 0, S // 2, BEAT),)))
    method.take([OutsideReport(2, Health.DEAD, "fire", "ops", S // 2, 2 * S)], S)
    (verdict,) = judge.step(S, Told()).changed
    assert (verdict.health, verdict.evidence) == (Health.DEAD, "reported dead by ops: fire")
    method.take([OutsideReport(2, Health.ALIVE, "", "ops", S, 9 * S)], S)
    assert judge.step(S, Told()).changed[0].evidence == "heard on eth0, reported alive by ops"
    (verdict,) = judge.step(3 * S // 2, HeardTogether((), 0, 3 * S // 2)).changed  # the receiver has nothing to read
    assert (verdict.health, verdict.evidence) == (Health.DEAD, "silent on eth0 for 1000 ms")


def test_alone_reports_judge_although_heartbeats_flow_and_their_end_is_noticed_at_the_wake() -> None:
    judge, method = judge_of("external"), ExternalMethod((2,))
    judge.add(method)
    assert judge.step(S, HeardTogether((Heard(2, 0, S, BEAT),))).changed == ()
    method.take([report(2, Health.ALIVE, 1)], S)
    assert judge.step(S, Told()).changed[0].health is Health.ALIVE
    judge.step(2 * S, Late(3 * S))
    assert judge.wake() == 5 * S  # heartbeats judge nobody, but who is silent is told
    assert judge.step(5 * S).changed == () and judge.wake() == 34 * S
    (verdict,) = judge.step(34 * S).changed
    assert (verdict.health, verdict.evidence) == (Health.UNKNOWN, "nobody has reported for 33 s")
    assert judge.wake() is None


def test_the_own_pgpool_is_unknown_again_or_unchecked_again_when_a_report_has_ended() -> None:
    changes: list[Reading] = []
    for unchecked, before in ((False, Health.UNKNOWN), (True, Health.ALIVE)):
        changes.clear()
        probe = ExternalProbe(1, unchecked, changes.append, 0)
        assert probe.reading.health is before and probe.wake() is None
        assert probe.take([report(1, Health.DEAD, 1), report(2, Health.DEAD, 1)], 2 * S)
        assert probe.reading == Reading(Health.DEAD, 2 * S, "reported dead by ops: ping fails")
        probe.tick(31 * S)
        assert probe.reading.health is before
        assert [change.health for change in changes] == [Health.DEAD, before]
