"""One path to one peer: when it was heard, until when it may be silent, and whether it is.

Silence is a fact only with the word of the receiver that nothing was left to read shortly before the deadline. Without
it the path is overdue: nobody knows whether the peer is silent or our receiver deaf. The module knows no node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pgvigil.ipc.frames import Beat, PathEvidence, PathQuality

NS_PER_MS = 1_000_000


class Patience(Protocol):
    """How long a silence has to be before it means something; `lifecheck.core.accrual` is the adaptive one."""

    @property
    def ceiling_ns(self) -> int:
        """The longest it can be."""

    def deadtime_ns(self, quality: PathQuality) -> int:
        """On a path that has been heard so well."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same patience with every path."""

    ceiling_ns: int

    def deadtime_ns(self, _quality: PathQuality) -> int:
        """As pgpool-II's wd_heartbeat_deadtime."""
        return self.ceiling_ns


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path has fallen silent, or is heard again after `lasted_ms`."""

    node_id: int
    interface: str
    silent: bool
    lasted_ms: int


class Path:
    """Times are CLOCK_BOOTTIME in ns. `heard_at_ns` is 0 before the first time, `deadline_ns` the end of patience."""

    __slots__ = (
        "_interval_ns",
        "_lasted_ns",
        "_patience",
        "beat",
        "deadline_ns",
        "heard_at_ns",
        "interface",
        "overdue",
        "quality",
        "quiet_at_ns",
        "silent",
        "silent_since_ns",
    )

    def __init__(self, interface: str, patience: Patience, interval_ns: int, started_at_ns: int) -> None:
        self.interface = interface
        self._patience = patience
        self._interval_ns = interval_ns
        self.silent_since_ns = started_at_ns
        self.deadline_ns = started_at_ns + patience.ceiling_ns
        self.heard_at_ns = 0
        self.quiet_at_ns = 0
        self.overdue = False
        self.silent = False
        self._lasted_ns: int | None = None
        self.beat: Beat | None = None
        self.quality: PathQuality | None = None

    def take(self, at_ns: int, beat: Beat) -> bool:
        """A heartbeat that arrived at `at_ns`; false if a later one is known."""
        if at_ns < self.heard_at_ns:
            return False
        if self.silent and self._lasted_ns is None:
            self._lasted_ns = at_ns - self.silent_since_ns
        self.heard_at_ns = self.silent_since_ns = at_ns
        known = self.quality
        patience_ns = self._patience.ceiling_ns if known is None else self._patience.deadtime_ns(known)
        self.deadline_ns = max(self.deadline_ns, at_ns + patience_ns)
        self.beat = beat
        return True

    def silent_at(self, now_ns: int) -> bool:
        """Whether the silence is too long, and known to be none of ours.

        The receiver repeats its word in less than an interval: one heartbeat at most is missed by that, of several.
        """
        return now_ns >= self.deadline_ns and self.quiet_at_ns >= self.deadline_ns - self._interval_ns

    def change(self, node_id: int, now_ns: int) -> PathChange | None:
        """What has become of it since this was last asked."""
        self.overdue = now_ns >= self.deadline_ns
        if not self.silent and self.silent_at(now_ns):
            self.silent, self._lasted_ns = True, None
            return PathChange(node_id, self.interface, True, (now_ns - self.silent_since_ns) // NS_PER_MS)
        # Time that is given back because we stood still ends no silence; only a heartbeat does.
        if self.silent and self._lasted_ns is not None and not self.silent_at(now_ns):
            self.silent = False
            return PathChange(node_id, self.interface, False, self._lasted_ns // NS_PER_MS)
        return None

    def silence(self, now_ns: int) -> str:
        """For a sentence that begins with silent, or never heard."""
        return f"on {self.interface} for {(now_ns - self.silent_since_ns) // NS_PER_MS} ms"

    def evidence(self) -> PathEvidence:
        """For the report."""
        silent_since_ns = self.silent_since_ns if self.silent else 0
        if (known := self.quality) is None:
            return PathEvidence(self.interface, self.heard_at_ns, silent_since_ns=silent_since_ns)
        measured = known.lost_permille, known.round_trip_us, known.jitter_us
        return PathEvidence(self.interface, self.heard_at_ns, *measured, silent_since_ns)
