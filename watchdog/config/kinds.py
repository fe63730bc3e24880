"""The kinds of value that a setting may have, each with the sentence that says what is expected.

A kind checks one value alone. What depends on two values, on this machine or on other nodes is a rule and stands
in `rules`. A kind returns the value in one normal form (addresses as the library prints them).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgvigil.watchdog.config.problems import did_you_mean

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_INTERFACE = re.compile(r"[^\s/:\x00-\x1f]{1,15}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
MAX_TEXT = 4000


class Wrong(Exception):
    """A value that is not of its kind: what is wrong, what is expected."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.expected = expected


Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` returns the normal form or raises `Wrong`; `expected` goes into the reference."""

    read: Read
    expected: str


def type_name(value: object) -> str:
    """The TOML name of a value's type, with its article."""
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "text", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _text(value: Any, expected: str) -> str:
    if type(value) is not str:
        raise Wrong(f"is {type_name(value)}", expected)
    if len(value) > MAX_TEXT or "\0" in value:
        raise Wrong(f"is longer than {MAX_TEXT} letters or holds a NUL", expected)
    return value


def integer(low: int, high: int, unit: str = "") -> Kind:
    """A whole number within limits; `unit` is shown after them."""
    expected = f"expected an integer of {low} to {high}{' ' + unit if unit else ''}"

    def read(value: Any) -> int:
        if type(value) is not int:
            raise Wrong(f"is {type_name(value)}", expected)
        if not low <= value <= high:
            raise Wrong(f"is {'below' if value < low else 'above'} the limit", expected)
        return value

    return Kind(read, expected)


def boolean() -> Kind:
    """true or false, without quotes."""
    expected = "expected true or false"

    def read(value: Any) -> bool:
        if type(value) is not bool:
            raise Wrong(f"is {type_name(value)}", expected)
        return value

    return Kind(read, expected)


def choice(*values: str, later: tuple[str, ...] = ()) -> Kind:
    """One of some words; those in `later` are known but not in this version."""
    expected = "expected " + " or ".join(f'"{value}"' for value in values)

    def read(value: Any) -> str:
        text = _text(value, expected)
        if text in later:
            raise Wrong(f"'{text}' is not in this version", expected)
        if text not in values:
            raise Wrong("is not known", expected + did_you_mean(text, values))
        return text

    return Kind(read, expected)


def text(expected: str, may_be_empty: bool = False) -> Kind:
    """Free text."""

    def read(value: Any) -> str:
        found = _text(value, expected)
        if not found.strip() and not may_be_empty:
            raise Wrong("is empty", expected)
        return found

    return Kind(read, expected)


def matching(pattern: re.Pattern[str], expected: str) -> Kind:
    """Text that fits a pattern as a whole."""

    def read(value: Any) -> str:
        found = _text(value, expected)
        if not pattern.fullmatch(found):
            raise Wrong("is empty" if not found else "is not valid here", expected)
        return found

    return Kind(read, expected)


def name() -> Kind:
    """A cluster's name."""
    return matching(_NAME, "expected up to 63 letters, digits, dots, dashes, underscores")


def interface() -> Kind:
    """A network interface, or "auto"."""
    return matching(_INTERFACE, 'expected the name of a network interface such as "eth0"')


def host() -> Kind:
    """A host name or an IP address; addresses in normal form."""
    expected = "expected a host name or an IP address"

    def read(value: Any) -> str:
        found = _text(value, expected)
        literal = ip_literal(found)
        if literal is not None:
            return literal
        if len(found) > 253 or not _HOST.fullmatch(found):
            raise Wrong("is empty" if not found else "is neither a host name nor an address", expected)
        if re.fullmatch(r"[0-9.]+", found):
            raise Wrong("looks like an IPv4 address but is none", expected)
        return found

    return Kind(read, expected)


def ip_literal(value: str) -> str | None:
    """The normal form of an IP address, or None."""
    try:
        return None if "%" in value else str(ipaddress.ip_address(value))
    except ValueError:
        return None


def address() -> Kind:
    """An address that a node can bind."""
    expected = "expected an IPv4 or IPv6 address of the node, not a name"

    def read(value: Any) -> str:
        literal = ip_literal(_text(value, expected))
        if literal is None:
            raise Wrong("is not an IP address", expected)
        _usable(literal, expected)
        return literal

    return Kind(read, expected)


def upstream() -> Kind:
    """An address to ping, or an address and a TCP port to connect to."""
    expected = 'expected "10.0.0.254" to ping, or "10.0.0.254:443" ("[fd00::1]:443") to connect to'

    def read(value: Any) -> str:
        found = _text(value, expected)
        literal = ip_literal(found)
        if literal is not None:
            _usable(literal, expected)
            return literal
        host, _, port = found.rpartition(":")
        literal = ip_literal(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if literal is None or (":" in literal) != host.startswith("["):
            raise Wrong("is neither an IP address nor one with a port", expected)
        if not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65535:
            raise Wrong(f"'{port[:20]}' is not a port of 1 to 65535", expected)
        _usable(literal, expected)
        return f"[{literal}]:{int(port)}" if ":" in literal else f"{literal}:{int(port)}"

    return Kind(read, expected)


def vip() -> Kind:
    """An address with its prefix length, as "address/prefix"."""
    expected = 'expected address/prefix such as "10.0.0.100/24" or "fd00::100/64"'

    def read(value: Any) -> str:
        found = _text(value, expected)
        before, slash, prefix = found.partition("/")
        literal = ip_literal(before)
        if literal is None:
            raise Wrong(f"'{before[:60]}' is not an IP address", expected)
        limit = ipaddress.ip_address(literal).max_prefixlen
        if not slash:
            raise Wrong("has no prefix length", expected)
        if not prefix.isascii() or not prefix.isdigit() or len(prefix) > 3 or not 1 <= int(prefix) <= limit:
            raise Wrong(f"'/{prefix[:20]}' is not a prefix length of 1 to {limit}", expected)
        _usable(literal, expected)
        _inside(literal, int(prefix), expected)
        return f"{literal}/{int(prefix)}"

    return Kind(read, expected)


def _usable(literal: str, expected: str) -> None:
    parsed = ipaddress.ip_address(literal)
    if parsed.is_multicast or parsed.is_unspecified or literal == "255.255.255.255":
        raise Wrong("is not the address of one host", expected)


def _inside(literal: str, prefix: int, expected: str) -> None:
    """Neither the network's own address nor its broadcast address (RFC 3021 allows both in /31)."""
    network = ipaddress.ip_network(f"{literal}/{prefix}", strict=False)
    parsed = ipaddress.ip_address(literal)
    if parsed.version == 4 and prefix < 31 and parsed in (network.network_address, network.broadcast_address):
        raise Wrong(f"is the network or broadcast address of {network}", expected)


def absolute_path(expected: str) -> Kind:
    """A path from the root."""

    def read(value: Any) -> str:
        found = _text(value, expected)
        if not found.startswith("/"):
            raise Wrong("is empty" if not found else "is not an absolute path", expected)
        return found.rstrip("/") or "/"

    return Kind(read, expected)


def log_target() -> Kind:
    """Where the log goes."""
    expected = 'expected "stderr", "syslog" or "file:/absolute/path"'

    def read(value: Any) -> str:
        found = _text(value, expected)
        if found not in ("stderr", "syslog") and not found.startswith("file:/"):
            raise Wrong("is not known", expected + did_you_mean(found, ("stderr", "syslog")))
        return found

    return Kind(read, expected)


def many(item: Kind, limit: int) -> Kind:
    """A list of one kind."""
    expected = item.expected.replace("expected ", "expected a list, each item ", 1)

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Wrong(f"is {type_name(value)}", expected)
        if len(value) > limit:
            raise Wrong(f"has {len(value)} items", f"expected at most {limit}")
        return tuple(item.read(entry) for entry in value)

    return Kind(read, expected)
