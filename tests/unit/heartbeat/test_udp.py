"""The socket of a path: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import os
import socket

import pytest

from pgvigil.heartbeat import udp
from pgvigil.ipc.errors import CommandError


def test_numeric_addresses_only() -> None:
    assert udp.resolve("127.0.0.1", 5) == (socket.AF_INET, ("127.0.0.1", 5))
    assert udp.resolve("::1", 5)[0] == socket.AF_INET6
    for name in ("localhost", "", "300.1.1.1", "a b", "x" * 300, "\udcff"):
        with pytest.raises(CommandError):
            udp.resolve(name, 5)


def test_hosts_are_compared_as_the_kernel_writes_them() -> None:
    assert udp.normal_host("0:0:0:0:0:0:0:1") == udp.plain_host(("::1", 5, 0, 0)) == "::1"
    assert udp.plain_host(("fe80::1%eth0", 5, 0, 2)) == "fe80::1"
    assert udp.show("10.0.0.1", 9694) == "10.0.0.1:9694"
    assert udp.show("fe80::1", 9694) == "[fe80::1]:9694"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_open_socket_checks_well_and_never_blocks(address: str) -> None:
    opened = udp.PathSocket("lo", address, 0)
    opened.check()
    assert not os.get_inheritable(opened.fd)
    with pytest.raises(BlockingIOError):
        opened.socket.recvfrom(1)
    opened.close()


def test_what_is_missing_is_named_with_what_to_do() -> None:
    with pytest.raises(CommandError, match="interface pgvnone0 does not exist"):
        udp.PathSocket("pgvnone0", "127.0.0.1", 0)
    with pytest.raises(CommandError, match=r"does not have the address 192\.0\.2\.1; add it to lo or correct"):
        udp.PathSocket("lo", "192.0.2.1", 0)
    first = udp.PathSocket("lo", "127.0.0.1", 0)
    with pytest.raises(CommandError, match="another process uses it"):
        udp.PathSocket("lo", "127.0.0.1", first.socket.getsockname()[1])
    first.close()


def test_a_missing_privilege_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, level: int, option: int, value: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    opened = udp.PathSocket("lo", "127.0.0.1", 0)
    assert not opened.bound_to_interface
    opened.close()


def test_an_interface_that_was_replaced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = udp.PathSocket("lo", "127.0.0.1", 0)
    monkeypatch.setattr(udp, "interface_index", lambda _name: 77)
    with pytest.raises(CommandError, match="interface lo was replaced"):
        opened.check()
    opened.close()


def test_an_address_on_another_interface_is_found() -> None:
    assert udp.misplaced("lo", "127.0.0.1") is None
    assert udp.misplaced("pgvnone0", "127.0.0.1") == "lo"
    assert udp.misplaced("lo", "192.0.2.1") is None
