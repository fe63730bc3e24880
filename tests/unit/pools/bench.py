"""Values for the tests of `reconcile`: two backends, an agreed document, a view of one pgpool-II."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    BackendStatus,
    DecisionKind,
    Document,
    Intent,
    QuorumRule,
    Stamp,
    Voter,
)
from pgvigil.watchdog.pools.plan import Facts, Memory, OrderKind, Plan, Probed
from pgvigil.watchdog.pools.reconcile import reconcile
from pgvigil.watchdog.pools.view import Incarnation, PoolBackend, View

UP, DOWN = BackendStatus.UP, BackendStatus.DOWN
PRIMARY, STANDBY = BackendRole.PRIMARY, BackendRole.STANDBY
FIRST_LIFE, SECOND_LIFE = Incarnation(100, 1000), Incarnation(200, 2000)


def agreed_backend(
    backend_id: int, status: BackendStatus = UP, role: BackendRole = STANDBY, decision: int = 1
) -> Backend:
    return Backend(backend_id, f"10.0.0.{backend_id}", 5432, status, role, "", decision)


def document(*backends: Backend, intents: tuple[Intent, ...] = ()) -> Document:
    decided = max((one.decision for one in backends), default=0)
    return Document(
        Stamp(1, decided), 1, (Voter(1, 1),), 1000, False, intents, (), QuorumRule.MAJORITY, "", backends, decided
    )


def seen(
    backend_id: int, up: bool = True, role: BackendRole = STANDBY, server_role: str = "", waiting: bool = False
) -> PoolBackend:
    usable = SeenStatus.WAITING if waiting else SeenStatus.UP
    status = usable if up else SeenStatus.DOWN
    said = server_role or role.value
    return PoolBackend(backend_id, f"10.0.0.{backend_id}", 5432, status, role, False, said)


def both(standby: BackendStatus = UP, decision: int = 1) -> Document:
    """Backend 0 is the primary, backend 1 a standby."""
    return document(agreed_backend(0, role=PRIMARY), agreed_backend(1, standby, decision=decision))


@dataclass
class Pool:
    """One node in time: say what changes, step, look at the plan."""

    agreed: Document | None = field(default_factory=both)
    backends: tuple[PoolBackend, ...] = (seen(0, role=PRIMARY), seen(1))
    life: Incarnation | None = FIRST_LIFE
    now_s: float = 100.0
    memory: Memory = field(default_factory=Memory)
    busy: frozenset[int] = frozenset()
    failing: frozenset[int] = frozenset()
    asking: frozenset[int] = frozenset()
    ordering: bool = False
    answering: Mapping[int, bool | None] = field(default_factory=dict)
    probe_age_s: float = 0.0
    blind: bool = False
    view: View | None = None
    plan: Plan = field(default_factory=lambda: Plan(Memory()))

    @property
    def now_ns(self) -> int:
        return int(self.now_s * NS_PER_S)

    def step(self, seconds: float = 1.0, look: bool = True) -> Plan:
        """Some time later; with a new view unless pgpool-II is not asked."""
        self.now_s += seconds
        if look and not self.blind:
            self.view = View(self.now_ns, self.life, self.backends)
        probed_ns = self.now_ns - int(self.probe_age_s * NS_PER_S)
        probes = {key: Probed(probed_ns, value) for key, value in self.answering.items()}
        facts = Facts(
            self.now_ns, self.agreed, self.view, self.life, self.busy, self.failing, self.asking, probes, self.ordering
        )  # fmt: skip
        self.plan = reconcile(self.memory, facts)
        self.memory = self.plan.memory
        return self.plan

    def change(self, backend: PoolBackend) -> None:
        """What pgpool-II makes of one backend is another thing now."""
        self.backends = tuple(backend if one.backend_id == backend.backend_id else one for one in self.backends)

    def agree(self, backend: Backend) -> None:
        """The cluster has decided on one backend."""
        assert self.agreed is not None
        table = tuple(backend if one.backend_id == backend.backend_id else one for one in self.agreed.backends)
        decided = max(self.agreed.decided, backend.decision)
        self.agreed = replace(self.agreed, backends=table, decided=decided, stamp=Stamp(1, decided))


def order_of(pool: Pool) -> tuple[OrderKind, int] | None:
    order = pool.plan.order
    return None if order is None else (order.kind, order.backend_id)


def asks_of(pool: Pool) -> list[tuple[DecisionKind, int]]:
    return [(ask.kind, ask.backend_id) for ask in pool.plan.asks]


def settled(pool: Pool) -> Pool:
    pool.step()
    pool.step()
    assert pool.memory.settled and order_of(pool) is None and not pool.plan.obstacle
    return pool


def orders_within(pool: Pool, seconds: int) -> list[float]:
    """When orders were given, in seconds from now."""
    start_s, given = pool.now_s, []
    for _ in range(seconds):
        if pool.step().order is not None:
            given.append(pool.now_s - start_s)
    return given


def detached(decision: int = 2) -> Pool:
    """Backend 1 is agreed down, and down there."""
    return settled(Pool(agreed=both(DOWN, decision), backends=(seen(0, role=PRIMARY), seen(1, up=False))))
