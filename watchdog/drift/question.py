"""Asks the local pgpool-II for its settings every few minutes, and forgets them when it has not answered for long.

The connection is the one over which watchdog main drives that pgpool-II; nothing here opens one or waits. A question
that comes to nothing is asked again soon, because settings change when a pgpool-II is started anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.drift.facts import Facts
from pgvigil.watchdog.drift.pgpool import of_pgpool
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.protocol import Request

USUAL_NS = 120 * NS_PER_S
SOON_NS = 15 * NS_PER_S
FORGET_NS = 600 * NS_PER_S
LIMIT_MS = 3000


class Answer(Protocol):
    """What came of a question: its value, or None and the reason."""

    @property
    def value(self) -> Any: ...

    @property
    def problem(self) -> str: ...


class Asker(Protocol):
    """Whatever can ask the local pgpool-II without waiting; calls back exactly once."""

    def ask(self, request: Request[Any], on_answer: Callable[[Any], None], limit_ms: int = ...) -> None: ...


class Question:
    """`tick` once a second; `on_facts` gets what pgpool-II runs with, and nothing once that is not known any more."""

    def __init__(self, asker: Asker, clock: Callable[[], int], on_facts: Callable[[Facts], None]) -> None:
        self.problem = "its pgpool-II has not been asked yet"
        self._asker, self._clock, self._on_facts = asker, clock, on_facts
        self._asking = False
        self._due_ns = 0
        self._known_ns: int | None = None

    def tick(self, now_ns: int) -> None:
        """Ask, if it is time."""
        if self._known_ns is not None and now_ns >= self._known_ns + FORGET_NS:
            self._known_ns = None
            self._on_facts({})
        if not self._asking and now_ns >= self._due_ns:
            self._asking = True
            self._asker.ask(requests.pool_status(), self._answered, LIMIT_MS)

    def _answered(self, answer: Answer) -> None:
        now_ns = self._clock()
        self._asking = False
        self.problem = answer.problem
        if answer.value is None:
            self._due_ns = now_ns + SOON_NS
            return
        self._due_ns, self._known_ns = now_ns + USUAL_NS, now_ns
        self._on_facts(of_pgpool(answer.value))
