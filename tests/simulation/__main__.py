"""Command line of the simulator: one seed, many seeds, hours, minutes, or the mutants.

python -m tests.simulation --seed 7 [--profile gate] [--shrink]
python -m tests.simulation --hours 500 --jobs 2
python -m tests.simulation --minutes 60 --first 1000000
python -m tests.simulation --mutants
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from tests.simulation.hunt import hunt, hunt_all
from tests.simulation.mutant_table import MUTANTS, mutant


def one_seed(seed: int, profile: str, brief: bool, shrink: bool, lines: int) -> int:
    """Run a seed and tell its story."""
    from tests.simulation.options import draw
    from tests.simulation.run import Run
    from tests.simulation.shrink import Shrinker

    result = Run(draw(seed, profile, brief)).run()
    if result.checker and shrink:
        shrinker = Shrinker(result)
        before = len(result.faults)
        result = shrinker.shrink()
        print(f"reduced from {before} to {len(result.faults)} faults in {shrinker.runs} runs")
    print(result.report(lines))
    print(f"{result.hours:.3f} cluster-hours, digest {result.digest}, {dict(result.counts)}")
    print(f"violation: {result.text}" if result.checker else "no violation")
    return 1 if result.checker else 0


def many(arguments: argparse.Namespace) -> int:
    """Seeds, hours or minutes."""
    from tests.simulation import batch
    from tests.simulation.summary import Summary

    jobs = arguments.jobs or batch.processors()
    begin = time.monotonic()
    if arguments.minutes:
        summary = batch.soak(arguments.minutes, jobs, arguments.first, lambda line: print(line, flush=True))
    elif arguments.hours:
        summary = batch.run_hours(arguments.hours, jobs)
    else:
        first, _, last = arguments.seeds.partition("..")
        summary = Summary()
        for result in batch.run_all(range(int(first), int(last) + 1), jobs):
            summary.add(result)
    spent_s = time.monotonic() - begin
    for result in summary.violations[:1]:
        print(result.report())
    print(summary.text())
    print(f"  {spent_s:.0f} s with {jobs} processes: {summary.hours / spent_s * 60:.1f} cluster-hours a minute")
    return 1 if summary.violations else 0


def main() -> int:
    """The exit status: 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed and print its story")
    parser.add_argument("--seeds", help="run many: A..B")
    parser.add_argument("--hours", type=float, help="run seeds for so many cluster-hours")
    parser.add_argument("--minutes", type=float, help="run growing seeds for so long")
    parser.add_argument("--first", type=int, default=1, help="first seed of --minutes")
    parser.add_argument("--profile", default="", help="for --seed: aim the faults")
    parser.add_argument("--brief", action="store_true", help="for --seed: as the mutants are run")
    parser.add_argument("--shrink", action="store_true", help="for --seed: reduce the schedule of a failure")
    parser.add_argument("--lines", type=int, default=200, help="for --seed: how much of the story")
    parser.add_argument("--mutants", action="store_true", help="try all mutants and print the table")
    parser.add_argument("--mutant", help="try one mutant and print the outcome as JSON")
    parser.add_argument("--jobs", type=int, default=0, help="processes; all processors if not given")
    arguments = parser.parse_args()
    if arguments.mutant:
        print(json.dumps(dataclasses.asdict(hunt(mutant(arguments.mutant)))))
        return 0
    if arguments.mutants:
        return 1 if hunt_all(MUTANTS, arguments.jobs or 2) else 0
    if arguments.seed is not None:
        return one_seed(arguments.seed, arguments.profile, arguments.brief, arguments.shrink, arguments.lines)
    if arguments.seeds or arguments.hours or arguments.minutes:
        return many(arguments)
    parser.print_usage()
    return 2


if __name__ == "__main__":
    sys.exit(main())
