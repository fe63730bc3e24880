"""Every checker fires when its promise is broken, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulation.checks.violation import Violation
from tests.simulation.disk import SimWriter
from tests.simulation.faults import Fault
from tests.simulation.host import Host
from tests.simulation.options import draw
from tests.simulation.pools import Call, Pool, Servers
from tests.simulation.run import Run
from tests.simulation.upstream import Truth

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events, messages
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.lease import Lease, Promise
from pgvigil.watchdog.core.messages import Ack, Granted, Release, Renew, RoundId, Vote
from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    BackendStatus,
    Decision,
    DecisionKind,
    Document,
    Intent,
    QuorumRule,
    Record,
    Stamp,
    Voter,
    blank_record,
)

LEASE_MS = 1000


class Bench:
    """Three machines whose disks name each other as voters; nothing runs by itself."""

    def __init__(self) -> None:
        options = replace(draw(1, brief=True), size=3, witnesses=(), rates_ppm=(0, 0, 0), priorities=(1, 1, 1))
        self.run = Run(options, ())
        self.hosts = self.run.hosts
        self.checks = self.run.checkers
        for host in self.hosts.values():
            self.write(host, self.record(host))
            host.start_main()
        for host in self.hosts.values():
            for process in host.processes():
                process.stopped = True  # from now on only the test acts
        self.run.world.forget()

    def record(self, host: Host, **changes: object) -> Record:
        """A voter's record of term 5, won by n1."""
        voters = tuple(Voter(node, node) for node in (1, 2, 3))
        document = Document(Stamp(5, 1), 1, voters, LEASE_MS, False, ())
        record = replace(blank_record("c", host.id, host.id), boot=3, term=5, voted_for=1, promised_ms=LEASE_MS)
        record = replace(record, document=document, won_term=5 if host.id == 1 else 0)
        return replace(record, **changes)  # type: ignore[arg-type]

    def write(self, host: Host, record: Record) -> None:
        host.disk.keep(record)

    def send(self, host: Host, to: int, message: messages.Message) -> None:
        """A message leaves, whatever the core thinks of it."""
        assert host.main is not None
        if isinstance(message, Renew):
            core = host.main.core
            core.lease = core.lease or Lease(host.id, message.term, message.boot, 0)
            core.now_ns, core.effects = host.clock.read(), [events.Send(to, message)]
            self.checks.ballots.stepped(host, core)
            core.effects = []
        self.checks.ballots.sends(host, host.id, to, message)
        self.checks.records.sends(host, message)

    def open_gate(self, host: Host, for_ms: int = 500) -> None:
        host.kernel.open_gate(for_ms)

    def pass_ms(self, ms: int) -> None:
        end_ns = self.run.world.now_ns + ms * NS_PER_MS
        self.run.world.at(end_ns, lambda: None)
        self.run.world.run(lambda: self.run.world.now_ns >= end_ns)

    def back(self, leader: Host) -> None:
        """A renewal of term 5 that n2 acknowledges."""
        self.send(leader, 2, renew())
        self.send(self.hosts[2], leader.id, Ack(5, 3, 1, Stamp(5, 1)))

    def give_lease(self, host: Host, term: int, for_ms: int = 900, boot: int = 3) -> None:
        """A core that believes in a lease."""
        assert host.main is not None
        core = host.main.core
        core.lease = Lease(host.id, term, boot, 0, host.clock.read() + for_ms * NS_PER_MS)
        core.now_ns = host.clock.read()
        self.checks.holders.stepped(host, core)
        self.checks.ballots.stepped(host, core)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def renew(sequence: int = 1, term: int = 5, stamp: Stamp | None = None, lease_ms: int = LEASE_MS) -> Renew:
    return Renew(term, 3, sequence, lease_ms, stamp or Stamp(5, 1), None)


def fires(checker: str) -> pytest.RaisesExc[Violation]:
    return pytest.raises(Violation, match=f"^{checker}: ")


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


def decided(version: int, *made: Decision, status: BackendStatus = BackendStatus.UP, number: int = 1) -> Document:
    """A committed document with one backend, or two."""
    voters = tuple(Voter(node, node) for node in (1, 2, 3))
    backend = Backend(0, "db0", 5432, status, BackendRole.PRIMARY, "", number)
    document = Document(Stamp(5, version), 1, voters, LEASE_MS, False, ())
    newest = max((item.number for item in made), default=1)
    return replace(document, backends=(backend,), decided=max(newest, number), decisions=made)


DOWN, UP = BackendStatus.DOWN, BackendStatus.UP
GOES_DOWN = Decision(2, DecisionKind.DOWN, 0, True, 1, "")


def test_two_decisions_of_one_number(bench: Bench) -> None:
    checks = bench.checks.decisions
    checks.asks(DecisionKind.DOWN, 0)
    checks.commits(decided(1))
    checks.commits(decided(2, GOES_DOWN, status=DOWN, number=2))
    with fires("decision"):
        checks.commits(decided(3, replace(GOES_DOWN, by=2), status=DOWN, number=2))


