"""What a case of the matrix is: a fault, whom it hits, when, and how long the service may be away for it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.ground import Ground, Setting


class Role(enum.Enum):
    """Whom a fault hits."""

    LEADER = "leader"
    STANDBY = "standby"
    SUCCESSOR = "successor"
    """The node that a hand-over goes to."""
    CANDIDATE = "candidate"
    """The node that stands after the leader is lost."""
    VOTER = "voter"
    """The node that is asked for its vote then."""
    ALL = "all"


class Timing(enum.Enum):
    """When a fault begins."""

    STEADY = "steady"
    HAND_OVER = "hand-over"
    """At the instant at which the old leader's address goes."""
    ELECTION = "election"
    """At the instant at which a node stands after the leader was killed whole."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest outage allowed, and why. 0: nothing may be lost and the VIP must not move."""

    ms: int
    why: str


def nothing() -> None:
    """For faults that need no undoing, or that the product itself must undo."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault that is ready to be made; all that takes time has been done before."""

    strike: Callable[[], None]
    undo: Callable[[], None] = nothing
    note: Callable[[], str] = str
    """What is worth reporting afterwards."""


Fault = Callable[[Ground, Sequence[Host]], Blow]
"""Prepares a fault for some hosts; changes nothing yet."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the matrix."""

    fault: str
    role: Role
    timing: Timing
    limit: Limit
    prepare: Fault
    hold_s: float = 2.0
    """How long the fault lasts after its moment."""
    ahead_s: float = 0.0
    """How long before its moment it begins; for faults that hit all nodes and are a condition, not an event."""
    setting: Setting = Setting.PLAIN

    @property
    def name(self) -> str:
        return f"{self.fault}/{self.role.value}/{self.timing.value}"
