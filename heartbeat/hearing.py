"""Whom the receiver of one path hears, and when to say that it hears nothing; pure.

Two things follow from silence, long before anybody is dead. The sender of this path stops to tell the others that we
hear the peer: their word for a peer that only we have lost, and ours for them, must be taken back before it could
keep a dead node alive. And lifecheck is told, again and again, that the receiver is awake and there is nothing
to read: a receiver that stands still says nothing, and its silence counts against nobody.
"""

from __future__ import annotations

from pgvigil.heartbeat.bundle import SHORTEST_DEADTIME
from pgvigil.ipc.clock import NS_PER_MS

LATELY = 0.75
"""Share of the dead time: what is left has to be enough for the news to reach the others."""
TESTIFY_DEADTIMES = 5
"""A peer that others still hear may be given four of them (`lifecheck.core.detector`)."""
EARLY = 0.5
"""Share of the time until silence: who is awake so shortly before looks at once, and spares a wake-up."""


class Hearing:
    """All peers of one path. A dead time of 0 is the shortest one; `latest_ms` is the longest it can become."""

    def __init__(
        self, node_ids: tuple[int, ...], interval_ms: int, deadtime_ms: int, latest_ms: int, now_ns: int
    ) -> None:
        deadtime_ns = max(deadtime_ms, SHORTEST_DEADTIME * interval_ms) * NS_PER_MS
        self._lately_ns = int(deadtime_ns * LATELY)
        self._testify_for_ns = TESTIFY_DEADTIMES * max(deadtime_ns, latest_ms * NS_PER_MS)
        self._pause_ns = interval_ms * NS_PER_MS // 2
        self._last_ns = dict.fromkeys(node_ids, now_ns)
        self._testify_until_ns = 0
        self.hears: tuple[int, ...] = ()
        """Peers that were heard lately, in the order of the configuration."""
        self.due_ns = now_ns + self._lately_ns
        """When silence has to be looked at."""

    def heard(self, node_id: int, now_ns: int) -> bool:
        """Take a heartbeat; true if `hears` has changed."""
        self._last_ns[node_id] = now_ns
        if node_id in self.hears:
            return False
        self.hears = tuple(known for known in self._last_ns if known == node_id or known in self.hears)
        return True

    def soon(self, now_ns: int) -> bool:
        """Whether one that is awake should look now."""
        return now_ns >= self.due_ns - int(self._lately_ns * EARLY)

    def silent(self, now_ns: int) -> bool:
        """Whether any peer has not been heard lately."""
        return any(now_ns - last_ns >= self._lately_ns for last_ns in self._last_ns.values())

    def look(self, now_ns: int) -> bool:
        """Look for silence; true if lifecheck should be told that nothing was there to read."""
        heard = {node_id: last_ns for node_id, last_ns in self._last_ns.items() if now_ns - last_ns < self._lately_ns}
        self.hears = tuple(node_id for node_id in self.hears if node_id in heard)
        self.due_ns = min(heard.values(), default=now_ns) + self._lately_ns
        if len(heard) == len(self._last_ns):
            return False
        newly = max(last_ns for node_id, last_ns in self._last_ns.items() if node_id not in heard)
        if now_ns < max(newly + self._testify_for_ns, self._testify_until_ns):
            self.due_ns = min(self.due_ns, now_ns + self._pause_ns)
        return True

    def begin_again(self, now_ns: int) -> None:
        """A lifecheck that has started knows nothing, and gives everybody a dead time from now on."""
        self._testify_until_ns = now_ns + self._testify_for_ns
        self.due_ns = min(self.due_ns, now_ns + self._pause_ns)
