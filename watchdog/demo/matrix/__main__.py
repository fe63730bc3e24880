"""Runs the matrix: prints each row as it happens, and all of them at the end, also when it is interrupted.

Cases share a ground as long as they hold; a case that failed is followed by a fresh one. Exit code 0 only if every
selected case was played and holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.matrix.bout import play
from pgvigil.watchdog.demo.matrix.case import Case
from pgvigil.watchdog.demo.matrix.cases import select
from pgvigil.watchdog.demo.matrix.ground import Ground, Setting, fresh_ground
from pgvigil.watchdog.demo.matrix.row import HEAD, Row, line, row_of_error
from pgvigil.watchdog.demo.services import require_services

MAX_GROUNDS_LOST = 3
"""Grounds in a row that cannot even be built before the remaining cases of their setting are given up."""


def run(cases: Sequence[Case], told: Report) -> None:
    """Play all cases, setting by setting."""
    for setting, group in groupby(cases, key=lambda case: case.setting):
        _run_setting(setting, list(group), told)


def _run_setting(setting: Setting, cases: list[Case], told: Report) -> None:
    lost, reason = 0, ""
    while cases and lost < MAX_GROUNDS_LOST:
        try:
            with fresh_ground(setting) as ground:
                lost = 0
                for row in _play_while_good(ground, cases):
                    told.add(row)
                    if not row.holds:
                        told.say(ground.log_tails())
        except (PgvigilError, OSError) as error:
            lost += 1
            told.say(f"no ground ({setting.value}): {error}")
            reason = str(error)
    for case in cases:
        told.add(row_of_error(case, f"no ground: {reason}", 0))


def _play_while_good(ground: Ground, cases: list[Case]) -> Iterator[Row]:
    """Rows until one fails or none is left; what was played is taken off the list first, so nothing is played twice."""
    while cases:
        row = play(ground, cases.pop(0))
        yield row
        if not row.holds:
            return


class Report:
    """Rows as they come: on standard output, and in a file if one is named."""

    def __init__(self, total: int, path: Path | None) -> None:
        self.rows: list[Row] = []
        self._total = total
        self._path = path
        self._began_s = time.monotonic()

    def add(self, row: Row) -> None:
        self.rows.append(row)
        elapsed_s = time.monotonic() - self._began_s
        print(f"{elapsed_s:6.0f} s {len(self.rows):>3}/{self._total}  {line(row)}", flush=True)
        self._save()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _save(self) -> None:
        if self._path is not None:
            document = {
                "machine": describe_machine(),
                "planned": self._total,
                "rows": [row.document() for row in self.rows],
            }
            self._path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @property
    def holds(self) -> bool:
        return len(self.rows) == self._total and all(row.holds for row in self.rows)

    def finish(self) -> None:
        """The table, and the sums that matter."""
        rows = self.rows
        failed = [row for row in rows if not row.holds]
        two = sum(row.two_instants for row in rows)
        print("\n".join(["", HEAD, "-" * len(HEAD), *map(line, rows), ""]))
        print(f"{len(rows)} of {self._total} cases played in {time.monotonic() - self._began_s:.0f} s")
        print(f"instants with two nodes answering: {two}")
        print(f"held: {len(rows) - len(failed)}, failed: {len(failed)}, of these {_slow(failed)} by speed alone")
        for row in failed:
            print(f"  FAILED {row.case}: {row.verdict}; allowed {row.limit_ms} ms because: {row.why}")
        print(f"measured on {describe_machine()}", flush=True)


def _slow(rows: Sequence[Row]) -> int:
    return sum(row.is_only_slow for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-matrix", description="the fault matrix: fault x role x timing")
    parser.add_argument(
        "--cases", default="", metavar="PATTERNS", help="parts of names, or shell patterns; default all"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too, after every case")
    parser.add_argument("--list", action="store_true", help="name the cases with their limits, and play none")
    options = parser.parse_args(arguments)
    try:
        cases = select(options.cases)
        if options.list:
            print("\n".join(f"{case.name:<50} {case.limit.ms:>5} ms  {case.limit.why}" for case in cases))
            return 0
        require_services()
    except PgvigilError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 1
    report = Report(len(cases), options.json)
    with ExitStack() as last:
        last.callback(report.finish)
        run(cases, report)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
