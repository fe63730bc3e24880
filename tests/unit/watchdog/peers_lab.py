"""Nodes on loopback addresses for the tests of the transport: real sockets, one context and one loop per node."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from pgvigil.ipc.channel import ZmqPoller, new_context
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.settings import LifecheckSettings
from pgvigil.watchdog.core.messages import Message
from pgvigil.watchdog.peers import Peers
from pgvigil.watchdog.settings import (
    ClusterSettings,
    CommandSettings,
    Fence,
    NodeSettings,
    PathSettings,
    ProcessSettings,
    Settings,
    VipSettings,
)

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def free_port() -> int:
    """A TCP port that is free on every loopback address right now."""
    with socket.create_server(("0.0.0.0", 0)) as probe:
        return int(probe.getsockname()[1])


def address(node_id: int, path: int = 0) -> str:
    return f"127.0.{10 + path}.{node_id}"


def settings(node_id: int, nodes: int, port: int, paths: int = 1, key: bytes = KEY) -> Settings:
    return Settings(
        "/etc/pgvigil/pgvigil.toml",
        node_id,
        ClusterSettings("test", key, False, 1000, 200, "majority", False, Fence.BEST_EFFORT),
        tuple(
            NodeSettings(
                number,
                f"pg{number:02}",
                port,
                False,
                1,
                "127.0.0.1",
                9999,
                9898,
                tuple(PathSettings("lo", address(number, path), 9694) for path in range(paths)),
            )
            for number in range(1, nodes + 1)
        ),
        (),
        LifecheckSettings(node_id, (), ("lo",), (), 200, 1000, None, "/nonexistent"),
        VipSettings((), "lo", "netlink", "", "", "", 10, 5),
        CommandSettings(None),
        ProcessSettings("/nonexistent", "/nonexistent", "stderr", "info", 5000),
    )


@dataclass
class Node:
    """One node: what it heard and what it said to its operator."""

    settings: Settings
    boot: int = 1
    record_id: int = 0
    heard: list[tuple[int, int, Message]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record_id = self.record_id or 1000 + self.settings.node_id
        self.context = new_context()
        self.loop = Loop(ZmqPoller())
        self.peers = Peers(
            self.context, self.settings, self.boot, self.record_id, self.loop, self.take, self.said.append
        )

    def take(self, sender: int, record_id: int, message: Message) -> None:
        self.heard.append((sender, record_id, message))

    def connected(self) -> bool:
        return all(link.connected for link in self.peers.describe())

    def close(self) -> None:
        self.peers.close()
        self.loop.close()
        self.context.term()


def run_until(nodes: list[Node], holds: Callable[[], bool], limit_ms: int = 5000) -> int:
    """Turn the loops until something holds; the milliseconds that it took."""
    start_ns = boottime_ns()
    while not holds():
        passed_ms = (boottime_ns() - start_ns) // NS_PER_MS
        described = [(node.peers.describe(), node.peers.unbound, node.said) for node in nodes]
        assert passed_ms < limit_ms, f"did not hold within {limit_ms} ms: {described}"
        run_for(nodes, 1)
    return (boottime_ns() - start_ns) // NS_PER_MS


def run_for(nodes: list[Node], milliseconds: int) -> None:
    """Turn the loops for a while."""
    end_ns = boottime_ns() + milliseconds * NS_PER_MS
    while boottime_ns() < end_ns:
        for node in nodes:
            node.loop.run_once(NS_PER_MS)
