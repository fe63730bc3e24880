"""Every rule of PROTOCOL.md that lies in the core, by its number. `mutants.py` proves that each test bites."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.bench import (
    L_MS,
    R_MS,
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

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreRemoval
from pgvigil.watchdog.core.engine import restart_wait_ns
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import (
    Ack,
    AskVoters,
    Found,
    Granted,
    Hello,
    Outcome,
    PreVote,
    Refused,
    Release,
    Renew,
    RenewRefused,
    RoundId,
    TellVoters,
    Vote,
)
from pgvigil.watchdog.core.record import Cause, Intent, Record, Removed, Stamp, Voter, blank_record
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.core.voters import WISH_NS

WON = known_record(won_term=1, voted_for=1, promised_ms=L_MS)


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


def test_p10_a_node_stands_after_its_rank_times_the_stagger() -> None:
    bench = Bench(me=3)
    bench.start()
    assert sent(bench.wait_until(R_MS - 1), PreVote) == []
    assert sent_to(bench.wait_until(R_MS), PreVote) == [1, 2]


def test_p10_a_live_promise_keeps_a_node_from_standing() -> None:
    bench = Bench()
    bench.at(0, ev.Started())
    bench.hear(0, 2, renew(term=1))
    bench.see(0)
    assert sent(bench.wait_until(L_MS - 1), PreVote) == []
    assert len(sent(bench.wait_until(L_MS), PreVote)) == 2


def test_p10_witness_sick_or_waiting_nodes_never_stand() -> None:
    witness = Bench(witnesses=(1,))
    assert sent(witness.start() + witness.wait_until(3000), PreVote) == []
    sick = Bench()
    sick.at(0, ev.Started())
    assert sent(sick.see(0, pgpool=Health.DEAD) + sick.wait_until(3000), PreVote) == []
    assert len(sent(sick.see(3000), PreVote)) == 2
    paused = Bench(record=replace(WON, document=replace(document(), paused=True), voted_for=2))
    assert sent(paused.start() + paused.wait_until(3000), PreVote) == []


def test_p11_a_pre_vote_changes_nothing() -> None:
    bench = Bench(me=3)
    bench.start()
    record = bench.core.record
    assert order(bench.hear(1, 1, pre_vote(9))) == ["Granted"]
    assert bench.core.record is record and bench.core.promise is None


def test_p11_the_vote_is_durable_before_the_grant_and_given_once() -> None:
    bench = Bench(me=3)
    bench.start()
    effects = bench.hear(1, 1, vote(9))
    assert order(effects) == ["Persist", "Granted"]
    durable = only(effects, ev.Persist)[0].record
    assert (durable.term, durable.voted_for) == (9, 1)
    assert refusals(bench.hear(2, 2, vote(9))) == ["it has voted for n1 in term 9"]
    assert len(sent(bench.hear(3, 1, vote(9)), Granted)) == 1
    assert refusals(bench.hear(4, 2, vote(8))) != []


def test_p11_the_own_vote_is_durable_before_votes_are_asked_for() -> None:
    bench = Bench()
    bench.start()
    effects = bench.hear(1, 2, Granted(RoundId(5, 1), 2, False))
    assert order(effects) == ["Persist", "Vote", "Vote"]
    durable = only(effects, ev.Persist)[0].record
    assert (durable.term, durable.voted_for, durable.won_term) == (2, 1, 0)


def test_p11_an_older_document_is_refused_with_the_newer_one() -> None:
    bench = Bench(me=3)
    bench.start()
    for message in (pre_vote(9, Stamp(1, 0)), vote(9, Stamp(1, 0))):
        assert [refused.document for refused in sent(bench.hear(1, 1, message), Refused)] == [document()]


def test_p11_the_candidate_takes_the_newer_document_and_asks_again_at_once() -> None:
    bench = Bench()
    bench.start()
    newer = document(Stamp(3, 4))
    effects = bench.hear(1, 2, Refused(RoundId(5, 1), 2, False, 3, "older", newer))
    assert order(effects) == ["Persist", "PreVote", "PreVote"]
    assert [item.stamp for item in sent(effects, PreVote)] == [Stamp(3, 4)] * 2


def test_p11_answers_of_other_rounds_do_not_count() -> None:
    bench = Bench()
    bench.start()
    assert bench.hear(1, 2, Granted(RoundId(4, 1), 2, False)) == []
    assert bench.hear(1, 2, Granted(RoundId(5, 1), 2, True)) == []
    assert bench.hear(1, 2, Granted(RoundId(5, 1), 2, False), record_id=999) == []


def test_p12_terms_named_in_refusals_are_remembered() -> None:
    bench = Bench()
    bench.start()
    for voter in (2, 3):
        bench.hear(1, voter, Refused(RoundId(5, 1), 2, False, 40, "no", None))
    assert bench.core.record.term == 1
    asked = sent(bench.wait_until(R_MS + 1), PreVote)
    assert {item.term for item in asked} == {41}


def test_p12_a_leader_that_hears_of_a_higher_term_has_itself_elected_with_the_gate_open() -> None:
    bench = Bench()
    bench.lead()
    effects = bench.hear(100, 3, RenewRefused(2, 5, 40))
    assert [item.term for item in sent(effects, PreVote)] == [41, 41]
    effects = bench.win(110) + bench.at(120)
    assert only(effects, ev.CloseGate) == []
    assert bench.core.state is State.LEADER and bench.core.lease_held()
    assert bench.core.record.won_term == 41
    assert only(bench.wait_until(989), ev.CloseGate) == []
    assert len(only(bench.wait_until(990), ev.CloseGate)) == 1


def test_p13_a_lost_round_is_followed_by_a_random_pause() -> None:
    pauses = []
    for draw in (0, 150 * NS_PER_MS):
        bench = Bench(draw=draw)
        bench.start()
        bench.hear(1, 2, Refused(RoundId(5, 1), 2, False, 1, "no", None))
        bench.hear(1, 3, Refused(RoundId(5, 1), 2, False, 1, "no", None))
        assert bench.core.state is State.STANDBY  # as soon as it cannot be won
        pauses.append(bench.core.wake())
    assert pauses == [1 * NS_PER_MS + 1, 151 * NS_PER_MS + 1]


def test_p13_a_round_ends_at_its_time_limit() -> None:
    bench = Bench()
    bench.start()
    bench.wait_until(R_MS)
    assert bench.core.state is State.STANDBY


def test_p13_the_worse_ranked_steps_back_the_better_refuses() -> None:
    better = Bench()
    better.start()
    assert refusals(better.hear(1, 2, pre_vote(9))) == ["it ranks before the candidate and asks itself"]
    worse = Bench(me=2)
    worse.start()
    worse.wait_until(R_MS // 2)
    assert len(sent(worse.hear(101, 1, pre_vote(9)), Granted)) == 1
    assert worse.core.state is State.STANDBY
    assert len(sent(worse.wait_until(101 + R_MS), PreVote)) == 2
    assert refusals(worse.hear(302, 1, pre_vote(9))) == ["it stepped back a round ago"]


def test_p13_after_a_vote_pre_votes_of_others_are_refused_for_a_round() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 1, vote(9))
    assert refusals(bench.hear(2, 2, pre_vote(10))) == ["it has just voted for n1"]
    assert len(sent(bench.hear(2, 1, pre_vote(10)), Granted)) == 1
    assert len(sent(bench.hear(1 + R_MS, 2, pre_vote(10)), Granted)) == 1


def _votes_in_vain(bench: Bench) -> tuple[int, int]:
    """Pre-votes are granted at once, votes never: what the round told the voters, and how long it lasted; in ms."""
    bench.wait_until(bench.core.now_ns / NS_PER_MS + 2)  # the pause
    asked = bench.core.round
    assert asked is not None and not asked.real
    begin_ms = bench.core.now_ns / NS_PER_MS
    votes = sent(bench.hear(begin_ms, 2, Granted(asked.round_id, asked.term, False)), Vote)
    while bench.core.state is State.VOTING:
        bench.wait_until(bench.core.now_ns / NS_PER_MS + 1)
    return votes[0].round_ms, round(bench.core.now_ns / NS_PER_MS - begin_ms)


def test_p13_rounds_of_votes_that_end_too_early_grow_up_to_l() -> None:
    bench = Bench()
    bench.start()
    assert [_votes_in_vain(bench) for _ in range(5)] == [(0, 200), (400, 400), (800, 800), (1000, 1000), (1000, 1000)]


def test_p13_pre_votes_write_nothing_and_keep_their_limit() -> None:
    bench = Bench()
    bench.start()
    for _ in range(4):
        bench.wait_until(bench.core.now_ns / NS_PER_MS + R_MS + 1)
    bench.wait_until(bench.core.now_ns / NS_PER_MS + 2)
    assert _votes_in_vain(bench) == (0, 200)


def _answered_after(answered_after_ms: int) -> int:
    """The limit in ms after a round of 400 ms in which a majority said no at that time."""
    bench = Bench()
    bench.start()
    assert _votes_in_vain(bench) == (0, 200)
    bench.wait_until(bench.core.now_ns / NS_PER_MS + 2)
    asked, now_ms = bench.core.round, bench.core.now_ns / NS_PER_MS
    assert asked is not None
    vote_round = sent(bench.hear(now_ms, 2, Granted(asked.round_id, asked.term, False)), Vote)[0]
    for voter in (2, 3):
        no = Refused(vote_round.round_id, vote_round.term, True, 1, "no", None)
        bench.hear(now_ms + answered_after_ms, voter, no)
    assert bench.core.state is State.STANDBY
    return bench.core.round_ns // NS_PER_MS


def test_p13_quick_answers_make_rounds_of_votes_shorter_again() -> None:
    assert [_answered_after(ms) for ms in (1, 100, 101, 399)] == [200, 200, 400, 400]


def test_p13_a_voter_waits_for_as_long_as_the_candidate_said_it_needs() -> None:
    for told_ms, waits_ms in ((100, R_MS), (400, 600), (5000, 1500)):
        bench = Bench(me=3)
        bench.start()
        bench.hear(1, 1, replace(vote(9), round_ms=told_ms))
        asked = sent(bench.wait_until(waits_ms), PreVote)
        assert asked == [] and refusals(bench.hear(waits_ms, 2, pre_vote(10))) == ["it has just voted for n1"]
        assert len(sent(bench.hear(1 + waits_ms, 2, pre_vote(10)), Granted)) == 1


def test_p10_the_stagger_grows_with_the_rounds() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.core.round_ns = 800 * NS_PER_MS
    assert sent(bench.wait_until(799), PreVote) == []
    assert sent_to(bench.wait_until(800), PreVote) == [1, 2]


def test_p12_with_slow_disks_a_leader_is_elected_again_right_after_a_renewal() -> None:
    bench = Bench()
    bench.lead()
    bench.core.round_ns = 400 * NS_PER_MS
    bench.renewed_until(R_MS, 2)
    bench.wait_until(500)
    assert sent(bench.hear(500, 3, RenewRefused(2, 5, 7)), PreVote) == []  # 700 of 1000 ms are left
    assert {message.term for message in sent(bench.ack(501), PreVote)} == {8}


def test_p14_a_restarted_node_neither_votes_nor_stands() -> None:
    bench = Bench(wait_ms=1000)
    assert sent(bench.start(), PreVote) == []
    assert (
        refusals(bench.hear(999, 2, vote(9)) + bench.hear(999, 2, pre_vote(9)))
        == ["it waits 1 ms after its restart"] * 2
    )
    assert sent(bench.wait_until(999), PreVote) == []
    assert len(sent(bench.wait_until(1000), PreVote)) == 2


def test_p14_a_resumed_leader_waits_before_it_has_itself_elected_again() -> None:
    bench = Bench(record=WON, wait_ms=1000)
    bench.start()
    bench.ack(1)
    assert bench.core.state is State.LEADER
    assert sent(bench.hear(2, 3, RenewRefused(1, 5, 40)), PreVote) == []
    for now_ms in range(200, 1000, 200):
        bench.wait_until(now_ms)
        bench.ack(now_ms)
    assert len(sent(bench.wait_until(1000), PreVote)) == 2


def test_p14_the_wait_is_the_largest_l_promised() -> None:
    now_ns = 300 * NS_PER_MS
    assert restart_wait_ns(2000, False, now_ns) == 2300 * NS_PER_MS
    assert restart_wait_ns(2000, True, now_ns) == now_ns


def test_p14_a_clean_stop_needs_no_promise_and_no_wait() -> None:
    def clean(bench: Bench) -> bool:
        effects = bench.at(10, ev.Stop(StopMode.SMART))
        assert order(effects)[-1] == "Finished"
        return bench.core.record.clean_stop

    free, promised, waiting = Bench(me=3), Bench(me=3), Bench(me=3, wait_ms=500)
    for bench in (free, promised, waiting):
        bench.start()
    promised.hear(1, 2, renew())
    assert (clean(free), clean(promised), clean(waiting)) == (True, False, False)


def test_p15_the_won_term_and_the_document_are_durable_before_the_first_renewal() -> None:
    bench = Bench()
    bench.start()
    effects = bench.win()
    assert order(effects)[-4:] == ["Vote", "Persist", "Renew", "Renew"]
    durable = only(effects, ev.Persist)[-1].record
    assert durable.won_term == 2 and durable.stamp == Stamp(2, 1) and durable.promised_ms == L_MS


def test_p15_a_leader_resumes_with_renewals_and_nothing_more() -> None:
    bench = Bench(record=WON, wait_ms=1000)
    effects = bench.at(0, ev.Started())
    assert order(effects) == ["KeepVip", "Renew", "Renew"]
    assert {(item.term, item.boot) for item in sent(effects, Renew)} == {(1, 5)}
    assert not bench.core.lease_held() and not bench.core.committed()
    assert len(only(bench.ack(1), ev.HoldVip)) == 1
    assert bench.core.committed()


def test_p15_only_a_won_unreleased_term_of_an_electable_voter_is_resumed() -> None:
    for record in (
        known_record(voted_for=1),  # a vote for oneself is not a won term
        replace(WON, term=2, voted_for=1),
        replace(WON, released_term=1),
        replace(WON, document=replace(document(), paused=True)),
        replace(WON, document=document(voters=(2, 3))),
        replace(WON, record_id=999),
    ):
        bench = Bench(record=record)
        effects = bench.at(0, ev.Started())
        assert order(effects) == ["CloseGate", "DropVip"], record
    assert order(Bench(record=WON, witnesses=(1,)).at(0, ev.Started())) == ["CloseGate", "DropVip"]


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


def test_p18_voters_come_from_the_document() -> None:
    record = known_record(document=document(voters=(1, 2)))
    bench = Bench(record=record)
    assert sent_to(bench.start(), PreVote) == [2]


def test_p18_a_node_that_is_not_named_only_follows() -> None:
    bench = Bench(me=3, record=known_record(3, record_id=999))
    bench.start()
    assert refusals(bench.hear(1, 1, vote(9, Stamp(1, 1)))) == ["it is no voter"]
    assert sent(bench.wait_until(3000), PreVote) == []
    assert len(sent(bench.hear(3001, 2, renew(term=3)), Ack)) == 1
    bound = replace(document(Stamp(3, 2)), voters=(Voter(1, 101), Voter(2, 102), Voter(3, 999)))
    bench.hear(3002, 2, renew(term=3, sequence=2, doc=bound))
    assert bench.core.state is State.STANDBY


def test_p18_whoever_a_newer_document_may_name_votes_for_it() -> None:
    """Else a cluster of one that adds a second voter and stops before that one has heard of it never leads again."""
    bench = Bench(me=2, size=2, record=known_record(2, document=document(voters=(1,))))
    bench.start()
    assert len(sent(bench.hear(1, 1, pre_vote(9, Stamp(1, 2))), Granted)) == 1
    assert order(bench.hear(2, 1, vote(9, Stamp(1, 2)))) == ["Persist", "Granted"]
    blank = Bench(me=2, size=2, record=blank_record("c", 2, 102))
    blank.start()
    assert refusals(blank.hear(1, 1, vote(9, Stamp(1, 2)))) == ["it is no voter"]


def test_p18_one_change_of_the_voters_at_a_time() -> None:
    bench = Bench(size=5, record=known_record(document=document(size=4)))
    bench.start()
    bench.win(voters=(2, 3))
    for node in (2, 3, 4, 5):
        bench.ack(0, node)

    def refused(now_ms: float, add: int, remove: int) -> bool:
        return [answer.accepted for answer in only(bench.at(now_ms, ev.ChangeVoters(7, add, remove)), ev.Answer)] == [
            False
        ]

    assert refused(1, 0, 1)  # the leader itself
    assert refused(1, 5, 3)  # two at once
    assert not refused(2, 0, 4)
    assert refused(3, 0, 3)  # not committed yet
    assert refused(4, 4, 0)
    assert bench.core.voter_ids == (1, 2, 3)


def test_p18_changes_wait_for_the_commit_of_the_own_term() -> None:
    bench = Bench(size=5)
    bench.start()
    bench.win(voters=(2, 3))
    lease = bench.core.lease
    assert lease is not None
    for voter in (2, 3, 4, 5):
        bench.hear(0, voter, Ack(lease.term, lease.boot, 1, Stamp(1, 1)))
    assert bench.core.state is State.LEADER
    answers = only(bench.at(1, ev.ChangeVoters(7, 0, 5)), ev.Answer)
    assert [(answer.accepted, "not committed" in answer.text) for answer in answers] == [(False, True)]


def test_p18_a_voter_is_added_with_the_record_under_which_it_follows() -> None:
    bench = Bench(record=known_record(document=document(voters=(1, 2))))
    bench.lead()
    assert [item.accepted for item in only(bench.at(1, ev.ChangeVoters(7, 3, 0)), ev.Answer)] == [False]
    lease = bench.core.lease
    assert lease is not None
    bench.hear(2, 3, Ack(lease.term, lease.boot, 1, Stamp(2, 1)), record_id=777)
    bench.at(3, ev.ChangeVoters(7, 3, 0))
    assert bench.core.document is not None
    assert bench.core.document.voter(3) == Voter(3, 777)


def test_p18_no_change_may_leave_the_cluster_without_a_majority() -> None:
    bench = Bench()
    bench.lead()  # node 3 has never answered
    assert [item.accepted for item in only(bench.at(1, ev.ChangeVoters(7, 0, 2)), ev.Answer)] == [False]


def test_p18_a_voter_that_lost_its_record_is_none_of_those_who_remain() -> None:
    bench = Bench()
    bench.lead()
    lease = bench.core.lease
    assert lease is not None
    # Node 3 follows and has the document, but under another record than the one that the document names.
    bench.hear(1, 3, Ack(lease.term, lease.boot, lease.sequence, bench.core.record.stamp), record_id=999)
    assert [item.accepted for item in only(bench.at(2, ev.ChangeVoters(7, 0, 2)), ev.Answer)] == [False]
    assert bench.core.voter_ids == (1, 2, 3)


def asked(answers: list[ev.Effect]) -> list[tuple[Outcome, str]]:
    """The answers for another node's operator: outcome and the first word."""
    return [(item.outcome, item.text.split(":")[0].split()[0]) for item in sent(answers, TellVoters)]


