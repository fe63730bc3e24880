"""What one play of a failover showed: promotions, the client's writes, and whether the pgpool-IIs agree.

Pure judging, so that a test can feed it every picture. Promotions are counted in three independent ways, and the
largest count is believed: what the hosts wrote down, how many timelines PostgreSQL went on by, and how many of the
servers that were standbys are writable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.demo.records import Record, longest_gap_ns


@dataclass(frozen=True, slots=True)
class Promotions:
    """Three counts of the same thing."""

    written_down: int
    timelines: int
    writable: int
    """Servers that were standbys and are primaries now."""

    @property
    def seen(self) -> int:
        return max(self.written_down, self.timelines, self.writable)

    @property
    def agree(self) -> bool:
        return self.written_down == self.timelines == self.writable


@dataclass(frozen=True, slots=True)
class Writes:
    """How the client's writes went in one window."""

    gap_s: float
    """Longest time without an acknowledgement."""
    failed: int
    asked: int
    backends: tuple[int, ...]
    """Hosts whose PostgreSQL acknowledged, in order of asking; one that comes twice took turns with another."""

    @property
    def never_mixed(self) -> bool:
        return len(self.backends) == len(set(self.backends))


def writes_in(records: Iterable[Record], start_ns: int, end_ns: int) -> Writes:
    """Judge the writes that were begun from `start_ns` to `end_ns`; the window's edges count as acknowledgements."""
    window = sorted((r for r in records if start_ns <= r.asked_at_ns <= end_ns), key=lambda r: r.asked_at_ns)
    good = [record for record in window if record.answered_at_ns]
    acknowledged = sorted(record.answered_at_ns for record in good)
    return Writes(
        gap_s=longest_gap_ns(acknowledged, start_ns, end_ns) / NS_PER_S,
        failed=len(window) - len(good),
        asked=len(window),
        backends=tuple(who - FIRST_ADDRESS for who, _ in groupby(record.who for record in good)),
    )


FIRST_ADDRESS = 10
"""The last byte of the address of host n1 is one more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measured part of a play."""

    scenario: str
    promotions: int
    wanted_promotions: int
    gap_s: float
    agree: int
    of: int
    """How many pgpool-IIs there are."""
    wrong: tuple[str, ...]
    """What else did not hold, in words."""
    details: str = ""

    @property
    def holds(self) -> bool:
        return not self.wrong


def judge(
    scenario: str, wanted_promotions: int, promotions: Promotions, writes: Writes, agree: int, of: int,
    others: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    """Put together what was seen; `others` are mistakes that only the play itself can see."""
    wrong = list(others)
    if promotions.seen != wanted_promotions or not promotions.agree:
        wrong.append(f"{promotions}, expected {wanted_promotions} of each")
    if not writes.never_mixed:
        wrong.append(f"backends took turns in acknowledging writes: {writes.backends}")
    if agree != of:
        wrong.append(f"{agree} of {of} pgpool-IIs agree")
    details = (
        f"writes went to {'>'.join(f'n{who}' for who in writes.backends)}, {writes.failed} of {writes.asked} failed"
    )
    return Outcome(scenario, promotions.seen, wanted_promotions, writes.gap_s, agree, of, tuple(wrong), details)
