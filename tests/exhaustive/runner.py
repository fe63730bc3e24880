"""Several searches at the same time, each in a process of its own, which gives its memory back when it is done."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.exhaustive.catalogue import MODELS
from tests.exhaustive.search import Finding, Search
from tests.exhaustive.story import story

Told = tuple[Finding, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Order:
    """One search to run: a model by its name, and its limits."""

    model: str
    depth: int
    states: int


def search(order: Order) -> Told:
    """The finding, and the story of a counterexample."""
    model = next(model for model in MODELS if model.name == order.model)
    searching = Search(model, order.depth, order.states)
    finding = searching.run()
    return finding, () if finding.wrong is None else tuple(story(searching.space, finding.path))


def run(orders: Sequence[Order], jobs: int) -> Iterator[Told]:
    """The results in the order of the orders. A process that dies, say for want of memory, ends it all at once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        yield from pool.map(search, orders)
