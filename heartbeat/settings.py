"""What a heartbeat sender and receiver need to know; one object per path interface."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A peer on this path. `label` is its host name as operators know it."""

    node_id: int
    label: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """`path` is the position of the path in the node's list; paths of equal position talk to each other.

    `key` authenticates (32 bytes, derived from the shared secret); `address` is bound, IPv4 or IPv6. `deadtime_ms` is
    the shortest of lifecheck's (0: three intervals, the shortest that is allowed), `latest_ms` the longest.
    """

    node_id: int
    path: int
    interface: str
    address: str
    port: int
    peers: tuple[PeerAddress, ...]
    # No repr: settings end up in logs and tracebacks.
    key: bytes = field(repr=False)
    interval_ms: int
    run_dir: str
    deadtime_ms: int = 0
    latest_ms: int = 0
