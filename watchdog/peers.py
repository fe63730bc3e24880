"""What this node says to the other watchdogs and hears from them (PROTOCOL 2).

A message goes out on every path at once; the receiver takes the first copy. Every connection is encrypted and
authenticated with a key per node, and a message counts only if it names the node whose key brought it. Nothing
is queued for a peer that is away and nothing is repeated: the protocol does both where it is needed. What a
message means, and when it was received, is the caller's business: it reads the clock for each one it is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.utils import z85

from pgvigil.ipc.channel import Complain, Complaints
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.config.keys import curve_pair
from pgvigil.watchdog.core.messages import Message
from pgvigil.watchdog.settings import NodeSettings, Settings
from pgvigil.watchdog.transport import envelope
from pgvigil.watchdog.transport.links import BATCH, ZAP_DOMAIN, Context, KeyPair, Link, Listener, allow_descriptors
from pgvigil.watchdog.transport.window import Windows

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_PARTS = 7

logger = logging.getLogger("pgvigil")

OnMessage = Callable[[int, int, Message], None]


@dataclass(frozen=True, slots=True)
class PeerLink:
    """One peer over one path, for status. `connected` is this node's way to the peer.

    `since_ns` is its last change, `heard_ns` the last valid message from there (0: never), both CLOCK_BOOTTIME.
    `dropped` counts what could not be handed to the network, `received` first and later copies alike.
    """

    node_id: int
    label: str
    path: int
    address: str
    connected: bool
    since_ns: int
    heard_ns: int
    last_error: str
    sent: int
    dropped: int
    received: int


class _Peer:
    """What is known of one other node."""

    def __init__(self, node: NodeSettings) -> None:
        self.node = node
        self.links: list[Link] = []
        self.windows = Windows()
        self.received = [0] * len(node.paths)
        self.heard_ns = [0] * len(node.paths)


class Peers:
    """The transport of watchdog main; make it after the fork. A participant of the loop that it is given."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        boot: int,
        record_id: int,
        loop: Loop,
        on_message: OnMessage,
        complain: Complain = logger.warning,
    ) -> None:
        self.invalid = Complaints(complain, "invalid messages of other nodes")
        self._strangers = Complaints(complain, "connections of unknown hosts")
        self._undeliverable = Complaints(complain, "messages")
        self.duplicates = 0
        self._context, self._settings, self._loop = context, settings, loop
        self._boot, self._record_id = boot, record_id
        self._on_message, self._complain = on_message, complain
        self._counter = 0
        self._said: dict[tuple[str, str], None] = {}
        self._peers = {node.id: _Peer(node) for node in settings.nodes if node.id != settings.node_id}
        pairs = {node.id: KeyPair(*curve_pair(settings.cluster.key, node.id)) for node in settings.nodes}
        self._ids = {pairs[node_id].public: node_id for node_id in self._peers}
        self._labels = {
            path.address: f"{peer.node.host} ({path.address})"
            for peer in self._peers.values()
            for path in peer.node.paths
        }
        allow_descriptors()
        self._gatekeeper = context.socket(zmq.REP)
        self._gatekeeper.setsockopt(zmq.LINGER, 0)
        self._gatekeeper.bind(ZAP_ENDPOINT)
        loop.watch(self._gatekeeper, self._admit)
        self._listeners = [self._listen(index, pairs[settings.node_id]) for index in range(len(settings.node.paths))]
        for peer in self._peers.values():
            peer.links = self._links_to(peer.node, pairs[settings.node_id], pairs[peer.node.id].public)
        self._parts: tuple[Listener | Link, ...] = (
            *self._listeners,
            *(link for peer in self._peers.values() for link in peer.links),
        )
        loop.join(self)
        self.tick(boottime_ns())

    def _listen(self, path: int, keys: KeyPair) -> Listener:
        own = self._settings.node
        return Listener(
            self._context,
            self._loop,
            own.paths[path].address,
            own.port,
            keys,
            self._labels,
            lambda part: self._take(path, part),
            self._refused,
            self._complain,
        )

    def _links_to(self, node: NodeSettings, keys: KeyPair, public: bytes) -> list[Link]:
        """Paths of equal position talk to each other."""
        pairs = zip(self._settings.node.paths, node.paths, strict=False)
        return [
            Link(
                self._context,
                self._loop,
                ours.address,
                theirs.address,
                node.port,
                keys,
                public,
                self._refused,
                self._accepted,
            )
            for ours, theirs in pairs
        ]

    def wake(self) -> int | None:
        """The next attempt to bind or to connect anew."""
        return min((at for part in self._parts if (at := part.wake()) is not None), default=None)

    def tick(self, now_ns: int) -> None:
        """Bind and connect what is due."""
        for part in self._parts:
            at_ns = part.wake()
            if at_ns is not None and at_ns <= now_ns:
                part.tick(now_ns)

    def send(self, to: int, message: Message) -> None:
        """Say something to a node over every path; lost without a word if no path is up."""
        peer = self._peers.get(to)
        if to == self._settings.node_id:
            raise InvariantError(f"{type(message).__name__} addressed to this node itself")
        if peer is None:
            self._undeliverable.add(f"node {to} is not in {self._settings.source}: is the file the same on all hosts?")
            return
        self._counter += 1
        data = envelope.seal(message, self._settings.node_id, to, self._boot, self._counter, self._record_id)
        for link in peer.links:
            link.send(data)

    def describe(self) -> tuple[PeerLink, ...]:
        """Every peer over every path."""
        return tuple(
            PeerLink(
                peer.node.id,
                peer.node.host,
                path,
                link.destination,
                link.connected,
                link.since_ns,
                peer.heard_ns[path],
                link.last_error,
                link.sent,
                link.dropped,
                peer.received[path],
            )
            for peer in self._peers.values()
            for path, link in enumerate(peer.links)
        )

    @property
    def unbound(self) -> tuple[str, ...]:
        """Why this node cannot be reached on some of its addresses, one text each."""
        return tuple(listener.last_error for listener in self._listeners if not listener.bound)

    def close(self) -> None:
        """Drop what is unsent, free the sockets, leave the loop."""
        self._loop.leave(self)
        for part in self._parts:
            part.close()
        self._loop.unwatch(self._gatekeeper)
        self._gatekeeper.close()

    def _take(self, path: int, part: zmq.Frame) -> None:
        try:
            if part.more:
                raise PeerError("a message of several parts, expected 1")
            sender = self._sender(part)
            peer = self._peers[sender]
            sealed = envelope.read(part.bytes, sender, self._settings.node_id)
            if path < len(peer.received):
                peer.received[path] += 1
                peer.heard_ns[path] = boottime_ns()
            message = envelope.message_of(sealed)
        except PeerError as error:
            self.invalid.add(str(error))
            return
        if not peer.windows.accept(sealed.record_id, sealed.boot, sealed.counter):
            self.duplicates += 1
            return
        self._on_message(sender, sealed.record_id, message)

    def _sender(self, part: zmq.Frame) -> int:
        """The node whose key brought the message."""
        try:
            sender = int(str(part.get("User-Id")))
        except (zmq.ZMQError, ValueError):
            raise PeerError("a message without an authenticated sender") from None
        if sender not in self._peers:
            raise PeerError(f"a message of node {sender}, expected one of {sorted(self._peers)}")
        return sender

    def _admit(self) -> None:
        """Answer the questions of libzmq's handshake (RFC 27/ZAP): only configured nodes come in, by their key."""
        for _ in range(BATCH):
            try:
                parts = self._gatekeeper.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            node_id = self._ids.get(_credentials(parts))
            if node_id is not None:
                self._accepted(parts[3].decode("ascii", "replace"))
            code, user = (b"400", b"") if node_id is None else (b"200", str(node_id).encode())
            request_id = parts[1] if len(parts) > 1 else b""
            self._gatekeeper.send_multipart([b"1.0", request_id, code, b"", user, b""], zmq.DONTWAIT)

    def _refused(self, address: str, reason: str) -> None:
        """Name a connection that failed: a configured host once until it changes, strangers once a minute."""
        label = self._labels.get(address)
        if label is None:
            self._strangers.add(f"{address} {reason}")
            return
        if (address, reason) not in self._said:
            self._said[address, reason] = None
            self._complain(f"{label} {reason}")

    def _accepted(self, address: str) -> None:
        for key in [key for key in self._said if key[0] == address]:
            del self._said[key]


def _credentials(parts: list[bytes]) -> bytes:
    """The caller's public key in Z85, empty if the question is not one that this node expects."""
    if len(parts) != ZAP_PARTS or (parts[0], parts[2], parts[5]) != (b"1.0", ZAP_DOMAIN, b"CURVE"):
        return b""
    return z85.encode(parts[6]) if len(parts[6]) == 32 else b""
