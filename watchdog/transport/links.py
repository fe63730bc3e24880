"""The ZeroMQ sockets of one path: a listener for all peers, a link to each.

TCP with CURVE: every node has a key pair of its own, derived from the shared secret, and knows the public keys
of the others. Nothing here blocks, queues without a limit, lingers, or gives up: a listener whose address is missing
tries again, a link that libzmq has given up (it does after any protocol error) is made anew. What a message
means is not looked at.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from pgvigil.ipc import channel
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.codec import MAX_FRAME_BYTES
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

ZAP_DOMAIN = b"pgvigil"
CURVE_OVERHEAD_BYTES = 128
CONNECT_TIMEOUT_MS = 500
# No growing back-off: a peer that restarts must be found within 100 ms; libzmq adds up to as much again at random.
RECONNECT_MS = 40
# Each ping wakes four threads, and the protocol does not wait for what it finds out: it has times of its own.
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 900
HEARTBEAT_TTL_MS = 2500
TCP_TIMEOUT_MS = 1500
HANDSHAKE_MS = 2000
BACKLOG = 32
BIND_RETRY_NS = 100 * NS_PER_MS
BIND_RETRY_MAX_NS = 2000 * NS_PER_MS
REBUILD_NS = 2000 * NS_PER_MS
CALM_NS = 1000 * NS_PER_MS
TOLERATED_FAILURES = 3
MAX_ACCEPTED = 256
BATCH = 64

# zmq.h: the value of HANDSHAKE_FAILED_PROTOCOL when a box does not open with the key that was expected.
CRYPTOGRAPHIC = 0x11000001
EV_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
EV_LINK = EV_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
EV_LISTENER = EV_FAILED | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_EVENT = struct.Struct("=Hi")

KEY_CHECK = (
    "failed the key check: is authkey_file the same on both hosts, and does each address belong to one host only?"
)
UNKNOWN_KEY = "has a key of no configured node: is the configuration the same on both hosts?"
NOT_PGVIGIL = "does not speak pgvigil's protocol: is the port right on both hosts?"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """CURVE keys in Z85."""

    public: bytes
    secret: bytes


def address_text(address: str) -> str:
    """As libzmq wants an address before a colon: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _harden(opened: Socket, address: str) -> None:
    channel.harden(opened)
    opened.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + CURVE_OVERHEAD_BYTES)
    opened.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    opened.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
    opened.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    opened.setsockopt(zmq.TCP_MAXRT, TCP_TIMEOUT_MS)
    opened.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    opened.setsockopt(zmq.BACKLOG, BACKLOG)
    opened.setsockopt(zmq.IPV6, int(":" in address))


class _Monitored:
    """A socket, the monitor that tells what happens to it, and their places in the loop."""

    _made = 0

    def __init__(self, context: Context, kind: int, address: str, events: int, on_event: Callable[[int, int], None]):
        _Monitored._made += 1
        endpoint = f"inproc://pgvigil-monitor-{_Monitored._made}"
        self.socket: Socket = context.socket(kind)
        _harden(self.socket, address)
        self.socket.monitor(endpoint, events)
        self._on_event = on_event
        self._loop: Loop | None = None
        self.monitor: Socket = context.socket(zmq.PAIR)
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.monitor.connect(endpoint)
        self.closed = False

    def join(self, loop: Loop, on_readable: Callable[[], None] | None) -> None:
        self._loop = loop
        loop.watch(self.monitor, self._drain)
        if on_readable is not None:
            loop.watch(self.socket, on_readable)

    def _drain(self) -> None:
        for _ in range(BATCH):
            if self.closed:
                return
            try:
                parts = self.monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if len(parts[0]) == _EVENT.size:
                self._on_event(*_EVENT.unpack(parts[0]))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._loop is not None:
            self._loop.unwatch(self.monitor)
            self._loop.unwatch(self.socket)
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()


