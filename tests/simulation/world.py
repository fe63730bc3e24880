"""The queue of everything that will happen, in true time, and the one random source of each kind.

Nothing in a simulation asks the machine's clock or draws from a source without a seed, so a seed repeats a run
exactly. True time is an integer in nanoseconds that only this module moves; no simulated process ever sees it. A
process that is stopped in the middle of its work keeps its place on our stack: `run` is entered again until it may
go on.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class World:
    """Time and what is due."""

    def __init__(self, seed: int) -> None:
        """`seed` decides everything."""
        self.seed = seed
        self.now_ns = 0
        self.over = False
        self.steps = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0

    def source(self, purpose: str) -> random.Random:
        """A random source of its own for each purpose, so that one more draw of one does not disturb the others."""
        return random.Random(f"{self.seed} {purpose}")

    def at(self, at_ns: int, action: Callable[[], None]) -> None:
        """Do something at a true instant; instants of the past are due now."""
        self._serial += 1
        heapq.heappush(self._events, (at_ns if at_ns > self.now_ns else self.now_ns, self._serial, action))

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do something after a while of true time."""
        self._serial += 1
        heapq.heappush(self._events, (self.now_ns + delay_ns, self._serial, action))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until a condition holds, the world is over or nothing is left to happen."""
        events = self._events
        while events and not self.over and not until():
            self.now_ns, _, action = heapq.heappop(events)
            self.steps += 1
            action()

    def finish(self) -> None:
        """Nothing happens any more."""
        self.over = True

    def forget(self) -> None:
        """What was due never happens (tests of the checkers)."""
        self._events.clear()
