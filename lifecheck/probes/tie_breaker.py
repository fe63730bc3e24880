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
from pgvigil.lifecheck.probes.pgpool import Watcher
from pgvigil.lifecheck.settings import TieBreakerSettings

ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO6_REQUEST, ECHO6_REPLY = 128, 129
TOKEN_BYTES = 16
READ_AT_ONCE = 64  # a raw socket hears every ICMP message of that address; a flood of them must not keep lifecheck
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
        make: MakeWay = way or (Connection if settings.port else Echo)
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


class Echo:
    """An ICMP echo: a datagram socket where the kernel lets us (ping_group_range), else a raw one."""

    def __init__(self, settings: TieBreakerSettings, watcher: Watcher, on_end: Callable[[str], None]) -> None:
        self._address = numeric(settings.address)
        self._family = family_of(settings.address)
        self._on_end = on_end
        self._watcher = watcher
        self._socket: socket.socket | None = None
        self._token = b""
        self._sequence = 0

    def ask(self) -> None:
        """Send one request with a token that nobody can guess."""
        self._sequence = (self._sequence + 1) % 65536
        self._token = os.urandom(TOKEN_BYTES)
        try:
            self._open().send(echo_request(self._family, os.getpid() & 0xFFFF, self._sequence, self._token))
        except OSError as error:
            self.close()
            raise CommandError(f"cannot ping: {error.strerror}") from None

    def _open(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        protocol = socket.IPPROTO_ICMPV6 if self._family == socket.AF_INET6 else socket.IPPROTO_ICMP
        try:
            made = socket.socket(self._family, socket.SOCK_DGRAM, protocol)
        except PermissionError:
            made = socket.socket(self._family, socket.SOCK_RAW, protocol)
        made.setblocking(False)
        self._socket = made
        made.connect((self._address, 0))
        self._watcher.watch(made.fileno(), self._readable)
        return made

    def _readable(self) -> None:
        for _ in range(READ_AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(512)
            except BlockingIOError:
                return
            except OSError as error:  # the network says why not (icmp(7))
                self._answered(f"no answer: {error.strerror}")
                return
            if self._token and is_reply(self._family, data, self._token):
                self._answered("")

    def _answered(self, trouble: str) -> None:
        self._token = b""
        self._on_end(trouble)

    def forget(self) -> None:
        """A late answer counts no more."""
        self._token = b""

    def close(self) -> None:
        """Give the descriptor back."""
        self.forget()
        if self._socket is not None:
            self._watcher.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None


def numeric(address: str) -> str:
    """An IP address as it is; `ValueError` for a name, which would have to be resolved, and for anything else."""
    try:
        socket.inet_pton(family_of(address), address)
    except OSError:
        raise ValueError(f"{address[:100]!r} is no IP address") from None
    return address


def family_of(address: str) -> socket.AddressFamily:
    """Of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo_request(family: socket.AddressFamily, identifier: int, sequence: int, token: bytes) -> bytes:
    """RFC 792 and RFC 4443 section 4.1; the kernel fills in the checksum of ICMPv6, and that of datagram sockets."""
    kind = ECHO6_REQUEST if family == socket.AF_INET6 else ECHO_REQUEST
    head = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", kind, 0, checksum(head + token), identifier, sequence) + token


def is_reply(family: socket.AddressFamily, data: bytes, token: bytes) -> bool:
    """Whether this is the echo of our token; a raw IPv4 socket gives the IP header, too (raw(7))."""
    if family == socket.AF_INET and data[:1] and data[0] >> 4 == 4 and len(data) > 28:
        data = data[(data[0] & 15) * 4 :]
    kind = ECHO6_REPLY if family == socket.AF_INET6 else ECHO_REPLY
    return data[:1] == bytes([kind]) and data[8:] == token


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
