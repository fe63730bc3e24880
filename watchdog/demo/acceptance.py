"""Runs the scenes many times and reports the worst case of each.

    python -m pgvigil.watchdog.demo.acceptance [--runs 10] [--only NAME ...] [--json]

Exit code 0 only if every run of every scene held. A scene that fails does not end the others: the cluster is mended,
or, when that is impossible, built anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.lab import Lab
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.scenes import SCENES, Result, Scene
from pgvigil.watchdog.demo.services import require_services
from pgvigil.watchdog.demo.stage import Stage

MAX_ERRORS = 3
"""Runs of one scene that may end without a measurement before the scene is given up."""


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one scene."""

    name: str
    fault: str
    limit_ms: float
    runs: int
    worst_ms: float
    p50_ms: float
    two_answering_ms: float
    verdict: str
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.failures


def row_of(name: str, results: Sequence[Result], errors: Sequence[str] = ()) -> Row:
    """Sum up; an error of a run is a failure of its row."""
    outages = [result.outage_ms for result in results] or [float("inf")]
    failures = [f"{result.verdict} [{result.details}]" for result in results if not result.holds]
    runs = len(results) + len(errors)
    return Row(
        name=name,
        fault=results[0].fault if results else name,
        limit_ms=results[0].limit_ms if results else 0,
        runs=runs,
        worst_ms=max(outages),
        p50_ms=statistics.median(outages),
        two_answering_ms=max((result.two_answering_ms for result in results), default=0.0),
        verdict="holds" if not failures and not errors else f"{len(failures) + len(errors)} of {runs} FAILED",
        failures=(*failures, *errors),
    )


@contextmanager
def running_stage() -> Iterator[Stage]:
    """A lab with everything started and settled."""
    with Lab() as lab:
        stage = Stage(lab)
        stage.set_up()
        stage.start_instruments()
        stage.cluster.start(lab.nodes)
        stage.mend()
        yield stage


def run_scene(stage: Stage, scene: Scene) -> Result:
    """One run, from a settled cluster; repeated when the machine was too busy for the prober to measure."""
    for _ in range(MAX_ERRORS):
        result = scene(stage, stage.mend())
        if all(phase.measures for phase in result.phases):
            return result
    return result


def run_row(name: str, runs: int, say: bool) -> Row:
    """All runs of one scene in a lab of its own."""
    results: list[Result] = []
    errors: list[str] = []
    while len(results) + len(errors) < runs and len(errors) < MAX_ERRORS:
        try:
            with running_stage() as stage:
                _runs_in(stage, name, runs, results, errors, say)
        except PgvigilError as error:
            errors.append(f"no lab: {error}")
            _say(f"  {name}: {errors[-1]}", say)
    return row_of(name, results, errors)


def _runs_in(stage: Stage, name: str, runs: int, results: list[Result], errors: list[str], say: bool) -> None:
    """Run until all are done, or until the lab needs to be built anew."""
    while len(results) + len(errors) < runs:
        try:
            results.append(run_scene(stage, SCENES[name]))
        except PgvigilError as error:
            errors.append(str(error))
            _say(f"  {name}: {error}\n{_tails(stage)}", say)
            return
        result = results[-1]
        _say(f"  {name}: {result.outage_ms:.1f} ms, {result.verdict} ({result.details})", say)
        if not result.holds:
            _say(_tails(stage), say)


def _tails(stage: Stage) -> str:
    return "\n".join(f"--- {node.name}\n{stage.cluster.log_tail(node, 15)}" for node in stage.lab.nodes)


def _say(text: str, wanted: bool) -> None:
    if wanted:
        print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """The report as text."""
    head = f"{'fault':<42} {'runs':>4} {'limit':>8} {'p50':>8} {'worst':>8} {'two answering':>14}  verdict"
    lines = [head, "-" * len(head)]
    for row in rows:
        times = f"{row.limit_ms:>5.0f} ms {row.p50_ms:>5.0f} ms {row.worst_ms:>5.0f} ms"
        two = "never" if row.two_answering_ms == 0 else f"{row.two_answering_ms:.0f} ms"
        lines.append(f"{row.fault:<42} {row.runs:>4} {times} {two:>14}  {row.verdict}")
        lines.extend(f"    {failure}" for failure in row.failures)
    return "\n".join([*lines, f"measured on {describe_machine()}"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-acceptance", description="the acceptance table, measured")
    parser.add_argument("--runs", type=int, default=10, help="runs per fault (default 10)")
    parser.add_argument("--only", nargs="+", choices=sorted(SCENES), help="only these faults")
    parser.add_argument("--json", action="store_true", help="a document instead of a table")
    parser.add_argument("--quiet", action="store_true", help="no line per run on stderr")
    options = parser.parse_args(arguments)
    try:
        require_services()
        rows = [run_row(name, options.runs, not options.quiet) for name in options.only or SCENES]
    except PgvigilError as error:
        print(f"acceptance: {error}", file=sys.stderr)
        return 1
    if options.json:
        document = {"machine": describe_machine(), "rows": [dataclasses.asdict(row) for row in rows]}
        print(json.dumps(document, indent=2))
    else:
        print(table(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
