"""Plays the cases and prints each row as it happens; exit code 0 only if every selected case was played and holds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.lifecheck.bout import play
from pgvigil.watchdog.demo.lifecheck.case import LONG_S, SHORT, Case, Length
from pgvigil.watchdog.demo.lifecheck.cases import select
from pgvigil.watchdog.demo.lifecheck.ground import Setting, fresh_ground
from pgvigil.watchdog.demo.lifecheck.row import HEAD, Row, line, markdown, row_of_error
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.services import require_services


class Report:
    """Rows as they come: on standard output, and as JSON in a file if one is named."""

    def __init__(self, total: int, path: Path | None) -> None:
        self.rows: list[Row] = []
        self._total = total
        self._path = path

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(line(row), flush=True)
        if self._path is not None:
            document = {"machine": describe_machine(), "rows": [one.document() for one in self.rows]}
            self._path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @property
    def holds(self) -> bool:
        return len(self.rows) == self._total and all(row.holds for row in self.rows)

    def finish(self) -> None:
        """The sums that matter, also after an interruption."""
        failed = [row.case for row in self.rows if not row.holds]
        print(f"\n{len(self.rows)} of {self._total} cases played, failed: {', '.join(failed) or 'none'}")
        print(f"instants with two nodes answering: {sum(row.two_instants for row in self.rows)}")
        print(f"false verdicts: {sum(row.false_verdicts for row in self.rows)}")
        print(f"measured on {describe_machine()}", flush=True)


def run(cases: Sequence[Case], length: Length, report: Report) -> None:
    """Play all cases, setting by setting; a case that fails is followed by a fresh ground."""
    for setting, group in groupby(cases, key=lambda case: case.setting):
        waiting = list(group)
        while waiting:
            _run_on_one_ground(setting, waiting, length, report)


def _run_on_one_ground(setting: Setting, waiting: list[Case], length: Length, report: Report) -> None:
    """Takes the cases that it played off the list; at least one, so that this ends."""
    try:
        with fresh_ground(setting) as ground:
            while waiting:
                row = play(ground, waiting.pop(0), length)
                report.add(row)
                if not row.holds and not row.is_only_slow:
                    report.say(ground.log_tails(30))
                    return
    except (PgvigilError, OSError) as error:
        if waiting:
            report.add(row_of_error(waiting.pop(0), f"no ground: {error}", 0))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-lifecheck-table", description="faults, verdicts, and what follows")
    parser.add_argument("--cases", default="", metavar="PATTERNS", help="parts of names, or shell patterns")
    parser.add_argument("--short", action="store_true", help="each case as short as it can be; load and loss 20 s")
    parser.add_argument("--seconds", type=float, default=LONG_S, help="how long load and loss last (default 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too, after every case")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table for the documentation there")
    parser.add_argument("--list", action="store_true", help="name the cases, and play none")
    options = parser.parse_args(arguments)
    try:
        cases = select(options.cases)
        if options.list:
            print("\n".join(f"{case.name:<32} {case.move.value}; VIP: {case.limit.ms} ms" for case in cases))
            return 0
        require_services()
    except PgvigilError as error:
        print(f"lifecheck table: {error}", file=sys.stderr)
        return 1
    report = Report(len(cases), options.json)
    began_s = time.monotonic()
    with ExitStack() as last:
        last.callback(lambda: print(f"{time.monotonic() - began_s:.0f} s"))
        last.callback(report.finish)
        print(f"{HEAD}\n{'-' * len(HEAD)}")
        run(cases, SHORT if options.short else Length(options.seconds), report)
        if options.markdown is not None:
            options.markdown.write_text(markdown(report.rows), encoding="utf-8")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
