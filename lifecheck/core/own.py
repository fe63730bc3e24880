"""What the checks of this node itself come to: the verdict on the local pgpool-II, and what else speaks against it.

Each method states a `Check`; this module joins them and knows nothing of how they came about. A check of pgpool-II
(its process, a query, what peers say) can make it dead; one of the host (links, upstream) only makes the node unfit
to lead, because a pgpool-II that runs is not to be called dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgvigil.ipc.frames import Check, Health
from pgvigil.lifecheck.core.verdict import combine_health

PGPOOL_METHODS = ("process", "query", "peers", "external")
HOST_METHODS = ("links", "upstream")


@dataclass(frozen=True, slots=True)
class OwnVerdict:
    """The local pgpool-II, since when and why; `unfit` is empty if the host is fit."""

    health: Health
    since_ns: int
    evidence: str
    unfit: str = ""


def judge_own(checks: Sequence[Check], before: OwnVerdict, now_ns: int) -> OwnVerdict:
    """The verdict of `now_ns`; `before` tells since when it holds, and stays where nothing checks pgpool-II."""
    unfit = "; ".join(check.evidence for check in checks if check.method in HOST_METHODS and _is_dead(check))
    known = [check for check in checks if check.method in PGPOOL_METHODS]
    if not known:
        return OwnVerdict(before.health, before.since_ns, before.evidence, unfit)
    health = combine_health([check.health for check in known])
    evidence = "; ".join(check.evidence for check in known if check.health is health)
    since_ns = before.since_ns if health is before.health else now_ns
    return OwnVerdict(health, since_ns, evidence, unfit)


def _is_dead(check: Check) -> bool:
    return check.health is Health.DEAD
