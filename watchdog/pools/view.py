"""What one pgpool-II says of its backends, as values: the input of everything that is decided here.

Pure. Only what counts is kept: weights and delays change without meaning anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import BackendRole
from pgvigil.watchdog.pcp.records import BackendStatus, NodeInfo, Role

STATUSES = {
    BackendStatus.UNUSED: SeenStatus.UNUSED,
    BackendStatus.WAITING: SeenStatus.WAITING,
    BackendStatus.UP: SeenStatus.UP,
    BackendStatus.DOWN: SeenStatus.DOWN,
}
ROLES = {
    Role.MAIN: BackendRole.MAIN,
    Role.REPLICA: BackendRole.REPLICA,
    Role.PRIMARY: BackendRole.PRIMARY,
    Role.STANDBY: BackendRole.STANDBY,
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
    changed_at_s: int = 0

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


def backend_of(node: NodeInfo) -> PoolBackend:
    """What counts of an answer over PCP."""
    said = node.pg_role if node.pg_status == "up" and node.pg_role in ("primary", "standby") else None
    return PoolBackend(
        node.node_id,
        node.host,
        node.port,
        STATUSES[node.status],
        ROLES[node.role],
        node.quarantined,
        said or "",
        node.changed_at_s,
    )
