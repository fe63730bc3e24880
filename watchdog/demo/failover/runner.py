"""Plays failovers one after the other on one ground, mends it in between, and builds it anew after an error."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.failover.ground import Ground
from pgvigil.watchdog.demo.failover.outcome import Outcome
from pgvigil.watchdog.demo.failover.plays import PLAYS, Play, host_of_both_off, primary_then_leader
from pgvigil.watchdog.demo.lab import Lab

MAX_ERRORS = 5
"""Runs that may end without an outcome before the rest is given up."""
LONGEST_DELAY_S = 4.0
"""A primary is found dead after one to three seconds; the leader's end shall come before, during and after that."""


@contextmanager
def fresh_ground() -> Iterator[Ground]:
    """A lab with everything started and settled."""
    with Lab() as lab:
        ground = Ground(lab)
        ground.set_up()
        ground.start()
        yield ground


class Runner:
    """Plays, tells each outcome on standard error, and keeps them all."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[str] = []
        self._stack = ExitStack()
        self._ground: Ground | None = None
        self._began_ns = boottime_ns()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def holds(self) -> bool:
        return not self.errors and all(outcome.holds for outcome in self.outcomes)

    def play(self, name: str, play: Play) -> None:
        """One run. An error of the ground costs its outcome, and the ground."""
        if len(self.errors) >= MAX_ERRORS:
            return
        try:
            ground = self._prepared()
            for outcome in play(ground):
                self._note(outcome, ground)
            ground.mend()
        except PgvigilError as error:
            self._fail(name, error)

    def _prepared(self) -> Ground:
        if self._ground is None:
            self._ground = self._stack.enter_context(fresh_ground())
        return self._ground

    def _note(self, outcome: Outcome, ground: Ground) -> None:
        self.outcomes.append(outcome)
        verdict = "; ".join(outcome.wrong) or "holds"
        figures = f"{outcome.promotions} promotions, writes back after {outcome.gap_s:.1f} s"
        self.say(f"{outcome.scenario}: {figures}, {outcome.agree} of {outcome.of} agree, {verdict} ({outcome.details})")
        if not outcome.holds:
            self.say(ground.log_tails())

    def _fail(self, name: str, error: PgvigilError) -> None:
        self.errors.append(f"{name}: {error}")
        self.say(f"{name}: {error}")
        if self._ground is not None:
            self.say(self._ground.log_tails())
        self._ground = None
        self._stack.close()

    def say(self, text: str) -> None:
        elapsed_s = (boottime_ns() - self._began_ns) / NS_PER_S
        print(f"{elapsed_s:6.0f} s  {text}", file=sys.stderr, flush=True)


def run_table(runner: Runner, names: Sequence[str], runs: int) -> None:
    """Each of these plays so many times."""
    for name in names:
        for _ in range(runs):
            runner.play(name, PLAYS[name])


def run_double_kills(runner: Runner, runs: int, seed: int) -> None:
    """Primary and leader killed together, again and again, with every distance in time that may matter."""
    chance = random.Random(seed)
    for number in range(runs):
        delay_s = chance.uniform(0, LONGEST_DELAY_S)
        pause_s = chance.choice((0.0, 0.0, chance.uniform(0, 2)))
        runner.play(f"run {number + 1}", _double_kill(number, delay_s, pause_s))


def _double_kill(number: int, delay_s: float, pause_s: float) -> Callable[[Ground], list[Outcome]]:
    """Every fourth run switches the host of both off; the others kill the leader on another host, a moment later."""

    def play(ground: Ground) -> list[Outcome]:
        ground.pause_failover(pause_s)
        return host_of_both_off(ground) if number % 4 == 0 else [primary_then_leader(ground, delay_s)]

    return play