@pytest.mark.parametrize("number", [1, 3])
def test_a_state_that_changes_without_a_newer_number(bench: Bench, number: int) -> None:
    checks = bench.checks.decisions
    checks.commits(decided(1, number=3))
    with fires("decision"):
        checks.commits(decided(2, status=DOWN, number=number))


def test_decisions_that_go_back(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1, number=3))
    with fires("decision"):
        bench.checks.decisions.commits(replace(decided(2, number=3), decided=2))


def test_a_backend_that_goes_down_twice(bench: Bench) -> None:
    checks = bench.checks.decisions
    checks.asks(DecisionKind.DOWN, 0)
    checks.asks(DecisionKind.DOWN, 0)
    checks.commits(decided(1))
    checks.commits(decided(2, GOES_DOWN, status=DOWN, number=2))
    with fires("decision"):
        checks.commits(decided(3, GOES_DOWN, replace(GOES_DOWN, number=3), status=DOWN, number=3))


def test_a_decision_that_nobody_asked_for(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1))
    with fires("twice"):
        bench.checks.decisions.commits(decided(2, GOES_DOWN, status=DOWN, number=2))


def test_a_backend_that_goes_down_without_consensus(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1))
    with fires("consensus"):
        bench.checks.decisions.commits(decided(2, replace(GOES_DOWN, operator=False), status=DOWN, number=2))


def test_acting_on_what_is_not_committed_or_older(bench: Bench) -> None:
    checks = bench.checks.decisions
    pool = Pool(bench.run.world, bench.hosts[2], Servers(1), bench.run.world.source("pool"))
    checks.committed = lambda term: Stamp(5, 3)
    checks.acts(pool, decided(3))
    with fires("acted"):
        checks.acts(pool, decided(4))
    with fires("acted"):
        checks.acts(pool, decided(2))


def test_tables_that_differ_are_named(bench: Bench) -> None:
    for host, status in zip(bench.hosts.values(), (UP, UP, DOWN), strict=True):
        assert host.main is not None
        agreed = decided(3, status=status)
        host.main.core.agreed_now = lambda agreed=agreed: agreed  # type: ignore[method-assign,misc]
    two = {node: host for node, host in bench.hosts.items() if node < 3}
    assert bench.checks.decisions.unlike(two) == ""
    assert "the tables differ" in bench.checks.decisions.unlike(bench.hosts)


def call_for_a_second(bench: Bench) -> Host:
    """The pgpool-II of n1 waits for an answer that never comes; its watchdog main runs and does nothing."""
    run, one = bench.run, bench.hosts[1]
    assert one.main is not None
    one.main.process.dead = True  # takes no step, and does not stand still either
    pool = Pool(run.world, one, Servers(1), run.world.source("pool"))
    pool.running, pool.on_late = True, run.unanswered
    pool.call = Call(7, 0, one.main, one.clock.read() + 1000 * NS_PER_MS)
    return one


def write_slowly(host: Host) -> None:
    """A write is on its way, before the answer."""
    assert host.main is not None and host.disk.record is not None
    host.main.writer.submit(host.disk.record)


def test_a_call_without_an_answer(bench: Bench) -> None:
    call_for_a_second(bench)
    bench.pass_ms(1000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_stalled_disk_excuses_a_call_for_as_long_as_it_stalls(bench: Bench) -> None:
    one = call_for_a_second(bench)
    one.disk.stalled_until_ns = bench.run.world.now_ns + 20_000 * NS_PER_MS
    write_slowly(one)
    bench.pass_ms(20_000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_slow_disk_excuses_a_call_for_as_long_as_it_writes(bench: Bench) -> None:
    one = call_for_a_second(bench)
    one.disk.delay_us = (1_500_000, 1_500_000)
    bench.pass_ms(500)
    write_slowly(one)
    write_slowly(one)
    bench.pass_ms(3000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


@pytest.mark.parametrize("stalled_ms", [900, 20_000])
def test_a_stall_that_holds_no_answer_back_excuses_nothing(bench: Bench, stalled_ms: int) -> None:
    one = call_for_a_second(bench)
    one.disk.stalled_until_ns = bench.run.world.now_ns + stalled_ms * NS_PER_MS
    if stalled_ms < 1000:
        write_slowly(one)  # durable before the answer was due
    bench.pass_ms(1000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_call_that_is_answered_when_the_disk_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a leader whose disk stalls and a backend that fails; without the excuse it would be found."""
    calm = replace(draw(32_000_438, "backends"), rates_ppm=(0, 0, 0), tail_permille=0, loss_permille=0)
    stall = Fault(2632 * NS_PER_MS, "stall", 0, 1, 23_400 * NS_PER_MS, 50_785, "")
    backend = Fault(13_184 * NS_PER_MS, "backend", 0, 2, 557 * NS_PER_MS, 37_434, "")
    result = Run(calm, (stall, backend)).run()
    assert result.checker == "", result.report()
    monkeypatch.setattr(SimWriter, "writing_ns", lambda writer, since_ns: 0)
    assert "for backend 0 got no answer" in Run(calm, (stall, backend)).run().text


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
