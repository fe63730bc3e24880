"""The failover table, measured; and the count of double promotions.

    python -m pgvigil.watchdog.demo.failover [--runs 10] [--cases PATTERNS] [--json FILE]
    python -m pgvigil.watchdog.demo.failover --doublekill 100 [--seed N]

Exit code 0 only if every run of every scenario held.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.choosing import chosen_names
from pgvigil.watchdog.demo.failover.plays import PLAYS
from pgvigil.watchdog.demo.failover.runner import Runner, run_double_kills, run_table
from pgvigil.watchdog.demo.failover.table import rows_of, table
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.services import require_services


def report(runner: Runner, path: Path | None) -> None:
    """The table on standard output, also after an interruption, and a document if a file is named."""
    print(table(runner.outcomes, runner.errors), flush=True)
    if path is not None:
        document = {
            "machine": describe_machine(),
            "rows": [dataclasses.asdict(row) for row in rows_of(runner.outcomes)],
            "outcomes": [dataclasses.asdict(outcome) for outcome in runner.outcomes],
            "errors": runner.errors,
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-failover", description="failovers, measured")
    parser.add_argument("--runs", type=int, default=10, help="runs of each scenario (default 10)")
    parser.add_argument("--cases", default="", metavar="PATTERNS", help=f"parts of these names: {', '.join(PLAYS)}")
    parser.add_argument("--doublekill", type=int, metavar="N", help="kill primary and leader together, N times")
    parser.add_argument("--seed", type=int, default=1, help="what the moments of --doublekill are drawn from")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there too")
    options = parser.parse_args(arguments)
    try:
        names = chosen_names(PLAYS, options.cases)
        require_services()
    except PgvigilError as error:
        print(f"failover: {error}", file=sys.stderr)
        return 1
    with ExitStack() as last, Runner() as runner:
        last.callback(report, runner, options.json)
        if options.doublekill is not None:
            run_double_kills(runner, options.doublekill, options.seed)
        else:
            run_table(runner, names, options.runs)
    return 0 if runner.holds else 1


if __name__ == "__main__":
    sys.exit(main())
