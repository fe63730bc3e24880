"""The client's writes: one new session and one INSERT through the virtual IP every few milliseconds.

A program of its own that runs in the client's namespace and speaks PostgreSQL's protocol itself (version 3,
protocol-flow), without blocking: a session that hangs inside pgpool-II holds no other one up. It records when each
write was asked for, when it was acknowledged, and by which backend (the last byte of its address), in the format of
`records`: a write that two backends acknowledged at the same time is two primaries, seen by a client.

    python -m pgvigil.watchdog.demo.failover.writer ADDRESS PORT INTERVAL_MS FILE
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.demo.probe import FLUSH_NS, open_output

TABLE = "written"
CREATE = f"create table {TABLE} (id bigint generated always as identity, backend inet)"
WRITE = f"insert into {TABLE} (backend) values (inet_server_addr()) returning host(backend)"
ATTEMPT_LIMIT_NS = 2 * NS_PER_S
"""A write that takes longer counts as failed: `records` does not believe a slower one either."""
MAX_OUTSTANDING = 16
"""Fewer than pgpool-II's children, so that hanging sessions leave some for a new one."""
_HEAD = struct.Struct("!cI")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def startup() -> bytes:
    """StartupMessage, version 3.0."""
    body = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
    return struct.pack("!I", len(body) + 4) + body


def simple_query(sql: str) -> bytes:
    """Query."""
    body = sql.encode() + b"\0"
    return b"Q" + struct.pack("!I", len(body) + 4) + body


def messages(data: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take every complete message (type, body) off the front of what was received."""
    while len(data) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(data)
        if len(data) < 1 + length:
            return
        body = bytes(data[_HEAD.size : 1 + length])
        del data[: 1 + length]
        yield kind, body


@dataclass(slots=True)
class Session:
    """One write on its way."""

    sock: socket.socket
    asked_at_ns: int
    received: bytearray = field(default_factory=bytearray)
    asked: bool = False
    written_by: int = 0

    def feed(self, data: bytes) -> bool:
        """Take what arrived; True when the write has been acknowledged. `PeerError` when it failed."""
        self.received += data
        for kind, body in messages(self.received):
            if kind == b"E":
                raise PeerError(f"refused: {body!r}")
            if kind == b"D":  # one column: count, length, text
                self.written_by = int(body[6:].rpartition(b".")[2])
            elif kind == b"Z" and not self.asked:
                self.asked = True
                self.sock.send(simple_query(WRITE))
            elif kind == b"Z":
                return self.written_by != 0
        return False


class Writer:
    """Writes, waits, records."""

    def __init__(self, target: tuple[str, int], interval_ns: int, output: int) -> None:
        self._target = target
        self._interval_ns = interval_ns
        self._output = output
        self._poll = select.epoll()
        self._open: dict[int, Session] = {}
        self._done = array("q")
        self._flush_at_ns = 0

    def run(self) -> None:
        next_ns = boottime_ns()
        while True:
            now_ns = boottime_ns()
            if now_ns >= next_ns:
                self._begin(now_ns)
                next_ns = max(next_ns + self._interval_ns, now_ns)
            self._give_up(now_ns)
            self._flush(now_ns)
            for descriptor, events in self._poll.poll(max(0, next_ns - boottime_ns()) / NS_PER_S):
                self._progress(self._open[descriptor], events)

    def _begin(self, now_ns: int) -> None:
        if len(self._open) >= MAX_OUTSTANDING:
            self._record(now_ns, 0, 0)
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.connect_ex(self._target)  # an error shows as EPOLLERR or EPOLLHUP at once
        self._poll.register(sock, select.EPOLLOUT)
        self._open[sock.fileno()] = Session(sock, now_ns)

    def _progress(self, session: Session, events: int) -> None:
        try:
            if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
                session.sock.send(startup())
                self._poll.modify(session.sock, select.EPOLLIN)
                return
            data = session.sock.recv(65536)
            if not data:
                raise PeerError("hung up")
            if session.feed(data):
                self._finish(session, boottime_ns(), session.written_by)
        except (OSError, PeerError):
            self._finish(session, 0, 0)  # a write that failed is what is being counted

    def _finish(self, session: Session, done_at_ns: int, who: int) -> None:
        self._poll.unregister(session.sock)
        del self._open[session.sock.fileno()]
        session.sock.close()
        self._record(session.asked_at_ns, done_at_ns, who)

    def _give_up(self, now_ns: int) -> None:
        """End the sessions that are too old; a dictionary keeps the order of insertion."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if now_ns - oldest.asked_at_ns <= ATTEMPT_LIMIT_NS:
                return
            self._finish(oldest, 0, 0)

    def _record(self, asked_at_ns: int, done_at_ns: int, who: int) -> None:
        self._done.extend((asked_at_ns, done_at_ns, who))

    def _flush(self, now_ns: int) -> None:
        if now_ns >= self._flush_at_ns and self._done:
            os.write(self._output, self._done.tobytes())
            del self._done[:]
            self._flush_at_ns = now_ns + FLUSH_NS


def main(arguments: list[str]) -> None:
    address, port, interval_ms, path = arguments
    output = open_output(Path(path))
    Writer((address, int(port)), int(float(interval_ms) * NS_PER_MS), output).run()


if __name__ == "__main__":
    main(sys.argv[1:])
