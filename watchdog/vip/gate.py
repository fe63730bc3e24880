"""The gate: kernel rules that let traffic of the virtual IP pass only while the lease runs.

Two nftables tables of pgvigil's own (inet and arp), each with the set of the protected addresses and a set of those
that are open, whose elements the kernel removes at the end of the lease: a process that is stopped or killed needs
nobody to close its gate. What is not open is neither answered nor spoken for: packets to and from it, ARP, neighbour
discovery. Traffic that this host only forwards passes (`fib`: the destination must be an address of this host), and
so do other nodes' announcements, from which this host learns where the address is.

The gate decides nothing: it is armed, closed, checked and put back. It never trusts that a table is its own because
of its name: `fault` compares chains, rules, sets and elements with what they have to be. Rule P20 is in `_held`.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.netlink import KernelRefusal
from pgvigil.watchdog.vip.netlink import Address
from pgvigil.watchdog.vip.nft import (
    FAMILY_ARP,
    FAMILY_INET,
    FAMILY_IPV4,
    FAMILY_IPV6,
    HOOK_ARP_INPUT,
    HOOK_ARP_OUTPUT,
    HOOK_INPUT,
    HOOK_OUTPUT,
    HOOK_PREROUTING,
    TYPE_IPV4,
    TYPE_IPV6,
    AddressSet,
    Batch,
    Chain,
    Expression,
    NfTables,
    Table,
    drop,
    equals,
    in_set,
    is_local,
    meta,
    payload,
)

TABLE = "pgvigil"
PRIORITY = -350  # before connection tracking and every address translation
TOLERANCE_NS = 1 * NS_PER_MS
ATTEMPTS = 8
DEFAULT_LIFE_MS = 1000  # of an element that somebody adds by hand
SLACK_NS = 20 * NS_PER_MS
KEPT_OPENINGS = 32
ICMPV6 = b"\x3a"
SOLICITATION, ADVERTISEMENT = b"\x87", b"\x88"

Rule = tuple[Expression, ...]


def closed(field: Expression, version: int) -> Rule:
    """Go on only if the field holds a protected address that is not open."""
    return (field, in_set(f"vip{version}"), field, in_set(f"open{version}", inverted=True))


def of_family(family: int) -> Rule:
    """Go on only for this protocol."""
    return (meta(15), equals(bytes([family])))


def discovery(kind: bytes) -> Rule:
    """Neighbour discovery of this kind about a closed address (the target is at 8 of ICMPv6, RFC 4861 4.3 and 4.4)."""
    icmp = (*of_family(FAMILY_IPV6), meta(16), equals(ICMPV6), payload(2, 0, 1), equals(kind))
    return (*icmp, *closed(payload(2, 8, 16), 6), drop())


TO_IPV4, TO_IPV6 = closed(payload(1, 16, 4), 4), closed(payload(1, 24, 16), 6)
FROM_IPV4, FROM_IPV6 = closed(payload(1, 12, 4), 4), closed(payload(1, 8, 16), 6)
PREROUTING = (
    (*of_family(FAMILY_IPV4), *TO_IPV4, *is_local(), drop()),
    (*of_family(FAMILY_IPV6), *TO_IPV6, *is_local(), drop()),
)
INPUT = (
    (*of_family(FAMILY_IPV4), *TO_IPV4, drop()),
    (*of_family(FAMILY_IPV6), *TO_IPV6, drop()),
    discovery(SOLICITATION),
)
OUTPUT = (
    (*of_family(FAMILY_IPV4), *FROM_IPV4, drop()),
    (*of_family(FAMILY_IPV6), *FROM_IPV6, drop()),
    discovery(ADVERTISEMENT),
)
# Requests for a closed address; an announcement of its new holder names it as sender too and must be heard.
ARP_INPUT = (
    (
        *(payload(1, 6, 2), equals(b"\0\x01"), *closed(payload(1, 24, 4), 4)),
        *(payload(1, 14, 4), in_set("vip4", inverted=True), drop()),
    ),
)
ARP_OUTPUT = ((*closed(payload(1, 14, 4), 4), drop()),)

SETS4 = (AddressSet("vip4", TYPE_IPV4, 4, None), AddressSet("open4", TYPE_IPV4, 4, DEFAULT_LIFE_MS))
SETS6 = (AddressSet("vip6", TYPE_IPV6, 16, None), AddressSet("open6", TYPE_IPV6, 16, DEFAULT_LIFE_MS))
INET = Table(
    FAMILY_INET,
    TABLE,
    SETS4 + SETS6,
    (
        Chain("prerouting", HOOK_PREROUTING, PRIORITY, PREROUTING),
        Chain("input", HOOK_INPUT, PRIORITY, INPUT),
        Chain("output", HOOK_OUTPUT, PRIORITY, OUTPUT),
    ),
)
ARP = Table(
    FAMILY_ARP,
    TABLE,
    SETS4,
    (Chain("input", HOOK_ARP_INPUT, 0, ARP_INPUT), Chain("output", HOOK_ARP_OUTPUT, 0, ARP_OUTPUT)),
)
PLACES = ((FAMILY_INET, 4), (FAMILY_INET, 6), (FAMILY_ARP, 4))


class Gate:
    """The tables of one host. Every method raises `KernelRefusal` if the kernel does."""

    def __init__(self, addresses: tuple[Address, ...], clock: Callable[[], int] = boottime_ns) -> None:
        self._addresses = addresses
        self._protected = addresses
        self._clock = clock
        self._tables = NfTables()
        self.port = self._tables.port
        self.until_ns = 0
        self._adopted = False
        self._openings: dict[tuple[tuple[Address, ...], int], Batch] = {}
        self._checked_generation = -1

    # --- arming and closing -----------------------------------------------------------------------

    def arm(self, lease_end_ns: int) -> bool:
        """Open until `lease_end_ns` (P20); False if nothing was left of the lease and the gate is closed."""
        if self._held(lease_end_ns, self._open):
            return True
        self.close()
        return False

    def _open(self, timeout_ms: int) -> None:
        """Tell the kernel: one netlink batch."""
        self._write(self._opening(self._addresses, timeout_ms))

    def _held(self, lease_end_ns: int, write: Callable[[int], None]) -> bool:
        """P20: the time-out comes from the clock directly before the write, and the clock is read again after it.

        The second reading catches a process that was stopped in between. A slow kernel fails the test too; from the
        third attempt on less is asked for, by what the last one took, so that it ends.
        """
        margin_ns = 0
        for attempt in range(ATTEMPTS):
            before_ns = self._clock()
            timeout_ms = (lease_end_ns - before_ns - margin_ns) // NS_PER_MS
            if timeout_ms <= 0:
                break
            write(timeout_ms)
            after_ns = self._clock()
            if after_ns + timeout_ms * NS_PER_MS <= lease_end_ns + TOLERANCE_NS:
                self.until_ns = lease_end_ns
                return True
            margin_ns = min(2 * (after_ns - before_ns), 50 * NS_PER_MS) if attempt else 0
        return False

    def close(self) -> None:
        """Let nothing pass from now on; a closed gate stays closed."""
        batch = Batch()
        for family, version in PLACES:
            keys = _keys(self._protected, version)
            if keys:
                # Deleting what is not there fails the whole batch, so it is added first.
                batch.add_elements(family, TABLE, f"open{version}", keys, 1)
                batch.delete_elements(family, TABLE, f"open{version}", keys)
        self.until_ns = 0
        if batch.changes:
            self._write(batch)

    def _opening(self, addresses: tuple[Address, ...], timeout_ms: int) -> Batch:
        """Made once for each time-out: from one renewal to the next it differs by a millisecond or two."""
        batch = self._openings.get((addresses, timeout_ms))
        if batch is None:
            batch = Batch()
            for family, version in PLACES:
                keys = _keys(addresses, version)
                if keys:
                    batch.renew_elements(family, TABLE, f"open{version}", keys, timeout_ms)
            if len(self._openings) >= KEPT_OPENINGS:
                self._openings.clear()
            self._openings[addresses, timeout_ms] = batch
        return batch

    def _write(self, batch: Batch) -> None:
        self._tables.commit(batch, f"nftables table {TABLE}")
        if self._checked_generation >= 0:
            # One for every transaction: where somebody else has changed something, the next look finds a higher one.
            self._checked_generation += 1

    # --- the tables -------------------------------------------------------------------------------

    def load(self) -> str:
        """Make the tables what they have to be; says what had to be changed, empty if nothing had.

        Tables that are right are left alone, with what an earlier process has opened. Others are replaced in
        one transaction that keeps open what was open and is still ours, for the time that was left.
        """
        fault = self.fault()
        left = self._left()
        self._adopted = True
        if not fault:
            self.until_ns = max(left.values(), default=0)
            return ""
        still = tuple(address for address in self._addresses if address in left)
        if not still or not self._held(min(left[a] for a in still), lambda ms: self._write(self._anew(still, ms))):
            self.reset()
        return fault

    def reset(self) -> None:
        """The tables anew, closed, whatever was there."""
        self.until_ns = 0
        self._adopted = True
        self._write(self._anew((), 0))

    def _left(self) -> dict[Address, int]:
        """What is open, and until when: the kernel knows it of an earlier process, we of this one."""
        if not self._adopted:
            return self._open_until()
        return dict.fromkeys(self._addresses, self.until_ns) if self.until_ns > self._clock() else {}

    def _anew(self, still_open: tuple[Address, ...], timeout_ms: int) -> Batch:
        batch = Batch()
        batch.replace_table(INET)
        batch.replace_table(ARP)
        for family, version in PLACES:
            keys = _keys(self._protected, version)
            if keys:
                batch.add_elements(family, TABLE, f"vip{version}", keys, None)
            opened = _keys(still_open, version)
            if opened:
                batch.add_elements(family, TABLE, f"open{version}", opened, timeout_ms)
        return batch

    def fault(self) -> str:
        """What is wrong with the tables; empty if they are ours and complete. Cheap while nobody changed anything."""
        generation = self._tables.generation()
        if generation == self._checked_generation:
            return ""
        fault = self._tables.fault(INET) or self._tables.fault(ARP) or self._element_fault()
        self._checked_generation = -1 if fault else generation
        return fault

    def distrust(self) -> None:
        """Somebody else was at it: the next `fault` looks at everything."""
        self._checked_generation = -1

    def _element_fault(self) -> str:
        now_ns = self._clock()
        for family, version in PLACES:
            wanted = set(_keys(self._protected, version))
            if set(self._tables.elements(family, TABLE, f"vip{version}")) != wanted:
                return f"set vip{version} protects other addresses"
            latest_ms = max(0, self.until_ns - now_ns + SLACK_NS) // NS_PER_MS
            for left_ms in self._tables.elements(family, TABLE, f"open{version}").values():
                if left_ms is None or (self._adopted and left_ms > latest_ms):
                    return f"set open{version} was opened for too long"
        return ""

    def _open_until(self) -> dict[Address, int]:
        """Open addresses and a lower bound of the instant at which the kernel closes them."""
        found: dict[Address, int] = {}
        for version in (4, 6):
            before_ns = self._clock()
            for key, left_ms in self._elements(FAMILY_INET, f"open{version}").items():
                if left_ms:
                    found[ipaddress.ip_address(key)] = before_ns + left_ms * NS_PER_MS
        return found

    def protected(self) -> tuple[Address, ...]:
        """What the tables protect now, an earlier process's choice included."""
        keys = [*self._elements(FAMILY_INET, "vip4"), *self._elements(FAMILY_INET, "vip6")]
        return tuple(ipaddress.ip_address(key) for key in keys)

    def _elements(self, family: int, name: str) -> dict[bytes, int | None]:
        try:
            return self._tables.elements(family, TABLE, name)
        except KernelRefusal as refusal:
            if refusal.code != errno.ENOENT:
                raise
            return {}

    def protect_also(self, addresses: tuple[Address, ...]) -> None:
        """Protect these too, from the next `load` on, and never open them."""
        self._protected = self._addresses + addresses
        self.distrust()

    def remove(self) -> None:
        """Delete the tables; only after the addresses are gone."""
        batch = Batch()
        batch.delete_table(FAMILY_INET, TABLE)
        batch.delete_table(FAMILY_ARP, TABLE)
        self._write(batch)
        self.until_ns = 0

    def close_sockets(self) -> None:
        """Give the descriptor back; the tables stay."""
        self._tables.close()


def _keys(addresses: tuple[Address, ...], version: int) -> list[bytes]:
    return [address.packed for address in addresses if address.version == version]
