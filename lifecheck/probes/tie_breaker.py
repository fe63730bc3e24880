"""Does the tie-breaker of `quorum = "half"` answer here? Asked again and again, never waited for.

An answer counts from the instant of asking: what happened after that, also to this process, makes it older, never
younger. With a port a TCP connection has to be established (a refusal may come from anything on the way), without one
an echo has to come back with what was sent. No name is resolved, no program is run. What makes a series of answers
stands in `lifecheck.core.series`; what follows from one is the business of watchdog main (P22).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.lifecheck.core.series import Seen, Series
from pgvigil.lifecheck.probes.echo import Echo, family_of
from pgvigil.lifecheck.probes.reading import Watcher
from pgvigil.lifecheck.settings import TieBreakerSettings

AT_ONCE_CLOSED = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT for each question


class Way(Protocol):
    """One way to ask. `ask` raises `CommandError` at once if it cannot; `on_end` gets "" or why not, later."""

    def ask(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...


MakeWay = Callable[[TieBreakerSettings, Watcher, Callable[[str], None]], Way]


class TieBreakerProbe:
    """A participant of the loop; `on_end` is called after each question."""

    def __init__(
        self,
        settings: TieBreakerSettings,
        watcher: Watcher,
        on_end: Callable[[Seen], None],
        now_ns: int,
        clock: Callable[[], int] | None = None,
        way: MakeWay | None = None,
    ) -> None:
        """`clock` and `way` replace CLOCK_BOOTTIME and the network in the simulator."""
        self._settings = settings
        self._on_end = on_end
        self._due_ns = now_ns
        self._asked_at_ns: int | None = None
        self._interval_ns = settings.interval_ms * NS_PER_MS
        self._series = Series(settings.gap_ms * NS_PER_MS)
        self._clock = clock or boottime_ns
        make: MakeWay = way or (Connection if settings.port else ping)
        self._way = make(settings, watcher, self._ended)

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        """The time for an answer is over, or the next question is due."""
        if self._asked_at_ns is not None:
            self._way.forget()
            self._ended(f"no answer within {self._settings.interval_ms} ms")
            return
        asked_at_ns = self._clock()
        self._asked_at_ns = asked_at_ns
        self._due_ns = asked_at_ns + self._interval_ns
        try:
            self._way.ask()
        except CommandError as error:
            self._ended(str(error))

    def close(self) -> None:
        """Give the descriptors back."""
        self._way.close()

    def _ended(self, trouble: str) -> None:
        asked_at_ns, self._asked_at_ns = self._asked_at_ns, None
        if asked_at_ns is None:
            return
        now_ns = self._clock()
        self._due_ns = max(asked_at_ns + self._interval_ns, now_ns + NS_PER_MS)
        took_ms = (now_ns - asked_at_ns) / NS_PER_MS
        if not trouble and now_ns > asked_at_ns + self._interval_ns:
            trouble = f"answered after {took_ms:.1f} ms, expected within {self._settings.interval_ms} ms"
        if trouble:
            self._on_end(self._series.failed(trouble))
        else:
            self._on_end(self._series.answered(asked_at_ns, f"answered within {took_ms:.1f} ms"))


class Connection:
    """A TCP connection that is established and given up at once."""

    def __init__(self, settings: TieBreakerSettings, watcher: Watcher, on_end: Callable[[str], None]) -> None:
        self._target = (numeric(settings.address), settings.port)
        self._family = family_of(settings.address)
        self._on_end = on_end
        self._watcher = watcher
        self._socket: socket.socket | None = None
        # The loop waits for readable descriptors; an epoll is one when something in it is writable (epoll(7)).
        self._epoll = select.epoll()
        watcher.watch(self._epoll.fileno(), self._writable)

    def ask(self) -> None:
        """Begin to connect."""
        self.forget()
        try:
            self._socket = made = socket.socket(self._family, socket.SOCK_STREAM)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE_CLOSED)
            code = made.connect_ex(self._target)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._epoll.register(made.fileno(), select.EPOLLOUT)
        except OSError as error:
            self.forget()
            raise CommandError(f"cannot connect: {error.strerror}") from None

    def _writable(self) -> None:
        if self._socket is None or not self._epoll.poll(0):
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.forget()
        self._on_end(f"no connection: {os.strerror(code)}" if code else "")

    def forget(self) -> None:
        """Give the question up; a closed socket leaves the epoll by itself."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Give the descriptors back."""
        self.forget()
        self._watcher.unwatch(self._epoll.fileno())
        self._epoll.close()


def ping(settings: TieBreakerSettings, watcher: Watcher, on_end: Callable[[str], None]) -> Echo:
    """An ICMP echo; `ValueError` for a name."""
    return Echo(numeric(settings.address), watcher, on_end)


def numeric(address: str) -> str:
    """An IP address as it is; `ValueError` for a name, which would have to be resolved, and for anything else."""
    try:
        socket.inet_pton(family_of(address), address)
    except OSError:
        raise ValueError(f"{address[:100]!r} is no IP address") from None
    return address
