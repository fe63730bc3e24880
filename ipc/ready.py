"""The link between the supervisor and one child: a socketpair with frames.

The child says that it is ready, then gives a sign of life from inside its loop; the supervisor sends
orders. Datagrams with boundaries (SOCK_SEQPACKET), no ZeroMQ: the parent owns no context. End of file means
that the other side is gone, which the child treats as an order to end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from pgvigil.ipc import frames
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.codec import MAX_FRAME_BYTES
from pgvigil.ipc.errors import PeerError


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Parent's end and child's end, both non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class Link:
    """One end of the pair."""

    def __init__(self, end: socket.socket, name: str, complain: Callable[[str], None]) -> None:
        self._end = end
        self._name = name
        self._complain = complain
        self._sequence = 0
        self.closed = False

    @property
    def fd(self) -> int:
        """For the poller."""
        return self._end.fileno()

    def send(self, frame: frames.Frame) -> bool:
        """False if the other side is gone or does not read; state is repeated, so nothing is queued."""
        self._sequence += 1
        try:
            self._end.send(frames.pack(frame, self._name, self._sequence, boottime_ns()))
        except OSError:
            return False
        return True

    def receive(self) -> list[frames.Received]:
        """What has arrived; sets `closed` when the other side has gone."""
        arrived: list[frames.Received] = []
        while len(arrived) < 16:
            try:
                data = self._end.recv(MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            try:
                arrived.append(frames.unpack(data))
            except PeerError as error:
                self._complain(f"dropped an invalid frame on the link {self._name}: {error}")
        return arrived

    def close(self) -> None:
        """Close this end."""
        self._end.close()


class SignOfLife:
    """A participant of a child's loop that tells the supervisor that the loop goes round."""

    def __init__(self, link: Link, interval_ns: int, describe: Callable[[], frames.Alive]) -> None:
        self._link = link
        self._interval_ns = interval_ns
        # From 0.7 s on it goes with a wake-up that comes anyway: two of 400 ms or four of 200 ms fit before it is due,
        # so that it does not become a wake-up of its own, again and again right before the next of those.
        self.slack_ns = interval_ns * 3 // 10
        self._describe = describe
        self._due_ns = 0

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        self._due_ns = now_ns + self._interval_ns
        self._link.send(self._describe())
