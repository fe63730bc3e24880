"""The values that `reconcile` works on: what it is told, what it remembers, what it wants done.

Pure. The memory is a value of its own, so that every rule can be tried from any past.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pgvigil.watchdog.core.messages import SeenBackend
from pgvigil.watchdog.core.record import DecisionKind, Document
from pgvigil.watchdog.pools.view import Incarnation, PoolBackend, View


class OrderKind(enum.Enum):
    """What the local pgpool-II can be told."""

    ATTACH = "attach"
    DETACH = "detach"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Order:
    """One order for the local pgpool-II, and why."""

    kind: OrderKind
    backend_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A change made by hand at the local pgpool-II, to be decided for all."""

    kind: DecisionKind
    backend_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of this node's own question to a PostgreSQL, and when that was asked: silence from before a decision
    must not end as one from after it. `answers` is None if it could not be asked.
    """

    at_ns: int
    answers: bool | None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at `now_ns`.

    `incarnation` is who runs now, which may be another one than the view's. `busy`: backends for which pgpool-II is
    inside a command of ours, or was a moment ago; `failing`: those of them that it reports as failed. `asking`: those
    with an ask that has no answer yet. `ordering`: an order has no answer yet.
    """

    now_ns: int
    agreed: Document | None
    view: View | None
    incarnation: Incarnation | None
    busy: frozenset[int] = frozenset()
    failing: frozenset[int] = frozenset()
    asking: frozenset[int] = frozenset()
    probes: Mapping[int, Probed] = field(default_factory=dict)
    ordering: bool = False


@dataclass(frozen=True, slots=True)
class Ordered:
    """The newest order for a backend; `awaited` until its effect has been seen, at `done_ns`.

    Until `attach_due_ns` an attach may come about that was ordered, be it before this order.
    """

    kind: OrderKind
    at_ns: int
    tries: int
    awaited: bool = True
    done_ns: int = 0
    attach_due_ns: int = 0


@dataclass(frozen=True, slots=True)
class ByHand:
    """A change that this node saw and nobody ordered; `decision` is the one under which it was made."""

    kind: DecisionKind
    decision: int
    tries: int = 0
    next_ns: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A backend's newest decision: since when this node knows it, and whether pgpool-II has been seen to fit it."""

    decision: int
    since_ns: int
    matched: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node remembers of one life of its pgpool-II; without it, it imposes what is agreed."""

    incarnation: Incarnation | None = None
    since_ns: int = 0
    view: View | None = None
    settled: bool = False
    """Whether it has been in the agreed state once."""
    known: Mapping[int, Known] = field(default_factory=dict)
    ordered: Mapping[int, Ordered] = field(default_factory=dict)
    by_hand: Mapping[int, ByHand] = field(default_factory=dict)
    down_since_ns: Mapping[int, int] = field(default_factory=dict)
    last_order_ns: int = 0
    wrong_primary_since_ns: int | None = None
    agreed_ns: int = 0
    """When something agreed was known last."""
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now, and what to say of the backends."""

    memory: Memory
    order: Order | None = None
    asks: tuple[Ask, ...] = ()
    probes: tuple[PoolBackend, ...] = ()
    seen: tuple[SeenBackend, ...] = ()
    obstacle: str = ""
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for the log, once each."""
