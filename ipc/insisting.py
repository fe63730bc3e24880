"""A request that outlives a restart of watchdog main: it is sent again whenever that is reached anew.

For requests that bear repetition only, because nobody can tell whether the one before was taken. ZeroMQ connects again
by itself; that it has done so is what the socket's monitor tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import zmq

from pgvigil.ipc import frames
from pgvigil.ipc.channel import harden, new_context
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, PeerError

Arguments = Callable[[int], tuple[str, ...]]


class NotReached(CommandError):
    """Nobody serves that socket."""


class InsistingClient:
    """One request to one endpoint, until its final answer or the end of the time."""

    def __init__(self, endpoint: str) -> None:
        self._context = new_context()
        self._socket = self._context.socket(zmq.DEALER)
        harden(self._socket)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.connect(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._monitor, zmq.POLLIN)
        self._poller.register(self._socket, zmq.POLLIN)
        self._unsent = False  # the monitor may tell of a connection before the socket can use it
        self.reached = 0

    def ask(self, verb: str, arguments: Arguments, timeout_ms: int, connect_ms: int) -> Iterator[frames.Reply]:
        """Yield replies up to the final one. `arguments(left_ms)` are made for each sending.

        `CommandError` at the end of the time; `NotReached` if nobody was reached within `connect_ms`.
        """
        begun_ns = boottime_ns()
        deadline_ns, request_id = begun_ns + timeout_ms * NS_PER_MS, begun_ns
        while (left_ms := (deadline_ns - boottime_ns()) // NS_PER_MS) > 0:
            gone_ms = timeout_ms - left_ms
            if not self.reached and gone_ms >= connect_ms:
                raise NotReached(f"nobody serves the control socket (waited {connect_ms} ms)")
            self._poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if self._unsent else zmq.POLLIN)
            ready = dict(self._poller.poll(left_ms if self.reached else min(left_ms, connect_ms - gone_ms)))
            if self._monitor in ready:
                self._monitor.recv_multipart()
                self.reached += 1
                self._unsent = True
            elif ready.get(self._socket, 0) & zmq.POLLOUT:
                request = frames.Request(request_id, verb, arguments(left_ms))
                self._send(frames.pack(request, "command line", self.reached, boottime_ns()))
            if ready.get(self._socket, 0) & zmq.POLLIN:
                reply = self._receive()
                if reply is not None and reply.request_id == request_id:
                    yield reply
                    if reply.final:
                        return
        raise CommandError(f"watchdog main did not answer within {timeout_ms} ms")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data, zmq.DONTWAIT)
        except zmq.Again:
            return  # gone again already
        self._unsent = False

    def _receive(self) -> frames.Reply | None:
        try:
            frame = frames.unpack(self._socket.recv(zmq.DONTWAIT)).frame
        except zmq.Again:
            return None
        except PeerError as error:
            raise CommandError(f"watchdog main answered with something invalid: {error}") from None
        return frame if isinstance(frame, frames.Reply) else None

    def close(self) -> None:
        """Free sockets and context."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._context.term()
