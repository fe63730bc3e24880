"""What one pgpool-II says of its backends, as values: the input of everything that is decided here.

Pure. Only what counts is kept: weights and delays change without meaning anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import BackendRole
from pgvigil.watchdog.pcp.records import HealthStats, NodeInfo

QUARANTINE, UNUSED = "quarantine", "unused"
STATUSES = {
    UNUSED: SeenStatus.UNUSED,
    "waiting": SeenStatus.WAITING,
    "up": SeenStatus.UP,
    "down": SeenStatus.DOWN,
    QUARANTINE: SeenStatus.DOWN,
}
ROLES = {
    "main": BackendRole.MAIN,
    "replica": BackendRole.REPLICA,
    "primary": BackendRole.PRIMARY,
    "standby": BackendRole.STANDBY,
}


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of a pgpool-II; `started_ticks` is since the machine started (proc(5))."""

    pid: int
    started_ticks: int


@dataclass(frozen=True, slots=True)
class PoolBackend:
    """One backend there; `server_role` is what PostgreSQL itself said, empty if it did not or pgpool-II is of 4.2."""

    backend_id: int
    host: str
    port: int
    status: SeenStatus
    role: BackendRole
    quarantined: bool = False
    server_role: str = ""

    @property
    def usable(self) -> bool:
        """Whether clients are sent there."""
        return self.status in (SeenStatus.UP, SeenStatus.WAITING)

    @property
    def down(self) -> bool:
        return self.status is SeenStatus.DOWN


@dataclass(frozen=True, slots=True)
class View:
    """All backends at one instant, in one life of that pgpool-II (None: not known which)."""

    at_ns: int
    incarnation: Incarnation | None
    backends: tuple[PoolBackend, ...]

    def backend(self, backend_id: int) -> PoolBackend | None:
        """The backend of that id, if there is one."""
        return next((one for one in self.backends if one.backend_id == backend_id), None)

    def primary(self) -> PoolBackend | None:
        """The usable backend that this pgpool-II sends writes to."""
        return next((one for one in self.backends if one.role is BackendRole.PRIMARY and one.usable), None)


def seen_backend(stats: HealthStats) -> PoolBackend:
    """What counts of the counts of health checks; `PeerError` if status or role is no word of pgpool-II."""
    status, role = STATUSES.get(stats.status), ROLES.get(stats.role)
    if status is None:
        raise PeerError(f"status {stats.status[:40]!r} of backend {stats.node_id}, expected {', '.join(STATUSES)}")
    if role is None:
        raise PeerError(f"role {stats.role[:40]!r} of backend {stats.node_id}, expected {', '.join(ROLES)}")
    quarantined = stats.status == QUARANTINE
    return PoolBackend(stats.node_id, stats.host, stats.port, status, role, quarantined)


def has_status(one: PoolBackend, word: str) -> bool:
    """Whether this is still pgpool-II's word for its status."""
    return STATUSES.get(word) is one.status and (word == QUARANTINE) is one.quarantined


def server_role_of(node: NodeInfo) -> str:
    """What PostgreSQL said of its role; empty if it did not answer, or pgpool-II is of 4.2."""
    said = node.pg_role if node.pg_status == "up" and node.pg_role in ("primary", "standby") else None
    return said or ""
