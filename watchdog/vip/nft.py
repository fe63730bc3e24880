"""nftables over nfnetlink: the few objects that the gate consists of, written in one atomic batch and read back.

The codec knows tables, base chains, rules of five expressions, and sets of addresses. It decides nothing and loads
nothing by itself. A batch is a transaction: all of it or nothing, and no packet sees half of it. The `nft` program is
not needed: it could not be started in time when a table has to be put back, and it would need the privileges handed
on.

Sources: linux/netfilter/nf_tables.h, and `nft --debug=netlink` for the expressions.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from pgvigil.ipc.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    KernelRefusal,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    message,
    messages,
    nested,
    text,
)

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
EVENT_GROUP = 7  # NFNLGRP_NFTABLES
BATCH_BEGIN, BATCH_END = 0x10, 0x11

NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN = 3, 4
NEWRULE, GETRULE = 6, 7
NEWSET, GETSET = 9, 10
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
NEWGEN, GETGEN = 15, 16

FAMILY_INET, FAMILY_ARP, FAMILY_IPV4, FAMILY_IPV6 = 1, 3, 2, 10
HOOK_PREROUTING, HOOK_INPUT, HOOK_OUTPUT = 0, 1, 3
HOOK_ARP_INPUT, HOOK_ARP_OUTPUT = 0, 1
ACCEPT, DROP = 1, 0
SET_TIMEOUT = 0x10
TYPE_IPV4, TYPE_IPV6 = 7, 8  # what `nft list` shows the elements as
REGISTER = struct.pack(">I", 1)

Tree = dict[int, "bytes | Tree"]


def be32(value: int) -> bytes:
    """A 32-bit number as nftables wants it."""
    return struct.pack(">i" if value < 0 else ">I", value)


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a rule."""

    name: str
    data: Tree


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain of type filter with policy accept, and all of its rules."""

    name: str
    hook: int
    priority: int
    rules: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class AddressSet:
    """A set of addresses; `timeout_ms` is the default life of an element, None for elements that stay."""

    name: str
    key_type: int
    key_bytes: int
    timeout_ms: int | None


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table."""

    family: int
    name: str
    sets: tuple[AddressSet, ...]
    chains: tuple[Chain, ...]


def payload(base: int, offset: int, length: int) -> Expression:
    """Load bytes of the packet; base 1 is the network header, 2 the transport header."""
    return Expression("payload", {1: REGISTER, 2: be32(base), 3: be32(offset), 4: be32(length)})


def meta(key: int) -> Expression:
    """Load a property of the packet: 15 is the protocol family, 16 the layer-4 protocol."""
    return Expression("meta", {1: REGISTER, 2: be32(key)})


def equals(value: bytes) -> Expression:
    """Go on only if what was loaded equals `value`."""
    return Expression("cmp", {1: REGISTER, 2: be32(0), 3: {1: value}})


def in_set(name: str, inverted: bool = False) -> Expression:
    """Go on only if what was loaded is (not) in the set."""
    return Expression("lookup", {1: name.encode() + b"\0", 2: REGISTER, 5: be32(int(inverted))})


def is_local() -> tuple[Expression, ...]:
    """Go on only if the packet's destination is an address of this host (RTN_LOCAL)."""
    return Expression("fib", {1: REGISTER, 2: be32(3), 3: be32(2)}), equals(struct.pack("=I", 2))


def drop() -> Expression:
    """The verdict."""
    return Expression("immediate", {1: be32(0), 2: {2: {1: be32(DROP)}}})


def tree(data: Tree) -> bytes:
    """Attributes from a tree."""
    return b"".join(
        attribute(kind, value) if isinstance(value, bytes) else nested(kind, tree(value))
        for kind, value in data.items()
    )


def holds(data: bytes, wanted: Tree) -> bool:
    """Whether attributes contain all of a tree; the kernel may tell more than was said."""
    found = dict(attributes(data))
    for kind, value in wanted.items():
        if kind not in found:
            return False
        if not (found[kind] == value if isinstance(value, bytes) else holds(found[kind], value)):
            return False
    return True


