"""Heartbeats that can wait for each other on their way to lifecheck; pure.

Every message inside a node wakes three threads, which costs more than all that is done with a heartbeat. So one that
says nothing new and comes in time waits, and all that wait go together. Each keeps the instant of its arrival, which
is what lifecheck judges by. One that says something new, is the first, or was late goes at once, and none waits for so
long that lifecheck could miss it: see `hold_intervals`.
"""

from __future__ import annotations

from operator import attrgetter

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Heard

# In intervals.
IN_TIME = 1.5
LONGEST_HOLD = 2.5
MARGIN = 0.25
EARLY = 0.4
"""Share of the hold: a heartbeat that comes so shortly before its end takes all with it and spares a wake-up."""
SHORTEST_DEADTIME = 3
LONGEST_INTERVAL_MS = 400
"""Slower heartbeats go at once: they cost little, and what status shows would be old."""

# What is news if it changes: all but the ages.
_said = attrgetter("role", "term", "electable", "pgpool", "priority", "hears")


def hold_intervals(interval_ms: int, deadtime_ms: int) -> float:
    """How long a heartbeat may wait.

    What lifecheck knows is at most `IN_TIME` older than the heartbeat that waits, or that had gone at once. Both
    together have to be less than the dead time, with a margin for the way. A dead time is three intervals at least
    (`config.rules`).
    """
    deadtime = max(SHORTEST_DEADTIME, deadtime_ms / interval_ms)
    return min(LONGEST_HOLD, deadtime - IN_TIME - MARGIN)


class Bundle:
    """What waits on one path; a dead time of 0 is the shortest one."""

    def __init__(self, interval_ms: int, deadtime_ms: int = 0) -> None:
        interval_ns = interval_ms * NS_PER_MS if interval_ms <= LONGEST_INTERVAL_MS else 0
        self._in_time_ns = int(interval_ns * IN_TIME)
        self._hold_ns = int(interval_ns * hold_intervals(interval_ms, deadtime_ms))
        self._early_ns = int(self._hold_ns * EARLY)
        self._newest: dict[int, Heard] = {}
        self._held: dict[int, Heard] = {}
        self.due_ns: int | None = None
        """When what waits has to go, if nothing comes."""

    def add(self, heard: Heard) -> bool:
        """Take one; true if all have to go now."""
        node_id, now_ns = heard.node_id, heard.received_at_ns
        last = self._newest.get(node_id)
        self._newest[node_id] = self._held[node_id] = heard
        if self.due_ns is None:
            self.due_ns = now_ns + self._hold_ns
        return (
            last is None
            or now_ns >= self.due_ns - self._early_ns
            or now_ns - last.received_at_ns > self._in_time_ns
            or _said(heard.beat) != _said(last.beat)
        )

    def take(self) -> tuple[Heard, ...]:
        """All that wait; they count as passed on."""
        held = tuple(self._held.values())
        self._held.clear()
        self.due_ns = None
        return held

    def again(self, now_ns: int) -> tuple[Heard, ...]:
        """The newest of every node that is heard in time: for a lifecheck that has started and knows nothing."""
        self._held |= {
            node_id: heard
            for node_id, heard in self._newest.items()
            if now_ns - heard.received_at_ns <= self._in_time_ns
        }
        return self.take()

    def forget(self) -> None:
        """What was passed on last did not arrive: whatever comes next goes at once."""
        self._newest.clear()
