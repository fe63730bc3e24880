"""Every checker fires when its promise is broken, and only then; those of decisions are in `test_decision_checkers`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulation.bench import LEASE_MS, Bench, fires, renew
from tests.simulation.host import Host
from tests.simulation.run import Run
from tests.simulation.upstream import Truth

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events, messages
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.lease import Lease, Promise
from pgvigil.watchdog.core.messages import Ack, Granted, Release, Renew, RoundId, Vote
from pgvigil.watchdog.core.record import (
    Document,
    Intent,
    QuorumRule,
    Stamp,
)


def test_two_open_gates(bench: Bench) -> None:
    bench.open_gate(bench.hosts[1])
    bench.open_gate(bench.hosts[2])
    with fires("gates"):
        bench.pass_ms(2)


def test_two_gates_that_overlap_within_the_tolerance(bench: Bench) -> None:
    bench.open_gate(bench.hosts[1])
    bench.open_gate(bench.hosts[2])
    bench.hosts[1].kernel.close_gate()
    bench.pass_ms(2)


def test_a_gate_that_outlives_its_lease(bench: Bench) -> None:
    bench.send(bench.hosts[1], 2, renew())
    bench.open_gate(bench.hosts[1], 985)
    bench.pass_ms(2)
    bench.open_gate(bench.hosts[1], 992)
    with fires("outlives"):
        bench.pass_ms(2)


def test_a_paused_machine_excuses_only_what_was_left(bench: Bench) -> None:
    one, two = bench.hosts[1], bench.hosts[2]
    one.options = replace(one.options, counts_pause=True)
    bench.open_gate(one, 300)
    one.pause()
    bench.pass_ms(2000)
    bench.open_gate(two, 1000)
    one.unpause()
    bench.pass_ms(100)
    assert bench.checks.holders.excused_overlaps > 0
    bench.pass_ms(300)
    bench.open_gate(one, 300)
    with fires("gates"):
        bench.pass_ms(2)


def test_two_valid_leases(bench: Bench) -> None:
    bench.back(bench.hosts[1])
    bench.give_lease(bench.hosts[1], 5)
    with fires("leases"):
        bench.give_lease(bench.hosts[2], 6)


def test_a_lease_that_no_majority_has_backed(bench: Bench) -> None:
    bench.send(bench.hosts[1], 2, renew())
    with fires("backing"):
        bench.give_lease(bench.hosts[1], 5)


def test_acknowledgements_of_an_earlier_boot_back_nothing(bench: Bench) -> None:
    one = bench.hosts[1]
    bench.back(one)
    later = Renew(5, 4, 2, LEASE_MS, Stamp(5, 1), None)
    bench.pass_ms(100)
    bench.send(one, 2, later)
    with fires("backing"):
        bench.give_lease(one, 5, for_ms=980, boot=4)


def test_a_victory_of_which_nothing_was_left_is_no_leader(bench: Bench) -> None:
    """A lone voter wins in one step; killed right after it, it never led that term, and another one may win it."""
    one, two = bench.hosts[1], bench.hosts[2]
    bench.checks.ballots.stepped(one, _leads(one, 9))
    bench.checks.ballots.stepped(two, _leads(two, 9))
    bench.write(two, bench.record(two, boot=5, term=9, won_term=9))
    with fires("leader"):
        bench.checks.ballots.stepped(one, _leads(one, 9))


def _leads(host: Host, term: int) -> Watchdog:
    assert host.main is not None
    host.main.core.lease = Lease(host.id, term, 3, 0)
    return host.main.core


def test_two_leaders_of_one_term(bench: Bench) -> None:
    bench.back(bench.hosts[1])
    bench.give_lease(bench.hosts[1], 5)
    bench.pass_ms(1000)
    with fires("leader"):
        bench.give_lease(bench.hosts[2], 5)


def test_a_lease_without_a_renewal(bench: Bench) -> None:
    bench.send(bench.hosts[1], 2, renew())
    with fires("length"):
        bench.give_lease(bench.hosts[1], 5, for_ms=1100)


def test_a_vote_that_is_not_durable(bench: Bench) -> None:
    with fires("vote"):
        bench.send(bench.hosts[2], 3, Granted(RoundId(1, 1), 6, real=True))


def test_two_votes_in_one_term(bench: Bench) -> None:
    two = bench.hosts[2]
    bench.write(two, bench.record(two, boot=4, term=6, voted_for=2))
    bench.send(two, 3, Vote(RoundId(1, 1), 6, Stamp(5, 1)))
    with fires("vote"):
        bench.write(two, bench.record(two, boot=4, term=6, voted_for=3))


def test_a_vote_against_a_promise(bench: Bench) -> None:
    two = bench.hosts[2]
    bench.send(bench.hosts[1], 2, renew())
    bench.send(two, 1, Ack(5, 3, 1, Stamp(5, 1)))
    bench.write(two, bench.record(two, boot=4, term=6, voted_for=3))
    with fires("promise"):
        bench.send(two, 3, Granted(RoundId(1, 1), 6, real=True))


def test_a_vote_that_ends_a_promise_to_the_same_leader(bench: Bench) -> None:
    two = bench.hosts[2]
    bench.back(bench.hosts[1])
    bench.write(two, bench.record(two, boot=4, term=6, voted_for=1))
    with fires("promise"):
        bench.send(two, 1, Granted(RoundId(1, 1), 6, real=True))


def test_a_promise_ends_with_its_lease(bench: Bench) -> None:
    two = bench.hosts[2]
    bench.send(bench.hosts[1], 2, renew())
    bench.send(two, 1, Ack(5, 3, 1, Stamp(5, 1)))
    bench.write(two, bench.record(two, boot=4, term=6, voted_for=3))
    bench.pass_ms(991)
    bench.send(two, 3, Granted(RoundId(1, 1), 6, real=True))


def test_a_promise_shorter_than_the_lease(bench: Bench) -> None:
    two = bench.hosts[2]
    bench.send(bench.hosts[1], 2, renew())
    assert two.main is not None
    two.main.core.promise = Promise(1, 5, 3, 1, two.clock.read() + 900 * NS_PER_MS)
    with fires("promise"):
        bench.send(two, 1, Ack(5, 3, 1, Stamp(5, 1)))


def test_a_release_with_the_gate_open(bench: Bench) -> None:
    one = bench.hosts[1]
    bench.write(one, bench.record(one, boot=4, released_term=5))
    bench.open_gate(one)
    with fires("release"):
        bench.send(one, 2, Release(5, 3, 1, 0))


def test_a_release_that_is_not_durable(bench: Bench) -> None:
    with fires("release"):
        bench.send(bench.hosts[1], 2, Release(5, 3, 1, 0))


def test_a_renewal_after_the_release(bench: Bench) -> None:
    one = bench.hosts[1]
    bench.write(one, bench.record(one, boot=4, released_term=5))
    bench.send(one, 2, Release(5, 3, 1, 0))
    with fires("release"):
        bench.send(one, 2, renew(2))


@pytest.mark.parametrize(
    ("changes", "checker"),
    [
        ({"term": 4}, "record"),
        ({"boot": 2}, "record"),
        ({"promised_ms": 10}, "record"),
        ({"document": None}, "record"),
        ({"voted_for": 2}, "vote"),
    ],
)
def test_a_record_that_goes_back(bench: Bench, changes: dict[str, object], checker: str) -> None:
    two = bench.hosts[2]
    with fires(checker):
        bench.write(two, bench.record(two, **{"boot": 4, **changes}))


def test_two_documents_of_one_stamp(bench: Bench) -> None:
    two = bench.hosts[2]
    other = replace(bench.record(two, boot=4).document or pytest.fail("no document"), lease_ms=2000)
    with fires("document"):
        bench.write(two, bench.record(two, boot=4, document=other))


@pytest.mark.parametrize(
    "message",
    [
        Ack(6, 1, 1, Stamp(5, 1)),
        Ack(5, 1, 1, Stamp(5, 2)),
        renew(term=6),
        renew(stamp=Stamp(5, 2)),
        renew(lease_ms=1500),
    ],
)
def test_what_leaves_before_it_is_durable(bench: Bench, message: messages.Message) -> None:
    with fires("durable"):
        bench.send(bench.hosts[1], 2, message)


def test_a_promise_of_a_length_that_is_not_durable(bench: Bench) -> None:
    one, two = bench.hosts[1], bench.hosts[2]
    bench.write(one, bench.record(one, boot=4, promised_ms=1500))
    bench.send(one, 2, renew(lease_ms=1500))
    with fires("durable"):
        bench.send(two, 1, Ack(5, 3, 1, Stamp(5, 1)))


def claim(bench: Bench, host: Host, stamp: Stamp) -> None:
    """A core says that a document is committed."""
    assert host.main is not None
    host.main.core.record = host.disk.record or pytest.fail("no record")
    host.main.core.committed_stamp = stamp
    bench.checks.records.stepped(host, host.main.core)


def test_a_commit_without_a_majority(bench: Bench) -> None:
    one = bench.hosts[1]
    newer = replace(bench.record(one).document or pytest.fail("no document"), stamp=Stamp(5, 2))
    bench.write(one, bench.record(one, boot=4, document=newer))
    with fires("committed"):
        claim(bench, one, Stamp(5, 2))


def test_a_leader_without_what_was_committed(bench: Bench) -> None:
    document = replace(bench.record(bench.hosts[1]).document or pytest.fail("no document"), stamp=Stamp(5, 2))
    for node in (1, 3):
        host = bench.hosts[node]
        bench.write(host, bench.record(host, boot=4, document=document))
    claim(bench, bench.hosts[1], Stamp(5, 2))
    two = bench.hosts[2]
    with fires("committed"):
        bench.write(
            two, bench.record(two, boot=4, term=6, voted_for=2, won_term=6, document=document.stamped(Stamp(6, 1)))
        )


def test_two_voters_changed_at_once(bench: Bench) -> None:
    one = bench.hosts[1]
    document = bench.record(one).document or pytest.fail("no document")
    claim(bench, one, Stamp(5, 1))
    alone = replace(document, stamp=Stamp(5, 2), voters=document.voters[:1])
    with fires("membership"):
        bench.write(one, bench.record(one, boot=4, document=alone))


def half_document(bench: Bench) -> Document:
    """Half is the rule, on all disks and committed."""
    for host in bench.hosts.values():
        record = bench.record(host, boot=4)
        document = record.document or pytest.fail("no document")
        half = replace(document, stamp=Stamp(5, 2), quorum=QuorumRule.HALF, tie_breaker="10.0.0.254")
        bench.write(host, replace(record, document=half))
    claim(bench, bench.hosts[1], Stamp(5, 2))
    return half


@pytest.mark.parametrize(
    "changes",
    [{"lease_ms": 700}, {"tie_breaker": "10.0.0.9"}, {"lease_ms": 700, "quorum": QuorumRule.MAJORITY}],
)
def test_more_than_the_rule_changed_under_half(bench: Bench, changes: dict[str, object]) -> None:
    one = bench.hosts[1]
    wrong = replace(half_document(bench), stamp=Stamp(5, 3), **changes)  # type: ignore[arg-type]
    with fires("half"):
        bench.write(one, bench.record(one, boot=5, document=wrong))


def test_the_rule_alone_changed_under_half(bench: Bench) -> None:
    one = bench.hosts[1]
    right = replace(half_document(bench), stamp=Stamp(5, 3), quorum=QuorumRule.MAJORITY)
    bench.write(one, bench.record(one, boot=5, document=right))


def lead_by_half(bench: Bench, answered_ms: int, ago_ms: int = 0) -> None:
    """One of two voters believes in a lease; the tie-breaker has answered it for so long, last so long ago."""
    one = bench.hosts[1]
    half = half_document(bench)
    assert one.main is not None
    two = replace(half, voters=half.voters[:2])
    one.main.core.record = replace(one.main.core.record, document=two)
    bench.pass_ms(5000)
    newest_ns = bench.run.world.now_ns - ago_ms * NS_PER_MS
    truth = (Truth(newest_ns - answered_ms * NS_PER_MS, newest_ns),)
    bench.checks.ballots.series = lambda node, address: truth if address == "10.0.0.254" else ()
    bench.send(one, 2, renew(stamp=Stamp(5, 2)))
    bench.give_lease(one, 5)


def test_half_backs_a_lease_after_three_leases_of_answers(bench: Bench) -> None:
    lead_by_half(bench, answered_ms=3000)


@pytest.mark.parametrize(("answered_ms", "ago_ms"), [(2900, 0), (3000, 150)])
def test_half_backs_no_lease_on_few_or_old_answers(bench: Bench, answered_ms: int, ago_ms: int) -> None:
    with fires("backing"):
        lead_by_half(bench, answered_ms, ago_ms)


def command(bench: Bench, token: int, policy: str = "once", stored: bool = True) -> events.StartCommand:
    """An intent of n1, on the disks of all if it is `stored`."""
    intent = Intent("escalation", "term 5", policy, 5, 3, token, "pending")
    for host in bench.hosts.values():
        record = host.disk.record or pytest.fail("no record")
        document = record.document or pytest.fail("no document")
        if stored:
            stamp = Stamp(5, document.stamp.version + 1)
            bench.write(host, replace(record, document=replace(document, stamp=stamp, intents=(intent,))))
    return events.StartCommand(intent, 0)


def test_a_command_that_runs_twice(bench: Bench) -> None:
    bench.checks.records.commands(bench.hosts[1], command(bench, 1), True)
    with fires("command"):
        bench.checks.records.commands(bench.hosts[1], command(bench, 2), True)


def test_a_retried_command_that_runs_twice_under_one_token(bench: Bench) -> None:
    bench.checks.records.commands(bench.hosts[1], command(bench, 1, "retry"), True)
    bench.checks.records.commands(bench.hosts[1], command(bench, 2, "retry"), True)
    with fires("command"):
        bench.checks.records.commands(bench.hosts[1], command(bench, 2, "retry"), True)


def test_a_command_without_a_lease(bench: Bench) -> None:
    with fires("command"):
        bench.checks.records.commands(bench.hosts[1], command(bench, 1), False)


def test_a_command_that_is_not_on_the_disk(bench: Bench) -> None:
    with fires("command"):
        bench.checks.records.commands(bench.hosts[1], command(bench, 1, stored=False), True)


def test_a_minority_that_keeps_its_gate_open(bench: Bench) -> None:
    bench.checks.holders.latest_lease_end_ns = lambda node_id: None  # another checker would be faster
    for other in (2, 3):
        bench.run.network.cut((other, 1))
    bench.open_gate(bench.hosts[1], 900)
    bench.pass_ms(800)
    bench.open_gate(bench.hosts[1], 900)
    with fires("minority"):
        bench.pass_ms(2)


def test_a_minority_that_raises_the_term(bench: Bench) -> None:
    two = bench.hosts[2]
    assert two.main is not None
    core = two.main.core
    bench.checks.holders.stepped(two, core)
    for other in (1, 3):
        bench.run.network.cut((2, other))
    bench.pass_ms(2000)
    core.record = replace(core.record, term=6, voted_for=2)
    with fires("minority"):
        bench.checks.holders.stepped(two, core)


def test_a_cluster_that_nobody_leads(bench: Bench) -> None:
    run = Run(bench.run.options, ())
    for host in run.hosts.values():
        host.pgpool_health = Health.DEAD
    run.injector.set_pgpool = lambda host, health: None  # type: ignore[method-assign]
    result = run.run()
    assert (result.checker, "nobody has the VIP" in result.text) == ("liveness", True)
