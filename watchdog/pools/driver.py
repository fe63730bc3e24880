"""The node's hand on its own pgpool-II: sees its backends, tells the core, gives the orders that `reconcile` wants.

Everything happens in the loop of watchdog main and nothing waits. Whether an order is still agreed is asked at the
instant at which it leaves (P21). Decides nothing itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.events import Level
from pgvigil.watchdog.core.messages import SeenBackend
from pgvigil.watchdog.core.record import Backend, BackendRole, BackendStatus, DecisionKind, Document
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import NodeInfo
from pgvigil.watchdog.pools.calls import Calls
from pgvigil.watchdog.pools.classify import Classifier
from pgvigil.watchdog.pools.freer import Freer
from pgvigil.watchdog.pools.incarnation import incarnation
from pgvigil.watchdog.pools.link import CANCELLED, Answer, Link, Target
from pgvigil.watchdog.pools.plan import Ask, Facts, Memory, Order, OrderKind, Plan, Probed
from pgvigil.watchdog.pools.probe import Prober
from pgvigil.watchdog.pools.reconcile import carries_out, reconcile, refused
from pgvigil.watchdog.pools.view import PoolBackend
from pgvigil.watchdog.pools.watcher import Watcher
from pgvigil.watchdog.settings import Settings

logger = logging.getLogger("pgvigil")

STEP_NS = NS_PER_S
ASK_LIMIT_NS = 15 * NS_PER_S
SEEN_LIMIT_NS = 10 * NS_PER_S
"""So long a report that watchdog main hears again after its own start waits for the first view."""
CUT_OFF_NS = 10 * NS_PER_S
"""So long after something is agreed again pgpool-II may still report what failed only because it was cut off."""
STALE_NS = 6 * NS_PER_S
"""A view this old is not what pgpool-II has now; until then a PCP process that starts anew is no news."""
CAUSES = {
    DecisionKind.DOWN: (OrderKind.DETACH, BackendStatus.DOWN),
    DecisionKind.UP: (OrderKind.ATTACH, BackendStatus.UP),
}
FIRST_REQUEST = 1 << 32
"""Requests of this module are numbered from here on, those of the control socket below."""


class Core(Protocol):
    """What is needed of the decision core."""

    @property
    def agreed(self) -> Document | None:
        """The newest document known to be committed, be it old."""

    def agreed_at(self, now_ns: int) -> Document | None:
        """The document that this node may act on at an instant."""


@dataclass(frozen=True, slots=True)
class OwnView:
    """For status: what this node's pgpool-II has, how old that is, and what stands against it."""

    seen: tuple[SeenBackend, ...]
    age_ms: int
    trouble: str


