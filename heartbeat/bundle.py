"""Heartbeats that can wait for each other on their way to lifecheck; pure.

Every message inside a node wakes three threads, which costs more than all that is done with a heartbeat. So one that
says nothing new and comes in time waits for the next of the same peer, and all that wait go together. Each keeps the
instant of its arrival, which is what lifecheck judges by. One that says something new, is the first, or was late goes
at once, and none waits for so long that lifecheck could miss it: see `HOLD`.
"""

from __future__ import annotations

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Beat, Heard

# In intervals. A dead time has at least three (`config.rules`): what lifecheck knows is at most 1.5 intervals older
# than the heartbeat that waits, and gets 1.25 intervals older until that has gone.
IN_TIME = 1.5
HOLD = 1.25
LONGEST_INTERVAL_MS = 400
"""Slower heartbeats go at once: they cost little, and what status shows would be old."""


class Bundle:
    """What waits on one path."""

    def __init__(self, interval_ms: int) -> None:
        interval_ns = interval_ms * NS_PER_MS if interval_ms <= LONGEST_INTERVAL_MS else 0
        self._in_time_ns = int(interval_ns * IN_TIME)
        self._hold_ns = int(interval_ns * HOLD)
        self._passed: dict[int, Heard] = {}
        self._held: dict[int, Heard] = {}
        self.due_ns: int | None = None
        """When what waits has to go, if nothing comes."""

    def add(self, heard: Heard) -> bool:
        """Take one; true if all have to go now."""
        node_id = heard.node_id
        last = self._passed.get(node_id)
        urgent = (
            last is None
            or node_id in self._held
            or heard.received_at_ns - last.received_at_ns > self._in_time_ns
            or _said(heard.beat) != _said(last.beat)
        )
        self._held[node_id] = heard
        if self.due_ns is None:
            self.due_ns = heard.received_at_ns + self._hold_ns
        return urgent

    def take(self) -> tuple[Heard, ...]:
        """All that wait; they count as passed on."""
        held = tuple(self._held.values())
        self._passed.update(self._held)
        self._held.clear()
        self.due_ns = None
        return held

    def forget(self) -> None:
        """What was passed on last did not arrive: whatever comes next goes at once."""
        self._passed.clear()


def _said(beat: Beat) -> tuple[object, ...]:
    """What is news if it changes: all but the ages."""
    return beat.role, beat.term, beat.electable, beat.pgpool, beat.priority, beat.hears
