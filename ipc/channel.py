"""ZeroMQ inside a node; between nodes `watchdog.transport.links` and `watchdog.peers` use it.

A channel never blocks, never queues without a limit and never lingers. A broken or hostile frame is
counted and dropped, and said once a minute at most. A context belongs to the process that made it: it is made after
the fork, or messages are lost without a word.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import zmq

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.codec import MAX_FRAME_BYTES
from pgvigil.ipc.endpoints import file_of, give_to_group
from pgvigil.ipc.errors import CommandError, InvariantError, PeerError

HIGH_WATER_MARK = 64
RECONNECT_MS = 20
RECONNECT_MAX_MS = 200
COMPLAINT_INTERVAL_NS = 60 * NS_PER_S
LOOK_AT_ALL_NS = 1 * NS_PER_S
BATCH = 64

# Plain numbers: every operation on pyzmq's enumerations costs as much as the call that it is for.
_EVENTS, _POLLIN, _DONTWAIT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.DONTWAIT)
# Only their owner's reading changes what their descriptor tells: nothing is sent on them, or only right after reading.
_READ_ONLY = frozenset((zmq.PULL, zmq.PAIR, zmq.REP))

Complain = Callable[[str], None]


class ZmqPoller:
    """Sockets and descriptors for `ipc.loop.Loop`, on one epoll.

    zmq_poll asks every socket and the kernel twice a round. Here a socket is asked before sleeping only if somebody
    has used it since it was asked last (its descriptor tells of news only once, so nothing may be left unread over a
    sleep), and when its descriptor woke us. Once a second all are asked, so that a mistake could never last.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, zmq.Socket[bytes]] = {}
        self._always: dict[int, zmq.Socket[bytes]] = {}
        self._used: dict[int, zmq.Socket[bytes]] = {}
        self._all_due_ns = 0

    def add(self, source: object) -> None:
        fd = source if isinstance(source, int) else self._descriptor(source)
        self._epoll.register(fd, select.EPOLLIN)
        if isinstance(source, zmq.Socket):
            self._sockets[fd] = self._used[fd] = source
            if source.getsockopt(zmq.TYPE) not in _READ_ONLY:
                self._always[fd] = source

    def remove(self, source: object) -> None:
        fd = source if isinstance(source, int) else self._descriptor(source)
        self._epoll.unregister(fd)
        for sockets in (self._sockets, self._always, self._used):
            sockets.pop(fd, None)

    def poll(self, timeout_ms: int) -> list[object]:
        news = {fd: socket for fd, socket in self._doubtful().items() if readable(socket)}
        descriptors: list[object] = []
        for fd, _ in self._epoll.poll(0 if news else timeout_ms / 1000):
            socket = self._sockets.get(fd)
            if socket is None:
                descriptors.append(fd)
            elif fd not in news and readable(socket):
                news[fd] = socket
        self._used = news
        return [*news.values(), *descriptors]

    def _doubtful(self) -> dict[int, zmq.Socket[bytes]]:
        """The sockets that may hold something although their descriptor is silent."""
        now_ns = boottime_ns()
        if now_ns < self._all_due_ns:
            return self._used | self._always
        self._all_due_ns = now_ns + LOOK_AT_ALL_NS
        return self._sockets

    @staticmethod
    def _descriptor(source: object) -> int:
        assert isinstance(source, zmq.Socket)
        fd = source.getsockopt(zmq.FD)
        assert isinstance(fd, int)
        return fd


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message is there; costs half of being refused one."""
    events = socket.getsockopt(_EVENTS)
    assert isinstance(events, int)
    return bool(events & _POLLIN)


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context with one I/O thread; call it after the fork."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    return context


def harden(socket: zmq.Socket[bytes]) -> None:
    """The limits that every socket gets."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.IMMEDIATE, 1)


