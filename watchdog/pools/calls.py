"""The commands of ours that the local pgpool-II is inside of, by backend.

pgpool-II waits for its failover_command: an order for the same backend meanwhile would be carried out on top of it. The
backend also stays busy for a moment after the end, because the decision that ended the call may still be on its way.
"""

from __future__ import annotations

from pgvigil.watchdog.core.lease import NS_PER_S
from pgvigil.watchdog.core.record import DecisionKind

AFTERMATH_NS = 3 * NS_PER_S


class Calls:
    """Counts calls; told by whoever answers them."""

    def __init__(self) -> None:
        self._running: dict[tuple[DecisionKind, int], int] = {}
        self._ended_ns: dict[tuple[DecisionKind, int], int] = {}

    def started(self, kind: DecisionKind, backend_id: int) -> None:
        """pgpool-II called for this backend."""
        self._running[kind, backend_id] = self._running.get((kind, backend_id), 0) + 1

    def ended(self, kind: DecisionKind, backend_id: int, now_ns: int) -> None:
        """The call was answered, or its caller has gone."""
        left = self._running.get((kind, backend_id), 0) - 1
        if left > 0:
            self._running[kind, backend_id] = left
        else:
            self._running.pop((kind, backend_id), None)
        self._ended_ns[kind, backend_id] = now_ns

    def busy(self, now_ns: int) -> frozenset[int]:
        """The backends that are to be left alone."""
        return frozenset(backend_id for _, backend_id in self._recent(now_ns))

    def failing(self, now_ns: int) -> frozenset[int]:
        """Those of them that pgpool-II reports as failed."""
        return frozenset(backend_id for kind, backend_id in self._recent(now_ns) if kind is DecisionKind.DOWN)

    def _recent(self, now_ns: int) -> list[tuple[DecisionKind, int]]:
        self._ended_ns = {key: at_ns for key, at_ns in self._ended_ns.items() if now_ns < at_ns + AFTERMATH_NS}
        return [*self._ended_ns, *self._running]
