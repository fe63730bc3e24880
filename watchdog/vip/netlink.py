"""Netlink as far as the virtual IP needs it: attributes, a socket with deadlines, and rtnetlink's addresses and
links.

An own codec because it costs 13 microseconds an address and no memory, and because it cannot fail to fork. It knows
nothing of leases and gates. Whatever the kernel refuses becomes a `KernelRefusal` that names the errno; a reply that
does not come within `REPLY_TIMEOUT_S` becomes one too: nothing here waits for ever.

Sources: netlink(7), rtnetlink(7), linux/if_addr.h.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pgvigil.ipc.errors import CommandError

NETLINK_ROUTE = 0
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
SO_ATTACH_FILTER = 26
REPLY_TIMEOUT_S = 1.0
RECEIVE_BYTES = 65536

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLA_TYPE_MASK = 0x3FFF
NLA_F_NESTED = 0x8000

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 6, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_NOARP = 0x1, 0x8, 0x40, 0x80
FOREVER = 0xFFFFFFFF

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
IFADDR = struct.Struct("=BBBBI")
IFINFO = struct.Struct("=BxHiII")
CACHEINFO = struct.Struct("=IIII")

# Classic BPF (linux/filter.h): drop what begins with a message of one port. Words are loaded in network byte order.
BPF = struct.Struct("=HBBI")
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
PORT_OFFSET = 12

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class KernelRefusal(CommandError):
    """The kernel said no; `code` is the errno."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: {errno.errorcode.get(code, str(code))} ({os.strerror(code)})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message; `body` follows the header."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, payload: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, payload)


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message with its header."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind (without flags) and payload of each attribute; stops at the first malformed one."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + (-length % 4)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield Message(kind, flags, sequence, port, data[offset + HEADER.size : offset + length])
        offset += length + (-length % 4)


class NetlinkSocket:
    """A request socket of one netlink family; `port` is its address, by which its own events are known."""

    def __init__(self, protocol: int, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, groups))
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0
        seconds = int(REPLY_TIMEOUT_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))

    @property
    def fd(self) -> int:
        """For the loop."""
        return self._socket.fileno()

    def join(self, group: int) -> None:
        """Hear the events of a multicast group (needs CAP_NET_ADMIN for nftables)."""
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            raise KernelRefusal(f"netlink group {group}", error.errno or 0) from None

    def ignore(self, port: int) -> None:
        """Let the kernel drop the events that `port` caused: nobody is woken for what this process did itself.

        One datagram holds messages of one cause only, so its first message tells.
        """
        program = ctypes.create_string_buffer(
            BPF.pack(BPF_LOAD_WORD, 0, 0, PORT_OFFSET)
            + BPF.pack(BPF_JUMP_EQUAL, 0, 1, socket.htonl(port))
            + BPF.pack(BPF_RETURN, 0, 0, 0)
            + BPF.pack(BPF_RETURN, 0, 0, RECEIVE_BYTES)
        )
        try:
            self._socket.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 4, ctypes.addressof(program))
            )
        except OSError as error:
            raise KernelRefusal("socket filter", error.errno or 0) from None

    def next_sequence(self) -> int:
        """A fresh sequence number."""
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF or 1
        return self._sequence

    def send(self, data: bytes, what: str) -> None:
        """Hand a request to the kernel, which works on it before this returns."""
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelRefusal(what, error.errno or 0) from None

    def datagram(self, what: str) -> bytes:
        """The next reply, or `KernelRefusal` after `REPLY_TIMEOUT_S`."""
        try:
            data: bytes = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            raise KernelRefusal(f"{what}: no answer within {REPLY_TIMEOUT_S} s", errno.ETIMEDOUT) from None
        except OSError as error:
            raise KernelRefusal(what, error.errno or 0) from None
        return data

    def available(self, limit: int = 64) -> Iterator[bytes]:
        """Datagrams that are here already; `KernelRefusal` with ENOBUFS if the kernel dropped some."""
        for _ in range(limit):
            try:
                yield self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                raise KernelRefusal("netlink events", error.errno or 0) from None

    def request(self, kind: int, flags: int, body: bytes, what: str) -> None:
        """A change that the kernel acknowledges."""
        sequence = self.next_sequence()
        self.send(message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, body), what)
        while True:
            for reply in messages(self.datagram(what)):
                if reply.sequence == sequence and reply.kind == NLMSG_ERROR:
                    _raise_error(reply, what)
                    return

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[Message]:
        """A question; with NLM_F_DUMP until the end of the dump, else one answer."""
        sequence = self.next_sequence()
        self.send(message(kind, NLM_F_REQUEST | flags, sequence, body), what)
        answers: list[Message] = []
        while True:
            for reply in messages(self.datagram(what)):
                if reply.sequence != sequence:
                    continue
                if reply.kind == NLMSG_ERROR:
                    _raise_error(reply, what)
                    return answers
                if reply.kind == NLMSG_DONE:
                    return answers
                answers.append(reply)
                if not flags & NLM_F_DUMP:
                    return answers

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


def _raise_error(reply: Message, what: str) -> None:
    code = -struct.unpack_from("=i", reply.body)[0]
    if code:
        raise KernelRefusal(what, code)


