"""Breadth first through the states of a model, each once, until nothing is new, a limit is met or something is broken.

A state that was seen is remembered by a 64-bit hash and by the step that reached it first, so a counterexample is as
short as can be. Of two states with one hash the second would be missed: among ten million, the odds are three in a
million that it happens at all.
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
    """What a search has found. `path`: the labels of the steps to what is `wrong`.

    `seconds` are the processor's. `holders`: how many leaders, each of a node and a term, were seen with an open gate,
    in whatever states.
    """

    model: str
    depth: int
    states: int
    transitions: int
    holders: int
    seconds: float
    complete: bool
    wrong: str | None
    path: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.wrong is not None:
            return f"BROKEN after {len(self.path)} steps: {self.wrong}"
        return "holds in every state there is" if self.complete else f"holds to depth {self.depth}"


class Search:
    """One run over one model."""

    def __init__(self, model: Model, depth: int, states: int) -> None:
        """At most `depth` steps from the start, and no deeper once `states` are known."""
        self.space = Space(model)
        self._depth = depth
        self._limit = states
        self._seen = {hash(self.space.first)}
        self._parents = array("I", [0])
        self._labels = array("Q", [0])
        self._transitions = 0

    def run(self, told: Callable[[int, int], None] = lambda depth, states: None) -> Finding:
        """Level by level; `told` hears of every level that is done."""
        began = time.process_time()
        gc.disable()  # nothing here is cyclic, and looking through millions of tuples would take half of the time
        try:
            return self._run(began, told)
        finally:
            gc.enable()

    def _run(self, began: float, told: Callable[[int, int], None]) -> Finding:
        level: list[State] = [self.space.first]
        depth = number = 0
        while level and depth < self._depth:
            new: list[State] = []
            last = depth + 1 == self._depth
            for state in level:
                try:
                    self._expand(state, number, new)
                except Broken as broken:
                    return self._finding(began, depth + 1, False, broken.text, (*self._path_to(number), broken.step))
                number += 1
                if last:
                    new.clear()  # counted and never looked at again
                if len(self._parents) > self._limit:
                    return self._finding(began, depth, False)
            depth += 1
            told(depth, len(self._parents))
            if last:
                return self._finding(began, depth, number == len(self._parents))
            level = new
        return self._finding(began, depth, not level)

    def _finding(
        self, began: float, depth: int, complete: bool, wrong: str | None = None, path: tuple[int, ...] = ()
    ) -> Finding:
        seconds = time.process_time() - began
        name, states, holders = self.space.model.name, len(self._parents), len(self.space.holders())
        return Finding(name, depth, states, self._transitions, holders, seconds, complete, wrong, path)

    def _expand(self, state: State, number: int, new: list[State]) -> None:
        seen, parents, labels = self._seen, self._parents, self._labels
        steps = self.space.steps(state)
        self._transitions += len(steps)
        for step, after in steps:
            mark = hash(after)
            if mark not in seen:
                seen.add(mark)
                parents.append(number)
                labels.append(step)
                new.append(after)

    def _path_to(self, number: int) -> list[int]:
        path = []
        while number:
            path.append(self._labels[number])
            number = self._parents[number]
        return path[::-1]
