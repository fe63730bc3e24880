"""A cluster of backends that is a few values: what is ordered takes some looks until every pgpool-II agrees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.rolling.cluster import Backend, OrderRefused, PoolView, Seen
from pgvigil.watchdog.rolling.plan import Plan

POOLS = ("n1", "n2")


def pools(status: str) -> tuple[PoolView, ...]:
    """Both pgpool-IIs say the same."""
    return tuple(PoolView(label, status) for label in POOLS)


def up(number: int, role: str = "standby") -> Backend:
    return Backend(number, f"db{number}", 5432, "up", role, "", pools("up"))


def down(number: int, reason: str, role: str = "standby") -> Backend:
    return Backend(number, f"db{number}", 5432, "down", role, reason, pools("down"))


def primary_and(count: int) -> Seen:
    """A primary with id 0 and standbys."""
    return (up(0, "primary"), *(up(number) for number in range(1, count + 1)))


@dataclass
class FakeCluster:
    """Keeps a log of what was ordered, and of the fewest backends that were attached at any look."""

    seen: Seen
    orders: list[str] = field(default_factory=list)
    looks_until_agreed: int = 1
    refuse: str = ""
    lose_answers: bool = False
    silent: bool = False
    fewest: int = 1000
    before_look: Callable[[FakeCluster], None] = lambda cluster: None
    _pending: dict[int, int] = field(default_factory=dict)

    def list(self) -> Seen:
        self.before_look(self)
        if self.silent:
            raise CommandError("watchdog main did not answer within 5000 ms")
        for backend in self.seen:
            left = self._pending.get(backend.backend_id, 0)
            if left == 1:
                self.put(replace(backend, pools=pools(backend.status)))
            self._pending[backend.backend_id] = max(0, left - 1)
        self.fewest = min(self.fewest, sum(backend.status == "up" for backend in self.seen))
        return self.seen

    def detach(self, backend_id: int, reason: str) -> None:
        self._order("detach", backend_id, "down", reason)

    def attach(self, backend_id: int, reason: str) -> None:
        self._order("attach", backend_id, "up", "")

    def _order(self, verb: str, backend_id: int, status: str, reason: str) -> None:
        self.orders.append(f"{verb} {backend_id}")
        if self.refuse:
            raise OrderRefused(self.refuse)
        backend = self.seen[backend_id]
        if backend.status != status:
            self.put(replace(backend, status=status, reason=reason))
            self._pending[backend_id] = self.looks_until_agreed
        if self.lose_answers:
            raise CommandError("unknown: no answer of a leader")

    def put(self, backend: Backend) -> None:
        """Something changes."""
        self.seen = tuple(backend if one.backend_id == backend.backend_id else one for one in self.seen)


@dataclass
class Told:
    """What the operator would read."""

    texts: list[str] = field(default_factory=list)
    ticks: int = 0
    on_note: Callable[[str], None] = lambda text: None

    def note(self, plan: Plan, text: str) -> None:
        self.texts.append(text)
        self.on_note(text)

    def tick(self, plan: Plan) -> None:
        self.ticks += 1
