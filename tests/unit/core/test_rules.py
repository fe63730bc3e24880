"""The rules of PROTOCOL.md about lease, hand-over, document and commands: P1 to P9, P16, P17, P19 and P21.

Elections are in `test_election_rules`, voters in `test_voter_rules`. `rule_mutants` proves that each test bites.
"""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.bench import (
    L_MS,
    R_MS,
    WON,
    Bench,
    document,
    known_record,
    only,
    order,
    pre_vote,
    refusals,
    renew,
    sent,
    sent_to,
    vote,
)

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import (
    Ack,
    Granted,
    PreVote,
    Release,
    Renew,
    RenewRefused,
)
from pgvigil.watchdog.core.record import Intent, Stamp
from pgvigil.watchdog.core.states import State


def test_p01_the_leader_renews_every_r_to_every_node() -> None:
    bench = Bench()
    bench.lead()
    assert sent_to(bench.wait_until(R_MS - 1), Renew) == []
    assert sent_to(bench.wait_until(R_MS), Renew) == [2, 3]
    bench.ack(R_MS)
    assert sent_to(bench.wait_until(2 * R_MS), Renew) == [2, 3]


def test_p01_a_renewal_due_within_the_step_is_sent_at_once() -> None:
    bench = Bench(size=1, policy="once")
    bench.start()
    bench.at(50)
    assert bench.core.wake() is not None
    assert only(bench.wait_until(3000), ev.CloseGate) == []
    assert bench.core.state is State.LEADER


def test_p02_an_older_term_is_refused_and_the_newer_one_named() -> None:
    bench = Bench(me=3, record=known_record(3, term=7))
    bench.start()
    effects = bench.hear(1, 2, renew(term=6))
    assert sent(effects, RenewRefused) == [RenewRefused(6, 1, 7)]
    assert bench.core.promise is None


def test_p02_term_and_document_are_durable_before_the_acknowledgement() -> None:
    bench = Bench(me=3, record=known_record(3, promised_ms=L_MS))
    bench.start()
    newer = document(Stamp(4, 1))
    effects = bench.hear(1, 2, renew(term=4, doc=newer))
    assert order(effects)[-1] == "Ack"
    durable = only(effects, ev.Persist)[-1].record
    assert (durable.term, durable.document) == (4, newer)
    assert sent(effects, Ack) == [Ack(4, 1, 1, Stamp(4, 1))]


def test_p02_the_promise_runs_from_receipt_for_l() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(50, 2, renew(term=4))
    assert refusals(bench.hear(50 + L_MS - 1, 1, vote(5))) != []
    assert len(sent(bench.hear(50 + L_MS, 1, vote(5)), Granted)) == 1


def test_p02_a_higher_term_replaces_the_promise() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4))
    bench.hear(2, 1, renew(term=5))
    assert bench.core.promise is not None and bench.core.promise.leader == 1


def test_p03_the_leader_keeps_its_promise_to_itself_when_it_loses_the_lease() -> None:
    bench = Bench()
    bench.lead()
    bench.wait_until(990)
    assert bench.core.state is State.STANDBY
    assert refusals(bench.hear(991, 2, vote(9))) != []


def test_p03_a_smaller_lease_time_shortens_no_promise() -> None:
    bench = Bench(lease_ms=600)
    bench.start()
    bench.win()
    bench.ack(0)  # the lease runs until 990; the document of 600 ms is proposed in this very step
    bench.wait_until(1)
    bench.ack(1)
    assert bench.core.lease_held() and bench.core.lease_ns == 600 * NS_PER_MS
    bench.wait_until(2)
    assert bench.core.promise is not None
    assert bench.core.promise.until_ns >= L_MS * NS_PER_MS


def test_p03_a_voter_keeps_the_longer_promise_to_a_leader_elected_again() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4, lease_ms=3000))
    bench.hear(2, 2, renew(term=5, lease_ms=600))
    assert refusals(bench.hear(2900, 1, vote(6))) != []


