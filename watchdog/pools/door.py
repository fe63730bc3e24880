"""A connection that never blocks: made, written to and read from by a loop that knows readable descriptors only.

An epoll descriptor is readable when something in it is writable (epoll(7)), so the loop watches that one. Refuses to
look up names: an address is literal, found by somebody else, or the path of a unix socket.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable

from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop

READ_BYTES = 8192
"""At once, so that a long answer is read in small parts and the loop stays responsive."""


class Door:
    """One socket, from connecting on; `on_data` gets what was read (empty: hung up), `on_broken` why there is no more.

    Neither is called after `close`.
    """

    def __init__(self, loop: Loop, on_data: Callable[[bytes], None], on_broken: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_data = on_data
        self._on_broken = on_broken
        self._socket: socket.socket | None = None
        self._epoll: select.epoll | None = None
        self._out = b""
        self._connected = False

    def open(self, host: str, port: int) -> None:
        """Begin to connect to an address, or to the unix socket in a folder; `CommandError` if that fails at once."""
        family, target = _target(host, port)
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise CommandError(f"no socket: {error.strerror}") from None
        self._socket = made
        try:
            code = made.connect_ex(target)
        except OSError as error:  # a path that is too long has no number
            self.close()
            raise CommandError(error.strerror or str(error)) from None
        if code not in (0, errno.EINPROGRESS):
            self.close()
            full = code == errno.EAGAIN
            raise CommandError("its queue of new connections is full" if full else os.strerror(code))
        try:
            self._epoll = select.epoll()
        except OSError as error:
            self.close()
            raise CommandError(f"no descriptor: {error.strerror}") from None
        self._epoll.register(made.fileno(), select.EPOLLIN | select.EPOLLOUT)
        self._loop.watch(self._epoll.fileno(), self._ready)

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def send(self, data: bytes) -> None:
        """Send it as soon as it can be."""
        self._out += data
        if self._connected and self._out:
            self._flush()

    def close(self) -> None:
        """Hang up; what is unsent is lost."""
        if self._epoll is not None:
            self._loop.unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._out, self._connected = b"", False

    def _ready(self) -> None:
        if self._socket is None or self._epoll is None:
            return
        events = sum(bits for _, bits in self._epoll.poll(0))
        if not self._connected and events & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._break(os.strerror(code))
                return
            self._connected = True
            self._want(select.EPOLLIN)
        if self._out:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
            self._read()

    def _flush(self) -> None:
        assert self._socket is not None
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = b""  # what it said before it hung up is read next, and is the better reason
        self._want(select.EPOLLIN | (select.EPOLLOUT if self._out else 0))

    def _want(self, events: int) -> None:
        if self._epoll is not None and self._socket is not None:
            self._epoll.modify(self._socket.fileno(), events)

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(f"the connection broke ({os.strerror(error.errno or 0)})")
            return
        self._on_data(data)

    def _break(self, reason: str) -> None:
        self.close()
        self._on_broken(reason)


def _target(host: str, port: int) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host.rstrip('/')}/.s.PGSQL.{port}"
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)
