"""The rules of PROTOCOL.md about elections and restarts (P10 to P15). `election_mutants` proves each test."""

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

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.engine import restart_wait_ns
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import (
    Granted,
    PreVote,
    Refused,
    Renew,
    RenewRefused,
    RoundId,
    Vote,
)
from pgvigil.watchdog.core.record import Stamp
from pgvigil.watchdog.core.states import State


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
