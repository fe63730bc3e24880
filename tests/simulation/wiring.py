"""What the real process loop runs on here: queues instead of sockets, an alarm instead of a timerfd.

The loop sleeps in `SimPoller.poll`. With nothing readable there is nothing to run, so the poller leaves the loop
by `Parked`; whoever runs the process catches it and enters the loop again at the next event. Sources are
level-triggered as descriptors are: readable until they were drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from tests.simulation.clock import Clock
from tests.simulation.world import World

from pgvigil.ipc.errors import InvariantError

T = TypeVar("T")
TIMER_FD = 0
MOST_ROUNDS = 10_000


class Parked(Exception):
    """The loop sleeps."""


class SimPoller:
    """Readable sources in the order in which they became so."""

    def __init__(self) -> None:
        self.ready: dict[object, None] = {}
        self.rounds = 0

    def add(self, source: object) -> None:
        """A queue tells by itself."""

    def remove(self, source: object) -> None:
        self.ready.pop(source, None)

    def poll(self, timeout_ms: int) -> list[object]:
        if not self.ready:
            self.rounds = 0
            raise Parked
        self.rounds += 1
        if self.rounds > MOST_ROUNDS:
            raise InvariantError(f"a loop runs {MOST_ROUNDS} rounds without any time passing, expected it to sleep")
        return list(self.ready)


class Inlet(Generic[T]):
    """A socket with what has arrived and was not taken yet; what does not fit is lost."""

    def __init__(self, poller: SimPoller, on_readable: Callable[[], None], limit: int = 10_000) -> None:
        self._poller = poller
        self._on_readable = on_readable
        self._limit = limit
        self._items: deque[T] = deque()

    def put(self, item: T) -> bool:
        """False if it was full."""
        if len(self._items) >= self._limit:
            return False
        self._items.append(item)
        self._poller.ready[self] = None
        self._on_readable()
        return True

    def take(self) -> T | None:
        """The oldest, or None with the source not readable any more."""
        if self._items:
            return self._items.popleft()
        self._poller.ready.pop(self, None)
        return None


class SimTimer:
    """An alarm on one machine's clock. Only the nearest instant stands in the queue of the world."""

    fd = TIMER_FD

    def __init__(self, world: World, clock: Clock, poller: SimPoller, on_expiry: Callable[[], None]) -> None:
        self._world = world
        self._clock = clock
        self._poller = poller
        self._on_expiry = on_expiry
        self._armed_for_ns: int | None = None
        self._queued_ns: int | None = None

    def arm(self, at_ns: int | None) -> None:
        if at_ns == self._armed_for_ns:
            return
        self._armed_for_ns = at_ns
        self._poller.ready.pop(TIMER_FD, None)
        if at_ns is not None:
            self._queue(self._clock.true(at_ns))

    def expired(self) -> None:
        self._armed_for_ns = None
        self._poller.ready.pop(TIMER_FD, None)

    def close(self) -> None:
        """Nothing to give back."""

    def recheck(self) -> None:
        """The clock stood still or goes on after a pause."""
        if self._armed_for_ns is not None:
            self._queued_ns = None
            self._queue(self._clock.true(self._armed_for_ns))

    def _queue(self, true_ns: int) -> None:
        if self._queued_ns is None or true_ns < self._queued_ns:
            self._queued_ns = true_ns
            self._world.at(true_ns, lambda: self._due(true_ns))

    def _due(self, queued_ns: int) -> None:
        if self._queued_ns != queued_ns:
            return
        self._queued_ns = None
        if self._armed_for_ns is None:
            return
        if self._clock.read() < self._armed_for_ns:
            self._queue(self._clock.true(self._armed_for_ns))
            return
        self._poller.ready[TIMER_FD] = None
        self._on_expiry()
