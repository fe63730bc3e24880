"""What pgpool-II says over PCP, as values.

One type serves all versions: what a version does not send is None, and nothing is made up for it. Times that pgpool-II
sends as text are in its own time zone without saying which, so they stay text. Nothing here reads bytes or decides.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class BackendStatus(enum.Enum):
    """What pgpool-II makes of a backend."""

    UNUSED = 0
    WAITING = 1
    """Up, but no client has been connected to it yet."""
    UP = 2
    DOWN = 3


class Role(enum.Enum):
    """A backend's role; main and replica without streaming replication, primary and standby with it."""

    MAIN = 0
    REPLICA = 1
    PRIMARY = 2
    STANDBY = 3


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One backend, as one pgpool-II sees it."""

    node_id: int
    host: str
    port: int
    status: BackendStatus
    quarantined: bool
    pg_status: str | None
    """What PostgreSQL itself answered, "up" for example; since 4.3."""
    weight: float
    """Share of the load: 0 to 1."""
    role: Role
    pg_role: str | None
    """What PostgreSQL itself said of its role; since 4.3."""
    delay_in_time: bool | None
    """Whether `delay` is microseconds (since 4.4) instead of bytes."""
    delay: int
    replication_state: str
    replication_sync_state: str
    changed_at_s: int
    """Wall clock of that machine, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class HealthStats:
    """What health checks of one backend came to; the averages are None as long as nothing was checked."""

    node_id: int
    host: str
    port: int
    status: str
    role: str
    last_status_change: str
    total: int
    success: int
    fail: int
    skip: int
    retry: int
    average_retry: float | None
    max_retry: int
    max_duration_ms: int
    min_duration_ms: int
    average_duration_ms: float | None
    last_check: str
    last_success: str
    last_skip: str
    last_failure: str


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One slot of the connection cache of one child of pgpool-II."""

    pid: int
    started_at: str
    """Text; until 4.2 seconds since 1970."""
    client_connections: int | None
    pool_id: int | None
    backend_id: int
    database: str
    user: str
    backend_connected_at: str
    client_connected_at: str | None
    client_disconnected_at: str | None
    client_idle: str | None
    """Seconds, and what pgpool-II has to say about them."""
    protocol_major: int
    protocol_minor: int
    use_count: int
    backend_pid: int
    connected: bool
    status: str | None
    load_balance_node: str | None
    """Since 4.5."""
    client_host: str | None
    """This, the port and the statement since 4.7."""
    client_port: str | None
    statement: str | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting that pgpool-II runs with."""

    name: str
    value: str
    description: str


@dataclass(frozen=True, slots=True)
class WatchdogNode:
    """One node of pgpool-II's own watchdog."""

    node_id: int
    name: str
    host: str
    delegate_ip: str
    pgpool_port: int
    watchdog_port: int
    priority: int
    state: int
    state_name: str
    membership: int | None
    """Since 4.3, as is its name."""
    membership_name: str | None


@dataclass(frozen=True, slots=True)
class WatchdogInfo:
    """pgpool-II's own watchdog; the node that answered comes first."""

    remote_nodes: int
    member_remote_nodes: int | None
    alive_remote_nodes: int
    needed_for_quorum: int | None
    quorum: int
    """1 exists, 0 on the edge, -1 lost, -2 no leader."""
    escalated: bool
    leader_name: str
    leader_host: str
    nodes: tuple[WatchdogNode, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """An error or a notice of pgpool-II; what it did not say is empty."""

    severity: str
    code: str
    message: str
    detail: str
    hint: str

    @property
    def is_fatal(self) -> bool:
        """Whether pgpool-II hangs up after it."""
        return self.severity in ("FATAL", "PANIC")

    def __str__(self) -> str:
        parts = [f"{self.severity}: {self.message}", *(f"({part})" for part in (self.detail,) if part)]
        return " ".join(parts) + (f"; {self.hint}" if self.hint else "")
