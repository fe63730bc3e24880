"""Rank is one order, and the same on all nodes, although each sees the others' starts on its own clock (P10)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.watchdog.core.rank import START_TOLERANCE_NS, Standing, rank

SECOND = 1_000_000_000
NODES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=7)
OFFSETS = st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, SECOND // 4)), min_size=7, max_size=7)


def ranks(nodes: list[Standing]) -> list[int]:
    """The rank of each among all."""
    return [rank(node, [other for other in nodes if other is not node]) for node in nodes]


@given(nodes=NODES, seen=OFFSETS)
def test_every_node_comes_to_the_same_order(nodes: list[tuple[int, int]], seen: list[tuple[int, int]]) -> None:
    """Starts lie seconds apart or together; every node sees them with another offset and with some delay."""
    orders = []
    for offset, delay in seen:
        mine = [
            Standing(node, priority, offset + 3 * start * SECOND + (delay if node % 2 else 0))
            for node, (priority, start) in enumerate(nodes, 1)
        ]
        orders.append(ranks(mine))
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == list(range(len(nodes)))


@given(
    one=st.builds(Standing, st.just(1), st.integers(0, 3), st.integers(0, 5 * SECOND)), start=st.integers(0, 5 * SECOND)
)
def test_of_two_nodes_exactly_one_is_better(one: Standing, start: int) -> None:
    """Whatever their starts."""
    other = Standing(2, 1, start)
    assert one.better_than(other) is not other.better_than(one)


def test_priority_then_start_then_id() -> None:
    """In this order, and a start within the tolerance is no difference."""
    assert Standing(9, 2, 10 * SECOND).better_than(Standing(1, 1, 0))
    assert Standing(9, 1, 0).better_than(Standing(1, 1, START_TOLERANCE_NS + 1))
    assert Standing(1, 1, START_TOLERANCE_NS).better_than(Standing(9, 1, 0))
