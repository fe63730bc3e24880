"""Tells the network where the address is, and asks whether somebody else has it.

Frames are made whole and leave through packet sockets, which no netfilter hook sees: so whoever calls has to know
that the lease runs (`Announcer` is told its end and stays silent after it). IPv4: gratuitous ARP as request and as
reply, because hosts differ in which they believe (RFC 5227 section 3). IPv6: unsolicited neighbour advertisement with
the override flag (RFC 4861 7.2.6). The question before the first raise is an ARP probe (sender 0.0.0.0, RFC 5227
2.1.1) or a solicitation as in duplicate address detection (RFC 4862 5.4.2); only an answer from another hardware
address counts.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.netlink import KernelRefusal, Link
from pgvigil.watchdog.vip.netlink import Address

ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2
BROADCAST = b"\xff" * 6
NOBODY = b"\0" * 6
ALL_NODES = ipaddress.IPv6Address("ff02::1")
UNSPECIFIED = ipaddress.IPv6Address("::")
SOLICITATION, ADVERTISEMENT = 135, 136
OVERRIDE = 0x20000000
ICMPV6_FILTER = 1
QUESTION_BUFFER_BYTES = 16 * 1024
BURST_NS = (0, 40 * NS_PER_MS, 80 * NS_PER_MS, 1 * NS_PER_S)
ARP_BODY = struct.Struct("!HHBBH6s4s6s4s")


def arp(operation: int, mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    """An Ethernet broadcast with ARP in it."""
    body = ARP_BODY.pack(1, ETH_IPV4, 6, 4, operation, mac, sender, target_mac, target)
    return BROADCAST + mac + struct.pack("!H", ETH_ARP) + body


def _checksum(source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address, body: bytes) -> int:
    pseudo = source.packed + destination.packed + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6) + body
    total: int = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total + (total >> 16)) & 0xFFFF)


def icmpv6(mac: bytes, source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address, body: bytes) -> bytes:
    """An Ethernet multicast with neighbour discovery in it; the checksum field (2..4) of `body` is filled in."""
    body = body[:2] + struct.pack("!H", _checksum(source, destination, body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + source.packed + destination.packed
    return b"\x33\x33" + destination.packed[-4:] + mac + struct.pack("!H", ETH_IPV6) + header + body


def announcements(address: Address, mac: bytes) -> tuple[bytes, ...]:
    """The frames that say: this address is at this hardware address."""
    if isinstance(address, ipaddress.IPv4Address):
        return (
            arp(ARP_REQUEST, mac, address.packed, NOBODY, address.packed),
            arp(ARP_REPLY, mac, address.packed, BROADCAST, address.packed),
        )
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, OVERRIDE) + address.packed + b"\x02\x01" + mac
    return (icmpv6(mac, address, ALL_NODES, body),)


def question(address: Address, mac: bytes) -> bytes:
    """The frame that asks who has the address, without claiming anything."""
    if isinstance(address, ipaddress.IPv4Address):
        return arp(ARP_REQUEST, mac, b"\0" * 4, NOBODY, address.packed)
    group = ipaddress.IPv6Address(b"\xff\x02" + b"\0" * 9 + b"\x01\xff" + address.packed[-3:])
    return icmpv6(mac, UNSPECIFIED, group, struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + address.packed)


def arp_claim(data: bytes) -> tuple[bytes, bytes] | None:
    """Hardware and protocol address of the sender in an ARP packet (without Ethernet header)."""
    if len(data) < ARP_BODY.size:
        return None
    kind, protocol, _, _, _, mac, sender, _, _ = ARP_BODY.unpack_from(data)
    return (mac, sender) if (kind, protocol) == (1, ETH_IPV4) else None


def advertised(data: bytes) -> tuple[bytes, bytes] | None:
    """Hardware address (empty if untold) and target of a neighbour advertisement (RFC 4861 4.4)."""
    if len(data) < 24 or data[0] != ADVERTISEMENT:
        return None
    offset = 24
    while offset + 8 <= len(data) and data[offset + 1]:
        if data[offset] == 2:
            return data[offset + 2 : offset + 8], data[8:24]
        offset += data[offset + 1] * 8
    return b"", data[8:24]


class Announcer:
    """Sends the burst (0, 40, 80 ms, 1 s) and then one round every `interval_s` (0: no more)."""

    def __init__(self, addresses: tuple[Address, ...], interval_s: int) -> None:
        """`KernelRefusal` if packet sockets are not allowed."""
        self._addresses = addresses
        self._interval_ns = interval_s * NS_PER_S
        self._socket = packet_socket(0)
        self._steps: list[int] = []
        self._next_ns: int | None = None

    def start(self, now_ns: int) -> None:
        """A new burst from now on."""
        self._steps = [now_ns + step for step in BURST_NS]
        self._next_ns = self._steps.pop(0)

    def stop(self) -> None:
        """Be silent."""
        self._steps, self._next_ns = [], None

    def wake(self) -> int | None:
        """When something is to be sent."""
        return self._next_ns

    def send(self, link: Link, now_ns: int, lease_end_ns: int) -> None:
        """Send one round and plan the next. The clock is read before every frame (P21): a process that was stopped
        between two of them would draw the clients away from the next holder."""
        if self._steps:
            self._next_ns = self._steps.pop(0)
        else:
            self._next_ns = now_ns + self._interval_ns if self._interval_ns else None
        if link.announces:
            for address in self._addresses:
                for frame in announcements(address, link.mac):
                    if boottime_ns() >= lease_end_ns:
                        return
                    send_frame(self._socket, link.name, frame)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


class Question:
    """Asks for all addresses; `answers` yields who answered.

    Its sockets stay open for the life of the process: closing a packet socket waits for every CPU of the kernel to pass
    by (synchronize_net, some 10 ms), and that would be time without an answer in every switchover.
    """

    def __init__(self, addresses: tuple[Address, ...], link: Link) -> None:
        self._addresses = {address.packed: address for address in addresses}
        self._mac = link.mac
        self._name = link.name
        self._sockets = [packet_socket(ETH_ARP, link.name)]
        if any(address.version == 6 for address in addresses):
            self._sockets.append(advertisement_socket(link.name))
        for item in self._sockets:
            item.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUESTION_BUFFER_BYTES)

    def ask(self) -> None:
        """Forget what was heard before and ask now."""
        for item in self._sockets:
            _received(item)
        for address in self._addresses.values():
            send_frame(self._sockets[0], self._name, question(address, self._mac))

    @property
    def fds(self) -> list[int]:
        """For the loop."""
        return [item.fileno() for item in self._sockets]

    def answers(self) -> list[str]:
        """Sentences about strangers who have one of the addresses."""
        claims = [arp_claim(data[14:]) for data in _received(self._sockets[0])]
        for icmp in self._sockets[1:]:
            claims += [advertised(data) for data in _received(icmp)]
        found = []
        for mac, raw in filter(None, claims):
            address = self._addresses.get(raw)
            if address is not None and mac != self._mac:
                found.append(f"{address} is answered for by {mac.hex(':') or 'another host'}")
        return found

    def fits(self, link: Link) -> bool:
        """Whether it asks on this link, with this link's address."""
        return (self._name, self._mac) == (link.name, link.mac)

    def close(self) -> None:
        """Give the descriptors back."""
        for item in self._sockets:
            item.close()


def packet_socket(protocol: int, interface: str = "") -> socket.socket:
    """A packet socket (packet(7)); protocol 0 only sends."""
    try:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        made.setblocking(False)
        if interface:
            made.bind((interface, protocol))
    except OSError as error:
        raise KernelRefusal("packet socket", error.errno or 0) from None
    return made


def advertisement_socket(interface: str) -> socket.socket:
    """A raw ICMPv6 socket that hears neighbour advertisements on one interface."""
    try:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
        made.setblocking(False)
        blocked = [0xFFFFFFFF] * 8
        blocked[ADVERTISEMENT // 32] &= ~(1 << ADVERTISEMENT % 32)
        made.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *blocked))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except OSError as error:
        raise KernelRefusal("raw ICMPv6 socket", error.errno or 0) from None
    return made


def send_frame(through: socket.socket, interface: str, frame: bytes) -> None:
    """Send; a full queue or a downed link loses it, as any network may."""
    try:
        through.sendto(frame, (interface, 0))
    except OSError:
        pass


def _received(source: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < 64:
        try:
            found.append(source.recv(2048))
        except OSError:
            break
    return found