def bind(context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str) -> zmq.Socket[bytes]:
    """A hardened socket bound to an endpoint, or `CommandError`. Nobody else may connect to one on a path (0600)."""
    socket = context.socket(kind)
    harden(socket)
    umask = os.umask(0o177)  # the folder may be open to a group, for another socket
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise CommandError(f"cannot bind {endpoint}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return socket


class Outbox:
    """Frames to one process of this node; what cannot be taken at once is dropped, for state is repeated."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, sender: str) -> None:
        self._socket = context.socket(zmq.PUSH)
        harden(self._socket)
        self._socket.connect(endpoint)
        self._sender = sender
        self._sequence = 0
        self._monitor: zmq.Socket[bytes] | None = None
        self.dropped = 0

    def connections(self) -> zmq.Socket[bytes]:
        """Readable when the receiver is there, at first and after each restart; take it with `connected`."""
        if self._monitor is None:
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        return self._monitor

    def connected(self) -> None:
        """Drain `connections`; its content does not matter."""
        while self._monitor is not None:
            try:
                self._monitor.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return

    def send(self, frame: frames.Frame) -> bool:
        """False if the receiver is away or full."""
        self._sequence += 1
        try:
            self._socket.send(frames.pack(frame, self._sender, self._sequence, boottime_ns()), _DONTWAIT)
        except zmq.Again:
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        """Drop what is unsent and free the socket."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        self._socket.close()


class Complaints:
    """Counts invalid input and speaks once a minute at most."""

    def __init__(self, say: Complain, what: str) -> None:
        self._say = say
        self._what = what
        self._silent_until_ns = 0
        self._since_last = 0
        self.count = 0

    def add(self, reason: str) -> None:
        """Count one; say it if nothing was said for a minute."""
        self.count += 1
        self._since_last += 1
        now_ns = boottime_ns()
        if now_ns >= self._silent_until_ns:
            self._say(f"dropped {self._since_last} {self._what}; the newest: {reason}")
            self._since_last = 0
            self._silent_until_ns = now_ns + COMPLAINT_INTERVAL_NS


class Inbox:
    """Frames from other processes of this node, at a bound ipc endpoint."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, complain: Complain) -> None:
        self.socket = bind(context, zmq.PULL, endpoint)
        self.complaints = Complaints(complain, "invalid frames")

    def receive(self) -> Iterator[frames.Received]:
        """What has arrived, at most `BATCH`; the poller is level-triggered and calls again for the rest."""
        for _ in range(BATCH):
            try:
                parts = self.socket.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return
            received = self._decode(parts)
            if received is not None:
                yield received
            if not readable(self.socket):
                return

    def _decode(self, parts: list[bytes]) -> frames.Received | None:
        try:
            if len(parts) != 1:
                raise PeerError(f"a message of {len(parts)} parts, expected 1")
            return frames.unpack(parts[0])
        except PeerError as error:
            self.complaints.add(str(error))
            return None

    def close(self) -> None:
        """Free the socket."""
        self.socket.close()


class ControlServer:
    """Requests of the command line: a ROUTER socket that remembers whom to answer."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, complain: Complain, group: str = ""
    ) -> None:
        """`group`: whose members may connect, beside our own user."""
        self.socket = bind(context, zmq.ROUTER, endpoint)
        if group:
            give_to_group(file_of(endpoint), group, 0o660)
        self.complaints = Complaints(complain, "invalid requests")
        self._sequence = 0

    def requests(self) -> Iterator[tuple[bytes, frames.Request]]:
        """Pairs of return address and request."""
        for _ in range(BATCH):
            try:
                parts = self.socket.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return
            try:
                if len(parts) != 2:
                    raise PeerError(f"a request of {len(parts)} parts, expected 2")
                frame = frames.unpack(parts[1]).frame
                if not isinstance(frame, frames.Request):
                    raise PeerError(f"a frame of kind {type(frame).__name__}, expected Request")
            except PeerError as error:
                self.complaints.add(str(error))
                continue
            yield parts[0], frame

    def reply(self, address: bytes, reply: frames.Reply) -> None:
        """Answer; a client that has gone loses its answer."""
        self._sequence += 1
        data = frames.pack(reply, "watchdog main", self._sequence, boottime_ns())
        try:
            self.socket.send_multipart([address, data], _DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise InvariantError(f"cannot answer a request: {error.strerror}") from None

    def close(self) -> None:
        """Free the socket."""
        self.socket.close()


class ControlClient:
    """The command line's side: one request, replies until the final one."""

    def __init__(self, endpoint: str) -> None:
        self._context = new_context()
        self._socket = self._context.socket(zmq.DEALER)
        harden(self._socket)
        self._socket.connect(endpoint)

    def ask(self, verb: str, arguments: tuple[str, ...], timeout_ms: int) -> Iterator[frames.Reply]:
        """Yield replies up to the final one; `CommandError` when none comes in time."""
        deadline_ns = boottime_ns() + timeout_ms * 1_000_000
        request = frames.Request(boottime_ns(), verb, arguments)
        self._send(frames.pack(request, "command line", 1, boottime_ns()), deadline_ns, timeout_ms)
        while True:
            if not self._socket.poll(max(0, (deadline_ns - boottime_ns()) // 1_000_000), zmq.POLLIN):
                raise CommandError(f"watchdog main did not answer within {timeout_ms} ms")
            try:
                frame = frames.unpack(self._socket.recv()).frame
            except PeerError as error:
                raise CommandError(f"watchdog main answered with something invalid: {error}") from None
            if not isinstance(frame, frames.Reply) or frame.request_id != request.request_id:
                continue
            yield frame
            if frame.final:
                return

    def _send(self, data: bytes, deadline_ns: int, timeout_ms: int) -> None:
        if not self._socket.poll(max(0, (deadline_ns - boottime_ns()) // 1_000_000), zmq.POLLOUT):
            raise CommandError(f"watchdog main does not take requests (waited {timeout_ms} ms)")
        self._socket.send(data, _DONTWAIT)

    def close(self) -> None:
        """Free socket and context."""
        self._socket.close()
        self._context.term()
