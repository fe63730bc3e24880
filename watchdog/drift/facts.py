"""The settings of this node that must agree with the other nodes', as texts under their keys.

Everything of the file is compared unless `LOCAL` names it, so that a setting which is added later is compared too. What
is local to a node, and every secret, stays here: the key of the cluster is proved by the transport, and a password
inside a command is masked. The facts tell what is in the file; whether it is right is the business of `config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pgvigil
from pgvigil.ipc.hashing import blake2b
from pgvigil.watchdog.config import schema

if TYPE_CHECKING:
    from pgvigil.watchdog.config.reader import Draft, NodeDraft

Facts = Mapping[str, str]

DIGEST_BYTES = 16
MAX_TEXT_BYTES = 160
"""Of a value as it is compared and shown. Longer ones end in their length and hash."""
HEAD_BYTES = 100
NOT_SET = "not set"

LOCAL: dict[str, frozenset[str]] = {
    "cluster": frozenset({"authkey_file"}),
    "heartbeat": frozenset(),
    "vip": frozenset({"interface"}),
    "lifecheck": frozenset({"query_password_file", "interfaces"}),
    "pgpool": frozenset({"pid_file", "pcp_password_file", "watchdog_socket_dir", "watchdog_authkey_file"}),
    "failover": frozenset(),
    "process": frozenset(key.name for key in schema.PROCESS),
    "status": frozenset(key.name for key in schema.STATUS),
}
"""Paths, names of interfaces, and what a node does with its own log: they may differ from machine to machine."""

UNORDERED = frozenset({"vip.addresses", "lifecheck.methods", "lifecheck.upstream_servers"})

# FATAL_SCHEME changes with these two: nodes that mean different things by "fatal" must not count each other's digests.
FATAL_SCHEME = 1
_FATAL = re.compile(r"cluster\.name|nodes|vip\.addresses|node\.[0-9]+\.(host|port|role|paths)")

_WORD = r"(?:\"[^\"]*\"|'[^']*'|[^\s\"';&|]+)"
_SECRET_NAME = r"[\w-]*(?:password|passwd|passphrase|pwd|secret|token|authkey|api[_-]?key)"
# They begin at the beginning of a word only, so that their time is linear in the length of a text.
_ASSIGNED = re.compile(rf"(?i)(?<![\w-])({_SECRET_NAME}\s*[=:]\s*){_WORD}")
_OPTION = re.compile(rf"(?i)(?<![\w-])(--{_SECRET_NAME}\s+){_WORD}")
_IN_URI = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def is_fatal(key: str) -> bool:
    """Whether a node that differs in this must not lead: it would carry another address, or count other voters."""
    return _FATAL.fullmatch(key) is not None


def of_file(draft: Draft) -> dict[str, str]:
    """The facts of a configuration without mistakes."""
    found: dict[str, object] = {"pgvigil.version": pgvigil.__version__}
    for table, section in draft.tables.items():
        local = LOCAL.get(table, frozenset())
        names = (key.name for key in schema.TABLES[table] if not key.later and key.name not in local)
        found.update({f"{table}.{name}": section.get(name) for name in names})
    for name in schema.COMMAND_NAMES:
        command = draft.commands.get(name)
        found[f"commands.{name}.run"] = None if command is None else command.get("run")
        if command is not None:
            found[f"commands.{name}.timeout_s"] = command.get("timeout_s")
            found[f"commands.{name}.policy"] = command.get("policy")
    found["nodes"] = " ".join(map(str, sorted(node.section.get("id") for node in draft.nodes)))
    for node in draft.nodes:
        found.update(_of_node(node))
    return {key: _text(key, found[key]) for key in sorted(found)}


def _of_node(node: NodeDraft) -> dict[str, object]:
    """One [[node]]; the interfaces of its paths are its own affair."""
    section = node.section
    found = {key.name: section.get(key.name) for key in schema.NODE if key.name != "id"}
    if found["pgpool_host"] is None and found["role"] != "witness":
        found["pgpool_host"] = found["host"]
    # In the order of the file, because the first path talks to the first path.
    found["paths"] = " ".join(_endpoint(path.get("address"), path.get("port")) for path in node.paths)
    return {f"node.{section.get('id')}.{name}": value for name, value in found.items()}


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _text(key: str, value: Any) -> str:
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        value = " ".join(sorted(map(str, value)) if key in UNORDERED else map(str, value)) or "none"
    return shown(str(value))


def shown(text: str) -> str:
    """A value in one printable line of bounded length, without passwords.

    What cannot be shown as it is gets its hash, so that unequal values stay unequal.
    """
    text = masked(text)
    if not text:
        return '""'
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    data = line.encode()
    if line == text and len(data) <= MAX_TEXT_BYTES:
        return line
    head = line if len(data) <= HEAD_BYTES else data[:HEAD_BYTES].decode(errors="ignore") + "..."
    name = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{head} ({len(text)} letters, hash {name})"


def masked(text: str) -> str:
    """A command or connection string with three stars for every password that can be recognised."""
    text = _IN_URI.sub(r"\1***@", text)
    return _OPTION.sub(r"\1***", _ASSIGNED.sub(r"\1***", text))


def digest(facts: Facts) -> bytes:
    """16 bytes that are equal for equal facts."""
    return _digest((key, facts[key]) for key in sorted(facts))


def fatal_digest(facts: Facts) -> bytes:
    """The same over the facts that keep a node out."""
    return _digest((key, facts[key]) for key in sorted(facts) if is_fatal(key))


def _digest(items: Iterable[tuple[str, str]]) -> bytes:
    made = blake2b(digest_size=DIGEST_BYTES, person=b"pgvigil-drift")
    for item in items:
        for part in item:
            data = part.encode()
            made.update(len(data).to_bytes(4, "big") + data)
    return made.digest()
