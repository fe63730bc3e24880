"""Asks the local pgpool-II for its backends again and again, more often after a change.

Usually a glance at pool status is enough, which has the status of each backend. When one has changed, and for a while
after that, status and role are read with the counts of the health checks; for each of those pgpool-II 4.3.5 writes a
line per backend into its log. Both answers come out of its own memory. It is asked for node info only for what
PostgreSQL itself says, seldom, and never of a backend that is down, because for every such answer it logs in at that
backend. A host that has vanished then costs up to 10 s (connect_timeout), and if it vanishes in the middle, pgpool-II's
PCP process waits for it without end. What PostgreSQL says is no part of seeing: without it the view has an empty server
role. A view that shows a change waits for it once, because it tells who made the change.

A view counts only if the pgpool-II that runs after the answers is the one that ran before the questions: else nobody
knows who answered. Decides nothing; keeps the newest view and why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.records import HealthStats, NodeInfo, Parameter
from pgvigil.watchdog.pools.incarnation import incarnation
from pgvigil.watchdog.pools.link import Answer, Link
from pgvigil.watchdog.pools.view import UNUSED, Incarnation, PoolBackend, View, has_status, seen_backend, server_role_of

USUAL_NS = 2 * NS_PER_S
SOON_NS = NS_PER_S
ALERT_NS = 15 * NS_PER_S
"""How long after a change pgpool-II is asked more often."""
ROLES_AGAIN_NS = 10 * NS_PER_S
"""What PostgreSQL says of its role is asked for again after this time, and at once after a change."""
ROLE_LIMIT_MS = 1500
GLANCE_LIMIT_MS = 1500


class Watcher:
    """A participant of the loop, by way of its owner: `wake` and `tick`."""

    def __init__(self, link: Link, pid_file: str, clock: Callable[[], int], on_news: Callable[[], None]) -> None:
        self.view: View | None = None
        self.problem = "its pgpool-II has not been asked yet"
        self._link = link
        self._pid_file = pid_file
        self._clock = clock
        self._on_news = on_news
        self._due_ns = 0
        self._asking = False
        self._began_ns = 0
        self._alert_until_ns = 0
        self._roles_due_ns = 0
        self._patient = False
        """Whether a view that shows a change may wait for what PostgreSQL says."""
        self._before: Incarnation | None = None
        self._found: list[PoolBackend] = []

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
        self._began_ns = self._clock()
        self._before = incarnation(self._pid_file)
        known = self.view
        if known is None or known.incarnation != self._before or self._began_ns >= self._roles_due_ns:
            self._link.ask(requests.node_count(), self._counted)  # a reload may have added some
        elif self._began_ns < self._alert_until_ns:
            self._look(len(known.backends))
        else:
            self._link.ask(requests.pool_status(), self._glanced, GLANCE_LIMIT_MS)

    def _glanced(self, answer: Answer[tuple[Parameter, ...]]) -> None:
        known = () if self.view is None else self.view.backends
        words = {one.name: one.value for one in answer.value or ()}
        # A number that is no backend is not listed. Where this question is refused, the other one may be answered.
        if answer.value is not None and all(
            has_status(one, words.get(f"backend_status{one.backend_id}", UNUSED)) for one in known
        ):
            self._conclude(list(known))
        else:
            self._look(len(known))

    def _counted(self, answer: Answer[int]) -> None:
        if answer.value is None:
            self._fail(answer.problem)
        else:
            self._look(answer.value)

    def _look(self, count: int) -> None:
        self._found = []
        self._look_at_next(count)

    def _look_at_next(self, count: int) -> None:
        if len(self._found) >= count:
            self._compare()
            return

        def got(answer: Answer[HealthStats]) -> None:
            if answer.value is None:
                self._fail(answer.problem)
                return
            try:
                self._found.append(seen_backend(answer.value))
            except PeerError as error:
                self._fail(str(error))
                return
            self._look_at_next(count)

        self._link.ask(requests.health_stats(len(self._found)), got)

    def _compare(self) -> None:
        """Ask for what PostgreSQL says, if that may be another thing now; else it is what it was."""
        known = () if self.view is None else self.view.backends
        said = {one.backend_id: one.server_role for one in known}
        before = tuple(replace(one, server_role="") for one in known)
        changed = before != tuple(self._found)
        same_life = self.view is not None and self.view.incarnation == self._before
        if not changed and self._clock() < self._roles_due_ns:
            self._conclude([replace(one, server_role=said[one.backend_id]) for one in self._found])
            return
        self._roles_due_ns = self._clock() + ROLES_AGAIN_NS
        self._patient = changed and same_life and not self._patient
        self._ask_servers([], self._found)

    def _ask_servers(self, done: list[PoolBackend], left: list[PoolBackend]) -> None:
        if not left:
            self._patient = False
            self._conclude(done)
            return
        one, *others = left
        if not one.usable:
            self._ask_servers([*done, one], others)
            return

        def got(answer: Answer[tuple[NodeInfo, ...]]) -> None:
            if not answer.value and self._patient:
                self._roles_due_ns = 0
                self.alert(self._clock())
                self._fail(answer.problem)
                return
            said = server_role_of(answer.value[0]) if answer.value else ""
            self._ask_servers([*done, replace(one, server_role=said)], others)

        self._link.ask(requests.node_info(one.backend_id), got, ROLE_LIMIT_MS)

    def _conclude(self, backends: list[PoolBackend]) -> None:
        now_ns = self._clock()
        after = incarnation(self._pid_file)
        if after != self._before:
            self._fail("its pgpool-II was started anew meanwhile")
            return
        known = self.view
        self.view = View(self._began_ns, after, tuple(backends))
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
