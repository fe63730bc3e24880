"""Makes a failing run small: fewer faults and simpler surroundings, with the same checker still complaining.

Delta debugging (Zeller and Hildebrandt, 2002) over the schedule, then one attempt for each simplification of the
options. The result is checked by running it; nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.simulation.faults import Fault
from tests.simulation.options import Options
from tests.simulation.run import Result, Run

MOST_RUNS = 400
Attempt = Callable[[Options, Sequence[Fault]], Result]


def attempt(options: Options, faults: Sequence[Fault]) -> Result:
    """One run of a schedule that was not drawn."""
    return Run(options, faults).run()


SIMPLER: tuple[Callable[[Options], Options], ...] = (
    lambda options: replace(options, loss_permille=0),
    lambda options: replace(options, double_permille=0),
    lambda options: replace(options, tail_permille=0),
    lambda options: replace(options, slow_node=0),
    lambda options: replace(options, codec=False),
    lambda options: replace(options, preempt=False),
    lambda options: replace(options, rates_ppm=tuple(0 for _ in options.rates_ppm)),
)


class Shrinker:
    """`runs` counts what it took."""

    def __init__(self, failing: Result, run: Attempt = attempt, most_runs: int = MOST_RUNS) -> None:
        self._run = run
        self._left = most_runs
        self.best = failing
        self.runs = 0

    def shrink(self) -> Result:
        """The smallest failing run that was found."""
        self._drop_faults()
        for change in SIMPLER:
            self._try(change(self.best.options), self.best.faults)
        self._drop_faults()
        return self.best

    def _try(self, options: Options, faults: Sequence[Fault]) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        self.runs += 1
        result = self._run(options, faults)
        if result.checker != self.best.checker:
            return False
        self.best = result
        return True

    def _drop_faults(self) -> None:
        """Leave out ever smaller parts of the schedule."""
        part = max(1, len(self.best.faults) // 2)
        while part:
            begin = 0
            while begin < len(self.best.faults):
                faults = self.best.faults
                if not self._try(self.best.options, faults[:begin] + faults[begin + part :]):
                    begin += part
            part //= 2
