"""Series of answers of the tie-breaker (P22): when it was asked for the newest one, and since when without a failure.

An answer counts from the instant of asking: whatever happens after that makes it older, never younger. Any question
that fails, or is not answered in its time, ends the series, and so does a time without questions, in which it might
have failed. What follows from a series is watchdog main's business.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """When the newest answered question of the series was asked, and the first one (0: there is no series)."""

    asked_at_ns: int
    since_ns: int
    evidence: str


NEVER = Seen(0, 0, "not asked yet")


class Series:
    """One tie-breaker, asked by one process."""

    def __init__(self, gap_ns: int) -> None:
        """Questions `gap_ns` or more apart are no series."""
        self._gap_ns = gap_ns
        self.seen = NEVER

    def answered(self, asked_at_ns: int, evidence: str) -> Seen:
        """A question that was asked then has been answered in its time."""
        known = self.seen
        unbroken = known.asked_at_ns > 0 and asked_at_ns - known.asked_at_ns < self._gap_ns
        self.seen = Seen(asked_at_ns, known.since_ns if unbroken else asked_at_ns, evidence)
        return self.seen

    def failed(self, evidence: str) -> Seen:
        """A question has failed: the next answer begins a series of its own."""
        self.seen = Seen(0, 0, evidence)
        return self.seen
