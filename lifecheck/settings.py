"""What the lifecheck process needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LifecheckPeer:
    """A peer to judge. `label` is its host name as operators know it, `pgpool_*` where its pgpool-II listens."""

    node_id: int
    label: str
    pgpool_host: str = ""
    pgpool_port: int = 0


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """The method query. `host` and `port` are the local pgpool-II's; empty on a witness without one."""

    host: str
    port: int
    query: str
    database: str
    user: str
    password_file: str | None
    interval_ms: int
    timeout_ms: int
    life_points: int


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """The method upstream: `command` with %h, or None for an ICMP echo."""

    servers: tuple[str, ...]
    command: str | None
    interval_ms: int
    timeout_ms: int
    life_points: int


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`interfaces` count together, `vip_interface` (may be empty) alone."""

    interfaces: tuple[str, ...]
    vip_interface: str
    debounce_ms: int


@dataclass(frozen=True, slots=True)
class PgpoolAddress:
    """A node as pgpool-II may call it in its own lists: `hosts` in lower case, the port for clients."""

    node_id: int
    label: str
    hosts: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class PgpoolWatchdogSettings:
    """The command socket of pgpool-II's own watchdog; `authkey` is its wd_authkey, or empty.

    Whoever owns `pid_file` may be behind the socket.
    """

    socket_path: str
    pid_file: str
    authkey: str = field(repr=False)
    nodes: tuple[PgpoolAddress, ...]


@dataclass(frozen=True, slots=True)
class TieBreakerSettings:
    """The tie-breaker of `quorum = "half"`; `port` 0 asks by ping. Questions `gap_ms` apart are no series.

    `interval_ms` is also how long an answer may take.
    """

    address: str
    port: int
    interval_ms: int
    gap_ms: int


def split_upstream(value: str) -> tuple[str, int]:
    """Address and port of "10.0.0.254", "10.0.0.254:443", "fd00::1" or "[fd00::1]:443"; port 0 means ping.

    `ValueError` if the port is none of 1 to 65535.
    """
    if value.startswith("["):
        address, _, port = value[1:].partition("]:")
        return address, _port(port)
    if value.count(":") == 1:
        address, _, port = value.partition(":")
        return address, _port(port)
    return value, 0


def _port(text: str) -> int:
    """Python refuses to connect to other ports with an `OverflowError`."""
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port of 1 to 65535")
    return port


@dataclass(frozen=True, slots=True)
class LifecheckSettings:
    """`interfaces` names the paths in order; `pgpool_pid_file` is None on a witness without pgpool-II.

    `query` and `upstream` are None unless they are among the methods. `adaptive` chooses the detector;
    `deadtime_min_ms` is its floor, `deadtime_ms` its ceiling. `pgpool_watchdog` is None unless pgpool-II's own watchdog
    leads here.
    """

    node_id: int
    peers: tuple[LifecheckPeer, ...]
    interfaces: tuple[str, ...]
    methods: tuple[str, ...]
    interval_ms: int
    deadtime_ms: int
    pgpool_pid_file: str | None
    run_dir: str
    adaptive: bool = False
    deadtime_min_ms: int = 0
    query: QuerySettings | None = None
    upstream: UpstreamSettings | None = None
    links: LinkSettings = field(default_factory=lambda: LinkSettings((), "", 0))
    external_timeout_s: int = 60
    pgpool_watchdog: PgpoolWatchdogSettings | None = None

    @property
    def external_alone(self) -> bool:
        """Whether nothing but reports from outside judges."""
        return "external" in self.methods

    @property
    def checks_pgpool(self) -> bool:
        """Whether anything looks at the local pgpool-II; else it is taken to be alive, and shown as not checked."""
        return self.pgpool_pid_file is not None and bool({"process", "query", "external"} & set(self.methods))
