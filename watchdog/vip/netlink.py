"""rtnetlink as far as the virtual IP needs it: this host's addresses, and the events that concern them.

It knows nothing of leases and gates. Whatever the kernel refuses becomes a `KernelRefusal` that names the errno.

Sources: rtnetlink(7), linux/if_addr.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from pgvigil.ipc.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    RTM_DELLINK,
    RTM_NEWLINK,
    RTMGRP_LINK,
    KernelRefusal,
    Link,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    find_link,
    messages,
    parse_link,
)

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x10, 0x100
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 6, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
FOREVER = 0xFFFFFFFF

IFADDR = struct.Struct("=BBBBI")
CACHEINFO = struct.Struct("=IIII")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address that this host has."""

    address: Address
    prefix_length: int
    index: int
    valid_s: int
    flags: int


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


class Addresses:
    """This host's addresses: read, add with a lifetime, delete. `port` is its address as a cause of events."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE)
        self.port = self._netlink.port

    def link(self, name: str) -> Link:
        """The interface of that name; `KernelRefusal` (ENODEV) if there is none."""
        return find_link(self._netlink, name)

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
