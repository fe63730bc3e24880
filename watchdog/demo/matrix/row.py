"""One row of the result: the case, and what the history checker found. Prints as a line, saves as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pgvigil.watchdog.demo.matrix.case import Case
from pgvigil.watchdog.demo.matrix.history import Judgement, Wrong


@dataclass(frozen=True, slots=True)
class Row:
    """A case that was played. `wrong` names the kinds of what went wrong, empty if the case holds."""

    case: str
    fault: str
    role: str
    timing: str
    limit_ms: int
    why: str
    outage_ms: float | None
    lost: int
    two_instants: int
    owners: tuple[int, ...]
    holders: tuple[int, ...]
    both_held_ms: float
    prober_gap_ms: float
    wrong: tuple[str, ...]
    verdict: str
    note: str
    settled_after_s: float
    load: float
    """The machine's load average when the case ended."""

    @property
    def holds(self) -> bool:
        return not self.wrong

    @property
    def is_only_slow(self) -> bool:
        """Nothing but speed is wrong: on a busy machine that is no verdict."""
        return bool(self.wrong) and set(self.wrong) <= {Wrong.SLOW.name}

    def document(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def row_of(case: Case, found: Judgement, note: str, settled_after_s: float, load: float) -> Row:
    return Row(
        case=case.name,
        fault=case.fault,
        role=case.role.value,
        timing=case.timing.value,
        limit_ms=case.limit.ms,
        why=case.limit.why,
        outage_ms=round(found.outage_ms, 1),
        lost=found.lost,
        two_instants=found.two_instants,
        owners=found.owners,
        holders=found.holders,
        both_held_ms=round(found.both_held_ms, 1),
        prober_gap_ms=round(found.prober_gap_ms, 1),
        wrong=tuple(fault.kind.name for fault in found.faults),
        verdict=found.verdict,
        note=note,
        settled_after_s=round(settled_after_s, 1),
        load=load,
    )


def row_of_error(case: Case, error: str, load: float) -> Row:
    """A case that could not be played to its end: it proves nothing, and counts as failed."""
    nothing = Judgement(0, 0, 0, (), (), 0, 0, ())
    empty = row_of(case, nothing, "", 0, load)
    return dataclasses.replace(empty, outage_ms=None, wrong=("ERROR",), verdict=f"not played: {error}")


HEAD = f"{'fault':<28} {'role':<9} {'timing':<9} {'limit':>7} {'outage':>8} {'two':>4}  verdict"


def line(row: Row) -> str:
    outage = "-" if row.outage_ms is None else f"{row.outage_ms:.0f} ms"
    note = f" ({row.note})" if row.note else ""
    cells = f"{row.fault:<28} {row.role:<9} {row.timing:<9} {row.limit_ms:>4} ms {outage:>8} {row.two_instants:>4}"
    return f"{cells}  {row.verdict}{note}"
