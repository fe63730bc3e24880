"""Breadth first through all states of a model, each once, until nothing is new, a limit is met or an invariant is broken.

A state that was seen is remembered by a 64-bit hash, and by whom it was reached: so a counterexample is a shortest one.
With two states of the same hash the second would be missed; among ten million states the odds are three in a million.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from tests.exhaustive.model import Model
from tests.exhaustive.space import Broken, Space, State


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search has found. `path`: the labels of the steps to what is `wrong`."""

    model: Model
    depth: int
    states: int
    transitions: int
    seconds: float
    complete: bool
    wrong: str | None
    path: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.wrong is not None:
            return f"BROKEN after {len(self.path)} steps: {self.wrong}"
        return "holds in every state" if self.complete else "holds to this depth"


class Search:
    """One run over one model."""

    def __init__(self, model: Model, depth: int, states: int) -> None:
        self.space = Space(model)
        self._depth = depth
        self._limit = states
        self._seen = {hash(self.space.first)}
        self._parents = array("I", [0])
        self._labels = array("Q", [0])
        self._transitions = 0

    def run(self, told: Callable[[int, int], None] = lambda depth, states: None) -> Finding:
        """Level by level. `told` hears of every level that is done."""
        began = time.monotonic()
        gc.disable()  # nothing here is cyclic, and looking at millions of tuples takes half of the time
        level: list[State] = [self.space.first]
        depth, wrong, path, number = 0, None, (), 0
        try:
            while level and depth < self._depth and len(self._parents) < self._limit:
                first = len(self._parents) - len(level)
                new: list[State] = []
                for place, state in enumerate(level):
                    number = first + place
                    self._expand(state, number, new)
                level, depth = new, depth + 1
                told(depth, len(self._parents))
        except Broken as broken:
            wrong, path = broken.text, (*self._path_to(number), broken.step)
            depth += 1
        finally:
            gc.enable()
        seconds = time.monotonic() - began
        complete = wrong is None and not level
        return Finding(
            self.space.model, depth, len(self._parents), self._transitions, seconds, complete, wrong, tuple(path)
        )

    def _expand(self, state: State, number: int, new: list[State]) -> None:
        seen, parents, labels = self._seen, self._parents, self._labels
        steps = self.space.steps(state)
        self._transitions += len(steps)
        for label, after in steps:
            mark = hash(after)
            if mark not in seen:
                seen.add(mark)
                parents.append(number)
                labels.append(label)
                new.append(after)

    def _path_to(self, number: int) -> list[int]:
        path = []
        while number:
            path.append(self._labels[number])
            number = self._parents[number]
        return path[::-1]
