"""What the methods say of a node, and the one verdict that follows.

Every method of lifecheck (heartbeat now; query, links, upstream and external reports belong here) states an
`Opinion` on each node it can judge. This module combines them and knows nothing of how they came about. It refuses
to guess: without any opinion the verdict is UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pgvigil.ipc.frames import Health


@dataclass(frozen=True, slots=True)
class Opinion:
    """One method's view of one node, with the sentence that an operator reads."""

    health: Health
    evidence: str


class Method(Protocol):
    """A way to judge nodes. Events reach it by methods of its own; it is told the time and asked for opinions."""

    def health(self, node_id: int, now_ns: int) -> Health | None:
        """The view at `now_ns` without its reasons (asked often); None if this method says nothing about the node."""

    def opinion(self, node_id: int, now_ns: int) -> Opinion | None:
        """The same view with its evidence."""

    def wake(self) -> int | None:
        """The next instant at which an opinion can change by the passing of time alone."""

    def late(self, lateness_ns: int) -> None:
        """Our own loop was late by so much: silence of that time counts against nobody."""


def combine_health(healths: Sequence[Health]) -> Health:
    """One method that says DEAD is enough; ALIVE needs one that says so and none against it."""
    if Health.DEAD in healths:
        return Health.DEAD
    return Health.ALIVE if Health.ALIVE in healths else Health.UNKNOWN


def combine(opinions: Sequence[Opinion]) -> Opinion:
    """`combine_health`, with the evidence of the methods that said so."""
    if not opinions:
        return Opinion(Health.UNKNOWN, "no method judges other nodes")
    health = combine_health([opinion.health for opinion in opinions])
    return Opinion(health, ", ".join(opinion.evidence for opinion in opinions if opinion.health is health))
