"""Asks the local pgpool-II for its backends again and again, more often after a change.

A view counts only if the pgpool-II that runs after the answer is the one that ran before the question: else nobody
knows who answered. Decides nothing; keeps the newest view and why there is none.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.records import NodeInfo
from pgvigil.watchdog.pools.incarnation import incarnation
from pgvigil.watchdog.pools.link import Answer, Link
from pgvigil.watchdog.pools.view import Incarnation, View, backend_of

USUAL_NS = 2 * NS_PER_S
SOON_NS = NS_PER_S
ALERT_NS = 15 * NS_PER_S
"""How long after a change pgpool-II is asked more often."""
NO_SUCH_NODE = "invalid node id"
"""What 4.2 says when it is asked for all backends at once."""


class Watcher:
    """A participant of the loop, by way of its owner: `wake` and `tick`."""

    def __init__(self, link: Link, pid_file: str, clock: Callable[[], int], on_news: Callable[[], None]) -> None:
        self.view: View | None = None
        self.problem = "its pgpool-II has not been asked yet"
        self.one_by_one = False
        self._link = link
        self._pid_file = pid_file
        self._clock = clock
        self._on_news = on_news
        self._due_ns = 0
        self._asking = False
        self._alert_until_ns = 0
        self._before: Incarnation | None = None
        self._collected: list[NodeInfo] = []

    def alert(self, now_ns: int) -> None:
        """Something changes: look more often."""
        self._alert_until_ns = max(self._alert_until_ns, now_ns + ALERT_NS)
        if not self._asking:
            self._due_ns = min(self._due_ns, now_ns + SOON_NS)

    def wake(self) -> int | None:
        return None if self._asking else self._due_ns

    def tick(self, now_ns: int) -> None:
        """Ask, if it is time."""
        if self._asking or now_ns < self._due_ns:
            return
        self._asking = True
        self._before = incarnation(self._pid_file)
        if self.one_by_one:
            self._link.ask(requests.node_count(), self._counted)
        else:
            self._link.ask(requests.node_info(), self._answered)

    def _answered(self, answer: Answer[tuple[NodeInfo, ...]]) -> None:
        if answer.value is not None:
            self._conclude(answer.value)
        elif answer.report is not None and NO_SUCH_NODE in answer.report.detail.lower():
            self.one_by_one = True
            self._link.ask(requests.node_count(), self._counted)
        else:
            self._fail(answer.problem)

    def _counted(self, answer: Answer[int]) -> None:
        if answer.value is None:
            self._fail(answer.problem)
            return
        self._collected = []
        self._next(answer.value)

    def _next(self, count: int) -> None:
        if len(self._collected) >= count:
            self._conclude(tuple(self._collected))
            return

        def got(answer: Answer[tuple[NodeInfo, ...]]) -> None:
            if answer.value is None:
                self._fail(answer.problem)
                return
            self._collected += answer.value
            self._next(count)

        self._link.ask(requests.node_info(len(self._collected)), got)

    def _conclude(self, nodes: tuple[NodeInfo, ...]) -> None:
        now_ns = self._clock()
        after = incarnation(self._pid_file)
        if after != self._before:
            self._fail("its pgpool-II was started anew meanwhile")
            return
        known = self.view
        self.view = View(now_ns, after, tuple(backend_of(node) for node in nodes))
        self.problem = ""
        if known is None or (known.backends, known.incarnation) != (self.view.backends, after):
            self.alert(now_ns)
        self._again(now_ns)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._again(self._clock())

    def _again(self, now_ns: int) -> None:
        self._asking = False
        self._due_ns = now_ns + (SOON_NS if now_ns < self._alert_until_ns else USUAL_NS)
        self._on_news()
