"""What a client's machine asks about the VIP, as fast as it can: ping, ping6, ARP, ND, TCP. Each answer is matched to
its question.

An answered question that was sent after an instant proves an answer after that instant, however late this process
runs.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct

from tests.lab.vip_network import VIP4, VIP6

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog.vip.announce import ARP_REQUEST, ETH_ARP, NOBODY, arp, icmpv6

SOURCE4, SOURCE6 = "10.99.0.2", "fd99::2"
PORT = 5432


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total + (total >> 16)) & 0xFFFF)


def echo(sequence: int) -> bytes:
    """An ICMP echo request."""
    body = struct.pack("!BBHHH", 8, 0, 0, 0x7067, sequence)
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


class Questions:
    """Sockets of the peer; open and use it inside the namespace `peer`."""

    def __init__(self) -> None:
        self.mac = _mac("vb")
        self.ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.ping6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ARP))
        self.arp.bind(("vb", ETH_ARP))
        self.all = (self.ping, self.ping6, self.arp)
        for item in self.all:
            item.setblocking(False)
        self.asked: dict[str, list[int]] = {"ping": [], "ping6": [], "arp": [], "nd": [], "tcp": []}
        self.answered: dict[str, list[int]] = {kind: [] for kind in self.asked}
        self._connecting: dict[socket.socket, int] = {}
        self._sequence: dict[int, int] = {}
        self._last = {"arp": 0, "nd": 0}

    def ask(self, tcp: bool) -> None:
        """One of each."""
        number = len(self.asked["ping"]) & 0xFFFF
        now_ns = boottime_ns()
        self._sequence[number] = now_ns
        _send(self.ping, echo(number), (VIP4, 0))
        self.asked["ping"].append(now_ns)
        _send(self.ping6, struct.pack("!BBHHH", 128, 0, 0, 0x7067, number), (VIP6, 0))
        self.asked["ping6"].append(now_ns)
        self._ask_neighbours()
        if tcp:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((VIP4, PORT))
            self._connecting[client] = boottime_ns()
            self.asked["tcp"].append(self._connecting[client])

    def _ask_neighbours(self) -> None:
        """The next one only after the answer, or after 5 ms: these questions have no number."""
        now_ns = boottime_ns()
        if now_ns - self._last["arp"] > 5 * NS_PER_MS:
            self._last["arp"] = now_ns
            self.asked["arp"].append(now_ns)
            target = ipaddress.ip_address(VIP4).packed
            _send(self.arp, arp(ARP_REQUEST, self.mac, ipaddress.ip_address(SOURCE4).packed, NOBODY, target), ("vb", 0))
        if now_ns - self._last["nd"] > 5 * NS_PER_MS:
            self._last["nd"] = now_ns
            self.asked["nd"].append(now_ns)
            vip = ipaddress.IPv6Address(VIP6)
            group = ipaddress.IPv6Address(b"\xff\x02" + b"\0" * 9 + b"\x01\xff" + vip.packed[-3:])
            body = struct.pack("!BBHI", 135, 0, 0, 0) + vip.packed + b"\x01\x01" + self.mac
            _send(self.arp, icmpv6(self.mac, ipaddress.IPv6Address(SOURCE6), group, body), ("vb", 0))

    def listen(self, wait_ms: int) -> None:
        """Take the answers of the next moments."""
        select.select(self.all, [], [], wait_ms / 1000)
        for data in _received(self.ping):
            if data[20] == 0 and data[12:16] == ipaddress.ip_address(VIP4).packed:
                self.answered["ping"].append(self._sequence[struct.unpack_from("!H", data, 26)[0]])
        for data in _received(self.ping6):
            if data[0] == 129:
                self.answered["ping6"].append(self._sequence[struct.unpack_from("!H", data, 6)[0]])
            elif data[0] == 136 and data[8:24] == ipaddress.ip_address(VIP6).packed and data[4] & 0x40:
                self.answered["nd"].append(self._last["nd"])
        for data in _received(self.arp):
            if data[20:22] == b"\0\x02" and data[28:32] == ipaddress.ip_address(VIP4).packed and data[:6] == self.mac:
                self.answered["arp"].append(self._last["arp"])

    def connected(self) -> None:
        """Which of the TCP attempts were answered by now."""
        poll = select.poll()
        by_fd = {client.fileno(): client for client in self._connecting}
        for fd in by_fd:
            poll.register(fd, select.POLLOUT)
        for fd, _ in poll.poll(0):
            client = by_fd[fd]
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self.answered["tcp"].append(self._connecting[client])
        for client in self._connecting:
            client.close()
        self._connecting.clear()

    def close(self) -> None:
        """Give the descriptors back."""
        for item in (*self.all, *self._connecting):
            item.close()


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((interface, 0))
        mac: bytes = probe.getsockname()[4]
        return mac


def _send(through: socket.socket, data: bytes, to: tuple[str, int]) -> None:
    try:
        through.sendto(data, to)
    except OSError:
        pass


def _received(source: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            found.append(source.recv(2048))
        except OSError:
            return found