def test_p18_a_late_copy_of_a_wish_changes_nothing() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(1, 3)
    remove = AskVoters(1, 7, 0, 3, 1, Cause.OPERATOR)
    assert asked(bench.hear(2, 2, remove)) == []
    assert asked(bench.ack(3, 2)) == [(Outcome.DONE, "n3")]
    assert asked(bench.hear(4, 2, remove)) == [(Outcome.DONE, "n3")]  # what it wanted is so
    bench.ack(5, 3)
    bench.at(6, ev.ChangeVoters(7, 3, 0))
    bench.ack(7, 2)
    bench.ack(7, 3)
    assert bench.core.voter_ids == (1, 2, 3) and bench.core.committed()
    assert asked(bench.hear(8, 2, remove)) == [(Outcome.REFUSED, "refused")]
    assert bench.core.voter_ids == (1, 2, 3)


def test_p18_a_wish_is_passed_on_and_repeated_until_it_is_answered() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 1, renew(term=4))
    first = AskVoters(5, 7, 0, 2, 1, Cause.OPERATOR)
    effects = bench.at(2, ev.ChangeVoters(7, 0, 2))
    assert (sent(effects, AskVoters), sent_to(effects, AskVoters)) == ([first], [1])
    again = bench.at(3, ev.ChangeVoters(8, 0, 1))
    assert [(item.request_id, item.accepted) for item in only(again, ev.Answer)] == [(8, False)]
    assert sent(bench.wait_until(2 + R_MS), AskVoters) == [first]
    bench.hear(210, 1, TellVoters(5, 7, Outcome.BUSY, "not now"))
    assert sent(bench.wait_until(2 + 2 * R_MS), AskVoters) == [first]
    answers = only(bench.hear(410, 1, TellVoters(5, 7, Outcome.DONE, "n2 is no voter")), ev.Answer)
    assert [(item.request_id, item.accepted, item.final) for item in answers] == [(7, True, True)]
    assert sent(bench.wait_until(900), AskVoters) == []


