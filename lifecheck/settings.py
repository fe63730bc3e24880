"""What the lifecheck process needs to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LifecheckPeer:
    """A peer to judge. `label` is its host name as operators know it."""

    node_id: int
    label: str


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
    """`interfaces` names the paths in order; `pgpool_pid_file` is None on a witness without pgpool-II."""

    node_id: int
    peers: tuple[LifecheckPeer, ...]
    interfaces: tuple[str, ...]
    methods: tuple[str, ...]
    interval_ms: int
    deadtime_ms: int
    pgpool_pid_file: str | None
    run_dir: str

    @property
    def checks_pgpool(self) -> bool:
        """Whether anything looks at the local pgpool-II; else it is taken to be alive, and shown as not checked."""
        return self.pgpool_pid_file is not None and "process" in self.methods
