"""Majorities of a set of voters: won, pending or lost, never a bare bool."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence


class Tally(enum.Enum):
    """What the answers so far amount to."""

    WON = "won"
    PENDING = "pending"
    LOST = "lost"


def majority(voters: int) -> int:
    """The smallest number of voters of which any two groups share a member."""
    return voters // 2 + 1


def tally(voters: Sequence[int], yes: Collection[int], no: Collection[int]) -> Tally:
    """Count answers of voters; answers of others do not count, an answer counts once."""
    needed = majority(len(voters))
    in_favour = len([voter for voter in voters if voter in yes])
    if voters and in_favour >= needed:
        return Tally.WON
    against = len([voter for voter in voters if voter in no and voter not in yes])
    if not voters or len(voters) - against < needed:
        return Tally.LOST
    return Tally.PENDING


def is_half(voters: Sequence[int], yes: Collection[int]) -> bool:
    """Whether at least half of the voters agree; two such groups of an even number may share nobody (P22)."""
    return bool(voters) and 2 * len([voter for voter in voters if voter in yes]) >= len(voters)
