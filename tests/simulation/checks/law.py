"""The arithmetic of the protocol once more, for the checkers: a mistake in the product's own must not hide itself."""

from __future__ import annotations

RHO_PERMILLE = 10


def majority(voters: int) -> int:
    """Any two groups of this size share a member."""
    return voters // 2 + 1


def lease_ns(lease_ms: int) -> int:
    """How long a lease runs from the sending of its renewal: L * (1 - rho)."""
    return lease_ms * 1_000 * (1000 - RHO_PERMILLE)
