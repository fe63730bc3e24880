"""One row of the table: the fault, the sentence, how soon it was said, what the cluster did. Text, Markdown or JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pgvigil.watchdog.demo.lifecheck.case import Case, Move
from pgvigil.watchdog.demo.lifecheck.verdict import Found, Seen
from pgvigil.watchdog.demo.matrix.history import Judgement, Wrong
from pgvigil.watchdog.demo.records import Outage


@dataclass(frozen=True, slots=True)
class Row:
    """A case that was played. `wrong` names the kinds of what went wrong, empty if the case holds."""

    case: str
    fault: str
    role: str
    expected: str
    said_by: str
    sentence: str
    after_ms: float | None
    """From before the fault was made to the line in the log; None: nobody said it, or nobody had to."""
    cluster: str
    owners: tuple[int, ...]
    outage_ms: float | None
    """Longest time without an answer at the VIP."""
    pool_ms: float
    """Longest time without an answer of a pgpool-II at the VIP, 0 if every question was answered."""
    two_instants: int
    false_verdicts: int
    lasted_s: float
    wrong: tuple[str, ...]
    verdict: str
    load: float

    @property
    def holds(self) -> bool:
        return not self.wrong

    @property
    def is_only_slow(self) -> bool:
        """Nothing but speed is wrong: on a busy machine that is no verdict, and the ground is as good as before."""
        return bool(self.wrong) and set(self.wrong) <= {Wrong.SLOW.name}

    def document(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def row_of(case: Case, seen: Seen, found: Found, pool: Outage, lasted_s: float, load: float) -> Row:
    pool_ms = pool.gap_ms if pool.lost else 0.0
    return Row(
        case=case.name,
        fault=case.fault,
        role=case.role.value,
        expected=case.move.value,
        said_by="" if found.said is None else found.said.node,
        sentence="" if found.said is None else found.said.text,
        after_ms=None if found.after_ms is None else round(found.after_ms, 1),
        cluster=describe(case, seen.history, pool_ms),
        owners=seen.history.owners,
        outage_ms=round(seen.history.outage_ms, 1),
        pool_ms=round(pool_ms, 1),
        two_instants=seen.history.two_instants,
        false_verdicts=len(found.false),
        lasted_s=round(lasted_s, 1),
        wrong=tuple(kind for kind, _ in found.wrong),
        verdict="; ".join(text for _, text in found.wrong) or "holds",
        load=load,
    )


def row_of_error(case: Case, error: str, load: float) -> Row:
    """A case that could not be played to its end: it proves nothing, and counts as failed."""
    return Row(
        case=case.name,
        fault=case.fault,
        role=case.role.value,
        expected=case.move.value,
        said_by="",
        sentence="",
        after_ms=None,
        cluster="",
        owners=(),
        outage_ms=None,
        pool_ms=0.0,
        two_instants=0,
        false_verdicts=0,
        lasted_s=0.0,
        wrong=("ERROR",),
        verdict=f"not played: {error}",
        load=load,
    )


def describe(case: Case, seen: Judgement, pool_ms: float) -> str:
    """What the cluster did, as its clients saw it."""
    parts = []
    if len(seen.owners) > 1:
        parts.append("leader " + " -> ".join(f"n{number}" for number in seen.owners))
    if seen.lost:
        parts.append(f"VIP away {_duration(seen.outage_ms)}")
    if pool_ms:
        parts.append(f"pgpool-II away {_duration(pool_ms)}")
    if not parts:
        return "nothing"
    return ", ".join(parts if len(seen.owners) > 1 or case.move is Move.MUST else ["leader as before", *parts])


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


HEAD = f"{'fault':<32} {'after':>8}  {'what the cluster did':<58} verdict"


def line(row: Row) -> str:
    """Two lines: the row, and the sentence under it."""
    after = "-" if row.after_ms is None else _duration(row.after_ms)
    said = f"\n    {row.said_by}: {row.sentence}" if row.sentence else ""
    return f"{row.case:<32} {after:>8}  {row.cluster:<58} {row.verdict}{said}"


def markdown(rows: Sequence[Row]) -> str:
    """The table for the documentation."""
    lines = ["| fault | of | what the verdict says | after | what the cluster did |", "|---|---|---|---|---|"]
    for row in rows:
        said = f"{row.said_by}: {row.sentence}".replace("|", "\\|") if row.sentence else "nothing"
        after = "-" if row.after_ms is None else _duration(row.after_ms)
        failed = "" if row.holds else f" **FAILED: {row.verdict}**"
        lasted = f", for {row.lasted_s:.0f} s" if not row.sentence else ""
        lines.append(f"| {row.fault} | {row.role}{lasted} | {said} | {after} | {row.cluster}{failed} |")
    return "\n".join(lines) + "\n"
