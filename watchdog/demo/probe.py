"""The client's question, asked every few milliseconds: does somebody answer at the VIP, and who?

A program of its own that runs in the client's namespace. Each question is a new TCP connection that must bring one byte
of an application back (a bare handshake would be answered by the kernel of a host whose processes are all stopped).
It ends connections with RST, so that a million questions leave nothing behind. It judges nothing: see `records`.

    python -m pgvigil.watchdog.demo.probe ADDRESS PORT INTERVAL_MS FILE [ssl]
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.watchdog.demo.realtime import measure_in_real_time

TIMEOUT_NS = NS_PER_S
MAX_OUTSTANDING = 1024
FLUSH_NS = 20 * NS_PER_MS
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL, protocol-flow: answered by one byte before any authentication."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Attempt:
    sock: socket.socket
    asked_at_ns: int
    hello: bytes


class Prober:
    """Asks, waits for the byte, writes the records."""

    def __init__(self, target: tuple[str, int], interval_ns: int, output: int, hello: bytes = b"") -> None:
        self._target = target
        self._interval_ns = interval_ns
        self._output = output
        self._hello = hello
        self._poll = select.epoll()
        self._open: dict[int, Attempt] = {}
        self._done = array("q")
        self._flush_at_ns = 0

    def run(self) -> None:
        next_ns = boottime_ns()
        while True:
            now_ns = boottime_ns()
            if now_ns >= next_ns:
                self._ask(now_ns)
                # After a late wake-up the missed questions are not made up for: that would be a burst.
                next_ns = max(next_ns + self._interval_ns, now_ns)
            self._give_up(now_ns)
            self._flush(now_ns)
            pause_s = max(0, next_ns - boottime_ns()) / NS_PER_S
            for descriptor, events in self._poll.poll(pause_s):
                self._progress(descriptor, events)

    def _ask(self, now_ns: int) -> None:
        if len(self._open) >= MAX_OUTSTANDING:
            self._record(now_ns, 0, 0)
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.connect_ex(self._target)  # an error shows as EPOLLERR or EPOLLHUP at once
        self._poll.register(sock, select.EPOLLOUT if self._hello else select.EPOLLIN)
        self._open[sock.fileno()] = Attempt(sock, now_ns, self._hello)

    def _progress(self, descriptor: int, events: int) -> None:
        attempt = self._open[descriptor]
        if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
            attempt.sock.send(attempt.hello)
            self._poll.modify(descriptor, select.EPOLLIN)
            return
        try:
            answer = attempt.sock.recv(1)
        except OSError:
            answer = b""
        self._finish(attempt, boottime_ns() if answer else 0, answer[0] if answer else 0)

    def _finish(self, attempt: Attempt, answered_at_ns: int, who: int) -> None:
        descriptor = attempt.sock.fileno()
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        attempt.sock.close()
        self._record(attempt.asked_at_ns, answered_at_ns, who)

    def _give_up(self, now_ns: int) -> None:
        """End the attempts that are too old. A dictionary keeps the order of insertion: the oldest is first."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if now_ns - oldest.asked_at_ns <= TIMEOUT_NS:
                return
            self._finish(oldest, 0, 0)

    def _record(self, asked_at_ns: int, answered_at_ns: int, who: int) -> None:
        self._done.extend((asked_at_ns, answered_at_ns, who))

    def _flush(self, now_ns: int) -> None:
        if now_ns >= self._flush_at_ns and self._done:
            os.write(self._output, self._done.tobytes())
            del self._done[:]
            self._flush_at_ns = now_ns + FLUSH_NS


def open_output(path: Path) -> int:
    """A file of records to append to."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def main(arguments: list[str]) -> None:
    address, port, interval_ms, path, *options = arguments
    measure_in_real_time()
    hello = SSL_REQUEST if "ssl" in options else b""
    target = (address, int(port))
    Prober(target, int(float(interval_ms) * NS_PER_MS), open_output(Path(path)), hello).run()


if __name__ == "__main__":
    main(sys.argv[1:])