def test_p18_a_wish_that_a_leader_was_asked_ends_unknown() -> None:
    bench = Bench(me=3)
    bench.start()
    alone = only(bench.at(1, ev.ChangeVoters(6, 0, 2)), ev.Answer)
    assert [(item.request_id, item.text.split(":")[0]) for item in alone] == [(6, "refused")]
    bench.hear(2, 1, renew(term=4))
    bench.at(3, ev.ChangeVoters(7, 0, 2))
    late = only(bench.wait_until(3 + WISH_NS // NS_PER_MS), ev.Answer)
    assert [(item.request_id, item.accepted, item.text.split(":")[0]) for item in late] == [(7, False, "unknown")]


def test_p18_an_answer_counts_for_its_own_wish_only() -> None:
    bench = Bench(me=3)
    bench.start()
    bench.hear(1, 1, renew(term=4))
    bench.at(2, ev.ChangeVoters(7, 0, 2))
    for boot, request_id in ((4, 7), (5, 6)):
        assert only(bench.hear(3, 1, TellVoters(boot, request_id, Outcome.DONE, "")), ev.Answer) == []
    assert len(only(bench.hear(4, 1, TellVoters(5, 7, Outcome.REFUSED, "no")), ev.Answer)) == 1


def test_p18_a_repeated_wish_is_proposed_once_and_answered_at_the_commit() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(1, 3)
    ask = AskVoters(9, 7, 0, 3, 1, Cause.LEFT)
    assert order(bench.hear(2, 3, ask))[0] == "Persist"
    assert order(bench.hear(3, 3, ask)) == []
    assert asked(bench.hear(4, 2, AskVoters(9, 7, 0, 3, 1, Cause.OPERATOR))) == [(Outcome.BUSY, "another")]
    effects = bench.ack(5, 2)
    assert (asked(effects), sent_to(effects, TellVoters)) == ([(Outcome.DONE, "n3")], [3])
    assert bench.core.document is not None
    assert bench.core.document.removed == (Removed(3, 103, Cause.LEFT),)


def test_p18_a_leader_that_leaves_hands_over_first_and_then_asks_the_next_one() -> None:
    bench = Bench()
    bench.lead()
    bench.ack(1, 3)
    assert order(bench.at(2, ev.Leave(7)))[:2] == ["CloseGate", "DropVip"]
    assert bench.core.voter_ids == (1, 2, 3)
    bench.at(3, ev.VipDown())
    effects = bench.hear(4, 2, renew(term=3))
    assert [(item.final, item.accepted) for item in only(effects, ev.Answer)] == [(False, True)]
    assert sent_to(effects, AskVoters) == [2]
    effects = bench.hear(5, 2, TellVoters(5, 7, Outcome.DONE, "n1 is no voter any more"))
    assert [(item.request_id, item.final, item.accepted) for item in only(effects, ev.Answer)] == [(7, True, True)]


def test_p18_a_voter_that_lost_its_record_is_not_added_over_itself() -> None:
    bench = Bench()
    bench.lead()
    bench.hear(1, 3, Ack(2, 5, 1, Stamp(2, 1)), record_id=999)
    answers = only(bench.at(2, ev.ChangeVoters(7, 3, 0)), ev.Answer)
    assert [(item.accepted, "node remove" in item.text) for item in answers] == [(False, True)]


LOST = CoreRemoval(lost_ms=3000)
ONE_DEAD = {2: Health.ALIVE, 3: Health.DEAD}


def missing_one(removal: CoreRemoval = LOST, record: Record | None = None) -> Bench:
    """A leader of three at 0 ms, of which the third is dead from then on."""
    bench = Bench(removal=removal, record=record)
    bench.lead()
    bench.ack(0, 2)
    bench.see_all(0, ONE_DEAD)
    return bench


def test_p18_a_lost_voter_is_removed_when_its_time_is_over() -> None:
    bench = missing_one()
    bench.renewed_until(2999, 2)
    assert bench.core.voter_ids == (1, 2, 3)
    bench.renewed_until(3001, 2)
    known = bench.core.document
    assert known is not None and known.removed == (Removed(3, 103, Cause.LOST),)
    assert [voter.node_id for voter in known.voters] == [1, 2] and bench.core.committed()
    never = missing_one(CoreRemoval(no_show_ms=3000))
    never.renewed_until(60_000, 2)
    assert never.core.voter_ids == (1, 2, 3)


def test_p18_a_voter_that_never_came_has_a_time_of_its_own() -> None:
    named = replace(document(), voters=(Voter(1, 101), Voter(2, 102), Voter(3, 0)))
    bench = missing_one(CoreRemoval(no_show_ms=3000), known_record(document=named))
    bench.renewed_until(3001, 2)
    assert bench.core.document is not None
    assert bench.core.document.removed == (Removed(3, 0, Cause.NO_SHOW),)
    bound = missing_one(LOST, known_record(document=named))
    bound.renewed_until(6000, 2)
    assert bound.core.voter_ids == (1, 2, 3)


def test_p18_only_certain_and_unbroken_absence_counts() -> None:
    unknown = missing_one()
    unknown.renewed_until(2000, 2)
    unknown.see_all(2000, {2: Health.ALIVE, 3: Health.UNKNOWN})
    unknown.see_all(2100, ONE_DEAD)
    unknown.renewed_until(5000, 2)
    assert unknown.core.voter_ids == (1, 2, 3)
    answers = missing_one()
    answers.renewed_until(2000, 2)
    answers.ack(2000, 3)  # dead for lifecheck, but it answers
    answers.renewed_until(4900, 2)
    assert answers.core.voter_ids == (1, 2, 3)
    doubts = missing_one()
    doubts.renewed_until(2000, 2)
    doubts.core.expected_wake_ns = 1000 * NS_PER_MS  # this process stood still
    doubts.at(2001)
    doubts.ack(2001, 2)
    doubts.renewed_until(4900, 2)
    assert doubts.core.voter_ids == (1, 2, 3)


def test_p18_removal_leaves_a_majority_that_is_here_and_takes_one_at_a_time() -> None:
    bench = Bench(size=5, removal=LOST)
    bench.start()
    bench.win(voters=(2, 3))
    for voter in (2, 3):
        bench.ack(0, voter)
    bench.see_all(0, {2: Health.ALIVE, 3: Health.ALIVE, 4: Health.DEAD, 5: Health.DEAD})
    bench.renewed_until(2900, 2, 3)
    bench.wait_until(3001)
    assert bench.core.voter_ids == (1, 2, 3, 5)
    assert bench.core.wake() is not None
    bench.wait_until(3050)
    assert bench.core.voter_ids == (1, 2, 3, 5)  # not committed yet
    few = Bench(size=4, removal=LOST)
    few.start()
    few.win(voters=(2, 3))
    few.ack(0, 2)
    few.ack(0, 3)
    few.see_all(0, {2: Health.DEAD, 3: Health.DEAD, 4: Health.DEAD})  # 2 and 3 answer, but lifecheck has lost them
    few.renewed_until(4000, 2, 3)
    assert few.core.voter_ids == (1, 2, 3, 4)


def test_p18_a_removed_node_is_added_again_with_the_record_it_had() -> None:
    def back(cause: Cause, record_id: int) -> tuple[int, ...]:
        known = replace(document(voters=(1, 2)), removed=(Removed(3, 103, cause),))
        bench = Bench(record=known_record(document=known))
        bench.lead()
        lease = bench.core.lease
        assert lease is not None
        for now_ms in range(0, 2400, 100):
            bench.wait_until(now_ms)
            bench.ack(now_ms, 2)
            newest = Ack(lease.term, lease.boot, lease.sequence, bench.core.record.stamp)
            bench.hear(now_ms, 3, newest, record_id=record_id)
            if now_ms < 2000:
                assert bench.core.voter_ids == (1, 2)
        return bench.core.voter_ids

    assert back(Cause.LOST, 103) == back(Cause.SHUTDOWN, 103) == back(Cause.NO_SHOW, 103) == (1, 2, 3)
    assert back(Cause.LOST, 999) == (1, 2)  # it has lost its word
    assert back(Cause.OPERATOR, 103) == back(Cause.LEFT, 103) == (1, 2)


def test_p18_a_node_that_is_stopped_asks_to_be_removed_first() -> None:
    bench = Bench(me=3, removal=CoreRemoval(shutdown=True))
    bench.start()
    bench.hear(1, 1, renew(term=4))
    effects = bench.at(2, ev.Stop(StopMode.SMART))
    assert sent(effects, AskVoters) == [AskVoters(5, 0, 0, 3, 1, Cause.SHUTDOWN)]
    assert only(effects, ev.Finished) == []
    gone = document(Stamp(4, 2), voters=(1, 2))
    assert len(only(bench.hear(5, 1, renew(term=4, sequence=2, doc=gone)), ev.Finished)) == 1
    alone = Bench(me=3, removal=CoreRemoval(shutdown=True))
    alone.start()
    alone.hear(1, 1, renew(term=4))
    alone.at(2, ev.Stop(StopMode.FAST))
    assert len(only(alone.wait_until(150), ev.Finished)) == 1  # no answer: it stops, and stays a voter


def test_p18_an_operators_word_keeps_a_lost_node_out() -> None:
    known = replace(document(voters=(1, 2)), removed=(Removed(3, 103, Cause.LOST),))
    bench = Bench(record=known_record(document=known))
    bench.lead()
    bench.at(1, ev.ChangeVoters(7, 0, 3))
    bench.ack(2)
    assert bench.core.document is not None
    assert bench.core.document.removed == (Removed(3, 103, Cause.OPERATOR),)


def test_p18_founding_needs_every_voter_blank() -> None:
    bench = Bench(record=blank_record("c", 1, 101))
    bench.start()
    bench.hear(1, 2, Hello(True, 1, Stamp(0, 0), True))
    bench.hear(1, 3, Hello(False, 1, Stamp(4, 1), True))
    assert bench.core.record.stamp == Stamp(0, 0)
    bench.hear(2, 3, Hello(True, 3, Stamp(0, 0), True))  # it expects another founder
    assert bench.core.record.stamp == Stamp(0, 0)
    effects = bench.hear(3, 3, Hello(True, 1, Stamp(0, 0), True))
    assert bench.core.record.stamp == Stamp(0, 1)
    assert sent_to(effects, Found) == [2, 3]
    assert bench.core.voter_ids == (1, 2, 3)


def test_p18_bootstrap_needs_a_majority_and_no_older_cluster() -> None:
    bench = Bench(record=blank_record("c", 1, 101))
    bench.start()
    assert [item.accepted for item in only(bench.at(1, ev.Bootstrap(7)), ev.Answer)] == [False]
    bench.hear(2, 2, Hello(False, 1, Stamp(4, 1), True))
    assert [item.accepted for item in only(bench.at(3, ev.Bootstrap(7)), ev.Answer)] == [False]
    bench.hear(4, 2, Hello(True, 1, Stamp(0, 0), True))
    assert [item.accepted for item in only(bench.at(5, ev.Bootstrap(7)), ev.Answer)] == [True]
    assert bench.core.document is not None
    assert bench.core.document.voter(3) == Voter(3, 0)


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
