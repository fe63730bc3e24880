"""Command line of the simulator (first cut)."""

from __future__ import annotations

import sys
import time

from tests.simulation.options import draw
from tests.simulation.run import Run

if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2])
    profile = sys.argv[3] if len(sys.argv) > 3 else ""
    for seed in range(first, last):
        begin = time.process_time()
        result = Run(draw(seed, profile)).run()
        spent = time.process_time() - begin
        options = result.options
        print(
            f"{seed} {options.profile} n={options.size} L={options.lease_ms} {result.hours:.3f} h {spent:.2f} s "
            f"rec={result.recovery_leases:.2f} el={result.counts['elections']} msg={result.counts['messages']} "
            f"faults={result.counts['faults']} exc={result.counts['excused overlaps']} {result.checker} {result.text}",
            flush=True,
        )
        if result.checker and last - first == 1:
            print(result.report(120))