def test_p04_the_lease_counts_from_sending_and_ends_before_l() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    effects = bench.ack(70)
    assert only(effects, ev.HoldVip) == [ev.HoldVip(990 * NS_PER_MS)]


def test_p04_a_majority_of_the_voters_is_needed() -> None:
    bench = Bench(size=5)
    bench.start()
    bench.win(voters=(2, 3))
    assert only(bench.ack(1, 2) + bench.ack(1, 2), ev.HoldVip) == []
    assert len(only(bench.ack(1, 3), ev.HoldVip)) == 1


def test_p04_acknowledgements_of_another_boot_are_ignored() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    assert only(bench.ack(1, boot=4), ev.HoldVip) == []


def test_p04_acknowledgements_of_another_record_are_ignored() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    lease = bench.core.lease
    assert lease is not None
    assert only(bench.hear(1, 2, Ack(lease.term, lease.boot, 1, Stamp(2, 1)), record_id=999), ev.HoldVip) == []


def test_p05_with_a_promise_votes_and_pre_votes_are_refused() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4))
    assert refusals(bench.hear(2, 1, vote(9))) == ["it has promised itself to n2"]
    assert refusals(bench.hear(2, 1, pre_vote(9))) == ["it has promised itself to n2"]


def test_p05_a_vote_neither_gives_nor_ends_a_promise() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, vote(4))
    assert bench.core.promise is None
    bench.hear(2, 2, renew(term=4))
    promise = bench.core.promise
    assert len(sent(bench.hear(3, 2, vote(5)), Granted)) == 1
    assert bench.core.promise is promise


def test_p06_a_leader_without_a_lease_steps_down() -> None:
    bench = Bench()
    bench.lead()
    effects = bench.wait_until(990)
    assert order(effects)[-2:] == ["CloseGate", "DropVip"]
    assert sent(bench.wait_until(1000), Renew) == []


def test_p06_an_elected_node_steps_down_l_after_it_won() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    bench.wait_until(L_MS - 1)
    assert bench.core.state is State.ELECTED
    bench.wait_until(L_MS)
    assert not bench.core.leading


def test_p06_until_the_first_majority_the_first_renewal_is_repeated() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    renewals = sent(bench.wait_until(3 * R_MS), Renew)
    assert len(renewals) == 6 and {item.sequence for item in renewals} == {1}
    assert only(bench.ack(700), ev.HoldVip) == [ev.HoldVip(990 * NS_PER_MS)]


def test_p06_a_repeated_or_older_renewal_prolongs_nothing() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(100, 2, renew(term=4, sequence=2))
    bench.hear(600, 2, renew(term=4, sequence=2))
    bench.hear(700, 2, renew(term=4, sequence=1))
    assert len(sent(bench.hear(100 + L_MS, 1, vote(5)), Granted)) == 1


def test_p07_a_renewal_of_a_higher_term_closes_the_gate_at_once() -> None:
    bench = Bench()
    bench.lead()
    effects = bench.hear(10, 2, renew(term=9))
    assert order(effects)[0] == "CloseGate"
    assert bench.core.lease is None and bench.core.state is State.STANDBY


def handing_over() -> Bench:
    """A leader that has just been told to hand over; the address is still on."""
    bench = Bench()
    bench.lead()
    bench.ack(0, 3)
    assert order(bench.at(10, ev.SwitchOver(7, 0)))[:2] == ["CloseGate", "DropVip"]
    return bench


def test_p08_stop_renewing_close_drop_persist_release() -> None:
    bench = handing_over()
    assert sent(bench.wait_until(500), Renew) == []
    assert refusals(bench.hear(501, 2, vote(9))) != []
    effects = bench.at(502, ev.VipDown())
    assert order(effects)[:3] == ["Persist", "Release", "Release"]
    assert only(effects, ev.Persist)[0].record.released_term == 2
    assert len(sent(bench.hear(503, 2, vote(9)), Granted)) == 1


