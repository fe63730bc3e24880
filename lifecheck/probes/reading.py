"""What every probe of this node offers to the lifecheck process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pgvigil.ipc.frames import Check, Health


@dataclass(frozen=True, slots=True)
class Reading:
    """What is believed, since when (CLOCK_BOOTTIME, ns), and why."""

    health: Health
    since_ns: int
    evidence: str

    def check(self, method: str) -> Check:
        """For the report."""
        return Check(method, self.health, self.since_ns, self.evidence)


class Watcher(Protocol):
    """The part of `ipc.loop.Loop` that probes need."""

    def watch(self, source: object, on_readable: Callable[[], None]) -> None: ...
    def unwatch(self, source: object) -> None: ...


class Probe(Protocol):
    """One method that judges this node. It never blocks, and costs nothing unless it is configured.

    Whoever makes it gives it a callback for changes of `reading`'s health; words alone are no change.
    """

    method: str

    @property
    def reading(self) -> Reading:
        """What it believes now."""

    def wake(self) -> int | None:
        """The next instant at which it has something to do."""

    def tick(self, now_ns: int) -> None:
        """Do it; may be called early."""

    def late(self, lateness_ns: int) -> None:
        """Our own loop stood still for so long: the time counts against nobody."""

    def close(self) -> None:
        """Give descriptors back."""
