"""The rules of PROTOCOL.md about who votes (P18). `voter_mutants` proves that each test bites."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.bench import (
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
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import (
    Ack,
    AskVoters,
    Found,
    Granted,
    Hello,
    Outcome,
    PreVote,
    TellVoters,
)
from pgvigil.watchdog.core.record import Cause, Record, Removed, Stamp, Voter, blank_record
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.core.voters import WISH_NS


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
