"""The rules of `quorum = "half"` (P22 a to g), on one core. `half_mutants.py` proves that each test bites."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.core.bench import (
    L_MS,
    R_MS,
    TIE_BREAKER,
    Bench,
    half_record,
    known_record,
    only,
    pre_vote,
    renew,
    sent,
)

from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.lease import NS_PER_MS, HalfRule, Lease, lease_end_ns
from pgvigil.watchdog.core.messages import Granted, Hello, PreVote, Refused, RenewRefused, Vote
from pgvigil.watchdog.core.record import Cause, QuorumRule, Stamp, blank_record
from pgvigil.watchdog.core.states import State


def half_bench(me: int = 1, size: int = 2, **changes: object) -> Bench:
    """A voter whose document and file say half."""
    return Bench(me=me, size=size, record=half_record(me, size, **changes), quorum=QuorumRule.HALF)


def half_leader(size: int = 2) -> Bench:
    """The leader of a cluster under half, until 990 ms under a lease of everybody; then the others are gone."""
    bench = half_bench(size=size)
    bench.start()
    bench.win(voters=tuple(range(2, size + 1)))
    for voter in range(2, size + 1):
        bench.ack(0, voter)
    assert bench.core.committed()
    return bench


def half_follower() -> Bench:
    """One of two that has heard a leader at 1 ms."""
    bench = half_bench(me=2)
    bench.start()
    bench.hear(1, 1, renew(term=4))
    return bench


def led_until(bench: Bench, now_ms: int) -> None:
    """Lead on with everybody's acknowledgements, and with the tie-breaker's answers since 1 ms."""
    while bench.core.now_ns < now_ms * NS_PER_MS:
        at_ms = bench.core.now_ns // NS_PER_MS + 50
        bench.alone_until(at_ms, peers=Health.ALIVE)
        for voter in range(2, bench.size + 1):
            bench.ack(at_ms, voter)


def test_p22_rule_and_tie_breaker_are_those_of_the_document() -> None:
    bench = Bench(me=2, size=2, record=known_record(2, 2), quorum=QuorumRule.HALF)
    bench.start()
    bench.hear(1, 1, renew(term=4))
    assert sent(bench.alone_until(9000), Vote) == []  # the file alone says half
    other = half_follower()
    assert sent(other.alone_until(9000, address="10.0.0.9"), Vote) == []  # that is not the document's
    file_says_majority = Bench(me=2, size=2, record=half_record(2), tie_breaker="")
    file_says_majority.start()
    assert len(sent(file_says_majority.alone_until(9000), Vote)) > 0


def test_p22_the_document_tells_whom_to_ask() -> None:
    silent = Bench(size=2, tie_breaker="10.0.0.9")
    assert silent.core.question()[0] == ""
    other_file = Bench(size=2, record=half_record(), tie_breaker="10.0.0.9")
    assert other_file.core.question() == (TIE_BREAKER, R_MS * NS_PER_MS, L_MS * NS_PER_MS // 2)
    hasty = replace(other_file.core.settings, renew_ms=20)
    other_file.core.settings = hasty
    assert other_file.core.question()[1] == 100 * NS_PER_MS


def test_p22_a_lease_by_half_ends_with_the_tie_breakers_answer() -> None:
    bench = half_leader()
    led_until(bench, 4000)
    bench.alone_until(6000)
    assert bench.core.lease is not None and bench.core.lease.by_half
    assert only(bench.wait_until(6788), ev.CloseGate) == []  # the newest answer is that of 6000
    assert len(only(bench.wait_until(6990), ev.CloseGate)) == 1


def test_p22_a_lease_by_half_needs_a_series_of_three_leases() -> None:
    young = half_leader()
    assert len(only(young.alone_until(1000, since_ms=1), ev.CloseGate)) == 1
    bench = half_leader()
    led_until(bench, 3500)
    assert only(bench.alone_until(5500, since_ms=1), ev.CloseGate) == []
    again = half_leader()
    led_until(again, 3500)
    assert len(only(again.alone_until(5500, since_ms=3400), ev.CloseGate)) == 1  # a question has failed


def test_p22_half_counts_when_the_others_had_time_to_answer() -> None:
    bench = half_leader()
    led_until(bench, 4000)
    lease = bench.core.lease
    assert lease is not None and lease.until_ns is not None
    bench.alone_until(4000 + R_MS - 50)
    assert not lease.by_half
    bench.alone_until(4000 + 2 * R_MS)
    assert lease.by_half


def test_p22_half_waits_two_leases_after_the_last_word_of_a_leader() -> None:
    bench = half_follower()
    bench.alone_until(2500)
    bench.hear(2500, 1, renew(term=3))  # refused, but heard
    bench.alone_until(4450)
    told = [bench.core._leaderless]
    bench.alone_until(4550)
    told.append(bench.core._leaderless)
    assert told == [False, True]
    fresh = half_bench(me=2)
    fresh.start(10)
    seen = ev.Views(Health.ALIVE, "", (ev.PeerView(1, Health.DEAD, True, 1, 0),), "", False, TIE_BREAKER, 10**9, 1)
    fresh.at(20, seen)  # an old series, right after a start: what was said before it is unknown
    assert not fresh.core._leaderless


def test_p22_half_waits_for_a_series_of_three_leases() -> None:
    bench = half_follower()
    assert sent(bench.alone_until(7999, since_ms=5000), Vote) == []
    assert len(sent(bench.alone_until(9000, since_ms=5000), Vote)) == 1


def test_p22_half_is_not_elected_by_an_old_answer() -> None:
    bench = half_follower()
    bench.alone_until(3500)
    bench.hear(3501, 1, renew(term=4, sequence=2))
    bench.see_all(3502, {1: Health.DEAD})
    asked_ns = 3500 * NS_PER_MS
    bench.at(3503, replace(bench.core.views, tie_breaker=TIE_BREAKER, tie_breaker_ns=asked_ns, tie_breaker_since_ns=1))
    assert sent(bench.wait_until(9000), Vote) == []


def test_p22_half_waits_until_the_others_were_silent_for_two_leases() -> None:
    bench = half_follower()
    bench.alone_until(6000, peers=Health.ALIVE)
    assert sent(bench.alone_until(7950), Vote) == []
    assert len(sent(bench.alone_until(9000), Vote)) == 1
    spoken = half_follower()
    spoken.alone_until(2000)
    spoken.hear(3000, 1, pre_vote(1))  # dead for lifecheck, but it speaks
    assert sent(spoken.alone_until(4950), Vote) == []
    assert len(sent(spoken.alone_until(6000), Vote)) == 1


def test_p22_a_node_that_doubts_itself_believes_nobody_dead() -> None:
    bench = half_follower()
    bench.alone_until(2900)
    bench.core.doubt_until_ns = 6000 * NS_PER_MS
    assert sent(bench.alone_until(5950), Vote) == []
    assert len(sent(bench.alone_until(7000), Vote)) == 1


def asking_of_four() -> tuple[Bench, float]:
    """One of four that has been asking for long: half may be enough."""
    bench = half_bench(me=2, size=4)
    bench.start()
    bench.alone_until(5000)
    while bench.core.round is None:
        bench.alone_until(bench.core.now_ns // NS_PER_MS + 50)
    return bench, bench.core.now_ns / NS_PER_MS


def test_p22_half_does_not_count_against_anybody_who_is_there() -> None:
    bench = half_follower()
    assert sent(bench.alone_until(9000, peers=Health.ALIVE), Vote) == []
    refused, at_ms = asking_of_four()
    asked = refused.core.round
    assert asked is not None
    refused.hear(at_ms, 1, Granted(asked.round_id, asked.term, False))
    refused.hear(at_ms, 3, Refused(asked.round_id, asked.term, False, 1, "promised", None))
    assert sent(refused.wait_until(at_ms + R_MS), Vote) == []


def test_p22_less_than_half_is_never_enough() -> None:
    bench, at_ms = asking_of_four()
    assert sent(bench.alone_until(int(at_ms) + 2000), Vote) == []


def test_p22_half_is_elected_without_a_word_of_the_dead() -> None:
    bench, at_ms = asking_of_four()
    asked = bench.core.round
    assert asked is not None
    bench.hear(at_ms, 1, Granted(asked.round_id, asked.term, False))
    assert len(sent(bench.wait_until(at_ms + R_MS), Vote)) == 3


def test_p22_no_two_nodes_stand_for_the_same_term() -> None:
    for me in (1, 2):
        bench = half_bench(me=me)
        bench.core.known_term = 1000
        assert (bench.core.next_term() % 128, bench.core.next_term() > 1000) == (me, True)
    assert Bench(me=2, size=2).core.next_term() == 2


def test_p22_a_round_from_before_the_document_said_half_is_not_won_by_half() -> None:
    bench, _ = asking_of_four()
    asked = bench.core.round
    assert asked is not None
    asked.yes.add(1)
    assert bench.core.half_elects()
    asked.term += 1
    assert not bench.core.half_elects()


def test_p22_half_commits_nothing_and_changes_nothing() -> None:
    bench = half_follower()
    bench.alone_until(4500)
    assert bench.core.state is State.LEADER and bench.core.lease_held()
    assert not bench.core.committed()
    gone = half_leader()
    led_until(gone, 4000)
    gone.alone_until(6000)
    assert gone.core.committed() and gone.core.leads_by_half  # committed when the other one was there
    stamp = gone.core.record.stamp
    gone.core.settings = replace(gone.core.settings, quorum=QuorumRule.MAJORITY, lease_ms=700)
    answers = only(gone.at(6001, ev.ChangeVoters(7, 0, 2)), ev.Answer)
    gone.alone_until(7000)
    assert [item.accepted for item in answers] == [False]
    assert (gone.core.record.stamp, gone.core.state) == (stamp, State.LEADER)


def test_p22_half_runs_no_command() -> None:
    bench = Bench(size=2, record=half_record(), quorum=QuorumRule.HALF, policy="once")
    bench.start()
    bench.win()
    bench.ack(0)
    lease = bench.core.lease
    assert lease is not None and bench.core.document is not None and bench.core.document.intents
    lease.by_half = True
    bench.core.stored[2] = (102, bench.core.record.stamp)
    bench.core._commit()
    assert bench.core.committed()
    assert only(bench.at(10), ev.StartCommand) == []
    lease.by_half = False
    assert len(only(bench.at(11), ev.StartCommand)) == 1


def test_p22_a_lease_by_half_begins_anew_after_a_restart() -> None:
    bench = half_bench(voted_for=1, won_term=1, promised_ms=L_MS)
    bench.start()
    assert bench.core.state is State.ELECTED
    effects: list[ev.Effect] = []
    for at_ms in range(50, 1950, 50):  # lifecheck's series is older than this process
        gone = (ev.PeerView(2, Health.DEAD, True, 1, 0),)
        effects += bench.wait_until(at_ms)
        views = ev.Views(Health.ALIVE, "", gone, "", False, TIE_BREAKER, (at_ms + 4000) * NS_PER_MS, 1)
        effects += bench.at(at_ms, views)
    assert only(effects, ev.HoldVip) == []
    assert len(only(bench.alone_until(6000), ev.HoldVip)) > 0


def test_p22_under_half_a_new_l_goes_by_way_of_a_majority() -> None:
    bench = half_leader()
    bench.core.settings = replace(bench.core.settings, lease_ms=700)
    told: list[tuple[str, int, bool]] = []
    for at_ms in range(10, 4000, 10):
        bench.at(at_ms)
        document = bench.core.document
        assert document is not None
        step = (document.quorum.value, document.lease_ms, bench.core.committed())
        if told[-1:] != [step]:
            told.append(step)
        if at_ms % 100 == 0:
            bench.ack(at_ms)
    steps = [step[:2] for step in told if not step[2]]
    assert steps == [("majority", 1000), ("majority", 700), ("half", 700)]


def test_p22_under_half_a_new_tie_breaker_goes_by_way_of_a_majority() -> None:
    bench = half_leader()
    bench.core.settings = replace(bench.core.settings, tie_breaker="10.0.0.9")
    steps: list[tuple[str, str]] = []
    for at_ms in range(10, 4000, 10):
        bench.at(at_ms)
        document = bench.core.document
        assert document is not None
        if not bench.core.committed() and steps[-1:] != [(document.quorum.value, document.tie_breaker)]:
            steps.append((document.quorum.value, document.tie_breaker))
        if at_ms % 100 == 0:
            bench.ack(at_ms)
    assert steps == [("majority", TIE_BREAKER), ("majority", "10.0.0.9"), ("half", "10.0.0.9")]


def test_p22_each_step_waits_for_a_majority() -> None:
    bench = half_leader()
    bench.core.settings = replace(bench.core.settings, lease_ms=700)
    bench.at(10)
    bench.wait_until(900)
    document = bench.core.document
    assert document is not None
    assert (document.quorum, document.lease_ms) == (QuorumRule.MAJORITY, 1000)


def test_p22_under_half_the_voters_change_by_way_of_a_majority() -> None:
    bench = half_leader(size=4)
    steps: list[tuple[str, int]] = []
    answers: list[ev.Answer] = []
    answers += only(bench.at(5, ev.ChangeVoters(7, 0, 4)), ev.Answer)
    for at_ms in range(10, 6000, 10):
        answers += only(bench.at(at_ms), ev.Answer)
        document = bench.core.document
        assert document is not None
        if not bench.core.committed() and steps[-1:] != [(document.quorum.value, len(document.voters))]:
            steps.append((document.quorum.value, len(document.voters)))
        if at_ms % 100 == 0:
            for voter in (2, 3, 4):
                answers += only(bench.ack(at_ms, voter), ev.Answer)
    assert steps == [("majority", 4), ("majority", 3), ("half", 3)]
    assert [item.accepted for item in answers] == [True]


def test_p22_nothing_else_may_change_the_terms_of_half() -> None:
    """The last line of defence: whoever forgets the way over a majority ends this process."""
    bench = half_leader(size=4)
    document = bench.core.document
    assert document is not None
    for wrong in (
        replace(document, lease_ms=700),
        replace(document, tie_breaker="10.0.0.9"),
        document.without_voter(4, Cause.OPERATOR),
        replace(document, lease_ms=700, quorum=QuorumRule.MAJORITY),
    ):
        with pytest.raises(InvariantError):
            bench.core.propose(wrong)
    assert bench.core.document == document


def test_p22_a_cluster_is_founded_by_a_majority_rule_and_becomes_half_afterwards() -> None:
    bench = Bench(size=2, record=blank_record("c", 1, 101), quorum=QuorumRule.HALF)
    bench.start()
    bench.hear(1, 2, Hello(True, 1, Stamp(0, 0), True))
    founded = bench.core.document
    assert founded is not None and founded.quorum is QuorumRule.MAJORITY


def test_p22_a_renewal_from_before_l_became_smaller_gives_half_no_longer_lease() -> None:
    lease = Lease(1, 7, 1, 0)
    lease.renew(0, 10 * L_MS)
    lease.acknowledge(2, 1)
    now_ns = 400 * NS_PER_MS
    rule = HalfRule(now_ns, R_MS * NS_PER_MS, L_MS, None)
    assert lease.settle((1, 2, 3, 4), now_ns, rule)
    assert (lease.by_half, lease.until_ns) == (True, lease_end_ns(0, L_MS))


def by_half_with_two_of_four() -> Bench:
    """A leader of four that goes on with node 2 alone."""
    bench = half_leader(size=4)
    led_until(bench, 4000)
    for at_ms in range(4050, 6001, 50):
        bench.wait_until(at_ms)
        peers = tuple(ev.PeerView(node, Health.ALIVE if node == 2 else Health.DEAD, True, 9, 0) for node in (2, 3, 4))
        bench.at(at_ms, ev.Views(Health.ALIVE, "", peers, "", False, TIE_BREAKER, at_ms * NS_PER_MS, NS_PER_MS))
        bench.ack(at_ms, 2)
    assert bench.core.leads_by_half
    return bench


def test_p22_no_hand_over_is_asked_of_a_leader_by_half() -> None:
    bench = by_half_with_two_of_four()
    answers = only(bench.at(6001, ev.SwitchOver(7, 2)), ev.Answer)
    assert [(item.accepted, "half of the voters" in item.text) for item in answers] == [(False, True)]
    bench.core.settings = replace(bench.core.settings, preempt=True)
    bench.at(6002)
    assert (bench.core.state, bench.core.better_since_ns) == (State.LEADER, None)


def test_p22_a_leader_by_half_is_elected_again_after_slow_rounds() -> None:
    """R is a third of L: half of the voters is counted one R after the renewal."""
    bench = half_leader()
    bench.core.settings = replace(bench.core.settings, renew_ms=L_MS // 3)
    bench.core.round_ns = 2 * bench.core.settings.round_ns
    led_until(bench, 4000)
    bench.alone_until(6000)
    assert bench.core.leads_by_half
    bench.hear(6001, 2, RenewRefused(bench.core.record.term, bench.core.record.boot, 200))  # back, in a higher term
    assert len(sent(bench.alone_until(7000, peers=Health.ALIVE), PreVote)) > 0


def test_p22_a_dead_pgpool_comes_before_a_lease_by_half() -> None:
    bench = half_follower()
    states: list[State] = []
    while State.ELECTED not in states:
        bench.alone_until(bench.core.now_ns // NS_PER_MS + 50)
        states.append(bench.core.state)
    at_ns = bench.core.now_ns + (R_MS + 1) * NS_PER_MS
    views = replace(bench.core.views, pgpool=Health.DEAD, tie_breaker_ns=at_ns)
    assert only(bench.core.step(at_ns, views), ev.HoldVip) == []
    assert bench.core.state is State.STANDBY
