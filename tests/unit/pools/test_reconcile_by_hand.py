"""What somebody attached or promoted at one pgpool-II is asked for once, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from tests.unit.pools.bench import (
    DOWN,
    PRIMARY,
    STANDBY,
    UP,
    Pool,
    agreed_backend,
    asks_of,
    detached,
    document,
    order_of,
    seen,
    settled,
)

from pgvigil.watchdog.core.record import DecisionKind
from pgvigil.watchdog.pools.plan import OrderKind

# --- an attach by hand ------------------------------------------------------------------------------------------------


def test_an_attach_by_hand_is_asked_for_once_and_not_undone() -> None:
    pool = detached()
    pool.change(seen(1, waiting=True))
    plan = pool.step()
    assert asks_of(pool) == [(DecisionKind.UP, 1)] and plan.order is None and plan.notes
    pool.asking = frozenset({1})
    for _ in range(30):
        plan = pool.step()
        assert (plan.order, plan.asks, plan.notes) == (None, (), ())
    pool.asking = frozenset()
    pool.agree(agreed_backend(1, UP, decision=3))
    for _ in range(30):
        plan = pool.step()
        assert (plan.order, plan.asks) == (None, ())
    assert not pool.memory.by_hand


def test_an_attach_by_hand_that_is_not_agreed_on_is_undone_after_three_asks() -> None:
    pool = detached()
    pool.change(seen(1, waiting=True))
    asked, orders = 0, []
    for _ in range(15):
        plan = pool.step()
        asked += len(plan.asks)
        orders += [] if plan.order is None else [plan.order.kind]
        if plan.order is not None:
            pool.change(seen(1, up=False))
    assert asked == 3 and orders == [OrderKind.DETACH]


def test_an_attach_that_was_ordered_is_not_by_hand_even_if_the_cluster_has_changed_its_mind() -> None:
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    pool.answering = {1: True}
    pool.step()
    pool.step(5.0)
    assert order_of(pool) == (OrderKind.ATTACH, 1)
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.step()
    pool.step()
    pool.change(seen(1))  # pgpool-II was slow
    pool.step(10.0)
    assert pool.plan.asks == () and order_of(pool) == (OrderKind.DETACH, 1)


def test_an_attach_from_before_the_decision_was_seen_to_fit_is_older_news() -> None:
    pool = settled(Pool())
    pool.change(seen(1, up=False))
    pool.step()
    pool.agree(agreed_backend(1, DOWN, decision=2))
    pool.step(look=False)
    pool.change(seen(1))
    pool.step()
    assert pool.plan.asks == () and order_of(pool) == (OrderKind.DETACH, 1)


def test_a_newer_decision_makes_an_attach_by_hand_old_news() -> None:
    pool = detached()
    pool.change(seen(1, waiting=True))
    pool.step()
    pool.asking = frozenset({1})
    pool.agree(agreed_backend(1, DOWN, decision=3))
    pool.step()
    assert order_of(pool) == (OrderKind.DETACH, 1) and not pool.memory.by_hand


def test_a_backend_that_is_up_without_having_waited_for_a_client_was_not_attached_by_hand() -> None:
    """pgpool-II: a child that connects to a backend writes down that it is up, whatever has been decided meanwhile."""
    pool = detached()
    pool.change(seen(1))
    pool.step()
    assert (asks_of(pool), order_of(pool)) == ([], (OrderKind.DETACH, 1)) and not pool.memory.by_hand


def test_an_attach_by_hand_while_the_node_was_cut_off_is_asked_for_later() -> None:
    pool = detached()
    known, pool.agreed = pool.agreed, None
    pool.change(seen(1, waiting=True))
    for _ in range(10):
        assert pool.step().asks == ()
    pool.agreed = known
    pool.step()
    assert asks_of(pool) == [(DecisionKind.UP, 1)]


def test_while_pgpool_waits_for_our_failback_nothing_is_asked_beside_it() -> None:
    pool = detached()
    pool.change(seen(1, waiting=True))
    pool.busy = frozenset({1})
    assert pool.step().asks == () and pool.plan.order is None
    pool.busy = frozenset()
    pool.step()
    assert asks_of(pool) == [(DecisionKind.UP, 1)]


# --- a promotion by hand ----------------------------------------------------------------------------------------------


def promoted_by_hand() -> Pool:
    """Somebody promoted backend 1 at this pgpool-II, which puts 0 down there."""
    pool = settled(Pool())
    pool.backends = (seen(0, up=False), seen(1, role=PRIMARY, server_role="primary"))
    return pool


def test_a_promotion_by_hand_is_asked_for_once_the_old_primary_is_seen_to_live() -> None:
    pool = promoted_by_hand()
    plan = pool.step()
    assert (plan.asks, plan.order) == ((), None) and [one.backend_id for one in plan.probes] == [0]
    pool.answering = {0: True}
    pool.step()
    assert asks_of(pool) == [(DecisionKind.PROMOTE, 1)]
    pool.asking = frozenset({1})
    for _ in range(20):
        assert pool.step().order is None  # neither attaches 0 nor promotes it
    pool.asking = frozenset()
    pool.agreed = document(agreed_backend(0, DOWN, STANDBY, 2), agreed_backend(1, UP, PRIMARY, 2))
    for _ in range(20):
        plan = pool.step()
        assert (plan.asks, plan.order) == ((), None)


def test_a_primary_that_has_failed_was_not_demoted_by_hand() -> None:
    pool = promoted_by_hand()
    pool.answering = {0: False}
    for _ in range(20):
        plan = pool.step()
        assert (plan.asks, plan.order) == ((), None)
    assert pool.plan.seen[0].failed


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failover_of_pgpool_itself_is_no_promotion_by_hand(failing: int) -> None:
    pool = promoted_by_hand()
    pool.busy = pool.failing = frozenset({failing})
    pool.answering = {0: True}
    for _ in range(5):
        assert pool.step().asks == ()


def test_a_promotion_right_after_an_attach_is_noticed_too() -> None:
    """pgpool-II's failback_command for the new primary says nothing against it."""
    pool = promoted_by_hand()
    pool.busy, pool.answering = frozenset({1}), {0: True}
    assert pool.step().asks == ()
    pool.busy = frozenset()
    pool.step()
    assert asks_of(pool) == [(DecisionKind.PROMOTE, 1)]


def test_a_promotion_that_postgresql_knows_nothing_of_is_not_spread() -> None:
    pool = promoted_by_hand()
    pool.change(seen(1, role=PRIMARY, server_role="standby"))
    pool.answering = {0: True}
    for _ in range(8):
        assert pool.step().asks == ()
    assert (OrderKind.ATTACH, 0) in [(kind, key) for key, kind in _ordered(pool)]


def _ordered(pool: Pool) -> list[tuple[int, OrderKind]]:
    return [(key, one.kind) for key, one in pool.memory.ordered.items()]