class Pools:
    """A participant of the loop."""

    slack_ns = 200 * NS_PER_MS

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        core: Core,
        dispatch: Callable[[events.Event], None],
        note: Callable[[Level, str], None],
        clock: Callable[[], int] = boottime_ns,
    ) -> None:
        node, pgpool = settings.node, settings.pgpool
        target = Target(node.pgpool_host, node.pcp_port, pgpool.pcp_user, pgpool.pcp_password_file)
        self._core, self._dispatch, self._note, self._clock = core, dispatch, note, clock
        self._loop = loop
        self._pid_file = pgpool.pid_file
        self._label = node.host
        self._resolver = Resolver(loop, clock)
        loop.join(self._resolver)
        self.link = Link(loop, self._resolver, target, clock)
        self._prober = Prober(loop, self._resolver, clock)
        self._watcher = Watcher(self.link, pgpool.pid_file, clock, self._soon)
        self._classifier = Classifier(self.link, self._prober, clock)
        self._freer = Freer(loop, self._resolver, note, clock)
        self._views: events.Views | None = None
        self._calls = Calls()
        self._memory = Memory()
        self._probes: dict[int, Probed] = {}
        self._asks: dict[int, Ask] = {}
        self._alone_ns = -CUT_OFF_NS
        self._unseen: list[tuple[int, int, Callable[[bool, str], None]]] = []
        self._number = FIRST_REQUEST
        self._ordering = False
        self._due_ns = 0
        self._agreed: Document | None = None
        self._plan = Plan(Memory())
        self._said: events.BackendsSeen | None = None
        self._said_obstacle = ""
        self._troubles: tuple[str, ...] = ()
        loop.join(self)

    # --- for watchdog main ------------------------------------------------------------------------

    def wake(self) -> int | None:
        watcher_ns = self._watcher.wake()
        return self._due_ns if watcher_ns is None else min(watcher_ns, self._due_ns)

    def tick(self, now_ns: int) -> None:
        """Ask pgpool-II, compare, act."""
        self._watcher.tick(now_ns + self.slack_ns)
        if now_ns >= self._due_ns - self.slack_ns:
            self._due_ns = now_ns + STEP_NS
            self._step(now_ns)

    def look(self, views: events.Views | None = None) -> None:
        """The core has taken a step: what is agreed may be another thing now, and what lifecheck says of the nodes."""
        self._views = views
        if self._core.agreed_at(self._clock()) is not self._agreed:
            self._soon()

    def answer(self, answer: events.Answer) -> bool:
        """Take an answer of the core; whether it was for a request of ours."""
        if answer.request_id < FIRST_REQUEST:
            return False
        ask = self._asks.get(answer.request_id)
        if ask is not None and answer.final:
            del self._asks[answer.request_id]
            what = f"backend {ask.backend_id} {ask.reason} at its pgpool-II"
            told = "is agreed on" if answer.accepted else "is not agreed on"
            self._note(Level.INFO if answer.accepted else Level.WARNING, f"{what}: this {told}: {answer.text}")
            self._soon()
        return True

    def close(self) -> None:
        """Give every socket back."""
        self._loop.leave(self)
        self.link.close()
        self._prober.close()
        self._freer.close()
        self._resolver.close()
        self._loop.leave(self._resolver)

    def own(self) -> OwnView:
        """For status."""
        now_ns, view = self._clock(), self._watcher.view
        age_ms = 0 if view is None else max(0, (now_ns - view.at_ns) // NS_PER_MS)
        troubles = (self._problem(now_ns), self._plan.obstacle, *self._plan.troubles)
        return OwnView(self._plan.seen, age_ms, "; ".join(text for text in troubles if text))

    # --- calls of pgpool-II -----------------------------------------------------------------------

    def call_started(self, kind: DecisionKind, backend_id: int) -> None:
        """pgpool-II waits for a command of ours: its backend is left alone meanwhile."""
        self._calls.started(kind, backend_id)
        self._watcher.alert(self._clock())

    def call_ended(self, kind: DecisionKind, backend_id: int) -> None:
        """That command has been answered, or its caller has gone."""
        now_ns = self._clock()
        self._calls.ended(kind, backend_id, now_ns)
        self._watcher.alert(now_ns)

    def outdated(self, kind: DecisionKind, backend_id: int) -> bool:
        """Whether pgpool-II calls because of an order of ours that is not agreed any more: that is nobody's wish."""
        agreed = self._core.agreed
        table = None if agreed is None else agreed.backend(backend_id)
        if table is None or kind not in CAUSES:
            return False
        order, status = CAUSES[kind]
        return table.status is not status and carries_out(self._memory, order, backend_id, self._clock())

    def still_down(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Of a report that an earlier watchdog main has heard: whether pgpool-II still has that backend down."""
        self._unseen.append((backend_id, self._clock() + SEEN_LIMIT_NS, on_known))
        self._soon()

    def _tell_still_down(self, now_ns: int) -> None:
        view = self._watcher.view
        waiting, self._unseen = self._unseen, []
        for backend_id, until_ns, on_known in waiting:
            one = None if view is None else view.backend(backend_id)
            if view is None and now_ns < until_ns:
                self._unseen.append((backend_id, until_ns, on_known))
            elif view is None:
                on_known(False, f"watchdog main was restarted meanwhile, and {self._watcher.problem}")
            else:
                text = f"outdated, backend {backend_id} is not down at its pgpool-II any more; this was asked before"
                on_known(one is not None and one.down, text)

    def cut_off(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Of a report of a failure: whether this node was alone a moment ago and the backend answers; within 2 s."""
        now_ns, view = self._clock(), self._watcher.view
        backend = None if view is None else view.backend(backend_id)
        recent = now_ns < self._alone_ns + CUT_OFF_NS and self._core.agreed_at(now_ns) is not None
        if backend is None or not recent:
            on_known(False, "")
            return

        def probed(probed: Probed) -> None:
            why = f"this node was without a leader until a moment ago, and now {probed.evidence}"
            on_known(probed.answers is True, f"{why}: quarantined on this pgpool-II alone")

        self._prober.ask(backend_id, backend.host, backend.port, probed)

    def classify(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Whether a backend that pgpool-II calls down was detached by hand (true), and why so; within 2 s."""

        def known(by_hand: bool, why: str) -> None:
            text = f"detached by hand on {self._label}" if by_hand else f"not detached by hand: {why}"
            logger.info("the report on backend %d: %s", backend_id, text)
            on_known(by_hand, text)

        now_ns, view = self._clock(), self._watcher.view
        backend = None if view is None else view.backend(backend_id)
        agreed = self._core.agreed_at(now_ns)
        table = None if agreed is None else agreed.backend(backend_id)
        if view is None or backend is None:
            known(False, self._watcher.problem or f"its pgpool-II has no backend {backend_id}")
        elif carries_out(self._memory, OrderKind.DETACH, backend_id, now_ns):
            known(False, "pgvigil itself detached it there")
        elif table is not None and table.status is BackendStatus.DOWN:
            known(False, f"it is agreed down already, by decision {table.decision}")
        else:
            self._classifier.classify(backend, incarnation(self._pid_file), known)

    # --- one step ---------------------------------------------------------------------------------

    def _soon(self) -> None:
        self._due_ns = 0

    def _facts(self, now_ns: int) -> Facts:
        self._agreed = self._core.agreed_at(now_ns)
        if self._agreed is None:
            self._alone_ns = now_ns
        return Facts(
            now_ns,
            self._agreed,
            self._watcher.view,
            incarnation(self._pid_file),
            self._calls.busy(now_ns),
            self._calls.failing(now_ns),
            frozenset(ask.backend_id for ask in self._asks.values()),
            self._probes,
            self._ordering,
        )

    def _step(self, now_ns: int) -> None:
        facts = self._facts(now_ns)
        plan = self._plan = reconcile(self._memory, facts)
        self._memory = plan.memory
        self._freer.look(facts, plan.memory, self._views)
        for text in plan.notes:
            self._note(Level.WARNING, text)
        for text in plan.troubles:
            if text not in self._troubles:
                self._note(Level.WARNING, f"its pgpool-II differs: {text}")
        self._troubles = plan.troubles
        for backend in plan.probes:
            self._probe(backend)
        if facts.view is not None and not facts.busy:
            self._classifier.count(facts.view, now_ns)
        self._say(plan, now_ns)
        for ask in plan.asks:
            self._ask(ask, now_ns)
        if plan.order is not None:
            self._carry_out(plan.order)
        self._tell_still_down(now_ns)

    def _problem(self, now_ns: int) -> str:
        view = self._watcher.view
        fresh = view is not None and view.incarnation == self._memory.incarnation and now_ns < view.at_ns + STALE_NS
        return "" if fresh else self._watcher.problem or "its pgpool-II has not answered for a while"

    def _say(self, plan: Plan, now_ns: int) -> None:
        seen = events.BackendsSeen(plan.seen, self._problem(now_ns))
        if seen != self._said:
            self._said = seen
            self._dispatch(seen)
        if plan.obstacle != self._said_obstacle:
            self._said_obstacle = plan.obstacle
            self._dispatch(events.Obstacle("pgpool", plan.obstacle))

    def _probe(self, backend: PoolBackend) -> None:
        if self._prober.asks(backend.backend_id):
            return

        def got(probed: Probed) -> None:
            self._probes[backend.backend_id] = probed
            self._soon()

        self._prober.ask(backend.backend_id, backend.host, backend.port, got)

    def _ask(self, ask: Ask, now_ns: int) -> None:
        self._number += 1
        self._asks[self._number] = ask
        reason = f"{ask.reason} on {self._label}"
        until_ns = now_ns + ASK_LIMIT_NS
        self._dispatch(events.AskDecision(self._number, ask.kind, ask.backend_id, True, reason, (), until_ns))

    # --- orders -----------------------------------------------------------------------------------

    def _carry_out(self, order: Order) -> None:
        self._ordering = True
        agreed = self._agreed.backend(order.backend_id) if self._agreed is not None else None

        def still() -> bool:
            return agreed is not None and self._still_agreed(agreed, order)

        def answered(answer: Answer[None]) -> None:
            self._ordered(order, answer)

        def looked(answer: Answer[tuple[NodeInfo, ...]]) -> None:
            obstacle = _promotion_obstacle(answer)
            if obstacle:
                self._ordered(order, Answer(None, obstacle))
            else:
                self.link.ask(requests.promote(order.backend_id), answered, still=still)

        if order.kind is OrderKind.PROMOTE:
            self.link.ask(requests.node_info(order.backend_id), looked)
        else:
            self.link.ask(_request(order), answered, still=still)

    def _still_agreed(self, agreed: Backend, order: Order) -> bool:
        """P21, right before it leaves."""
        now_ns = self._clock()
        document = self._core.agreed_at(now_ns)
        now = None if document is None else document.backend(order.backend_id)
        if now is None or now != agreed or order.backend_id in self._calls.busy(now_ns):
            return False
        if incarnation(self._pid_file) != self._memory.incarnation:
            return False
        wanted = BackendStatus.DOWN if order.kind is OrderKind.DETACH else BackendStatus.UP
        return now.status is wanted and (order.kind is not OrderKind.PROMOTE or now.role is BackendRole.PRIMARY)

    def _ordered(self, order: Order, answer: Answer[None]) -> None:
        self._ordering = False
        what = f"{order.kind.value} backend {order.backend_id}: {order.reason}"
        if not answer.problem:
            self._note(Level.INFO, f"told its pgpool-II to {what}")
        elif answer.unknown:
            self._note(Level.WARNING, f"told its pgpool-II to {what}; it has not answered: {answer.problem}")
        else:
            self._memory = refused(self._memory, order.backend_id)
            level = Level.INFO if answer.problem == CANCELLED else Level.WARNING
            self._note(level, f"could not tell its pgpool-II to {what}; {answer.problem}")
        self._watcher.alert(self._clock())
        self._soon()


def _request(order: Order) -> Request[None]:
    make = requests.attach if order.kind is OrderKind.ATTACH else requests.detach
    return make(order.backend_id)


def _promotion_obstacle(answer: Answer[tuple[NodeInfo, ...]]) -> str:
    if answer.value is None:
        return answer.problem
    return next((requests.promotion_obstacle(node, False) for node in answer.value), "pgpool-II does not know it")
