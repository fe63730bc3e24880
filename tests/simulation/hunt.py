"""Runs one mutant until a checker catches it, and all of them for the table that `make mutants` prints."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tests.simulation.mutants import Mutant, install

WIDTH = 52


@dataclass(frozen=True, slots=True)
class Catch:
    """What came of a mutant: `checker` is empty if nobody noticed within its limit."""

    mutant: str
    checker: str
    seeds: int
    text: str
    seconds: float


def hunt(mutant: Mutant) -> Catch:
    """In a process of its own, before anything else is imported: the mutant's seeds, one after the other."""
    install(mutant)
    # Only now: these import the modules that may be broken ones.
    from tests.simulation.options import draw
    from tests.simulation.run import Run

    begin = time.monotonic()
    for seed in range(1, mutant.limit + 1):
        options = draw(seed, mutant.profile, brief=True)
        if mutant.rate_ppm:
            rates = tuple(mutant.rate_ppm if node % 2 else -mutant.rate_ppm for node in range(options.size))
            options = replace(options, rates_ppm=rates)
        result = Run(options).run()
        if result.checker:
            return Catch(mutant.name, result.checker, seed, result.text, time.monotonic() - begin)
    return Catch(mutant.name, "", mutant.limit, "", time.monotonic() - begin)


def hunt_in_process(mutant: Mutant) -> Catch:
    """`hunt` in a fresh interpreter."""
    command = [sys.executable, "-m", "tests.simulation", "--mutant", mutant.name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if ended.returncode != 0:
        return Catch(mutant.name, "broken", 0, ended.stderr.strip()[-300:], 0.0)
    return Catch(**json.loads(ended.stdout.splitlines()[-1]))


def verdict(mutant: Mutant, caught: Catch) -> str:
    """Empty if the mutant did what the table says."""
    if caught.checker == "broken":
        return f"could not be run: {caught.text}"
    if mutant.harmless and caught.checker:
        return f"is called harmless, but {caught.checker} caught it with seed {caught.seeds}: {caught.text}"
    if not mutant.harmless and not caught.checker:
        return f"was not caught within {mutant.limit} seeds"
    return ""


def row(mutant: Mutant, caught: Catch) -> str:
    """One line of the table."""
    if mutant.harmless and not caught.checker:
        found = f"harmless   ({mutant.limit} seeds): {mutant.harmless}"
    else:
        found = f"{caught.checker or 'NOBODY':10} seed {caught.seeds:2} of {mutant.limit:2}, {caught.seconds:5.1f} s"
    return f"{mutant.rule:13} {mutant.name:{WIDTH}} {found}"


def hunt_all(mutants: Sequence[Mutant], jobs: int) -> int:
    """Print the table; the number of mutants that did not do what it says."""
    wrong = []
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, caught in zip(mutants, pool.map(hunt_in_process, mutants), strict=True):
            print(row(mutant, caught), flush=True)
            said = verdict(mutant, caught)
            if said:
                wrong.append(f"{mutant.name}: {said}")
    harmless = sum(1 for mutant in mutants if mutant.harmless)
    caught_all = len(mutants) - harmless - len(wrong)
    print(f"{len(mutants)} mutants: {caught_all} caught, {harmless} harmless, {len(wrong)} not as the table says")
    for said in wrong:
        print(f"WRONG: {said}")
    return len(wrong)
