"""What the samplers wrote, and what it means: pure functions over recorded lists.

A record says when something was asked, when it was answered and by whom. From such lists come the two numbers of the
acceptance table: the longest time without an answer, and whether two nodes answered at once. Nothing here asks a clock
or a socket, so the verdicts can be tested with lists that are known to be bad.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS

ANSWER_LIMIT_MS = 500
"""A later answer counts as none: it may come from TCP's own second try after 1 s and hide an outage."""
MERGE_MS = 50
"""Answers of one node that are closer than this belong to one interval: ten questions at 5 ms."""
FIELDS = 3
RECORD_BYTES = FIELDS * 8


@dataclass(frozen=True, slots=True)
class Record:
    """One question. Times are CLOCK_BOOTTIME in nanoseconds; `answered_at_ns` is 0 when nobody answered."""

    asked_at_ns: int
    answered_at_ns: int
    who: int
    """Number of the node that answered."""

    @property
    def is_good(self) -> bool:
        return 0 < self.answered_at_ns <= self.asked_at_ns + ANSWER_LIMIT_MS * NS_PER_MS


def read_records(path: Path, offset: int = 0) -> list[Record]:
    """All complete records of a file that may still be written to, from a byte offset on, by time of asking."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, offset // RECORD_BYTES * RECORD_BYTES))
        data = file.read()
    numbers = array("q", data[: len(data) // RECORD_BYTES * RECORD_BYTES])
    records = [Record(*numbers[at : at + FIELDS]) for at in range(0, len(numbers), FIELDS)]
    return sorted(records, key=lambda record: record.asked_at_ns)


@dataclass(frozen=True, slots=True)
class Outage:
    """How good the answers of one window were."""

    gap_ms: float
    """Longest time without an answer, by the instants of asking or of answering, whichever is worse."""
    lost: int
    """Questions without a timely answer."""
    asked: int
    owners: tuple[int, ...]
    """Nodes that answered, in order of their first answer in the window."""
    prober_gap_ms: float
    """Longest time in which the prober itself asked nothing: the error of `gap_ms`."""


def outage(records: Iterable[Record], start_ns: int, end_ns: int) -> Outage:
    """Judge the questions asked from `start_ns` to `end_ns`; the window's edges count as answers."""
    window = [record for record in records if start_ns <= record.asked_at_ns <= end_ns]
    good = [record for record in window if record.is_good]
    by_asking = longest_gap_ns([record.asked_at_ns for record in good], start_ns, end_ns)
    by_answer = longest_gap_ns(sorted(record.answered_at_ns for record in good), start_ns, end_ns)
    return Outage(
        gap_ms=max(by_asking, by_answer) / NS_PER_MS,
        lost=len(window) - len(good),
        asked=len(window),
        owners=tuple(dict.fromkeys(record.who for record in good)),
        prober_gap_ms=longest_gap_ns([record.asked_at_ns for record in window], start_ns, end_ns) / NS_PER_MS,
    )


def longest_gap_ns(instants_ns: Sequence[int], start_ns: int, end_ns: int) -> int:
    """The longest stretch of the window that holds none of the ascending instants."""
    edges = [start_ns, *(instant for instant in instants_ns if start_ns < instant < end_ns), end_ns]
    return max(after - before for before, after in pairwise(edges))


def first_answer_after(records: Iterable[Record], instant_ns: int) -> Record | None:
    """The earliest answer among the questions asked after an instant."""
    good = [record for record in records if record.is_good and record.asked_at_ns >= instant_ns]
    return min(good, key=lambda record: record.answered_at_ns, default=None)


@dataclass(frozen=True, slots=True)
class TwoAnswering:
    """Whether two nodes answered at once in a window."""

    overlap_ms: float
    doubled: int
    """Questions that two nodes answered."""
    instants_ns: tuple[int, ...]
    """The first few of them, and the starts of overlaps."""

    @property
    def never(self) -> bool:
        return self.overlap_ms == 0 and self.doubled == 0


MAX_INSTANTS = 20


def two_answering(records: Iterable[Record], start_ns: int = 0, end_ns: int = 2**63) -> TwoAnswering:
    """Find questions answered by two nodes, and nodes whose answers interleave (A, B, A within `MERGE_MS`)."""
    askers: dict[int, set[int]] = defaultdict(set)
    asked_ns: dict[int, list[int]] = defaultdict(list)
    for record in records:
        if record.answered_at_ns and start_ns <= record.asked_at_ns <= end_ns:
            askers[record.asked_at_ns].add(record.who)
            asked_ns[record.who].append(record.asked_at_ns)
    doubled = sorted(asked_at for asked_at, nodes in askers.items() if len(nodes) > 1)
    overlaps = _overlaps([interval for times in asked_ns.values() for interval in intervals(times)])
    return TwoAnswering(
        overlap_ms=sum(end - start for start, end in overlaps) / NS_PER_MS,
        doubled=len(doubled),
        instants_ns=tuple(sorted({*doubled[:MAX_INSTANTS], *(start for start, _ in overlaps)})[:MAX_INSTANTS]),
    )


def intervals(instants_ns: Iterable[int], merge_ms: float = MERGE_MS) -> list[tuple[int, int]]:
    """Join instants that are closer than `merge_ms` into intervals (first, last)."""
    result: list[tuple[int, int]] = []
    for instant in sorted(instants_ns):
        if result and instant - result[-1][1] <= merge_ms * NS_PER_MS:
            result[-1] = (result[-1][0], instant)
        else:
            result.append((instant, instant))
    return result


def _overlaps(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where two spans cover the same time. The spans of one node are disjoint, so two mean two nodes."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    result: list[tuple[int, int]] = []
    depth, since = 0, 0
    for instant, change in changes:
        if depth >= 2 and instant > since:
            result.append((since, instant))
        depth += change
        since = instant
    return result
