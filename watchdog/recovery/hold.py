"""Holding back new clients of this host's pgpool-II: an nftables table of pgvigil's own that opens by itself.

The packet that begins a connection to pgpool-II's port is dropped, so that the client sends it again and again: it
waits, and is served as soon as the hold ends. What is connected already passes, and so do PCP, everything inside this
host, and the addresses that it is given: other nodes, whose lifecheck asks pgpool-II too.

The port stands in a set as an element with a time-out in milliseconds: when every process of pgvigil is gone, the
kernel removes it and clients get through. A hold of one cause never lasts longer than its limit. Firewall tools flush
other people's tables: each renewal looks whether the hold was there all the time, and counts what it finds as a break.
It decides nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.netlink import KernelRefusal
from pgvigil.watchdog.vip.netlink import Address
from pgvigil.watchdog.vip.nft import (
    FAMILY_INET,
    FAMILY_IPV4,
    FAMILY_IPV6,
    HOOK_INPUT,
    REGISTER,
    TYPE_IPV4,
    TYPE_IPV6,
    AddressSet,
    Batch,
    Chain,
    Expression,
    NfTables,
    Table,
    Tree,
    be32,
    drop,
    equals,
    in_set,
    meta,
    payload,
)

TABLE = "pgvigil_hold"
PORTS = "held"
PRIORITY = -340  # after the gate, before connection tracking: a packet that is dropped here leaves no trace
TYPE_PORT = 13  # inet_service, as `nft list` shows the elements
DEFAULT_LIFE_MS = 1000  # of an element that somebody adds by hand
EARLY_NS = 5 * NS_PER_MS
"""The kernel may remove an element a few milliseconds before its time."""
TCP = b"\x06"
SYN, SYN_AND_ACK = b"\x02", b"\x12"
LOOPBACK = struct.pack("=I", 1)  # the index of lo in every network namespace


def _bits(mask: bytes, value: bytes) -> tuple[Expression, ...]:
    """Go on only if these bits of what was loaded have this value."""
    data: Tree = {1: REGISTER, 2: REGISTER, 3: be32(len(mask)), 4: {1: mask}, 5: {1: bytes(len(mask))}}
    return Expression("bitwise", data), equals(value)


def _differs(value: bytes) -> Expression:
    """Go on only if what was loaded is something else."""
    return Expression("cmp", {1: REGISTER, 2: be32(1), 3: {1: value}})


def _rule(family: int, source: Expression, peers: str) -> tuple[Expression, ...]:
    """New connections from elsewhere, of one protocol, to a port that is held."""
    return (
        *(meta(15), equals(bytes([family])), meta(16), equals(TCP), payload(2, 2, 2), in_set(PORTS)),
        *(payload(2, 13, 1), *_bits(SYN_AND_ACK, SYN), meta(4), _differs(LOOPBACK)),
        *(source, in_set(peers, inverted=True), drop()),
    )


RULES = (
    _rule(FAMILY_IPV4, payload(1, 12, 4), "peers4"),
    _rule(FAMILY_IPV6, payload(1, 8, 16), "peers6"),
)
WHOLE = Table(
    FAMILY_INET,
    TABLE,
    (
        AddressSet(PORTS, TYPE_PORT, 2, DEFAULT_LIFE_MS),
        AddressSet("peers4", TYPE_IPV4, 4, None),
        AddressSet("peers6", TYPE_IPV6, 16, None),
    ),
    (Chain("input", HOOK_INPUT, PRIORITY, RULES),),
)


@dataclass(frozen=True, slots=True)
class HoldState:
    """What there is of the hold; instants on CLOCK_BOOTTIME."""

    until_ns: int = 0
    """Clients are held back at least until then, unless it is released or somebody else changes the table."""
    limit_ns: int = 0
    """No renewal holds beyond this instant."""
    breaks: int = 0
    """How often it was found open between its beginning and now."""


class Hold:
    """The hold of one port. Every method raises `KernelRefusal` if the kernel does."""

    def __init__(
        self, port: int, peers: tuple[Address, ...], limit_ms: int, clock: Callable[[], int] = boottime_ns
    ) -> None:
        self._port = port.to_bytes(2, "big")
        self._peers = peers
        self._limit_ns = limit_ms * NS_PER_MS
        self._clock = clock
        self._cause = 0
        self._tables = NfTables()
        self.state = HoldState()

    def prepare(self) -> None:
        """Put the table there without holding anything: shows before it matters whether the kernel lets us."""
        if self._tables.fault(WHOLE):
            self._commit(self._anew())

    def hold(self, cause: int, for_ms: int) -> HoldState:
        """Hold from now on for so long, at most to the limit, which counts from the first hold of this cause."""
        now_ns = self._clock()
        if cause != self._cause:
            self._cause, self.state = cause, HoldState(0, now_ns + self._limit_ns, 0)
        left_ms = (min(now_ns + for_ms * NS_PER_MS, self.state.limit_ns) - now_ns) // NS_PER_MS
        breaks = self.state.breaks + int(self.state.until_ns > 0 and self._was_open())
        if left_ms > 0:
            self._write(left_ms)
            until_ns = now_ns + left_ms * NS_PER_MS - EARLY_NS
        else:
            until_ns = self.state.until_ns
        self.state = HoldState(until_ns, self.state.limit_ns, breaks)
        return self.state

    def _was_open(self) -> bool:
        """Whether the element or the table is not what it was made as."""
        return bool(self._tables.fault(WHOLE)) or not self._is_listed()

    def _is_listed(self) -> bool:
        return self._port in self._tables.elements(FAMILY_INET, TABLE, PORTS)

    def _write(self, left_ms: int) -> None:
        batch = self._anew() if self._tables.fault(WHOLE) else Batch()
        batch.renew_elements(FAMILY_INET, TABLE, PORTS, [self._port], left_ms)
        self._commit(batch)

    def release(self) -> None:
        """Let everybody in; nothing is left behind."""
        self._cause, self.state = 0, HoldState()
        remove_table(self._tables)

    def is_held(self) -> bool:
        """What the kernel says now."""
        return not self._tables.fault(WHOLE) and self._is_listed()

    def close(self) -> None:
        """Give the descriptor back; a hold goes on until its time-out."""
        self._tables.close()

    def _anew(self) -> Batch:
        batch = Batch()
        batch.replace_table(WHOLE)
        for version in (4, 6):
            keys = [address.packed for address in self._peers if address.version == version]
            if keys:
                batch.add_elements(FAMILY_INET, TABLE, f"peers{version}", keys, None)
        return batch

    def _commit(self, batch: Batch) -> None:
        self._tables.commit(batch, f"nftables table {TABLE}")


def peers_of(addresses: tuple[str, ...]) -> tuple[Address, ...]:
    """Addresses as text, each once; host names are left out, because nothing here asks a resolver."""
    found: dict[Address, None] = {}
    for text in addresses:
        try:
            found[ipaddress.ip_address(text)] = None
        except ValueError:
            continue
    return tuple(found)


def remove_table(tables: NfTables) -> None:
    """Delete the table if it is there."""
    batch = Batch()
    batch.delete_table(FAMILY_INET, TABLE)
    tables.commit(batch, f"nftables table {TABLE}")


def remove_leftover() -> str:
    """What an earlier watchdog main left behind is removed; a sentence if there was something, or if it stays."""
    try:
        tables = NfTables()
    except OSError:
        return ""  # a kernel without netfilter has no tables
    try:
        tables.elements(FAMILY_INET, TABLE, PORTS)
        remove_table(tables)
    except KernelRefusal as refusal:
        unable = (errno.ENOENT, errno.EPERM, errno.EOPNOTSUPP)
        return "" if refusal.code in unable else f"new clients may still be held back by an earlier process: {refusal}"
    finally:
        tables.close()
    return "a hold of an earlier process is removed: new clients of pgpool-II get through"
