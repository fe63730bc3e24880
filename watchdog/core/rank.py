"""Who should stand first: priority, then the earliest start, then the id (P10, P13).

A preference only: a wrong rank costs time, never safety. Starts that differ by less than `START_TOLERANCE_NS`
count as equal, because each node sees the others' starts through the network and all must come to one order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

START_TOLERANCE_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What ranks a node; `started_at_ns` on the clock of whoever compares."""

    node_id: int
    priority: int
    started_at_ns: int

    def better_than(self, other: Standing) -> bool:
        """Whether this node should stand before the other."""
        if self.priority != other.priority:
            return self.priority > other.priority
        if abs(self.started_at_ns - other.started_at_ns) > START_TOLERANCE_NS:
            return self.started_at_ns < other.started_at_ns
        return self.node_id < other.node_id


def rank(me: Standing, others: Iterable[Standing]) -> int:
    """How many of the others should stand before me."""
    return sum(1 for other in others if other.better_than(me))
