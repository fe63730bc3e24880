"""What the peers' words about our pgpool-II come to.

A pgpool-II whose own node can query it may still be out of reach for everybody else: a firewall, a listen address. If
most of the peers that can judge say that they cannot query it, they are right whatever our own checks say. Their words
are heartbeats, so nothing is asked; and a node that has handed over is queried as before, so it recovers by evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.verdict import Opinion


@dataclass(frozen=True, slots=True)
class Word:
    """One peer that is alive, whose own pgpool-II is alive too, and whether it can query ours."""

    label: str
    cannot_query: bool


def judge_words(words: Sequence[Word], peers: int) -> Opinion:
    """DEAD or UNKNOWN, never ALIVE: that nobody complains is no proof. `peers` counts all nodes but ours.

    More than half of those that speak, and at least half of all: a lone survivor of five cannot condemn us, one of
    two can. A peer with wrong credentials says nothing against us, and so speaks for us here.
    """
    against = [word.label for word in words if word.cannot_query]
    count = f"{len(against)} of {len(words)} peers cannot query it"
    if 2 * len(against) > len(words) and 2 * len(against) >= peers:
        return Opinion(Health.DEAD, f"{count}: {', '.join(against)}")
    if against:
        return Opinion(Health.UNKNOWN, f"{count}: {', '.join(against)}; that is no majority")
    return Opinion(Health.UNKNOWN, f"none of {len(words)} peers says that it cannot query it")
