"""Decisions on backends (P23 a, d, e and f): who may act, commands and what follows from them, rule by rule."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.backend_bench import (
    DOWN,
    FAILS,
    FOLLOW,
    KIND_UP,
    LEADERS,
    PRIMARY,
    PROMOTE,
    SEEN_DOWN,
    STANDBY,
    UP,
    BackendBench,
    agreed,
    decided_by_two,
    down_document,
    following,
    look,
    table,
)
from tests.unit.core.bench import document, only, sent

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.backends import FOLLOWS
from pgvigil.watchdog.core.base import CoreConsensus
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Outcome, Renew, Seen, SeenStatus
from pgvigil.watchdog.core.record import Backend, BackendRole, Intent, Stamp

# --- a: nobody acts on what is not committed --------------------------------------------------------


def test_p23a_a_follower_acts_on_the_document_that_its_leader_calls_committed() -> None:
    bench = BackendBench()
    bench.start()
    newer = agreed(stamp=Stamp(3, 2))
    bench.follow(newer, committed=False)
    assert bench.core.document == newer and bench.core.agreed_now() is None
    bench.follow(newer, 2)
    assert bench.core.agreed_now() == newer


def test_p23a_what_is_on_its_way_is_not_acted_on() -> None:
    bench = BackendBench()
    bench.start()
    first, second = agreed(stamp=Stamp(3, 2)), agreed(stamp=Stamp(3, 3), epoch=2)
    bench.follow(first, committed=False)
    message = replace(Renew(3, 1, 2, 1000, second.stamp, second), committed=first.stamp)
    bench.hear(bench.now_ms, LEADERS, message)
    assert bench.core.document == second and bench.core.agreed_now() == first


def test_p23a_a_document_that_was_missed_is_not_guessed() -> None:
    bench = BackendBench()
    bench.start()
    first, third = agreed(stamp=Stamp(3, 2)), agreed(stamp=Stamp(3, 4))
    bench.follow(first)
    bench.hear(bench.now_ms, LEADERS, replace(Renew(3, 1, 2, 1000, third.stamp, third), committed=Stamp(3, 3)))
    assert bench.core.agreed_now() is None


def test_p23a_an_isolated_node_acts_on_nothing() -> None:
    bench = BackendBench()
    bench.start()
    bench.follow(agreed(stamp=Stamp(3, 2)))
    assert bench.core.agreed_at(999 * NS_PER_MS) is not None
    assert bench.core.agreed_at(1000 * NS_PER_MS) is None


def test_p23a_a_new_term_begins_with_nothing_agreed() -> None:
    bench = BackendBench()
    bench.start()
    bench.follow(agreed(stamp=Stamp(3, 2)))
    bench.follow(agreed(stamp=Stamp(4, 1)), committed=False)
    assert bench.core.agreed_now() is None


def test_p23a_an_older_word_takes_nothing_back() -> None:
    bench = BackendBench()
    bench.start()
    old, new = agreed(stamp=Stamp(3, 2)), agreed(stamp=Stamp(3, 3), epoch=2)
    bench.follow(old)
    bench.follow(new, 2)
    bench.hear(bench.now_ms, LEADERS, replace(Renew(3, 1, 3, 1000, new.stamp, None), committed=old.stamp))
    assert bench.core.agreed_now() == new


def test_p23a_a_leader_acts_after_the_commit_and_under_its_lease() -> None:
    bench = BackendBench()
    bench.start()
    bench.win()
    assert bench.core.agreed_now() is None
    bench.ack(0)
    agreed_first = bench.core.agreed_now()
    assert agreed_first is not None and agreed_first.stamp == bench.core.record.stamp
    bench.asks(2, operator=True)
    assert bench.core.document != agreed_first and bench.core.agreed_now() == agreed_first
    bench.commit()
    assert bench.core.agreed_now() == bench.core.document
    assert bench.core.agreed_at(int(bench.now_ms + 1000) * NS_PER_MS) is None


def test_p23a_renewals_say_what_is_committed() -> None:
    bench = BackendBench().leads()
    committed = bench.doc.stamp
    bench.asks(2, operator=True)
    told = sent(bench.wait_until(bench.now_ms + 1), Renew)
    assert {message.committed for message in told} == {committed} and told[0].stamp > committed


def test_p23a_every_node_logs_what_became_agreed() -> None:
    bench = BackendBench()
    bench.start()
    bench.follow(agreed(stamp=Stamp(3, 2)))
    intent = Intent("failover", "decision 2", "once", 3, 1, 1, "failed", (), "exit status 1")
    effects = bench.follow(down_document(stamp=Stamp(3, 3), intents=(intent,)), 2)
    notes = [note.text for note in only(effects, ev.Note)]
    assert "decision 2: backend 0 (db0:5432) is down: it failed (asked by n2)" in notes
    assert "failover for decision 2 is failed (token 1): exit status 1" in notes


# --- d: a decision is one document ------------------------------------------------------------------


def four() -> tuple[Backend, ...]:
    """One standby more."""
    return (*table(), replace(table()[2], backend_id=3, host="db3"))


def test_p23d_state_number_and_intent_are_one_change() -> None:
    bench = BackendBench().leads()
    version = bench.doc.stamp.version
    bench.asks(2)
    bench.asks(3)
    doc = bench.doc
    assert (doc.stamp.version, doc.decided, doc.backends[0].decision) == (version + 1, 2, 2)
    assert [item.event for item in doc.intents] == ["decision 2"] and bench.started == []
    bench.commit()
    assert [item.intent for item in bench.started] == list(doc.intents)


def test_p23d_callers_wait_for_the_command_and_get_its_end() -> None:
    bench = decided_by_two(BackendBench().leads())
    assert bench.text(2) == bench.text(3) == "waits for failover of decision 2"
    bench.ends(False, "exit status 3")
    assert bench.outcomes(2)[-1] is bench.outcomes(3)[-1] is Outcome.REFUSED
    assert bench.text(3).endswith("failover failed: exit status 3")
    assert bench.state_of(1) == (UP, STANDBY)


def test_p23d_the_end_of_a_failover_and_its_roles_are_one_change() -> None:
    bench = decided_by_two(BackendBench().leads())
    version = bench.doc.stamp.version
    bench.at(bench.now_ms, ev.CommandEnded(bench.started[0].intent.token, True, "promoted"))
    doc = bench.doc
    assert doc.stamp.version == version + 1 and doc.intents[-1].state == "done"
    assert [bench.state_of(item) for item in (0, 1, 2)] == [(DOWN, STANDBY), (UP, PRIMARY), (DOWN, STANDBY)]


def test_p23d_the_others_follow_one_after_the_other() -> None:
    bench = decided_by_two(BackendBench(doc=replace(agreed(), backends=four())).leads())
    bench.ends()
    assert [item.intent.event for item in bench.started] == ["decision 2", "decision 2 backend 2"]
    assert {"d=2", "m=1", "H=db1", "P=0", "R=/data1"} <= set(bench.started[-1].intent.arguments)
    bench.ends()
    assert bench.state_of(2) == (UP, STANDBY) and bench.state_of(3) == (DOWN, STANDBY)
    bench.ends(False, "no disk")
    left = bench.doc.backend(3)
    assert left is not None and (left.status, left.reason) == (DOWN, "follow_primary ended failed: no disk")
    assert len(bench.started) == 3


def test_p23d_without_a_command_to_follow_the_others_stay_up() -> None:
    bench = decided_by_two(BackendBench(commands=("failover",)).leads())
    bench.ends()
    assert [bench.state_of(item) for item in (1, 2)] == [(UP, PRIMARY), (UP, STANDBY)]


def left_behind(policy: str) -> BackendBench:
    """A leader of a new term that finds a failover of another one."""
    intent = Intent("failover", "decision 2", policy, 1, 1, 1, "pending", (*FAILS,))
    bench = BackendBench(policy=policy, doc=down_document(intents=(intent,)))
    bench.lead()
    bench.asks(3)
    bench.commit()
    return bench


def test_p23d_once_is_unknown_under_the_next_leader() -> None:
    bench = left_behind("once")
    assert bench.started == [] and bench.outcomes(3)[-1] is Outcome.UNKNOWN
    assert bench.state_of(1) == (UP, STANDBY)


def test_p23d_retry_is_started_again_by_the_next_leader() -> None:
    bench = left_behind("retry")
    assert [(item.intent.token, item.intent.event) for item in bench.started] == [(2, "decision 2")]
    assert bench.text(3) == "waits for failover of decision 2"
    bench.ends()
    assert bench.state_of(1) == (UP, PRIMARY) and bench.outcomes(3)[-1] is Outcome.DONE


def test_p23d_a_new_main_node_that_is_down_is_replaced() -> None:
    backends = (table()[0], replace(table()[1], status=DOWN), table()[2])
    bench = decided_by_two(BackendBench(doc=replace(agreed(), backends=backends)).leads())
    assert {"m=2", "H=db2", "d=0"} <= set(bench.started[0].intent.arguments)
    bench.ends()
    assert bench.state_of(2) == (UP, PRIMARY) and bench.state_of(1) == (DOWN, STANDBY)


def test_p23d_a_new_main_node_is_none_that_is_reported_itself() -> None:
    bench = BackendBench().leads()
    bench.sees(3, look(0), look(1, SEEN_DOWN, failed=True), look(2))
    decided_by_two(bench)
    bench.ends()
    assert bench.state_of(0)[0] is DOWN and bench.state_of(2)[1] is PRIMARY and bench.state_of(1)[1] is STANDBY


def test_p23d_a_standby_that_fails_changes_no_role() -> None:
    bench = BackendBench().leads()
    places = ("d=1", "m=2")
    bench.asks(2, backend_id=1, arguments=places)
    bench.asks(3, backend_id=1, arguments=places)
    bench.commit()
    bench.ends()
    assert [bench.state_of(item) for item in (0, 1, 2)] == [(UP, PRIMARY), (DOWN, STANDBY), (UP, STANDBY)]


def test_p23d_up_runs_failback() -> None:
    bench = BackendBench(doc=down_document()).leads()
    bench.asks(2, KIND_UP, decision=2, arguments=())
    bench.commit()
    assert bench.state_of(0) == (UP, PRIMARY)
    assert [(item.intent.name, item.intent.event) for item in bench.started] == [("failback", "decision 3")]


def test_p23d_a_promotion_changes_the_roles_at_once() -> None:
    bench = BackendBench().leads()
    bench.asks(2, PROMOTE, 2, operator=True, arguments=())
    assert [bench.state_of(item) for item in (0, 1, 2)] == [(DOWN, STANDBY), (DOWN, STANDBY), (UP, PRIMARY)]
    bench.commit()
    assert [item.intent.event for item in bench.started] == ["decision 2 backend 1"]


def test_p23d_a_switchover_runs_failover_first() -> None:
    bench = BackendBench().leads()
    bench.asks(2, PROMOTE, 2, operator=True, arguments=("switchover",))
    bench.commit()
    assert [bench.state_of(item) for item in (0, 2)] == [(DOWN, PRIMARY), (UP, STANDBY)]
    assert {"d=0", "m=2", "P=0", "H=db2"} <= set(bench.started[0].intent.arguments)
    bench.ends()
    assert bench.state_of(2) == (UP, PRIMARY)


def test_p23d_only_an_operator_promotes_and_only_what_is_up() -> None:
    bench = BackendBench(doc=down_document()).leads()
    bench.asks(2, PROMOTE, 1, operator=False, decision=1, arguments=())
    bench.asks(2, PROMOTE, 0, operator=True, decision=2, arguments=(), number=2)
    assert bench.outcomes(2) == [Outcome.REFUSED, Outcome.REFUSED] and bench.doc.decided == 2


def test_p23d_nobody_follows_a_primary_that_is_none_any_more() -> None:
    bench = decided_by_two(BackendBench(doc=replace(agreed(), backends=four()), policy="retry").leads())
    bench.ends()
    bench.asks(2, PROMOTE, 1, operator=True, number=9, arguments=())  # it is the primary: nothing happens
    pending = bench.started[-1].intent
    assert pending.event == "decision 2 backend 2"
    bench.asks(2, backend_id=1, operator=True, number=2)
    bench.commit()
    bench.ends()
    assert [item.intent.event for item in bench.started[2:]] == ["decision 3"]
    left = replace(pending, term=1, boot=1, event="decision 2 backend 3")
    bench.core.propose(replace(bench.doc, intents=(*bench.doc.intents, left)))
    bench.commit()
    assert [item.detail for item in bench.doc.intents if item.event == left.event] == [
        "given up: the primary has changed"
    ]
    assert bench.state_of(3) == (DOWN, STANDBY) and len(bench.started) == 3


def test_p23d_who_waits_to_follow_nobody_can_be_attached() -> None:
    waiting = replace(table()[2], status=DOWN, reason=FOLLOWS, decision=2)
    for status, outcome in ((UP, Outcome.BUSY), (DOWN, Outcome.DONE)):
        new = replace(table()[1], role=PRIMARY, status=status)
        old = replace(table()[0], role=STANDBY, status=DOWN, decision=2)
        bench = BackendBench(commands=("follow_primary",), doc=down_document(backends=(old, new, waiting))).leads()
        bench.asks(2, KIND_UP, 2, operator=True, decision=2, arguments=())
        bench.commit()
        assert bench.outcomes(2)[-1] is outcome


def test_p23d_without_the_command_nobody_waits_for_it() -> None:
    waiting = replace(table()[2], status=DOWN, reason=FOLLOWS, decision=2)
    bench = BackendBench(commands=(), doc=down_document(backends=(*table()[:2], waiting))).leads()
    found = bench.doc.backend(2)
    assert found is not None and "no follow_primary command" in found.reason


def test_p23d_follow_answers_with_what_came_of_it() -> None:
    bench = BackendBench().leads()
    bench.asks(2, FOLLOW, 2, number=5)
    assert bench.outcomes(2) == [Outcome.DONE]
    decided_by_two(bench)
    bench.asks(2, FOLLOW, 2, number=6)
    assert bench.text(2) == "waits for failover of decision 2"
    bench.ends()
    assert bench.text(2) == "waits for follow_primary of decision 2"
    bench.ends(False, "no disk")
    assert bench.outcomes(2)[-1] is Outcome.REFUSED and "no disk" in bench.text(2)


def test_p23d_a_command_that_runs_here_is_ours_in_the_next_term_too() -> None:
    bench = decided_by_two(BackendBench().leads())
    began = bench.started[0].intent
    bench.hear(bench.now_ms, 2, bench.refused(9))
    bench.wait_until(bench.now_ms + 50)
    bench.win(bench.now_ms, (2, 3))
    bench.commit()
    assert bench.core.record.won_term == 10 and bench.doc.intents == (began,)
    bench.ends()
    assert bench.doc.intents[0].state == "done" and bench.started[0].intent == began


# --- e: one at a time, and when nothing is decided --------------------------------------------------


def test_p23e_nothing_else_is_decided_while_a_command_of_a_decision_runs() -> None:
    bench = decided_by_two(BackendBench().leads())
    bench.asks(2, backend_id=1, operator=True, number=2)
    assert bench.text(2) == "waits for failover of decision 2" and bench.state_of(1) == (UP, STANDBY)
    bench.ends()
    assert bench.state_of(1)[0] is DOWN


def test_p23e_a_paused_cluster_decides_what_an_operator_asks_for() -> None:
    bench = BackendBench(doc=agreed(paused=True), rule=CoreConsensus(timeout_ms=500)).leads_paused()
    bench.asks(2)
    bench.asks(3)
    for node in (2, 3):
        bench.sees(node, look(0, SEEN_DOWN, failed=True))
    assert bench.state_of(0) == (UP, PRIMARY)
    bench.asks(2, operator=True, number=2)
    assert bench.state_of(0) == (DOWN, PRIMARY)


def test_p23e_nothing_is_decided_before_the_commit() -> None:
    bench = BackendBench()
    bench.start()
    bench.win()
    bench.asks(2, operator=True)
    assert bench.outcomes(2) == [Outcome.BUSY] and bench.doc.decided == 1


def test_p23e_half_decides_nothing_and_acts_on_nothing() -> None:
    bench = BackendBench().leads()
    assert bench.core.lease is not None
    bench.core.lease.by_half = True  # how it comes to that is P22's
    bench.asks(2, operator=True)
    bench.asks(3)
    for node in (1, 2, 3):
        bench.sees(node, look(0, SEEN_DOWN, failed=True))
    assert bench.outcomes(2) == bench.outcomes(3) == [Outcome.BUSY] and bench.state_of(0) == (UP, PRIMARY)
    assert bench.core.agreed_now() is None
    assert {message.committed for message in sent(bench.wait_until(bench.now_ms + 300), Renew)} == {Stamp(0, 0)}


# --- f: the table -----------------------------------------------------------------------------------


def test_p23f_the_table_is_built_when_every_member_has_told_what_it_sees() -> None:
    bench = BackendBench(doc=document()).leads()
    views = (look(0), look(1, SeenStatus.WAITING), look(2, SEEN_DOWN), look(3, SeenStatus.UNUSED))
    for node in (1, 2):
        bench.sees(node, *views)
    assert bench.ids() == []
    bench.sees(3, look(0), look(1, SEEN_DOWN), look(2, SEEN_DOWN))
    bench.commit()
    assert [bench.state_of(item) for item in (0, 1, 2)] == [(UP, PRIMARY), (UP, STANDBY), (DOWN, STANDBY)]
    assert bench.ids() == [0, 1, 2] and bench.doc.decided == 1


def test_p23f_a_majority_is_enough_after_a_while() -> None:
    bench = BackendBench(doc=document()).leads()
    for _ in range(6):
        for node in (1, 2):
            bench.sees(node, look(0))
        assert bench.doc.backends == ()
        bench.stay(bench.now_ms + 900)
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23f_a_new_backend_of_a_majority_is_added() -> None:
    bench = BackendBench().leads()
    views = [look(item) for item in range(4)]
    bench.sees(2, *views)
    assert len(bench.doc.backends) == 3
    bench.sees(3, *views)
    bench.commit()
    added = bench.doc.backend(3)
    assert added is not None and added.decision == bench.doc.decided == 2


def test_p23f_a_backend_that_nobody_lists_any_more_is_dropped() -> None:
    bench = BackendBench().leads()
    for _ in range(8):
        for node in (1, 2, 3):
            bench.sees(node, look(0), look(1))
        if bench.now_ms < 4500:
            assert len(bench.doc.backends) == 3
        bench.stay(bench.now_ms + 900)
    assert [item.backend_id for item in bench.doc.backends] == [0, 1]


def test_p23f_another_primary_is_taken_over_when_most_stay_with_it() -> None:
    bench = BackendBench().leads()
    for _ in range(5):
        for node in (2, 3):
            bench.sees(node, look(0, role=STANDBY), look(1, role=PRIMARY), look(2))
        if bench.now_ms < 2500:
            assert bench.state_of(1) == (UP, STANDBY)
        bench.stay(bench.now_ms + 900)
    assert [bench.state_of(item)[1] for item in (0, 1, 2)] == [STANDBY, PRIMARY, STANDBY]


def test_p23f_views_that_cannot_be_are_ignored() -> None:
    bench = BackendBench(doc=document()).leads()
    bench.sees(1, look(0))
    bench.sees(2, look(0), look(0))
    bench.sees(3, *[look(item) for item in range(65)])
    assert set(bench.core.pools) == {1} and bench.doc.backends == ()


def test_p23f_what_is_seen_is_told_to_all_and_repeated() -> None:
    bench = following()
    effects = bench.sees(1, look(0))
    assert [message.number for message in sent(effects, Seen)] == [1, 1]
    assert sent(bench.sees(1, look(0)), Seen) == []
    assert [message.number for message in sent(bench.wait_until(1000), Seen)] == [2, 2]


def test_p23f_a_role_that_was_never_known_is_learned() -> None:
    unknown = replace(table()[2], role=BackendRole.UNKNOWN)
    bench = BackendBench(doc=replace(agreed(), backends=(*table()[:2], unknown))).leads()
    for _ in range(5):
        for node in (2, 3):
            bench.sees(node, look(0), look(1), look(2))
        bench.stay(bench.now_ms + 900)
    assert bench.state_of(2) == (UP, STANDBY)


def test_p23f_where_nobody_watches_a_report_is_refused() -> None:
    bench = BackendBench(doc=document()).leads()
    for _ in range(4):
        bench.asks(2)
        assert bench.outcomes(2)[-1] is Outcome.BUSY
        bench.stay(bench.now_ms + 1000)
    bench.asks(2)
    bench.stay(bench.now_ms + 1500)
    assert bench.outcomes(2)[-1] is Outcome.REFUSED and "pcp_user" in bench.text(2)
    bench.asks(3, FOLLOW)
    assert bench.outcomes(3) == [Outcome.DONE]


def test_p23f_a_pgpool_that_does_not_answer_yet_is_waited_for() -> None:
    bench = BackendBench(doc=document()).leads()
    for _ in range(8):
        bench.sees(3, problem="its pgpool-II has not answered for a while")
        bench.asks(2)
        bench.stay(bench.now_ms + 1000)
    assert set(bench.outcomes(2)) == {Outcome.BUSY}
