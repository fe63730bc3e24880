"""Heartbeats that can wait for each other on their way to lifecheck; pure.

Every message inside a node wakes three threads, which costs more than all that is done with a heartbeat. So one that
says nothing new and comes in time waits, and all that wait go together. Each keeps the instant of its arrival, which
is what lifecheck judges by. One that says something new, is the first, or was late goes at once, and none waits for so
long that lifecheck could miss it: see `hold_intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
_said = attrgetter("role", "term", "electable", "pgpool", "priority", "hears", "cannot_query")


def hold_intervals(interval_ms: int, deadtime_ms: int) -> float:
    """How long a heartbeat may wait.

    What lifecheck knows is at most `IN_TIME` older than the heartbeat that waits, or that had gone at once. Both
    together have to be less than the dead time, with a margin for the way. A dead time is three intervals at least
    (`config.rules`).
    """
    deadtime = max(SHORTEST_DEADTIME, deadtime_ms / interval_ms)
    return min(LONGEST_HOLD, deadtime - IN_TIME - MARGIN)


@dataclass(slots=True)
class _Newest:
    """The last heartbeat of a node; `heard` may be an older one that said the same with other numbers."""

    heard: Heard
    at_ns: int
    up_for_ms: int
    content_age_ms: int

    def full(self) -> Heard:
        if self.at_ns != self.heard.received_at_ns:
            beat = replace(self.heard.beat, up_for_ms=self.up_for_ms, content_age_ms=self.content_age_ms)
            self.heard = replace(self.heard, received_at_ns=self.at_ns, beat=beat)
        return self.heard


class Bundle:
    """What waits on one path; a dead time of 0 is the shortest one."""

    def __init__(self, interval_ms: int, deadtime_ms: int = 0) -> None:
        interval_ns = interval_ms * NS_PER_MS if interval_ms <= LONGEST_INTERVAL_MS else 0
        self._in_time_ns = int(interval_ns * IN_TIME)
        self._hold_ns = int(interval_ns * hold_intervals(interval_ms, deadtime_ms))
        self._early_ns = int(self._hold_ns * EARLY)
        self._newest: dict[int, _Newest] = {}
        self._held: dict[int, _Newest] = {}
        self._lost = False
        self.due_ns: int | None = None
        """When what waits has to go, if nothing comes."""

    def add(self, heard: Heard) -> bool:
        """Take one; true if all have to go now."""
        node_id, beat, now_ns = heard.node_id, heard.beat, heard.received_at_ns
        last = self._newest.get(node_id)
        self._newest[node_id] = _Newest(heard, now_ns, beat.up_for_ms, beat.content_age_ms)
        if last is None or _said(beat) != _said(last.heard.beat):
            self._hold(node_id, now_ns, now_ns)
            return True
        return self._hold(node_id, now_ns, last.at_ns)

    def repeat(self, node_id: int, now_ns: int, up_for_ms: int, content_age_ms: int) -> bool:
        """As `add`, for a node that says the same as in the last one that was added."""
        newest = self._newest[node_id]
        last_ns, newest.at_ns = newest.at_ns, now_ns
        newest.up_for_ms, newest.content_age_ms = up_for_ms, content_age_ms
        return self._hold(node_id, now_ns, last_ns)

    def _hold(self, node_id: int, now_ns: int, last_ns: int) -> bool:
        self._held[node_id] = self._newest[node_id]
        if self.due_ns is None:
            self.due_ns = now_ns + self._hold_ns
        return now_ns >= self.due_ns - self._early_ns or now_ns - last_ns > self._in_time_ns or self._lost

    def take(self) -> tuple[Heard, ...]:
        """All that wait; they count as passed on."""
        held = tuple(newest.full() for newest in self._held.values())
        self._held.clear()
        self.due_ns, self._lost = None, False
        return held

    def again(self, now_ns: int) -> tuple[Heard, ...]:
        """The newest of every node that is heard in time: for a lifecheck that has started and knows nothing."""
        self._held |= {
            node_id: newest for node_id, newest in self._newest.items() if now_ns - newest.at_ns <= self._in_time_ns
        }
        return self.take()

    def forget(self) -> None:
        """What was passed on last did not arrive: whatever comes next goes at once."""
        self._lost = True
