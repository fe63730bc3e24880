"""PostgreSQL servers and the pgpool-IIs in front of them, simulated: what fails, who notices, what it asks for.

A `Pool` is one member's pgpool-II together with the part of pgvigil's shell that watches it: it reports what it sees,
calls failover_command when a backend does not answer, and carries out what its node may act on, nothing else. It
outlives watchdog main and forgets everything when its machine goes down. The truth of who answers is in `Servers`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.watchdog import Main
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.record import BackendRole, BackendStatus, DecisionKind, Document

TICK_NS = 150 * NS_PER_MS
CALL_NS = 8_000 * NS_PER_MS
LATE_NS = 3_000 * NS_PER_MS
FAILBACK_AFTER_TICKS = 20
Order = Callable[["Pool", Document], None]


class Place(Protocol):
    """The machine of a pgpool-II."""

    id: int
    main: Main | None

    def up(self) -> bool: ...
    def say(self, text: str) -> None: ...


class Servers:
    """All backends: who is alive, who reaches whom, and which one is the primary in truth."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive = [True] * count
        self.cut: set[tuple[int, int]] = set()
        self.primary = 0

    def answers(self, node: int, backend_id: int) -> bool:
        """Whether a backend answers that node."""
        return self.alive[backend_id] and (node, backend_id) not in self.cut

    def heal(self) -> None:
        """Everything answers everybody."""
        self.alive = [True] * self.count
        self.cut.clear()


@dataclass(slots=True)
class Call:
    """pgpool-II waits for `pgvigil failover` or `failback`."""

    request_id: int
    backend_id: int
    main: Main
    until_ns: int