# --- rtnetlink: addresses and links ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address that this host has."""

    address: Address
    prefix_length: int
    index: int
    valid_s: int
    flags: int


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; `mac` is empty where there is none."""

    index: int
    name: str
    up: bool
    running: bool
    announces: bool
    mac: bytes


def address_body(address: Address, prefix_length: int, index: int, valid_s: int | None, extra_flags: int = 0) -> bytes:
    """The body of RTM_NEWADDR (with a lifetime) or RTM_DELADDR (`valid_s` None).

    IPv6 is added without duplicate address detection (else it is silent for a second) and deprecated (preferred 0), so
    that this host never picks it as source. IPv4's source selection ignores deprecation: there the preferred time
    follows the valid one.
    """
    six = address.version == 6
    family = socket.AF_INET6 if six else socket.AF_INET
    body = IFADDR.pack(family, prefix_length, 0, 0, index)
    body += attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
    if valid_s is None:
        return body
    flags = (IFA_F_NODAD if six else 0) | extra_flags
    body += attribute(IFA_CACHEINFO, CACHEINFO.pack(0 if six else valid_s, valid_s, 0, 0))
    return body + attribute(IFA_FLAGS, struct.pack("=I", flags))


def parse_address(body: bytes) -> HostAddress | None:
    """The address of an RTM_NEWADDR or RTM_DELADDR; None for what is neither IPv4 nor IPv6."""
    family, prefix_length, flags, _, index = IFADDR.unpack_from(body)
    found = dict(attributes(body[IFADDR.size :]))
    raw = found.get(IFA_LOCAL, found.get(IFA_ADDRESS))
    if raw is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    valid_s = CACHEINFO.unpack_from(found[IFA_CACHEINFO])[1] if IFA_CACHEINFO in found else FOREVER
    if IFA_FLAGS in found:
        flags = struct.unpack("=I", found[IFA_FLAGS])[0]
    return HostAddress(ipaddress.ip_address(raw), prefix_length, index, valid_s, flags)


def parse_link(body: bytes) -> Link:
    """The interface of an RTM_NEWLINK or RTM_DELLINK."""
    _, _, index, flags, _ = IFINFO.unpack_from(body)
    found = dict(attributes(body[IFINFO.size :]))
    name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    mac = found.get(IFLA_ADDRESS, b"")
    announces = len(mac) == 6 and not flags & (IFF_LOOPBACK | IFF_NOARP)
    return Link(index, name, bool(flags & IFF_UP), bool(flags & IFF_RUNNING), announces, mac)


class Addresses:
    """This host's addresses: read, add with a lifetime, delete. `port` is its address as a cause of events."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE)
        self.port = self._netlink.port

    def link(self, name: str) -> Link:
        """The interface of that name; `KernelRefusal` (ENODEV) if there is none."""
        body = IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
        answers = self._netlink.ask(RTM_GETLINK, 0, body, f"interface {name}")
        if not answers:
            raise KernelRefusal(f"interface {name}", errno.ENODEV)
        return parse_link(answers[0].body)

    def dump(self) -> list[HostAddress]:
        """All addresses of this host (network namespace)."""
        body = IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = [parse_address(item.body) for item in self._netlink.ask(RTM_GETADDR, NLM_F_DUMP, body, "addresses")]
        return [address for address in found if address is not None]

    def put(self, address: Address, prefix_length: int, index: int, valid_s: int, extra_flags: int = 0) -> None:
        """Add it, or renew its lifetime of `valid_s` seconds."""
        body = address_body(address, prefix_length, index, valid_s, extra_flags)
        what = f"adding {address}/{prefix_length}"
        self._netlink.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def delete(self, address: Address, prefix_length: int, index: int) -> bool:
        """Delete it; False if it was not there."""
        body = address_body(address, prefix_length, index, None)
        try:
            self._netlink.request(RTM_DELADDR, 0, body, f"deleting {address}/{prefix_length}")
        except KernelRefusal as refusal:
            if refusal.code in (errno.EADDRNOTAVAIL, errno.ENODEV):
                return False
            raise
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        self._netlink.close()


class AddressEvents:
    """Tells that an address or an interface changed; what, is read from a dump: events may be lost, state is not."""

    def __init__(self, own_port: int) -> None:
        """`own_port`: whose changes are known already, that of `Addresses.port`."""
        self._netlink = NetlinkSocket(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
        self._netlink.ignore(own_port)
        self.fd = self._netlink.fd

    def changed(self, addresses: frozenset[Address], interface: str) -> bool:
        """Whether what has arrived concerns one of these addresses or this interface (or was lost)."""
        concerned = False
        try:
            for data in self._netlink.available():
                concerned = any(self._concerns(item, addresses, interface) for item in messages(data)) or concerned
        except KernelRefusal:
            return True
        return concerned

    @staticmethod
    def _concerns(item: Message, addresses: frozenset[Address], interface: str) -> bool:
        if item.kind in (RTM_NEWADDR, RTM_DELADDR):
            found = parse_address(item.body)
            return found is not None and found.address in addresses
        return item.kind in (RTM_NEWLINK, RTM_DELLINK) and parse_link(item.body).name == interface

    def close(self) -> None:
        """Give the descriptor back."""
        self._netlink.close()
