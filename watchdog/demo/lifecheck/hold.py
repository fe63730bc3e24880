"""Clients that connect to a pgpool-II and stay, so that nobody else finds a free child of it.

Opens sessions (PostgreSQL protocol 3.0, startup message) and keeps them; one that is refused or ended is opened again.

    python -m pgvigil.watchdog.demo.lifecheck.hold ADDRESS PORT SESSIONS
"""

from __future__ import annotations

import select
import socket
import struct
import sys

from pgvigil.watchdog.demo.realtime import measure_in_real_time

PROTOCOL_3 = 196608
RETRY_S = 0.1
_HEAD = struct.Struct("!ii")


def startup_message(user: str, database: str) -> bytes:
    """PostgreSQL, protocol-message-formats, StartupMessage."""
    body = f"user\0{user}\0database\0{database}\0\0".encode("ascii")
    return _HEAD.pack(_HEAD.size + len(body), PROTOCOL_3) + body


class Holder:
    """Keeps `sessions` connections open."""

    def __init__(self, target: tuple[str, int], sessions: int) -> None:
        self._target = target
        self._sessions = sessions
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._hello = startup_message("postgres", "postgres")

    def run(self) -> None:
        while True:
            for _ in range(self._sessions - len(self._open)):
                self._connect()
            for descriptor, events in self._poll.poll(RETRY_S):
                self._progress(self._open[descriptor], events)

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex(self._target)
        self._poll.register(sock, select.EPOLLOUT)
        self._open[sock.fileno()] = sock

    def _progress(self, sock: socket.socket, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                sock.send(self._hello)
                self._poll.modify(sock, select.EPOLLIN)
                return
            if sock.recv(65536):
                return
        except OSError:
            pass  # refused or reset: another one is opened in its place
        self._poll.unregister(sock)
        del self._open[sock.fileno()]
        sock.close()


def main(arguments: list[str]) -> None:
    address, port, sessions = arguments
    measure_in_real_time()
    Holder((address, int(port)), int(sessions)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
