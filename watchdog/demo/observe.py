"""Two samplers: who answers ARP for the VIP on the wire, and which addresses a node has configured.

`arp` runs in the observer's namespace. It asks every 5 ms without naming an address (sender 0.0.0.0), so the
question teaches nobody anything. The number of the question travels as the sender's hardware address and
comes back in the answer, so that two answers to one question are seen as such. `addresses` runs on a node and
listens to rtnetlink. Both share no code with pgvigil's own netlink and announcement: a mistake there must not
hide itself here.

    python -m pgvigil.watchdog.demo.observe arp VIP INTERVAL_MS FILE
    python -m pgvigil.watchdog.demo.observe addresses VIP FILE
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from array import array
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.watchdog.demo.probe import FLUSH_NS, open_output
from pgvigil.watchdog.demo.realtime import measure_in_real_time

ETH_P_ARP = 0x0806
ARP_REPLY = 2
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETH = struct.Struct("!6s6sH")
_MARK = b"\x02\x99"
"""First bytes of the made-up hardware addresses; 02 means locally administered."""
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1


class ArpSampler:
    """Asks who has the VIP and writes a record for every answer; `who` is the last byte of the answering MAC."""

    def __init__(self, address: str, interval_ns: int, output: int, interface: str = "eth0") -> None:
        self._address = socket.inet_aton(address)
        self._interval_ns = interval_ns
        self._output = output
        self._asked: dict[int, int] = {}
        self._number = 0
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
        self._sock.bind((interface, ETH_P_ARP))
        self._sock.setblocking(False)
        # Answers go to made-up hardware addresses: without promiscuous mode the kernel would not show them.
        index = socket.if_nametoindex(interface)
        request = struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b"")
        self._sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        self._mac: bytes = self._sock.getsockname()[4]

    def run(self) -> None:
        next_ns = boottime_ns()
        done = array("q")
        flush_at_ns = 0
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            now_ns = boottime_ns()
            if now_ns >= next_ns:
                self._ask(now_ns)
                next_ns = max(next_ns + self._interval_ns, now_ns)
            if now_ns >= flush_at_ns and done:
                os.write(self._output, done.tobytes())
                del done[:]
                flush_at_ns = now_ns + FLUSH_NS
            poll.poll(max(0, next_ns - boottime_ns()) / NS_PER_MS)
            done.extend(self._read())

    def _ask(self, now_ns: int) -> None:
        self._number += 1
        self._asked[self._number] = now_ns
        self._asked.pop(self._number - 1000, None)
        fake = _MARK + self._number.to_bytes(4, "big")
        frame = _ETH.pack(b"\xff" * 6, self._mac, ETH_P_ARP)
        frame += _ARP.pack(1, 0x0800, 6, 4, 1, fake, b"\0" * 4, b"\0" * 6, self._address)
        try:
            self._sock.send(frame)
        except OSError:
            pass  # the interface is down: nobody answers then

    def _read(self) -> list[int]:
        numbers: list[int] = []
        while True:
            try:
                frame = self._sock.recv(256)
            except BlockingIOError:
                return numbers
            numbers.extend(self._answer(frame))

    def _answer(self, frame: bytes) -> tuple[int, ...]:
        if len(frame) < _ETH.size + _ARP.size:
            return ()
        *_, kind, sender, claimed, target, _ = _ARP.unpack_from(frame, _ETH.size)
        if kind != ARP_REPLY or claimed != self._address or target[:2] != _MARK:
            return ()
        asked_at_ns = self._asked.get(int.from_bytes(target[2:], "big"))
        return () if asked_at_ns is None else (asked_at_ns, boottime_ns(), sender[5])


# rtnetlink(7): addresses of this namespace

RTMGRP_IPV4_IFADDR = 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REQUEST_DUMP = 0x301
IFA_LOCAL = 2
DUMP_NS = 100 * NS_PER_MS
_NLMSG = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBi")
_RTATTR = struct.Struct("=HH")


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of every message in a netlink datagram (netlink(7))."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + _NLMSG.size <= len(data):
        length, kind, *_ = _NLMSG.unpack_from(data, at)
        if length < _NLMSG.size:
            break
        found.append((kind, data[at + _NLMSG.size : at + length]))
        at += (length + 3) & ~3
    return found


def addresses_in(data: bytes) -> list[tuple[int, bytes]]:
    """(RTM_NEWADDR or RTM_DELADDR, IPv4 address) of every address message in a netlink datagram."""
    changes = [(kind, body) for kind, body in messages(data) if kind in (RTM_NEWADDR, RTM_DELADDR)]
    return [(kind, value) for kind, body in changes for value in _local(body[_IFADDR.size :])]


def _local(attributes: bytes) -> list[bytes]:
    at = 0
    found: list[bytes] = []
    while at + _RTATTR.size <= len(attributes):
        length, kind = _RTATTR.unpack_from(attributes, at)
        if length < _RTATTR.size:
            break
        if kind == IFA_LOCAL:
            found.append(attributes[at + _RTATTR.size : at + length])
        at += (length + 3) & ~3
    return found


def sample_addresses(address: str, output: int) -> None:
    """Write a record (instant, instant or 0 when absent, 0) at the start and at every change.

    Changes are seen by events and by full dumps. The first record ends what an earlier sampler wrote last: a host that
    was switched off has lost the address without anybody being there to write it down.
    """
    wanted = socket.inet_aton(address)
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.bind((0, RTMGRP_IPV4_IFADDR))
    present: bool | None = None
    next_dump_ns = 0
    poll = select.poll()
    poll.register(events, select.POLLIN)
    while True:
        if boottime_ns() >= next_dump_ns:
            seen: bool | None = wanted in dump_addresses()
            next_dump_ns = boottime_ns() + DUMP_NS
        elif poll.poll((next_dump_ns - boottime_ns()) / NS_PER_MS + 1):
            changes = [kind for kind, value in addresses_in(events.recv(65536)) if value == wanted]
            seen = changes[-1] == RTM_NEWADDR if changes else present
        else:
            continue
        if seen != present:
            now_ns = boottime_ns()
            os.write(output, array("q", (now_ns, now_ns if seen else 0, 0)).tobytes())
            present = seen


def dump_addresses() -> set[bytes]:
    """All IPv4 addresses of this namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(DUMP_NS / NS_PER_S)
        body = _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)
        sock.send(_NLMSG.pack(_NLMSG.size + len(body), RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + body)
        found: set[bytes] = set()
        while True:
            data = sock.recv(65536)
            found |= {value for _, value in addresses_in(data)}
            if any(kind in (NLMSG_DONE, NLMSG_ERROR) for kind, _ in messages(data)):
                return found


def main(arguments: list[str]) -> None:
    what, address, *rest = arguments
    measure_in_real_time()
    output = open_output(Path(rest[-1]))
    if what == "arp":
        ArpSampler(address, int(float(rest[0]) * NS_PER_MS), output).run()
    else:
        sample_addresses(address, output)


if __name__ == "__main__":
    main(sys.argv[1:])
