"""The settings of the file that must agree between nodes.

Everything is compared unless `LOCAL` names it, so that a setting which is added later is compared too. It tells what is
in the file; whether that is right is the business of `config`. The key of the cluster is proved by the transport.
"""

from __future__ import annotations

from typing import Any

import pgvigil
from pgvigil.watchdog.config import schema
from pgvigil.watchdog.config.reader import Draft, NodeDraft
from pgvigil.watchdog.drift.facts import NOT_SET, shown

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
