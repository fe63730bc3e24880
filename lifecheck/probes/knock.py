"""Does the pgpool-II of a silent node still answer? Asked before pgpool-II's own watchdog is told that it is dead.

Heartbeats stop when pgvigil stops there, too, and a leader must not lose its virtual IP for that. The question is
PostgreSQL's SSLRequest, which pgpool-II answers with one byte before anything else: no login, no query. A machine that
is off, cut off or hung does not answer it; a kernel that merely accepts connections for a hung one is not believed. The
answer is looked for every 20 ms for at most 300, which happens only when a node has just fallen silent.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.settings import PgpoolAddress

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # PostgreSQL, "Message Formats"
ANSWERS = (b"S", b"N", b"E")
LIMIT_NS = 300 * NS_PER_MS
LOOK_NS = 20 * NS_PER_MS
AGAIN_NS = 5 * NS_PER_S
SURE_NS = NS_PER_S
MAX_DOORS = 4


@dataclass(slots=True)
class _Door:
    """One address of a node."""

    connection: socket.socket
    asked: bool = False

    def look(self) -> bool | None:
        """True if it has answered, None if it may yet."""
        try:
            if not self.asked:
                self.asked = self.connection.send(SSL_REQUEST) == len(SSL_REQUEST)
            return self.connection.recv(1) in ANSWERS
        except BlockingIOError:
            return None
        except OSError:
            return False


@dataclass(slots=True)
class _Node:
    """What is known of one silent node; `again_ns` is when to ask (again), `missed` the answers that it owes."""

    health: Health = Health.UNKNOWN
    missed: int = 0
    until_ns: int = 0
    again_ns: int = 0
    doors: list[_Door] = field(default_factory=list)


class Knocking:
    """`ask` for every node that is silent, `forget` for the others; `wake` and `tick` as a probe."""

    def __init__(self, addresses: tuple[PgpoolAddress, ...]) -> None:
        self._addresses = {one.node_id: _literals(one) for one in addresses}
        self._nodes: dict[int, _Node] = {}

    def ask(self, node_id: int, now_ns: int) -> Health:
        """ALIVE: its pgpool-II answers; DEAD: it does not; UNKNOWN: it has just been asked."""
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node()
            self._begin(node_id, node, now_ns)
        return node.health

    def forget(self, node_id: int) -> None:
        """The node is silent no more."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            _close(node)

    def _begin(self, node_id: int, node: _Node, now_ns: int) -> None:
        node.until_ns, node.again_ns = now_ns + LIMIT_NS, now_ns + LOOK_NS
        node.doors = [door for host, port in self._addresses.get(node_id, ()) if (door := _door(host, port))]
        if not node.doors:
            self._miss(node, now_ns)

    def _conclude(self, node: _Node, health: Health, now_ns: int) -> None:
        _close(node)
        node.health = health
        node.again_ns = now_ns + AGAIN_NS

    def answering(self) -> list[int]:
        """The silent nodes whose pgpool-II has answered."""
        return [node_id for node_id, node in self._nodes.items() if node.health is Health.ALIVE]

    def wake(self) -> int | None:
        """The next look; who has not answered once is not asked again while it is silent."""
        times = [min(node.until_ns, node.again_ns) if node.doors else node.again_ns for node in self._asked()]
        return min(times, default=None)

    def _asked(self) -> list[_Node]:
        return [node for node in self._nodes.values() if node.doors or node.health is Health.ALIVE]

    def tick(self, now_ns: int) -> bool:
        """Look for answers; whether what is known of a node is another thing now."""
        changed = False
        for node_id, node in self._nodes.items():
            before = node.health
            if node.doors:
                self._look(node, now_ns)
            elif node.health is Health.ALIVE and now_ns >= node.again_ns:
                self._begin(node_id, node, now_ns)
            changed = changed or node.health is not before
        return changed

    def _look(self, node: _Node, now_ns: int) -> None:
        answers = [door.look() for door in node.doors]
        if True in answers:
            node.missed = 0
            self._conclude(node, Health.ALIVE, now_ns)
        elif now_ns >= node.until_ns or None not in answers:
            self._miss(node, now_ns)
        else:
            node.again_ns = now_ns + LOOK_NS

    def _miss(self, node: _Node, now_ns: int) -> None:
        """Who has answered all the time may be slow once."""
        node.missed += 1
        if node.health is Health.ALIVE and node.missed < 2:
            _close(node)
            node.again_ns = now_ns + SURE_NS
        else:
            self._conclude(node, Health.DEAD, now_ns)

    def late(self, lateness_ns: int) -> None:
        """Answers wait in their sockets."""
        for node in self._nodes.values():
            node.until_ns += lateness_ns

    def close(self) -> None:
        """Give the sockets back."""
        for node in self._nodes.values():
            _close(node)


def _literals(address: PgpoolAddress) -> list[tuple[str, int]]:
    """The addresses among a node's names: nothing is looked up."""
    found = []
    for host in address.hosts:
        try:
            found.append((str(ipaddress.ip_address(host)), address.port))
        except ValueError:
            continue
    return found[:MAX_DOORS]


def _door(host: str, port: int) -> _Door | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:  # a kernel without IPv6
        return None
    try:
        connection.connect((host, port))
    except BlockingIOError:
        pass
    except OSError:
        connection.close()
        return None
    return _Door(connection)


def _close(node: _Node) -> None:
    for door in node.doors:
        door.connection.close()
    node.doors = []
