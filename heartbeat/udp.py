"""The UDP socket of one path: bound to its address and, where that is allowed, to its interface.

An address that is not there yet, or an interface that went away and came back, must not end a process: opening says
why it failed, and `check` says what has become wrong with a socket that is open. Names are never resolved here; a
heartbeat must not wait for a name server.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import psutil

from pgvigil.ipc.errors import CommandError

Address = Any  # what the socket module takes and gives: (host, port) or (host, port, flow, scope)
NO_PRIVILEGE = (errno.EPERM, errno.EACCES)


def resolve(address: str, port: int) -> tuple[int, Address]:
    """Family and socket address of a numeric IPv4 or IPv6 address (with %zone if link-local)."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        raise CommandError(f"{address} is no IP address of this host's families; expected IPv4 or IPv6") from None
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr


def plain_host(sockaddr: Address) -> str:
    """The host of a socket address without the zone."""
    return str(sockaddr[0]).partition("%")[0]


def normal_host(address: str) -> str:
    """An address as the kernel writes it in `recvfrom`, without the zone."""
    return plain_host(resolve(address.partition("%")[0], 0)[1])


class PathSocket:
    """An open socket. `bound_to_interface` is false where the privilege is missing (socket(7), SO_BINDTODEVICE)."""

    def __init__(self, interface: str, address: str, port: int) -> None:
        """Port 0 lets the kernel choose. Raises `CommandError` with the reason."""
        self.interface = interface
        self.address = address
        family, sockaddr = resolve(address, port)
        self._index = interface_index(interface)
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.bound_to_interface = self._bind_to_interface()
            self.socket.bind(sockaddr)
        except OSError as error:
            self.socket.close()
            raise CommandError(f"cannot bind {show(address, port)}: {_why(error, interface, address)}") from None

    def _bind_to_interface(self) -> bool:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
        except OSError as error:
            if error.errno in NO_PRIVILEGE:
                return False
            raise
        return True

    @property
    def fd(self) -> int:
        """For the poller."""
        return self.socket.fileno()

    def check(self) -> None:
        """`CommandError` if the interface or the address has gone since; the socket is to be opened again then."""
        index = interface_index(self.interface)
        if index != self._index:
            raise CommandError(f"interface {self.interface} was replaced (index {self._index}, now {index})")
        family, sockaddr = resolve(self.address, 0)
        probe = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            probe.bind(sockaddr)
        except OSError as error:
            why = _why(error, self.interface, self.address)
            raise CommandError(f"cannot use {self.address} any more: {why}") from None
        finally:
            probe.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def show(address: str, port: int) -> str:
    """As operators write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def interface_index(interface: str) -> int:
    """The kernel's number of an interface, or `CommandError`."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise CommandError(f"interface {interface} does not exist") from None


def misplaced(interface: str, address: str) -> str | None:
    """The other interface that has the address, if it is not on the configured one."""
    holders = [
        name
        for name, entries in psutil.net_if_addrs().items()
        if any(str(entry.address).partition("%")[0] == address.partition("%")[0] for entry in entries)
    ]
    return None if not holders or interface in holders else holders[0]


def _why(error: OSError, interface: str, address: str) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host does not have the address {address}; add it to {interface} or correct [[node.path]]"
    if error.errno == errno.EADDRINUSE:
        return "another process uses it; is a second pgvigil or pgpool-II's own heartbeat receiver running?"
    return os.strerror(error.errno) if error.errno else str(error)
