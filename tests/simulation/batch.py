"""Runs many seeds in several processes.

Which seeds a given number of hours takes follows from their options alone, so the same command runs the same seeds
on any machine. Results come back without their stories unless something was violated.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.simulation.options import draw
from tests.simulation.run import NS_PER_HOUR, Result, Run
from tests.simulation.summary import Summary

AHEAD = 4


def run_seed(seed: int) -> Result:
    """One seed, with a story only if it is needed."""
    result = Run(draw(seed)).run()
    if not result.checker:
        result.lines = []
        result.faults = ()
    return result


def seeds_for(hours: float, first: int = 1) -> list[int]:
    """As many seeds as give so many cluster-hours of phase one."""
    seeds: list[int] = []
    planned_ns = 0
    while planned_ns < hours * NS_PER_HOUR:
        seeds.append(first + len(seeds))
        planned_ns += draw(seeds[-1]).storm_ns
    return seeds


def run_all(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """Results as they come."""
    if jobs <= 1:
        yield from map(run_seed, seeds)
        return
    context = multiprocessing.get_context("spawn")
    waiting: set[Future[Result]] = set()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for seed in seeds:
            waiting.add(pool.submit(run_seed, seed))
            if len(waiting) >= jobs * AHEAD:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        for future in waiting:
            yield future.result()


def run_hours(hours: float, jobs: int) -> Summary:
    """A sweep of a stated length; the longest seeds first, so that no process is left alone with one at the end."""
    seeds = sorted(seeds_for(hours), key=lambda seed: -_effort(seed))
    summary = Summary()
    for result in run_all(seeds, jobs):
        summary.add(result)
    return summary


def _effort(seed: int) -> float:
    options = draw(seed)
    return options.storm_leases * options.size**2


def soak(minutes: float, jobs: int, first: int, say: Callable[[str], None]) -> Summary:
    """Growing seeds for as long as told, a line each minute."""
    begin = time.monotonic()
    summary = Summary()
    said = begin

    def growing() -> Iterator[int]:
        seed = first
        while time.monotonic() - begin < minutes * 60:
            yield seed
            seed += 1

    for result in run_all(growing(), jobs):
        summary.add(result)
        if result.checker:
            say(result.report())
        if time.monotonic() - said >= 60:
            said = time.monotonic()
            say(f"{(said - begin) / 60:.0f} min: {summary.line()}")
    return summary


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
