"""Every rule of what a node does with its own pgpool-II, one small story each; by hand: `test_reconcile_by_hand`."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.unit.pools.bench import (
    DOWN,
    PRIMARY,
    SECOND_LIFE,
    UP,
    Pool,
    agreed_backend,
    both,
    detached,
    document,
    order_of,
    orders_within,
    seen,
    settled,
)

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import Intent
from pgvigil.watchdog.pools.plan import Memory, Ordered, OrderKind
from pgvigil.watchdog.pools.reconcile import carries_out, refused

# --- nothing agreed ---------------------------------------------------------------------------------------------------


def test_without_an_agreed_document_nothing_is_done_whatever_is_seen() -> None:
    pool = Pool(agreed=None, backends=(seen(0, up=False), seen(1)), answering={0: True, 1: True})
    for _ in range(20):
        plan = pool.step()
        assert (plan.order, plan.asks, plan.probes, plan.obstacle) == (None, (), (), "")
        assert [one.failed for one in plan.seen] == [False, False]


def test_an_agreed_document_without_a_table_is_none() -> None:
    pool = Pool(agreed=document(), backends=(seen(0, up=False),))
    assert pool.step().order is None and not pool.plan.obstacle


def test_a_node_that_is_cut_off_does_nothing_and_goes_on_when_it_is_back() -> None:
    pool = settled(Pool())
    known, pool.agreed = pool.agreed, None
    pool.change(seen(1, up=False))
    pool.answering = {1: True}
    for _ in range(5):
        assert pool.step().order is None
    pool.agreed = known
    pool.step()
    pool.step(5.0)
    assert order_of(pool) == (OrderKind.ATTACH, 1)


# --- imposing the status ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [False, True])
def test_agreed_down_is_imposed(waiting: bool) -> None:
    pool = settled(Pool())
    pool.change(seen(1, waiting=waiting))
    pool.step()
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.step()
    assert order_of(pool) == (OrderKind.DETACH, 1)
    assert pool.plan.order is not None and "decision 2" in pool.plan.order.reason


def test_agreed_up_is_imposed_once_postgresql_answers_this_node() -> None:
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    plan = pool.step()
    assert plan.order is None and [one.backend_id for one in plan.probes] == [1]
    pool.answering = {1: False}
    assert pool.step().order is None
    pool.answering = {1: None}
    assert pool.step(5.0).order is None
    pool.answering = {1: True}
    pool.step()
    assert order_of(pool) == (OrderKind.ATTACH, 1)


def test_a_backend_is_not_attached_before_pgpool_can_have_called_for_it() -> None:
    """Its failover_command takes a moment to start, and may say that somebody detached the backend."""
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    pool.answering = {1: True}
    assert orders_within(pool, 5) == []
    pool.busy = frozenset({1})
    assert orders_within(pool, 10) == []
    pool.busy = frozenset()
    pool.step()
    assert order_of(pool) == (OrderKind.ATTACH, 1)


def test_a_backend_that_does_not_answer_is_a_standing_vote_under_its_decision() -> None:
    pool = settled(Pool(agreed=both(decision=7)))
    pool.change(seen(1, up=False))
    pool.answering = {1: False}
    primary, standby = pool.step().seen
    assert (primary.failed, standby.failed, standby.decision) == (False, True, 7)
    pool.answering = {1: None}  # its name could not be resolved, which says nothing of PostgreSQL
    assert not pool.step().seen[1].failed
    pool.answering = {1: False}
    pool.agree(agreed_backend(1, DOWN, decision=8))
    assert not pool.step().seen[1].failed


def test_silence_from_before_a_decision_is_no_vote_under_it() -> None:
    """Attached again within seconds of its failure: nobody has asked it since, and it works."""
    pool = Pool(backends=(seen(0, role=PRIMARY), seen(1, up=False)), answering={1: False})
    assert pool.step().seen[1].failed
    pool.agree(agreed_backend(1, DOWN, decision=8))
    assert not pool.step().seen[1].failed
    pool.agree(agreed_backend(1, UP, decision=9))
    pool.probe_age_s = 0.5
    assert (pool.step().seen[1].failed, pool.plan.seen[1].decision) == (False, 9)
    pool.probe_age_s = 0.0
    assert pool.step().seen[1].failed


@pytest.mark.parametrize("answers", [True, False])
def test_an_old_probe_neither_attaches_nor_votes(answers: bool) -> None:
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    pool.answering, pool.probe_age_s = {1: answers}, 20.0
    plan = pool.step()
    assert plan.order is None and not plan.seen[1].failed
    assert [one.backend_id for one in plan.probes] == [1]


def test_a_backend_that_was_just_probed_is_not_probed_again() -> None:
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    pool.answering = {1: False}
    assert pool.step().probes == ()


def test_decisions_that_follow_each_other_do_not_slow_orders_down() -> None:
    """A backend that came and went with every failover must not wait longer each time."""
    pool = settled(Pool())
    pool.answering = {1: True}
    for decision in range(2, 10):
        status = UP if decision % 2 else DOWN
        pool.agree(agreed_backend(1, status, decision=decision))
        waited = next(step for step in range(15) if pool.step().order is not None)
        assert waited <= 6, decision
        pool.change(seen(1, up=status is UP))
        pool.step()


def test_an_old_view_leads_to_no_order() -> None:
    pool = settled(Pool())
    pool.agree(agreed_backend(1, DOWN, decision=2))
    assert pool.step(6.0, look=False).order is None
    pool.step()
    assert order_of(pool) == (OrderKind.DETACH, 1)


def test_a_backend_of_another_address_is_left_alone_and_told_of() -> None:
    pool = Pool(agreed=both(DOWN, 2), backends=(seen(0, role=PRIMARY), replace(seen(1), host="10.9.9.9")))
    for _ in range(5):
        assert pool.step().order is None
    assert "backend 1 is 10.9.9.9:5432 there, agreed 10.0.0.1:5432: it is left alone" in pool.plan.troubles
    assert not pool.plan.obstacle


@pytest.mark.parametrize("listed", [False, True])
def test_a_backend_that_pgpool_does_not_have_is_told_of(listed: bool) -> None:
    unused = (replace(seen(1), status=SeenStatus.UNUSED),) if listed else ()
    pool = Pool(agreed=both(DOWN, 2), backends=(seen(0, role=PRIMARY), *unused))
    assert pool.step().order is None
    assert pool.plan.troubles == ("backend 1 (10.0.0.1:5432) is unknown there",)


# --- grace, back-off, one at a time -----------------------------------------------------------------------------------


def test_an_order_that_has_no_effect_is_repeated_ever_more_seldom() -> None:
    pool = Pool(agreed=both(DOWN, 2))
    given = orders_within(pool, 200)
    gaps = [after - before for before, after in pairwise(given)]
    assert gaps == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_one_order_at_a_time_and_the_next_only_after_a_view_that_shows_what_came_of_it() -> None:
    pool = Pool(agreed=document(agreed_backend(0, DOWN, PRIMARY), agreed_backend(1, DOWN)))
    pool.step()
    assert order_of(pool) == (OrderKind.DETACH, 0)
    pool.change(seen(0, up=False, role=PRIMARY))
    assert pool.step(0.5).order is None
    assert pool.step(0.6, look=False).order is None
    pool.ordering = True
    assert pool.step(1.0).order is None
    pool.ordering = False
    pool.step(0.1)
    assert order_of(pool) == (OrderKind.DETACH, 1)


def test_a_backend_for_which_pgpool_waits_for_us_is_left_alone() -> None:
    pool = settled(Pool())
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.busy = frozenset({1})
    assert orders_within(pool, 20) == []
    pool.busy = frozenset({0})
    pool.step()
    assert order_of(pool) == (OrderKind.DETACH, 1)


def test_what_pgpool_refused_is_not_waited_for() -> None:
    memory = Memory(ordered={1: Ordered(OrderKind.ATTACH, 5, 1)})
    assert not refused(memory, 1).ordered[1].awaited
    assert refused(memory, 0) is memory


def test_an_order_that_was_taken_is_waited_for_when_its_repetition_is_refused() -> None:
    pool = Pool()
    pool.step()
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.step()
    assert len(orders_within(pool, 20)) > 1
    memory = refused(pool.memory, 1)
    assert carries_out(memory, OrderKind.DETACH, 1, pool.now_ns)


def test_what_was_ordered_may_come_about_until_a_while_after_it_was_seen() -> None:
    pool = settled(Pool())
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.step()
    assert carries_out(pool.memory, OrderKind.DETACH, 1, pool.now_ns + 100 * NS_PER_S)
    assert not carries_out(pool.memory, OrderKind.ATTACH, 1, pool.now_ns)
    assert not carries_out(pool.memory, OrderKind.DETACH, 0, pool.now_ns)
    pool.change(seen(1, up=False))
    pool.step()
    assert carries_out(pool.memory, OrderKind.DETACH, 1, pool.now_ns + 9 * NS_PER_S)
    assert not carries_out(pool.memory, OrderKind.DETACH, 1, pool.now_ns + 11 * NS_PER_S)
    pool.agree(agreed_backend(1, UP, decision=3))
    pool.answering = {1: True}
    pool.step(10.0)
    assert order_of(pool) == (OrderKind.ATTACH, 1)
    assert carries_out(pool.memory, OrderKind.ATTACH, 1, pool.now_ns + 100 * NS_PER_S)
    pool.change(seen(1))
    pool.step()
    assert carries_out(pool.memory, OrderKind.ATTACH, 1, pool.now_ns + 50 * NS_PER_S)
    assert not carries_out(pool.memory, OrderKind.ATTACH, 1, pool.now_ns + 70 * NS_PER_S)


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_after_a_restart_of_pgpool_nothing_counts_as_made_by_hand() -> None:
    pool = detached()
    pool.life = SECOND_LIFE
    pool.change(seen(1))
    pool.step()
    assert pool.plan.asks == () and order_of(pool) == (OrderKind.DETACH, 1)


def test_an_unknown_pgpool_is_brought_in_line_and_never_asked_for() -> None:
    pool = Pool(agreed=both(DOWN, 2), backends=(seen(0, role=PRIMARY), seen(1, up=False)), life=None)
    pool.step()
    pool.change(seen(1))
    pool.step()
    assert pool.plan.asks == () and order_of(pool) == (OrderKind.DETACH, 1)


def test_the_view_of_a_pgpool_that_runs_no_more_counts_for_nothing() -> None:
    pool = detached()
    pool.change(seen(1))
    pool.step(look=True)
    pool.life, pool.blind = SECOND_LIFE, True
    plan = pool.step()
    assert (plan.asks, plan.order, plan.seen) == ((), None, ())
    assert plan.obstacle == "its pgpool-II has not said yet which backends are up there"


def test_a_restarted_pgpool_is_an_obstacle_until_it_has_been_in_the_agreed_state_once() -> None:
    pool = detached()
    pool.life = SECOND_LIFE
    pool.change(seen(1))
    plan = pool.step()
    assert plan.obstacle == "its pgpool-II is not yet in the agreed state: backend 1 is up there, agreed down"
    pool.change(seen(1, up=False))
    assert not pool.step().obstacle
    pool.change(seen(0, up=False, role=PRIMARY))
    assert not pool.step().obstacle  # that comes and goes without saying anything about a restart


def test_a_backend_that_this_node_cannot_reach_is_no_obstacle_for_ever() -> None:
    pool = Pool(backends=(seen(0, role=PRIMARY), seen(1, up=False)))
    assert pool.step().obstacle
    pool.answering = {1: False}
    assert not pool.step().obstacle


def test_a_pgpool_that_does_not_answer_is_an_obstacle_for_ten_seconds() -> None:
    pool = Pool(blind=True)
    told = [bool(pool.step().obstacle) for _ in range(14)]
    assert told == [True] * 10 + [False] * 4


def test_the_obstacle_goes_when_nobody_leads_or_a_whole_cluster_could_wait_for_itself() -> None:
    pool = Pool(agreed=both(DOWN, 2))
    assert pool.step().obstacle
    pool.agreed = None
    told = [bool(pool.step().obstacle) for _ in range(8)]
    assert told == [True] * 4 + [False] * 4


# --- roles ------------------------------------------------------------------------------------------------------------


def wrong_primary() -> Pool:
    """All agree on backend 1, which PostgreSQL confirms; this pgpool-II has 0."""
    table = document(agreed_backend(0), agreed_backend(1, role=PRIMARY))
    return Pool(agreed=table, backends=(seen(0, role=PRIMARY, server_role="standby"), seen(1, server_role="primary")))


def test_the_agreed_primary_is_promoted_when_pgpool_stays_with_another_one() -> None:
    pool = wrong_primary()
    for _ in range(5):
        assert pool.step().order is None
    pool.step()
    assert order_of(pool) == (OrderKind.PROMOTE, 1)


@pytest.mark.parametrize("role", ["standby", "unknown"])
def test_nothing_is_promoted_that_postgresql_does_not_call_primary(role: str) -> None:
    pool = wrong_primary()
    pool.change(seen(1, server_role=role))
    assert orders_within(pool, 30) == []


def test_two_primaries_are_told_of_and_none_is_promoted() -> None:
    pool = wrong_primary()
    pool.change(seen(0, role=PRIMARY, server_role="primary"))
    assert orders_within(pool, 30) == []
    assert pool.plan.troubles == ("backends 0 and 1 both say that they are primary",)


def test_nothing_is_promoted_while_a_command_of_a_decision_runs() -> None:
    pool = wrong_primary()
    assert pool.agreed is not None
    pool.agreed = replace(pool.agreed, intents=(Intent("failover", "decision 1", "once", 1, 1, 1, "pending"),))
    assert orders_within(pool, 30) == []


def test_nothing_is_promoted_that_is_down_there() -> None:
    pool = wrong_primary()
    pool.change(seen(1, up=False, server_role="primary"))
    assert orders_within(pool, 30) == []
