"""Announcements leave through packet sockets, which the gate does not see: only the clock keeps them back (P21)."""

from __future__ import annotations

import ipaddress

import pytest

from pgvigil.ipc.netlink import Link
from pgvigil.watchdog.vip import announce
from pgvigil.watchdog.vip.announce import Announcer


class NoSocket:
    def close(self) -> None: ...


def test_a_process_that_is_stopped_between_two_frames_sends_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [100]
    sent: list[bytes] = []

    def send_frame(_socket: object, _name: str, frame: bytes) -> None:
        sent.append(frame)
        now_ns[0] = 5000  # stopped here, continued after the lease

    monkeypatch.setattr(announce, "packet_socket", lambda *_: NoSocket())
    monkeypatch.setattr(announce, "send_frame", send_frame)
    monkeypatch.setattr(announce, "boottime_ns", lambda: now_ns[0])
    announcer = Announcer((ipaddress.ip_address("10.0.0.100"),), 5)
    announcer.start(100)
    announcer.send(Link(2, "eth0", True, True, True, b"\2\0\0\0\0\1"), 100, 1000)
    assert len(sent) == 1
    announcer.close()
