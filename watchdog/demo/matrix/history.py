"""The history checker: who answered, who held the address, and what that means. Pure functions over recorded lists.

It knows neither faults nor processes and asks no clock and no socket, so that what makes a fault cannot excuse it, and
so that it can be tested with histories that are known to be bad. An answer proves that its node answered at some time
between the question and the answer; nothing more is concluded from it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.demo.records import MERGE_MS, Record, outage, two_answering

BACK_MS = 500
"""The service is back if somebody answered within the last so many milliseconds of the window."""
LATE_MS = 10
"""A prober that was late by less (five questions) does not spoil a measurement."""
ASKING = "TCP"
"""The view that measures outages: one question every 2 ms from the client."""


class Wrong(enum.Enum):
    """What a history can show that it must not."""

    TWO = "two nodes answered"
    GONE = "the service did not come back"
    LEFT = "the address was left behind"
    UNREST = "the cluster did not settle"
    MOVED = "the VIP moved"
    SLOW = "too long without an answer"
    BLIND = "a sampler heard nobody"
    LATE = "the prober itself was late"


@dataclass(frozen=True, slots=True)
class History:
    """What was recorded. Times are CLOCK_BOOTTIME in nanoseconds."""

    start_ns: int
    end_ns: int
    """End of the window in which outages count."""
    rest_ns: int
    """When the cluster had settled again, or was given up; until here nobody may answer beside another."""
    settled: bool
    answers: Mapping[str, Sequence[Record]]
    """By view ("TCP", "ARP", "packets"), from `start_ns` on."""
    held: Mapping[int, Sequence[Record]]
    """By node number: every change of the address in its namespace, from the beginning; `answered_at_ns` 0: absent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong, in words."""

    kind: Wrong
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the checker found."""

    outage_ms: float
    """Longest time without an answer; 0 if every question was answered and nothing may be lost."""
    lost: int
    two_instants: int
    """Questions that prove two nodes answering."""
    owners: tuple[int, ...]
    """Nodes that answered, in order of their first answer."""
    holders: tuple[int, ...]
    """Nodes whose namespace held the address at the end."""
    both_held_ms: float
    """How long two namespaces held the address: allowed behind a closed gate, worth knowing."""
    prober_gap_ms: float
    faults: tuple[Fault, ...]

    @property
    def holds(self) -> bool:
        return not self.faults

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "; ".join(fault.text for fault in self.faults)

    def shows(self, kind: Wrong) -> bool:
        return any(fault.kind is kind for fault in self.faults)


def judge(history: History, limit_ms: float) -> Judgement:
    """Decide. `limit_ms` is the longest outage allowed; 0: not one question may be lost and the VIP must not move."""
    seen = outage(history.answers[ASKING], history.start_ns, history.end_ns)
    outage_ms = 0.0 if limit_ms == 0 and seen.lost == 0 else seen.gap_ms
    instants = two_instants(history)
    holders = holders_at(history.held, history.rest_ns)
    faults = [
        *_two(instants),
        *_blind(history, outage_ms, limit_ms, seen.prober_gap_ms),
        *_gone(history),
        *_left(history, holders),
        *_moved(seen.owners, limit_ms),
        *_slow(outage_ms, limit_ms, seen.lost),
    ]
    return Judgement(
        outage_ms=outage_ms,
        lost=seen.lost,
        two_instants=len(instants),
        owners=seen.owners,
        holders=holders,
        both_held_ms=both_held_ms(history.held, history.start_ns, history.rest_ns),
        prober_gap_ms=seen.prober_gap_ms,
        faults=tuple(faults),
    )


# two answering


def two_instants(history: History) -> list[int]:
    """The instants of asking at which two nodes answered, in one view or across views; ascending."""
    found: set[int] = set()
    for records in history.answers.values():
        view = two_answering(records, history.start_ns, history.rest_ns)
        if not view.never:
            found.update(view.instants_ns)
    inside = [
        record
        for records in history.answers.values()
        for record in records
        if record.is_good and history.start_ns <= record.asked_at_ns <= history.rest_ns
    ]
    found.update(contradictions(inside))
    return sorted(found)


def contradictions(records: Sequence[Record]) -> list[int]:
    """Answers of one node from within a time for which another one is proven to have answered."""
    spans = {who: proven([r for r in records if r.who == who]) for who in {record.who for record in records}}
    return sorted(record.asked_at_ns for record in records if _inside_another(record, spans))