def test_p08_without_the_address_gone_nothing_is_released() -> None:
    bench = handing_over()
    effects = bench.wait_until(990)
    assert sent(effects, Release) == [] and bench.core.record.released_term == 0
    assert refusals(bench.hear(995, 2, vote(9))) != []


def test_p08_a_promise_ends_only_for_the_same_leader_term_and_boot() -> None:
    for release, freed in [
        (Release(4, 1, 3, 0), True),
        (Release(4, 1, 4, 0), True),
        (Release(4, 1, 2, 0), False),
        (Release(4, 2, 3, 0), False),
        (Release(5, 1, 3, 0), False),
    ]:
        bench = Bench(me=3)
        bench.start()
        bench.hear(1, 2, renew(term=4, sequence=3))
        bench.hear(2, 2, release)
        assert (bench.core.promise is None) is freed, release
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4, sequence=3))
    bench.hear(2, 1, Release(4, 1, 3, 0))
    assert bench.core.promise is not None


def test_p08_a_release_counts_also_for_a_voter_that_has_voted_higher() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4))
    bench.hear(2, 2, vote(6))
    bench.hear(3, 2, Release(4, 1, 1, 0))
    assert bench.core.promise is None


def test_p08_a_released_term_is_over() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 2, renew(term=4))
    bench.hear(2, 2, Release(4, 1, 1, 0))
    assert sent(bench.hear(3, 2, renew(term=4, sequence=2)), Ack) == []
    assert bench.core.promise is None


def test_p08_an_overtaken_hand_over_still_answers_its_operator() -> None:
    bench = handing_over()
    answers = only(bench.hear(11, 3, renew(term=9)), ev.Answer)
    assert [answer.request_id for answer in answers] == [7]


def test_p09_a_hand_over_needs_a_successor() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(0, 3)
    bench.see(5, electable=False)
    assert [answer.accepted for answer in only(bench.at(10, ev.SwitchOver(7, 0)), ev.Answer)] == [False]
    bench.see(11, peers=Health.DEAD)
    assert [answer.accepted for answer in only(bench.at(12, ev.SwitchOver(7, 0)), ev.Answer)] == [False]
    bench.at(450)  # so late that it doubts its verdicts: good enough for a rank, not for a hand-over
    assert [answer.accepted for answer in only(bench.at(451, ev.SwitchOver(7, 0)), ev.Answer)] == [False]
    assert bench.core.state is State.LEADER


def test_p09_the_successor_must_have_the_document() -> None:
    bench = Bench()
    bench.lead()
    bench.core.stored.clear()
    assert [answer.accepted for answer in only(bench.at(12, ev.SwitchOver(7, 0)), ev.Answer)] == [False]