def generic(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return struct.pack(">BBH", family, 0, resource)


def element(key: bytes, timeout_ms: int | None) -> bytes:
    """One element of a set."""
    life = b"" if timeout_ms is None else attribute(4, struct.pack(">Q", timeout_ms))
    return nested(1, nested(1, attribute(1, key)) + life)


BEGIN = message(BATCH_BEGIN, NLM_F_REQUEST, 0, generic(0, SUBSYSTEM))
END = message(BATCH_END, NLM_F_REQUEST, 0, generic(0, SUBSYSTEM))


class Batch:
    """Collects changes; `NfTables.commit` applies all or none."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, bytes]] = []
        self._all_but_last = b""

    def _add(self, kind: int, flags: int, family: int, body: bytes) -> None:
        self.changes.append((SUBSYSTEM << 8 | kind, flags, generic(family) + body))
        self._all_but_last = b""

    def encode(self, sequence: int) -> bytes:
        """The transaction; its last change is the one that is acknowledged, under this sequence number.

        The others need none of their own: an error counts whichever of them it is about.
        """
        if not self._all_but_last:
            changes = [message(kind, NLM_F_REQUEST | flags, 0, body) for kind, flags, body in self.changes[:-1]]
            self._all_but_last = b"".join([BEGIN, *changes])
        kind, flags, body = self.changes[-1]
        return self._all_but_last + message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, body) + END

    def replace_table(self, table: Table) -> None:
        """The table anew, whatever was there before (adding first makes the deletion always valid)."""
        name = text(1, table.name)
        self._add(NEWTABLE, NLM_F_CREATE, table.family, name)
        self._add(DELTABLE, 0, table.family, name)
        self._add(NEWTABLE, NLM_F_CREATE, table.family, name + attribute(2, be32(0)))
        for number, item in enumerate(table.sets, start=1):
            body = name + text(2, item.name) + attribute(3, be32(SET_TIMEOUT if item.timeout_ms else 0))
            body += attribute(4, be32(item.key_type)) + attribute(5, be32(item.key_bytes)) + attribute(10, be32(number))
            if item.timeout_ms:
                body += attribute(11, struct.pack(">Q", item.timeout_ms))
            self._add(NEWSET, NLM_F_CREATE, table.family, body)
        for chain in table.chains:
            self._add(NEWCHAIN, NLM_F_CREATE, table.family, name + chain_body(chain))
            for rule in chain.rules:
                self._add(
                    NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table.family, name + text(2, chain.name) + rule_body(rule)
                )

    def delete_table(self, family: int, name: str) -> None:
        """Delete it if it is there."""
        self._add(NEWTABLE, NLM_F_CREATE, family, text(1, name))
        self._add(DELTABLE, 0, family, text(1, name))

    def add_elements(self, family: int, table: str, name: str, keys: list[bytes], timeout_ms: int | None) -> None:
        """Add keys; those that are there stay."""
        self._elements(NEWSETELEM, NLM_F_CREATE, family, table, name, keys, timeout_ms)

    def renew_elements(self, family: int, table: str, name: str, keys: list[bytes], timeout_ms: int) -> None:
        """Add keys, or give those that are there this much life from now on.

        Kernels before 6.12 do not renew what is there: it is added, deleted and added again, in one transaction.
        """
        place = text(1, table) + text(2, name)
        alive = place + nested(3, b"".join(element(key, timeout_ms) for key in keys))
        self._add(NEWSETELEM, NLM_F_CREATE, family, alive)
        self._add(DELSETELEM, 0, family, place + nested(3, b"".join(element(key, None) for key in keys)))
        self._add(NEWSETELEM, NLM_F_CREATE, family, alive)

    def delete_elements(self, family: int, table: str, name: str, keys: list[bytes]) -> None:
        """Delete keys that are there."""
        self._elements(DELSETELEM, 0, family, table, name, keys, None)

    def _elements(
        self, kind: int, flags: int, family: int, table: str, name: str, keys: list[bytes], timeout_ms: int | None
    ) -> None:
        listed = b"".join(element(key, timeout_ms) for key in keys)
        self._add(kind, flags, family, text(1, table) + text(2, name) + nested(3, listed))


def chain_body(chain: Chain) -> bytes:
    """Name, hook, policy and type of a base chain."""
    hook = attribute(1, be32(chain.hook)) + attribute(2, be32(chain.priority))
    return text(3, chain.name) + nested(4, hook) + attribute(5, be32(ACCEPT)) + text(7, "filter")


def rule_body(rule: tuple[Expression, ...]) -> bytes:
    """The expressions of a rule."""
    listed = b"".join(nested(1, text(1, item.name) + nested(2, tree(item.data))) for item in rule)
    return nested(4, listed)


def same_rule(data: bytes, rule: tuple[Expression, ...]) -> bool:
    """Whether the kernel's rule consists of exactly these expressions."""
    found = [dict(attributes(item)) for _, item in attributes(dict(attributes(data)).get(4, b""))]
    return len(found) == len(rule) and all(
        have.get(1, b"").rstrip(b"\0").decode() == want.name and holds(have.get(2, b""), want.data)
        for have, want in zip(found, rule, strict=True)
    )


class NfTables:
    """The request socket."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self.port = self._netlink.port

    def commit(self, batch: Batch, what: str) -> None:
        """Apply a batch; every error of it is a `KernelRefusal`, and so is a missing acknowledgement."""
        sequence = self._netlink.next_sequence()
        for _ in self._netlink.available():
            pass  # what an earlier, failed batch may have left
        self._netlink.send(batch.encode(sequence), what)
        self._collect(sequence, what)

    def _collect(self, acknowledged: int, what: str) -> None:
        """The kernel has queued all its replies before `send` returned."""
        seen = False
        for data in self._netlink.available():
            for reply in messages(data):
                if reply.kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", reply.body)[0]
                    if code:
                        raise KernelRefusal(what, code)
                    seen = seen or reply.sequence == acknowledged
        if not seen:
            raise KernelRefusal(f"{what}: not acknowledged", errno.EIO)

    def ask(self, kind: int, family: int, body: bytes, dump: bool, what: str) -> list[bytes]:
        """Attributes of each answer."""
        answers = self._netlink.ask(SUBSYSTEM << 8 | kind, NLM_F_DUMP if dump else 0, generic(family) + body, what)
        return [item.body[4:] for item in answers]

    def generation(self) -> int:
        """Changes with every transaction of anybody."""
        return int.from_bytes(dict(attributes(self.ask(GETGEN, 0, b"", False, "nftables generation")[0]))[1], "big")

    def elements(self, family: int, table: str, name: str) -> dict[bytes, int | None]:
        """Key to what is left of its life, ms; None if it stays for ever."""
        found: dict[bytes, int | None] = {}
        for body in self.ask(GETSETELEM, family, text(1, table) + text(2, name), True, f"set {name}"):
            for _, item in attributes(dict(attributes(body)).get(3, b"")):
                parts = dict(attributes(item))
                left = parts.get(5)
                found[dict(attributes(parts[1]))[1]] = None if left is None else int.from_bytes(left, "big")
        return found

    def fault(self, table: Table) -> str:
        """What distinguishes the kernel's table from `table`, elements aside; empty if nothing does."""
        try:
            return self._fault(table)
        except KernelRefusal as refusal:
            if refusal.code != errno.ENOENT:
                raise
            return f"{refusal}"

    def _fault(self, table: Table) -> str:
        name = text(1, table.name)
        flags = dict(attributes(self.ask(GETTABLE, table.family, name, False, f"table {table.name}")[0])).get(2)
        if flags is not None and int.from_bytes(flags, "big") & 1:
            return f"table {table.name} is dormant"
        for item in table.sets:
            found = dict(attributes(self.ask(GETSET, table.family, name + text(2, item.name), False, item.name)[0]))
            wanted = be32(SET_TIMEOUT if item.timeout_ms else 0)
            if found.get(3, be32(0)) != wanted or found.get(5) != be32(item.key_bytes):
                return f"set {item.name} is of another kind"
        for chain in table.chains:
            what = f"chain {chain.name}"
            body = self.ask(GETCHAIN, table.family, name + text(3, chain.name), False, what)[0]
            shape: Tree = {4: {1: be32(chain.hook), 2: be32(chain.priority)}, 5: be32(ACCEPT), 7: b"filter\0"}
            if not holds(body, shape):
                return f"{what} is of another kind"
            rules = self.ask(GETRULE, table.family, name + text(2, chain.name), True, what)
            if len(rules) != len(chain.rules) or not all(map(same_rule, rules, chain.rules)):
                return f"{what} has other rules"
        return ""

    def close(self) -> None:
        """Give the descriptor back."""
        self._netlink.close()


class NfEvents:
    """Tells when somebody else changed a table of ours, and who. `own_port` is that of our own changes."""

    def __init__(self, own_port: int) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self._own_port = own_port
        self.fd = self._netlink.fd
        try:
            self._netlink.ignore(own_port)
            self._netlink.join(EVENT_GROUP)
        except KernelRefusal:
            self._netlink.close()
            raise

    def strangers(self, table: str) -> list[str]:
        """Names of those who changed the table of that name, or lost events."""
        mark, found, touched = text(1, table), [], False
        try:
            for data in self._netlink.available():
                for item in messages(data):
                    if item.port == self._own_port or item.kind >> 8 != SUBSYSTEM:
                        continue
                    if item.kind & 0xFF != NEWGEN:
                        touched = touched or item.body[4 : 4 + len(mark)] == mark
                    elif touched:
                        found.append(author(item))
                        touched = False
        except KernelRefusal:
            found.append("unknown (too many events at once)")
        return [*found, "unknown"] if touched else found

    def close(self) -> None:
        """Give the descriptor back."""
        self._netlink.close()


def author(item: Message) -> str:
    """Program and process id in a NEWGEN event."""
    found = dict(attributes(item.body[4:]))
    name = found.get(3, b"?").rstrip(b"\0").decode(errors="replace")
    return f"{name} (process {int.from_bytes(found.get(2, b''), 'big')})"
