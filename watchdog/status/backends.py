"""The backends for status: what is agreed on, and what each node's pgpool-II makes of it.

Says how old every view is, and why this node's own is missing. Reads everything, changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core.messages import SeenBackend
from pgvigil.watchdog.core.record import Backend, Document
from pgvigil.watchdog.pools.opening import NOT_WATCHED

if TYPE_CHECKING:
    from pgvigil.watchdog.pools.driver import OwnView
    from pgvigil.watchdog.process import Main

Row = dict[str, object]


def backends(main: Main, now_ns: int) -> Row:
    """`backends` are those of the newest stored document, or this pgpool-II's own where nothing is agreed yet."""
    own, document = main.pools.own(), main.core.document
    agreed = main.core.agreed_at(now_ns)
    return {
        "agreed": agreed is not None and bool(agreed.backends),
        "decided": 0 if document is None else document.decided,
        "backends": [] if document is None else [_agreed(main, own, one, now_ns) for one in document.backends],
        "decisions": [] if document is None else _decisions(document),
        "own": _own(own, now_ns),
    }


def _agreed(main: Main, own: OwnView | None, backend: Backend, now_ns: int) -> Row:
    return {
        "id": backend.backend_id,
        "host": backend.host,
        "port": backend.port,
        "status": backend.status.value,
        "role": backend.role.value,
        "reason": backend.reason,
        "decision": backend.decision,
        "pools": _pools(main, own, backend.backend_id, now_ns),
    }


def _pools(main: Main, own: OwnView | None, backend_id: int, now_ns: int) -> list[Row]:
    """One row for each pgpool-II that is known to have it, this node's own among them."""
    rows: list[Row] = []
    for node in main.settings.nodes:
        row = _own_row(own, backend_id, now_ns) if own is not None and node.id == main.core.me else None
        if row is not None:
            rows.append({"node": node.id, "label": node.host, **row})
    return rows


def _own_row(own: OwnView, backend_id: int, now_ns: int) -> Row | None:
    seen = next((one for one in own.seen if one.backend_id == backend_id), None)
    if own.view is None or seen is None:
        return None
    here = own.view.backend(backend_id)
    return seen_row(seen, here is not None and here.quarantined, now_ns - own.view.at_ns)


def seen_row(seen: SeenBackend, quarantined: bool | None, age_ns: int) -> Row:
    """A backend as one pgpool-II has it; `quarantined` by pgpool-II's own watchdog, None if that is not known."""
    return {
        "status": seen.status.value,
        "role": seen.role.value,
        "quarantined": quarantined,
        "failed": seen.failed,
        "age_ms": max(0, age_ns // NS_PER_MS),
    }


def _decisions(document: Document) -> list[Row]:
    return [
        {
            "number": one.number,
            "kind": one.kind.value,
            "backend": one.backend_id,
            "operator": one.operator,
            "by": one.by,
            "reason": one.reason,
            "commands": [
                {"name": intent.name, "state": intent.state, "detail": intent.detail}
                for intent in document.intents
                if intent.event == f"decision {one.number}" or intent.event.startswith(f"decision {one.number} ")
            ],
        }
        for one in document.decisions
    ]


def _own(own: OwnView | None, now_ns: int) -> Row:
    """What this node's pgpool-II says, and what stands against it."""
    if own is None:
        return {"watched": False, "problem": NOT_WATCHED, "obstacle": "", "differences": [], "backends": []}
    rows: list[Row] = []
    for seen in own.seen:
        here = None if own.view is None else own.view.backend(seen.backend_id)
        age_ns = 0 if own.view is None else now_ns - own.view.at_ns
        row = seen_row(seen, None if here is None else here.quarantined, age_ns)
        rows.append({"id": seen.backend_id, "host": seen.host, "port": seen.port, **row})
    return {
        "watched": True,
        "problem": own.problem,
        "obstacle": own.obstacle,
        "differences": list(own.troubles),
        "backends": rows,
    }
