"""Answers of pgpool-II as text: an aligned table on a terminal, cells between tabs in a pipe, plain values for JSON.

A pipe has no headings and all columns; a terminal leaves out what would not fit. What pgpool-II sends must not steer
a terminal, so what cannot be printed becomes a question mark. What a version does not tell is a dash.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Sequence
from typing import Any, TextIO

from pgvigil.watchdog.cli import render
from pgvigil.watchdog.pcp.records import HealthStats, NodeInfo, Parameter, ProcessInfo, WatchdogInfo

DASH = "-"
QUORUM = {1: "exists", 0: "on the edge", -1: "absent", -2: "no leader"}
UPRIGHT = ("health-stats",)
"""Shown on a terminal with a line per column."""
TOO_WIDE = frozenset(
    ("STARTED AT", "BACKEND CONNECTED AT", "CLIENT CONNECTED AT", "CLIENT DISCONNECTED AT", "PROTOCOL MAJOR",
     "PROTOCOL MINOR", "LOAD BALANCE NODE", "CLIENT IDLE")
)  # fmt: skip

NEWEST = frozenset(("CLIENT HOST", "CLIENT PORT", "STATEMENT"))
"""Left out on a terminal where pgpool-II does not know them yet."""

Rows = list[tuple[str, ...]]


def answer(request: str, value: Any, stream: TextIO) -> str:
    """The whole answer, for this stream."""
    head, rows, facts = _PAGES[request](value)
    if not stream.isatty():
        lines = ["\t".join(cell for _, cell in facts)] if facts else []
        return "\n".join([*lines, *("\t".join(row) for row in rows)])
    blocks = [_aligned(facts)] if facts else []
    if request in UPRIGHT:
        blocks.append(render.table(list(zip(head, *rows, strict=True)), render.wants_colour(stream), header=False))
    elif rows:
        untold = {name for name, *cells in zip(head, *rows, strict=True) if name in NEWEST and set(cells) == {DASH}}
        shown = [number for number, name in enumerate(head) if name not in TOO_WIDE | untold]
        kept = [tuple(row[number] for number in shown) for row in [head, *rows]]
        blocks.append(render.table(kept, render.wants_colour(stream)))
    return "\n\n".join("\n".join(block) for block in blocks)


def _aligned(facts: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in facts), default=0)
    return [f"{name.ljust(width)}  {cell}".rstrip() for name, cell in facts]


Page = tuple[tuple[str, ...], Rows, list[tuple[str, str]]]


def _nodes(nodes: tuple[NodeInfo, ...]) -> Page:
    head = ("ID", "HOST", "PORT", "STATUS", "PG STATUS", "WEIGHT", "ROLE", "PG ROLE", "DELAY", "REPLICATION", "SYNC",
            "SINCE")  # fmt: skip
    return head, [_node(node) for node in nodes], []


def _node(node: NodeInfo) -> tuple[str, ...]:
    delay = f"{node.delay / 1_000_000:.6f} s" if node.delay_in_time else f"{node.delay} B"
    status = node.status.name.lower() + (", quarantined" if node.quarantined else "")
    return tuple(
        map(
            cell,
            (
                node.node_id, node.host, node.port, status, node.pg_status, f"{node.weight:.6f}",
                node.role.name.lower(), node.pg_role, delay, node.replication_state, node.replication_sync_state,
                local_time(node.changed_at_s),
            ),
        )
    )  # fmt: skip


def _health(stats: tuple[HealthStats, ...]) -> Page:
    return _headings(HealthStats), [_cells(one) for one in stats], []


def _processes(slots: tuple[ProcessInfo, ...]) -> Page:
    return _headings(ProcessInfo), [_cells(slot) for slot in slots], []


def _parameters(parameters: tuple[Parameter, ...]) -> Page:
    return ("NAME", "VALUE", "DESCRIPTION"), [_cells(one) for one in parameters], []


def _watchdog(info: WatchdogInfo) -> Page:
    facts = [
        ("remote nodes", cell(info.remote_nodes)),
        ("member remote nodes", cell(info.member_remote_nodes)),
        ("alive remote nodes", cell(info.alive_remote_nodes)),
        ("needed for quorum", cell(info.needed_for_quorum)),
        ("quorum", QUORUM.get(info.quorum, str(info.quorum))),
        ("escalated here", cell(info.escalated)),
        ("leader", cell(info.leader_name)),
        ("leader host", cell(info.leader_host)),
    ]
    head = ("ID", "NODE", "HOST", "PGPOOL PORT", "WATCHDOG PORT", "PRIORITY", "STATE", "MEMBERSHIP", "DELEGATE IP")
    rows = [
        tuple(
            map(
                cell,
                (
                    node.node_id, node.name, node.host, node.pgpool_port, node.watchdog_port, node.priority,
                    node.state_name, node.membership_name, node.delegate_ip,
                ),
            )
        )
        for node in info.nodes
    ]  # fmt: skip
    return head, rows, facts


_PAGES: dict[str, Any] = {
    "node-count": lambda count: ((), [], [("backends", cell(count))]),
    "node-info": _nodes,
    "health-stats": _health,
    "pool-status": _parameters,
    "proc-count": lambda pids: (("PID",), [(cell(pid),) for pid in pids], []),
    "proc-info": _processes,
    "watchdog-info": _watchdog,
}


# --- small parts --------------------------------------------------------------------------------------------------


def _headings(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name.upper().replace("_", " ") for field in dataclasses.fields(kind))


def _cells(value: Any) -> tuple[str, ...]:
    return tuple(cell(getattr(value, field.name)) for field in dataclasses.fields(value))


def cell(value: object) -> str:
    """A value as one harmless cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return DASH if value is None or value == "" else harmless(str(value))


def harmless(text: str) -> str:
    """Text without what could steer a terminal or break a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def local_time(seconds: int) -> str:
    """An instant in this machine's time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)  # a year that no calendar of this machine knows


def plain(value: Any) -> Any:
    """A value of `records` for JSON: objects, lists, and enums as lower-case words."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return value
