"""One host asked by ICMP echo (ping): no program, no shell, no name lookup, never waited for.

A datagram socket where the kernel lets us (ping_group_range of icmp(7)), else a raw one, which needs CAP_NET_RAW. An
answer counts only if it carries back the token of the newest question, which nobody can guess, so neither a late
answer nor a stranger's passes for one. How often to ask and how long to wait is the caller's affair.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

from pgvigil.ipc.errors import CommandError
from pgvigil.lifecheck.probes.reading import Watcher

ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO6_REQUEST, ECHO6_REPLY = 128, 129
TOKEN_BYTES = 16
RECEIVE_BYTES = 512
READ_AT_ONCE = 64  # a raw socket hears every ICMP message of that address; a flood of them must not keep lifecheck


class Echo:
    """Asks one address; `on_end` gets "" for an answer, or why there is none as far as the network says so."""

    def __init__(self, address: str, watcher: Watcher, on_end: Callable[[str], None]) -> None:
        self._address = address
        self._family = family_of(address)
        self._on_end = on_end
        self._watcher = watcher
        self._socket: socket.socket | None = None
        self._token = b""
        self._sequence = 0

    def ask(self) -> None:
        """Send one request; `CommandError` if it cannot even be sent."""
        self._sequence = (self._sequence + 1) % 65536
        self._token = os.urandom(TOKEN_BYTES)
        try:
            self._open().send(echo_request(self._family, os.getpid() & 0xFFFF, self._sequence, self._token))
        except OSError as error:
            self.close()
            raise CommandError(f"cannot ping: {error.strerror}") from None

    def forget(self) -> None:
        """A late answer counts no more.

        The next question gets a new socket: a connected one keeps the source address of the way that it once took.
        """
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._token = b""
        if self._socket is not None:
            self._watcher.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = made = open_socket(self._family)
            made.setblocking(False)
            made.connect((self._address, 0))
            self._watcher.watch(made.fileno(), self._readable)
        return self._socket

    def _readable(self) -> None:
        for _ in range(READ_AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # the network says why not (icmp(7))
                asked = bool(self._token)
                self.close()
                if asked:
                    self._on_end(f"no answer: {error.strerror}")
                return
            if is_reply(self._family, data, self._token):
                self._token = b""
                self._on_end("")


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """A socket for echoes; `PermissionError` if neither kind is allowed here."""
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        return socket.socket(family, socket.SOCK_RAW, protocol)


def permitted(family: socket.AddressFamily) -> bool:
    """Whether this process may ask by echo at all."""
    try:
        open_socket(family).close()
    except OSError:
        return False
    return True


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
    return bool(token) and data[:1] == bytes([kind]) and data[8:] == token


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
