"""The failover table: scenario, promotions seen, seconds until writes succeed again, pgpool-IIs that agree, pgbench."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pgvigil.watchdog.demo.failover.outcome import Outcome
from pgvigil.watchdog.demo.machine import describe_machine

_TIMES = f"{'p50':>7} {'worst':>7}"
HEAD = f"{'scenario':<40} {'runs':>4}  {'promotions':<12} {_TIMES}  {'agree':<8} {'pgbench goes on':<16} verdict"


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one scenario."""

    scenario: str
    runs: int
    promotions: str
    """How many promotions were seen in a run, and in how many runs so many: "1 (10x)"."""
    p50_s: float
    worst_s: float
    agree: str
    """The smallest number of pgpool-IIs that agreed in the end."""
    pgbench: str
    """Whether it goes on after each run: "yes", or "no" and after how many runs it does not."""
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        verdict = "holds" if self.holds else f"{len(self.failures)} FAILED"
        times = f"{self.p50_s:>5.1f} s {self.worst_s:>5.1f} s"
        start = f"{self.scenario:<40} {self.runs:>4}  {self.promotions:<12} {times}"
        return f"{start}  {self.agree:<8} {self.pgbench:<16} {verdict}"


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row per scenario, in order of appearance."""
    names = dict.fromkeys(outcome.scenario for outcome in outcomes)
    return [row_of(name, [outcome for outcome in outcomes if outcome.scenario == name]) for name in names]


def row_of(scenario: str, outcomes: Sequence[Outcome]) -> Row:
    """Sum up the runs of one scenario, of which there is at least one."""
    counts = sorted(outcome.promotions for outcome in outcomes)
    gaps = [outcome.gap_s for outcome in outcomes]
    stuck = sum(not outcome.bench.goes_on for outcome in outcomes)
    worst = min(outcomes, key=lambda outcome: outcome.agree - outcome.of)
    return Row(
        scenario=scenario,
        runs=len(outcomes),
        promotions=", ".join(f"{count} ({counts.count(count)}x)" for count in dict.fromkeys(counts)),
        p50_s=statistics.median(gaps),
        worst_s=max(gaps),
        agree=f"{worst.agree} of {worst.of}",
        pgbench=f"no ({stuck}x)" if stuck else "yes",
        failures=tuple(f"{'; '.join(outcome.wrong)} [{outcome.details}]" for outcome in outcomes if not outcome.holds),
    )


def table(outcomes: Sequence[Outcome], errors: Sequence[str] = ()) -> str:
    """The report as text. `errors` are runs that came to no outcome at all."""
    lines = [HEAD, "-" * len(HEAD)]
    for row in rows_of(outcomes):
        lines.append(str(row))
        lines += [f"    {failure}" for failure in row.failures]
    lines += [f"without an outcome: {error}" for error in errors]
    doubled = sum(outcome.promotions > outcome.wanted_promotions for outcome in outcomes)
    lines.append(f"promotions too many: in {doubled} of {len(outcomes)} runs")
    return "\n".join([*lines, f"measured on {describe_machine()}"])
