"""Any history of decisions, failures, restarts, isolation and hands on one pgpool-II: the promises hold, it converges.

The pgpool-II is a model with the manners of the real one: it takes an order at once and carries it out later, is asked
over a connection that may be away for a while, and starts anew with a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pools.bench import DOWN, PRIMARY, UP, Pool, agreed_backend, both, seen

from pgvigil.watchdog.core.record import BackendStatus, DecisionKind
from pgvigil.watchdog.pools.plan import Order, OrderKind
from pgvigil.watchdog.pools.reconcile import GRACE_NS, refused
from pgvigil.watchdog.pools.view import Incarnation

BACKENDS = (0, 1)
QUIET_STEPS = 200
EFFECTS = {OrderKind.ATTACH: True, OrderKind.DETACH: False, OrderKind.PROMOTE: True}


@dataclass
class Model:
    """One node, its pgpool-II and the cluster around it; a step is a second."""

    slow_s: int
    agrees: bool
    pool: Pool = field(default_factory=Pool)
    up: dict[int, bool] = field(default_factory=lambda: dict.fromkeys(BACKENDS, True))
    answering: dict[int, bool] = field(default_factory=lambda: dict.fromkeys(BACKENDS, True))
    coming: list[tuple[int, int, bool]] = field(default_factory=list)
    orders: list[tuple[int, int, Order]] = field(default_factory=list)
    asks: list[tuple[int, DecisionKind, int]] = field(default_factory=list)
    connected: bool = True
    isolated: bool = False
    lives: int = 1
    steps: int = 0
    decided: int = 1

    def __post_init__(self) -> None:
        self.kept = self.pool.agreed

    def step(self) -> None:
        self.steps += 1
        for due, backend_id, up in [one for one in self.coming if one[0] <= self.steps]:
            self.up[backend_id] = up
            self.coming.remove((due, backend_id, up))
        pool = self.pool
        pool.life = Incarnation(self.lives, self.lives)
        idle = [seen(key, up, waiting=True) for key, up in self.up.items()]  # no client has come yet
        pool.backends = tuple(replace(one, role=PRIMARY) if one.backend_id == 0 else one for one in idle)
        pool.answering = {key: self.answering[key] for key in BACKENDS}
        pool.agreed = None if self.isolated else self.kept
        pool.blind = not self.connected
        plan = pool.step()
        if plan.order is not None:
            self._take(plan.order)
        for ask in plan.asks:
            self.asks.append((pool.now_ns, ask.kind, ask.backend_id))
            if self.agrees:
                self.decide(ask.backend_id, UP)

    def _take(self, order: Order) -> None:
        """What must be true of every order that leaves."""
        assert not self.isolated and self.kept is not None
        backend = self.kept.backend(order.backend_id)
        assert backend is not None and EFFECTS[order.kind] is (backend.status is UP)
        assert order.kind is not OrderKind.ATTACH or self.answering[order.backend_id]
        before = [at_ns for at_ns, life, one in self.orders if (life, one.backend_id) == (self.lives, order.backend_id)]
        assert not before or self.pool.now_ns - before[-1] >= GRACE_NS
        self.orders.append((self.pool.now_ns, self.lives, order))
        if self.connected:
            self.coming.append((self.steps + self.slow_s, order.backend_id, EFFECTS[order.kind]))
        else:
            self.pool.memory = refused(self.pool.memory, order.backend_id)

    def decide(self, backend_id: int, status: BackendStatus) -> None:
        self.decided += 1
        role = PRIMARY if backend_id == 0 else seen(backend_id).role
        self.pool.agreed = self.kept
        self.pool.agree(agreed_backend(backend_id, status, role, self.decided))
        self.kept = self.pool.agreed

    def act(self, name: str, backend_id: int) -> None:
        """Something that happens to this node."""
        if name in ("down", "up"):
            self.decide(backend_id, UP if name == "up" else DOWN)
        elif name in ("attach", "detach"):
            self.up[backend_id] = name == "attach"
        elif name in ("dies", "lives"):
            self.answering[backend_id] = name == "lives"
            self.up[backend_id] = self.up[backend_id] and name == "lives"
        elif name == "restart":
            self.lives, self.coming = self.lives + 1, []
            self.up = dict.fromkeys(BACKENDS, backend_id == 0)
        elif name == "isolate":
            self.isolated = not self.isolated
        else:
            self.connected = not self.connected

    def quiet(self) -> None:
        """No more faults: everything has time to come in line."""
        self.connected, self.isolated = True, False
        self.answering = dict.fromkeys(BACKENDS, True)
        for _ in range(QUIET_STEPS):
            self.step()

    def in_line(self) -> Iterator[bool]:
        assert self.kept is not None
        for backend in self.kept.backends:
            yield self.up[backend.backend_id] is (backend.status is UP)


NAMES = ("down", "up", "attach", "detach", "dies", "lives", "restart", "isolate", "unplug")
HISTORY = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(BACKENDS), st.integers(0, 12)), min_size=1, max_size=25
)  # fmt: skip


@settings(max_examples=60)
@given(history=HISTORY, slow_s=st.integers(0, 9), agrees=st.booleans())
def test_whatever_happens_orders_are_agreed_and_seldom_and_it_comes_in_line(
    history: list[tuple[str, int, int]], slow_s: int, agrees: bool
) -> None:
    model = Model(slow_s, agrees)
    for name, backend_id, pause_s in history:
        model.act(name, backend_id)
        for _ in range(pause_s):
            model.step()
    model.quiet()
    assert all(model.in_line())
    assert model.pool.memory.settled and not model.pool.memory.by_hand
    orders = len(model.orders)
    for _ in range(60):
        model.step()
    assert len(model.orders) == orders, "an order in a state that is agreed"


@settings(max_examples=40)
@given(slow_s=st.integers(0, 9), wait_s=st.integers(8, 30), backend_id=st.sampled_from(BACKENDS))
def test_an_attach_by_hand_is_spread_once_and_never_undone(slow_s: int, wait_s: int, backend_id: int) -> None:
    model = Model(slow_s, agrees=True)
    model.step()
    model.decide(backend_id, DOWN)
    for _ in range(slow_s + wait_s):
        model.step()
    assert model.up[backend_id] is False
    orders = len(model.orders)
    model.act("attach", backend_id)
    for _ in range(60):
        model.step()
    assert [ask[1:] for ask in model.asks] == [(DecisionKind.UP, backend_id)]
    assert len(model.orders) == orders and model.up[backend_id]


@settings(max_examples=40)
@given(history=HISTORY, slow_s=st.integers(0, 9))
def test_a_pgpool_that_was_restarted_never_asks_for_what_it_came_up_with(
    history: list[tuple[str, int, int]], slow_s: int
) -> None:
    """Its own state at the start is nobody's wish; only restarts, decisions and failures happen here."""
    model = Model(slow_s, agrees=True)
    for name, backend_id, pause_s in history:
        if name not in ("attach", "detach"):
            model.act(name, backend_id)
        for _ in range(pause_s):
            model.step()
    assert model.asks == []


def test_the_model_can_fail() -> None:
    """A model in which nothing is ever out of line would prove nothing."""
    model = Model(3, agrees=False)
    model.pool.agreed = model.kept = both()
    model.step()
    model.act("down", 1)
    assert not all(model.in_line())
    model.quiet()
    assert all(model.in_line()) and [order.kind for _, _, order in model.orders] == [OrderKind.DETACH]