class Pool:
    """One pgpool-II."""

    def __init__(self, world: World, place: Place, servers: Servers, source: random.Random) -> None:
        self._world = world
        self._place = place
        self.servers = servers
        self._source = source
        self.on_order: Order = lambda pool, document: None
        self.on_late: Callable[[Pool, Call], None] = lambda pool, call: None
        self.on_ask: Callable[[DecisionKind, int], None] = lambda kind, backend_id: None
        self.failing: dict[int, int] = {}  # by backend: when it was last held for failed here, in true time
        self.node = place.id
        self.running = False
        self._begin()
        world.after(source.randrange(TICK_NS), self._tick)

    def _begin(self) -> None:
        """pgpool-II has started: all are up until they do not answer."""
        self.is_up = [True] * self.servers.count
        self._missed = [0] * self.servers.count
        self._back = [0] * self.servers.count
        self._told: tuple[Main, tuple[SeenBackend, ...]] | None = None
        self.call: Call | None = None

    # --- time -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._world.after(TICK_NS, self._tick)
        if not self._place.up():
            self.running = False
            return
        if not self.running:
            self.running = True
            self._begin()
        main = self._place.main
        self._end_call(main)
        agreed = self._agreed(main)
        for backend_id in range(self.servers.count):
            self._check_health(backend_id, main)
        if agreed is not None:
            self._reconcile(agreed)
        if main is not None and not main.process.frozen:
            self._report(main, agreed)
            if agreed is not None:
                self._auto_failback(agreed, main)

    @staticmethod
    def _agreed(main: Main | None) -> Document | None:
        """As the shell: only of a process that runs."""
        if main is None or main.process.frozen:
            return None
        return main.agreement.agreed_at(main.clock.read())

    def _end_call(self, main: Main | None) -> None:
        call = self.call
        if call is None:
            return
        if main is not call.main:
            self.call = None  # the other end of the socket is gone
        elif not main.process.frozen and self._overdue_ns(call) > LATE_NS:
            self.on_late(self, call)

    def _overdue_ns(self, call: Call) -> int:
        """For how long it could have been answered: an answer waits behind writes, and the caller has its own limit."""
        main, now_ns = call.main, self._world.now_ns
        expired_ns = main.clock.read() - call.until_ns
        if expired_ns <= 0:
            return 0
        due_ns = max(now_ns - expired_ns, main.process.thawed_at_ns)
        return now_ns - due_ns - main.writer.writing_ns(due_ns)

    def answered(self, answer: events.Answer) -> None:
        """The command that pgpool-II waits for has ended."""
        if self.call is not None and answer.final and answer.request_id == self.call.request_id:
            self.call = None

    # --- pgpool-II --------------------------------------------------------------------------------

    def _check_health(self, backend_id: int, main: Main | None) -> None:
        if self.servers.answers(self.node, backend_id):
            self._missed[backend_id] = 0
            if self.call is None or self.call.backend_id != backend_id:
                return
        self._missed[backend_id] += 1
        if self._missed[backend_id] < 2 and self.is_up[backend_id]:
            return
        self.failing[backend_id] = self._world.now_ns
        if self.is_up[backend_id] and self.call is None:  # its main process is busy while it waits
            self.is_up[backend_id] = False
            self._place.say(f"  pgpool-II: backend {backend_id} does not answer")
            if main is not None:
                self._begin_call(main, DecisionKind.DOWN, backend_id)

    def _begin_call(self, main: Main, kind: DecisionKind, backend_id: int) -> None:
        request_id = self._source.randrange(1 << 30) + (1 << 20)
        until_ns = main.clock.read() + CALL_NS
        self.call = Call(request_id, backend_id, main, until_ns)
        rest = [item for item, up in enumerate(self.is_up) if up and item != backend_id]
        main_node = rest[0] if rest else -1
        old = self.servers.primary
        arguments = (f"d={backend_id}", f"m={main_node}", f"P={old}", f"N=db{old}")
        self.on_ask(kind, backend_id)
        main.orders.put(events.AskDecision(request_id, kind, backend_id, False, "", arguments, until_ns))

    # --- the shell that watches it ----------------------------------------------------------------

    def _reconcile(self, agreed: Document) -> None:
        for backend in agreed.backends:
            backend_id = backend.backend_id
            wanted = backend.status is BackendStatus.UP
            busy = self.call is not None and self.call.backend_id == backend_id
            if wanted == self.is_up[backend_id] or busy:
                continue
            if wanted and not self.servers.answers(self.node, backend_id):
                continue  # quarantined here: a standing vote
            self.on_order(self, agreed)
            self.is_up[backend_id] = wanted
            self._missed[backend_id] = 0

    def _report(self, main: Main, agreed: Document | None) -> None:
        seen = tuple(self._seen(main, backend_id, agreed) for backend_id in range(self.servers.count))
        if self._told != (main, seen):
            self._told = (main, seen)
            main.orders.put(events.BackendsSeen(seen))

    def _seen(self, main: Main, backend_id: int, agreed: Document | None) -> SeenBackend:
        status = SeenStatus.UP if self.is_up[backend_id] else SeenStatus.DOWN
        role = BackendRole.PRIMARY if backend_id == self.servers.primary else BackendRole.STANDBY
        backend = None if agreed is None else agreed.backend(backend_id)
        wanted = backend is not None and backend.status is BackendStatus.UP
        busy = self.call is not None and self.call.backend_id == backend_id
        failed = wanted and not busy and not self.is_up[backend_id] and not self.servers.answers(self.node, backend_id)
        decision = 0 if backend is None else backend.decision
        return SeenBackend(backend_id, f"db{backend_id}", 5432, status, role, failed, decision)

    def _auto_failback(self, agreed: Document, main: Main) -> None:
        """Some time after a backend answers again one of the pgpool-IIs asks for it."""
        for backend in agreed.backends:
            backend_id = backend.backend_id
            back = backend.status is BackendStatus.DOWN and self.servers.answers(self.node, backend_id)
            self._back[backend_id] = self._back[backend_id] + 1 if back else 0
            if self._back[backend_id] > FAILBACK_AFTER_TICKS + 7 * self.node and self.call is None:
                self._back[backend_id] = 0
                self._begin_call(main, DecisionKind.UP, backend_id)


class Commands:
    """What the users' commands do to the servers, and how they end."""

    def __init__(self, servers: Servers, source: random.Random) -> None:
        self._servers = servers
        self._source = source

    def run(self, intent_name: str, arguments: tuple[str, ...]) -> tuple[int, bool]:
        """How long it takes and whether it succeeds; failover promotes the new main node."""
        takes_ns = self._source.choice((20, 50, 300, 1500)) * NS_PER_MS
        succeeds = self._source.random() < 0.85
        new = next((int(item[2:]) for item in arguments if item.startswith("m=")), -1)
        old = [item[2:] for item in arguments if item[:2] in ("d=", "P=")]
        if intent_name == "failover" and succeeds and new >= 0 and len(set(old)) == 1 and self._servers.alive[new]:
            self._servers.primary = new
        return takes_ns, succeeds