def test_p09_the_releasing_node_does_not_stand_for_a_while() -> None:
    bench = handing_over()
    bench.at(20, ev.VipDown())
    assert sent(bench.wait_until(20 + L_MS + 3 * R_MS // 2 - 1), PreVote) == []
    assert len(sent(bench.wait_until(20 + L_MS + 3 * R_MS // 2 + R_MS), PreVote)) == 2


def test_p16_committed_means_this_stamp_in_the_own_term_by_a_majority() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    lease = bench.core.lease
    assert lease is not None
    bench.hear(1, 2, Ack(lease.term, lease.boot, 1, Stamp(1, 1)))
    assert bench.core.lease_held() and not bench.core.committed()
    bench.hear(2, 3, Ack(lease.term, lease.boot, 1, Stamp(2, 1)))
    assert bench.core.committed()


def test_p16_a_lost_record_counts_for_no_commit() -> None:
    bench = Bench()
    bench.start()
    bench.win()
    lease = bench.core.lease
    assert lease is not None
    bench.hear(1, 2, Ack(lease.term, lease.boot, 1, Stamp(2, 1)), record_id=999)
    bench.hear(1, 3, Ack(lease.term, lease.boot, 1, Stamp(1, 1)))
    assert bench.core.lease_held() and not bench.core.committed()


def test_p16_a_version_is_durable_before_it_is_sent() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(1, 3)
    effects = bench.at(2, ev.ChangeVoters(7, 0, 3))
    assert order(effects)[:3] == ["Persist", "Renew", "Renew"]
    assert only(effects, ev.Persist)[0].record.stamp == Stamp(2, 2)


def test_p16_what_was_sent_but_not_committed_is_unknown() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(1, 3)
    bench.at(2, ev.ChangeVoters(7, 0, 3))
    answers = only(bench.wait_until(990), ev.Answer)
    assert [(answer.request_id, answer.text.split(":")[0]) for answer in answers] == [(7, "unknown")]


def intent(policy: str, term: int = 1, boot: int = 4) -> Intent:
    """An intent that an earlier incarnation left pending."""
    return Intent("escalation", f"term {term}", policy, term, boot, 1, "pending")


def resumed_with(policy: str) -> tuple[Bench, list[ev.Effect]]:
    """A leader that resumes a term in which its last incarnation meant to run a command."""
    bench = Bench(record=replace(WON, document=document(intents=(intent(policy),))), policy=policy)
    bench.start()
    effects = bench.ack(1) + bench.wait_until(2) + bench.ack(3) + bench.wait_until(4)
    return bench, effects


def test_p17_a_command_starts_after_its_commit() -> None:
    bench = Bench(policy="once")
    effects = bench.lead() + bench.wait_until(1)
    assert only(effects, ev.StartCommand) == []
    effects = bench.ack(2)
    assert [item.intent.token for item in only(effects, ev.StartCommand)] == [1]
    assert only(bench.ack(3, 3) + bench.wait_until(400), ev.StartCommand) == []


def test_p17_once_is_never_started_by_another_incarnation() -> None:
    bench, effects = resumed_with("once")
    assert only(effects, ev.StartCommand) == []
    assert bench.core.document is not None
    assert [item.state for item in bench.core.document.intents] == ["unknown"]


def test_p17_retry_is_started_again_under_a_new_token() -> None:
    _, effects = resumed_with("retry")
    assert [(item.intent.token, item.intent.boot) for item in only(effects, ev.StartCommand)] == [(2, 5)]


def test_p19_l_is_that_of_the_document() -> None:
    bench = Bench(record=known_record(document=document(lease_ms=3000)))
    effects = bench.start() + bench.win() + bench.ack(0)
    assert only(effects, ev.HoldVip) == [ev.HoldVip(2970 * NS_PER_MS)]


def test_p19_a_larger_l_is_durable_before_the_first_promise_of_it() -> None:
    bench = Bench(me=3)
    bench.start()
    effects = bench.hear(1, 2, renew(term=1, lease_ms=5000))
    assert order(effects) == ["Persist", "Ack"]
    assert only(effects, ev.Persist)[0].record.promised_ms == 5000
    leader = Bench(lease_ms=4000)
    effects = leader.lead() + leader.wait_until(1)
    durable = [item.record for item in only(effects, ev.Persist) if item.record.stamp == Stamp(2, 2)]
    assert [item.promised_ms for item in durable] == [4000]  # one write for both
    assert sent(effects, Renew)[-1].lease_ms == 4000


def test_p19_a_larger_l_of_another_leaders_document_is_durable_before_a_renewal_of_it() -> None:
    newer = replace(document(lease_ms=5000), stamp=Stamp(9, 4))  # taken as a candidate, before a restart
    bench = Bench(record=replace(WON, document=newer))
    effects = bench.at(0, ev.Started())
    assert order(effects) == ["KeepVip", "Persist", "Renew", "Renew"]
    assert only(effects, ev.Persist)[0].record.promised_ms == sent(effects, Renew)[0].lease_ms == 5000


def test_p21_a_command_is_told_the_end_of_the_lease() -> None:
    bench = Bench(policy="once")
    bench.lead()
    bench.wait_until(1)
    starts = only(bench.ack(2), ev.StartCommand)
    lease = bench.core.lease
    assert lease is not None
    assert [item.lease_end_ns for item in starts] == [lease.until_ns]
