"""Is a host silent? A connection is begun and ended at once, and not a byte is sent: PostgreSQL logs nothing of that.

Silence is a connection that neither came about nor was refused in time, or that the network gave up. Everything else is
a sign of life or of a trouble of this node's own, and neither of them is silence. Refuses to look up names and to wait.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.ipc.loop import Loop

K = TypeVar("K")

LIMIT_NS = NS_PER_S
SILENT_CODES = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True, slots=True)
class _Question:
    """One connection that is being made."""

    made: socket.socket
    epoll: select.epoll
    asked_ns: int


class SilenceProbe(Generic[K]):
    """A participant of the loop; at most one question for each key, `on_answer` gets when it was asked, and silence."""

    def __init__(self, loop: Loop, on_answer: Callable[[K, int, bool], None], clock: Callable[[], int]) -> None:
        self._loop = loop
        self._on_answer = on_answer
        self._clock = clock
        self._questions: dict[K, _Question] = {}
        loop.join(self)

    def ask(self, key: K, address: str, port: int) -> None:
        """Ask; the answer comes within `LIMIT_NS`. Nothing happens while the last one is awaited."""
        if key in self._questions:
            return
        asked_ns = self._clock()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._on_answer(key, asked_ns, error.errno in SILENT_CODES)
            return
        code = _begin(made, address, port)
        if code != errno.EINPROGRESS:
            made.close()
            self._on_answer(key, asked_ns, code in SILENT_CODES)
            return
        # The loop knows readable descriptors only: one of epoll is readable when something in it is writable.
        try:
            epoll = select.epoll()
        except OSError:  # no descriptor left: that is no silence of the host
            made.close()
            self._on_answer(key, asked_ns, False)
            return
        epoll.register(made.fileno(), select.EPOLLOUT)
        self._questions[key] = _Question(made, epoll, asked_ns)
        self._loop.watch(epoll.fileno(), lambda: self._ready(key))

    def asks(self, key: K) -> bool:
        """Whether a question is under way."""
        return key in self._questions

    def wake(self) -> int | None:
        """The next deadline."""
        return min((one.asked_ns + LIMIT_NS for one in self._questions.values()), default=None)

    def tick(self, now_ns: int) -> None:
        """What has had its time was answered by nobody."""
        for key, one in list(self._questions.items()):
            if now_ns >= one.asked_ns + LIMIT_NS:
                # An answer may lie there that this process was too late to read.
                code = one.made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                came = bool(one.epoll.poll(0))
                self._end(key, code in SILENT_CODES or not (code or came))

    def close(self) -> None:
        """Give the sockets back; nobody is called any more."""
        for key in list(self._questions):
            self._hang_up(key)
        self._loop.leave(self)

    def _ready(self, key: K) -> None:
        one = self._questions.get(key)
        if one is not None and one.epoll.poll(0):
            self._end(key, one.made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in SILENT_CODES)

    def _end(self, key: K, silent: bool) -> None:
        asked_ns = self._questions[key].asked_ns
        self._hang_up(key)
        self._on_answer(key, asked_ns, silent)

    def _hang_up(self, key: K) -> None:
        one = self._questions.pop(key)
        self._loop.unwatch(one.epoll.fileno())
        one.epoll.close()
        one.made.close()


def _begin(made: socket.socket, address: str, port: int) -> int:
    try:
        return made.connect_ex((address, port))
    except OSError as error:
        return error.errno or 0