def _inside_another(record: Record, spans: Mapping[int, Sequence[tuple[int, int]]]) -> bool:
    return any(
        start <= record.asked_at_ns and record.answered_at_ns <= end
        for who, stretches in spans.items()
        if who != record.who
        for start, end in stretches
    )


def proven(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Stretches in which one node surely answered: after an answer and before a later question that it answered.

    Only answers that are at most `MERGE_MS` apart make a stretch: a node may give the VIP away and get it back.
    """
    stretches: list[tuple[int, int]] = []
    first_ns = last_ns = -1
    for record in sorted(records, key=lambda record: record.asked_at_ns):
        if last_ns >= 0 and record.asked_at_ns - last_ns <= MERGE_MS * NS_PER_MS:
            first_ns = min(first_ns, record.answered_at_ns)
        else:
            if last_ns > first_ns:
                stretches.append((first_ns, last_ns))
            first_ns = record.answered_at_ns
        last_ns = record.asked_at_ns
    if last_ns > first_ns:
        stretches.append((first_ns, last_ns))
    return stretches


# who holds the address


def holders_at(held: Mapping[int, Sequence[Record]], instant_ns: int) -> tuple[int, ...]:
    """The nodes whose namespace has the address at an instant."""
    return tuple(sorted(number for number, changes in held.items() if _holds(changes, instant_ns)))


def _holds(changes: Sequence[Record], instant_ns: int) -> bool:
    past = [change for change in changes if change.asked_at_ns <= instant_ns]
    return bool(past) and past[-1].answered_at_ns > 0


def both_held_ms(held: Mapping[int, Sequence[Record]], start_ns: int, end_ns: int) -> float:
    """How long more than one namespace had the address between two instants."""
    turns = sorted(
        {start_ns, end_ns} | {c.asked_at_ns for cs in held.values() for c in cs if start_ns < c.asked_at_ns < end_ns}
    )
    total_ns = sum(after - before for before, after in pairwise(turns) if len(holders_at(held, before)) > 1)
    return total_ns / NS_PER_MS


# the verdicts


def _two(instants: Sequence[int]) -> list[Fault]:
    if not instants:
        return []
    return [Fault(Wrong.TWO, f"TWO NODES ANSWERED ({len(instants)} instants, first at {instants[0]})")]


def _blind(history: History, outage_ms: float, limit_ms: float, prober_gap_ms: float) -> list[Fault]:
    """Nothing follows from silence if nobody asked, or if a sampler heard nobody all the time."""
    silent = [
        name
        for name, records in history.answers.items()
        if not any(r.answered_at_ns and history.start_ns <= r.asked_at_ns <= history.end_ns for r in records)
    ]
    faults = [Fault(Wrong.BLIND, f"the {name} view heard nobody") for name in silent]
    if outage_ms > limit_ms and prober_gap_ms >= max(LATE_MS, outage_ms / 2):
        faults.append(Fault(Wrong.LATE, f"the prober itself was late by {prober_gap_ms:.0f} ms"))
    return faults


def _gone(history: History) -> list[Fault]:
    since_ns = history.end_ns - BACK_MS * NS_PER_MS
    back = any(r.is_good and since_ns <= r.asked_at_ns <= history.end_ns for r in history.answers[ASKING])
    found = [] if back else [Fault(Wrong.GONE, "the service did not come back")]
    if not history.settled:
        found.append(Fault(Wrong.UNREST, "the cluster did not settle again"))
    return found


def _left(history: History, holders: tuple[int, ...]) -> list[Fault]:
    if not history.settled or len(holders) == 1:
        return []
    names = ", ".join(f"n{number}" for number in holders) or "nobody"
    return [Fault(Wrong.LEFT, f"settled, but the address is held by {names}")]


def _moved(owners: tuple[int, ...], limit_ms: float) -> list[Fault]:
    if limit_ms > 0 or len(owners) <= 1:
        return []
    return [Fault(Wrong.MOVED, "the VIP moved " + ">".join(f"n{number}" for number in owners))]


def _slow(outage_ms: float, limit_ms: float, lost: int) -> list[Fault]:
    if outage_ms <= limit_ms:
        return []
    return [Fault(Wrong.SLOW, f"{outage_ms:.0f} ms without an answer ({lost} questions), {limit_ms:.0f} allowed")]
