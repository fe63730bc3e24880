"""Connections as the kernel lists them: bytes out, bytes in, and the real list of this process's own on loopback.

That a connection ends is tried where tests run as root (tests/lab/test_sock_diag.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgvigil.ipc import sock_diag
from pgvigil.ipc.netlink import KernelRefusal, NetlinkSocket, attribute, message
from pgvigil.ipc.sock_diag import NETLINK_SOCK_DIAG, connections, destroying, listing, parse_connection, plain_address

COOKIE = bytes(range(1, 9))


def identity(family: int, remote: str, port: int) -> bytes:
    """struct inet_diag_sockid."""
    raw = socket.inet_pton(family, remote)
    return struct.pack("!HH16s16sI", 40000, port, b"", raw, 0) + COOKIE


def found(family: int, remote: str, port: int = 5432, heard: tuple[int, int] | None = (9000, 4000)) -> bytes:
    """struct inet_diag_msg, with the kernel's information on TCP."""
    head = struct.pack("=BBBB", family, 1, 0, 0) + identity(family, remote, port)
    body = head + struct.pack("=IIIII", 0, 0, 0, 1000, 77)
    if heard is None:
        return body
    return body + attribute(5, b"reno\0") + attribute(2, b"\0" * 52 + struct.pack("=II", *heard) + b"\0" * 100)


def test_the_question_names_family_states_and_port() -> None:
    body = listing(socket.AF_INET, 5432)
    family, protocol, extensions, states = struct.unpack_from("=BBBxI", body)
    assert (family, protocol, extensions) == (2, 6, 2)
    assert body[8:56] == bytes(48)
    listed = {state for state in range(32) if states & 1 << state}
    assert listed == {1, 2, 4, 5, 8, 9, 11}, "neither LISTEN (10), TIME_WAIT (6), nor what comes in (3, 12)"
    assert struct.unpack_from("=HH", body, 56) == (20, 1)
    at_least, at_most = body[60:68], body[68:76]
    assert struct.unpack("=BBHBBH", at_least) == (4, 8, 20, 0, 0, 5432)
    assert struct.unpack("=BBHBBH", at_most) == (5, 8, 12, 0, 0, 5432)
    assert len(body) == 76


@pytest.mark.parametrize(
    ("family", "remote", "shown"),
    [
        (socket.AF_INET, "10.77.0.11", "10.77.0.11"),
        (socket.AF_INET6, "fd00::11", "fd00::11"),
        (socket.AF_INET6, "::ffff:10.77.0.11", "10.77.0.11"),
    ],
)
def test_an_answer_is_read(family: int, remote: str, shown: str) -> None:
    one = parse_connection(found(family, remote))
    assert one is not None
    assert (one.family, one.state, one.remote, one.remote_port, one.inode) == (family, 1, shown, 5432, 77)
    assert one.quiet_ms == 4000, "the later of data and acknowledgement counts"
    assert one.identity == identity(family, remote, 5432)


def test_what_is_missing_is_not_made_up() -> None:
    one = parse_connection(found(socket.AF_INET, "10.0.0.1", heard=None))
    assert one is not None and one.quiet_ms is None
    assert parse_connection(found(socket.AF_INET, "10.0.0.1")[:71]) is None


def test_the_order_to_end_one_carries_the_kernels_own_name_of_it() -> None:
    one = parse_connection(found(socket.AF_INET6, "fd00::11"))
    assert one is not None
    body = destroying(one)
    assert len(body) == 56 and body[:3] == bytes((10, 6, 0)) and body[8:] == identity(socket.AF_INET6, "fd00::11", 5432)


def test_addresses_are_compared_in_one_form() -> None:
    assert plain_address("::FFFF:10.0.0.1") == "10.0.0.1"
    assert plain_address("FE80::1%eth0") == "fe80::1"


@contextmanager
def pair(address: str, family: socket.AddressFamily) -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((address, port)) as near, listener.accept()[0]:
            yield near, port


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_the_kernel_lists_a_connection_by_its_remote_port_alone(address: str, family: socket.AddressFamily) -> None:
    with pair(address, family) as (near, port), pair(address, family) as (other, _):
        netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
        try:
            (one,) = connections(netlink, port)
        finally:
            netlink.close()
        assert one.inode == os.fstat(near.fileno()).st_ino != os.fstat(other.fileno()).st_ino
        assert (one.remote, one.remote_port, one.family, one.state) == (address, port, family, 1)
        assert one.quiet_ms is not None


def test_a_v4_mapped_connection_is_listed_as_ipv4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as near:
        port = listener.getsockname()[1]
        near.connect(("::ffff:127.0.0.1", port))
        netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
        try:
            (one,) = connections(netlink, port)
        finally:
            netlink.close()
        assert (one.family, one.remote, one.inode) == (socket.AF_INET6, "127.0.0.1", os.fstat(near.fileno()).st_ino)


class Scripted(NetlinkSocket):
    """A kernel that answers each question with the same bodies, 16 in a datagram, and never comes to an end."""

    def __init__(self, kind: int, body: bytes) -> None:
        super().__init__(NETLINK_SOCK_DIAG)
        self.kind, self.body, self.asked = kind, body, 0

    def send(self, data: bytes, what: str) -> None:
        self.asked += 1

    def datagram(self, what: str) -> bytes:
        return message(self.kind, 0, self._sequence, self.body) * 16


def test_a_list_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sock_diag, "MAX_FOUND", 64)
    netlink = Scripted(20, found(socket.AF_INET, "10.0.0.1"))
    try:
        assert len(connections(netlink, 5432)) == 64
        assert netlink.asked == 1, "the kernel does not take a second question while the first is unread"
    finally:
        netlink.close()


def test_a_refusal_names_the_errno() -> None:
    netlink = Scripted(2, struct.pack("=i", -errno.EOPNOTSUPP) + bytes(16))
    try:
        with pytest.raises(KernelRefusal, match=r"port 5432: .*not supported") as caught:
            connections(netlink, 5432)
        assert caught.value.code == errno.EOPNOTSUPP
    finally:
        netlink.close()