class Listener:
    """Takes what all peers send to one of this node's addresses; binds when it can."""

    def __init__(
        self,
        context: Context,
        loop: Loop,
        address: str,
        port: int,
        keys: KeyPair,
        on_part: Callable[[zmq.Frame], None],
        on_refused: Callable[[str, str], None],
        say: channel.Complain,
    ) -> None:
        self.address = address
        self.endpoint = f"tcp://{address_text(address)}:{port}"
        self.bound = False
        self.last_error = ""
        self._context, self._loop, self._keys = context, loop, keys
        self._on_part, self._on_refused = on_part, on_refused
        self._complaints = channel.Complaints(say, f"attempts to listen on {self.endpoint}")
        self._opened: _Monitored | None = None
        self._retry_at_ns = 0
        self._retry_ns = BIND_RETRY_NS
        self._accepted: dict[int, str] = {}
        self._failed = ""

    def wake(self) -> int | None:
        """When to try to bind again."""
        return None if self.bound else self._retry_at_ns

    def tick(self, now_ns: int) -> None:
        """Try to bind."""
        try:
            self._bind()
        except CommandError as error:
            self.last_error = str(error)
            self._complaints.add(f"{error}; trying again")
            self._retry_at_ns = now_ns + self._retry_ns
            self._retry_ns = min(2 * self._retry_ns, BIND_RETRY_MAX_NS)

    def _bind(self) -> None:
        opened = _Monitored(self._context, zmq.PULL, self.address, EV_LISTENER, self._on_event)
        opened.socket.setsockopt(zmq.CURVE_SERVER, 1)
        opened.socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        opened.socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        opened.socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        opened.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        try:
            opened.socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            opened.close()
            raise CommandError(f"cannot listen on {self.endpoint}: {error.strerror}") from None
        opened.join(self._loop, self._receive)
        self._opened = opened
        self.bound, self.last_error, self._retry_ns = True, "", BIND_RETRY_NS

    def _receive(self) -> None:
        for _ in range(BATCH):
            opened = self._opened
            if opened is None or opened.closed:
                return
            try:
                part = opened.socket.recv(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self._on_part(part)
            if opened.closed or not channel.readable(opened.socket):
                return

    def _on_event(self, event: int, value: int) -> None:
        """libzmq tells the caller's descriptor first, then the failure without a name, then the descriptor again.

        A caller whose descriptor was closed before it could be asked for its address is passed over: it comes again.
        """
        if event == zmq.EVENT_ACCEPTED:
            if len(self._accepted) >= MAX_ACCEPTED:
                self._accepted.clear()
            self._accepted[value] = _peer_address(value)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._failed = KEY_CHECK if value == CRYPTOGRAPHIC else NOT_PGVIGIL
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._failed = UNKNOWN_KEY
        elif event == zmq.EVENT_DISCONNECTED:
            address, reason = self._accepted.pop(value, ""), self._failed
            self._failed = ""
            if reason and address:
                self._on_refused(address, reason)

    def close(self) -> None:
        """Stop listening."""
        if self._opened is not None:
            self._opened.close()
        self.bound = False


class Link:
    """The way to one peer over one path."""

    def __init__(
        self,
        context: Context,
        loop: Loop,
        source: str,
        destination: str,
        port: int,
        keys: KeyPair,
        peer_public: bytes,
        on_refused: Callable[[str, str], None],
        on_up: Callable[[str], None],
    ) -> None:
        self.source, self.destination = source, destination
        self.connected = False
        self.since_ns = boottime_ns()
        self.last_error = "never connected"
        self.sent = 0
        self.dropped = 0
        self._endpoint = f"tcp://{address_text(source)}:0;{address_text(destination)}:{port}"
        self._context, self._loop, self._keys, self._peer_public = context, loop, keys, peer_public
        self._on_refused, self._on_up = on_refused, on_up
        self._failures = 0
        self._rebuild_at_ns: int | None = 0
        self._opened: _Monitored | None = None

    def wake(self) -> int | None:
        """When to make the socket anew."""
        return self._rebuild_at_ns

    def tick(self, now_ns: int) -> None:
        """Make the socket (anew)."""
        self._rebuild_at_ns = None
        if self._opened is not None:
            self._opened.close()
        try:
            self._connect()
        except zmq.ZMQError as error:
            self.last_error = f"cannot connect from {self.source}: {error.strerror}"
            self._rebuild_at_ns = now_ns + REBUILD_NS

    def _connect(self) -> None:
        opened = self._opened = _Monitored(self._context, zmq.PUSH, self.destination, EV_LINK, self._on_event)
        opened.socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        opened.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        opened.socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
        opened.socket.setsockopt(zmq.CURVE_SERVERKEY, self._peer_public)
        opened.socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        opened.socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        opened.join(self._loop, None)
        opened.socket.connect(self._endpoint)

    def send(self, data: bytes) -> bool:
        """False if the peer cannot be reached over this path now; nothing is kept for later."""
        try:
            if self._opened is not None and not self._opened.closed:
                self._opened.socket.send(data, zmq.DONTWAIT)
                self.sent += 1
                return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EAGAIN:
                self.last_error = f"cannot send: {error.strerror}"
        self.dropped += 1
        return False

    def _on_event(self, event: int, value: int) -> None:
        now_ns = boottime_ns()
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected, self.since_ns, self.last_error = True, now_ns, ""
            self._failures, self._rebuild_at_ns = 0, None
            self._on_up(self.destination)
        elif event == zmq.EVENT_DISCONNECTED:
            if self.connected:
                self.connected, self.since_ns, self.last_error = False, now_ns, "connection lost"
            self._rebuild_by(now_ns + REBUILD_NS)
        elif event & EV_FAILED:
            self._handshake_failed(event, value, now_ns)

    def _handshake_failed(self, event: int, value: int, now_ns: int) -> None:
        """A peer that cannot open our first box just hangs up, as one that dies does: once is no proof, thrice is."""
        self._failures += 1
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            reason = "refuses this node's key: is this node in its configuration?"
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            reason = KEY_CHECK if value == CRYPTOGRAPHIC else NOT_PGVIGIL
        elif self._failures < TOLERATED_FAILURES:
            return
        else:
            reason = NOT_PGVIGIL if value == zmq.EAGAIN else KEY_CHECK
        self.last_error = reason
        self._rebuild_by(now_ns + CALM_NS)
        if self._opened is not None and self._failures >= TOLERATED_FAILURES:
            self._opened.close()
        self._on_refused(self.destination, reason)

    def _rebuild_by(self, at_ns: int) -> None:
        if self._rebuild_at_ns is None or at_ns < self._rebuild_at_ns:
            self._rebuild_at_ns = at_ns

    def close(self) -> None:
        """Free the sockets."""
        if self._opened is not None:
            self._opened.close()
        self._rebuild_at_ns = None
        self.connected = False


def _peer_address(descriptor: int) -> str:
    """Who is at the other end of one of libzmq's descriptors; empty if it was closed meanwhile."""
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return ""
    with copy:
        try:
            name = copy.getpeername()
        except OSError:
            return ""
    return str(name[0]) if isinstance(name, tuple) and name else ""
