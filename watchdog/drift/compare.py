"""What differs between the settings of a node and those of the leader, as values and in words.

Only what both know is compared. A setting that one side does not know belongs to another version of pgvigil or
pgpool-II, or to a pgpool-II that could not be asked; the lists of nodes and of backends are settings of their own, so a
node or backend that one side lacks is seen. Nothing here decides what follows from a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgvigil.watchdog.drift.facts import Facts, is_fatal

TOLD_IN_A_SENTENCE = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting: its text here and its text on the leader."""

    key: str
    here: str
    leader: str

    @property
    def fatal(self) -> bool:
        """Whether it keeps this node from leading."""
        return is_fatal(self.key)

    def __str__(self) -> str:
        return f"{self.key}: here {self.here}, leader {self.leader}"


def differences(here: Facts, leader: Facts) -> tuple[Difference, ...]:
    """All differences, the fatal ones first, then by key."""
    found = [
        Difference(key, here[key], leader[key])
        for key in sorted(here.keys() & leader.keys())
        if here[key] != leader[key]
    ]
    return tuple(sorted(found, key=lambda one: not one.fatal))


def in_short(found: Sequence[Difference]) -> str:
    """The first differences in one sentence, and how many there are besides."""
    told = "; ".join(str(one) for one in found[:TOLD_IN_A_SENTENCE])
    more = len(found) - TOLD_IN_A_SENTENCE
    return f"{told} (and {more} more)" if more > 0 else told
