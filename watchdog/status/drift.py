"""The part of the status that is about settings in which nodes differ from the leader.

It is bounded, because the whole status has to fit into one reply: what keeps a node out is told first.
"""

from __future__ import annotations

import json

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.drift.compare import Difference
from pgvigil.watchdog.drift.exchange import Exchange
from pgvigil.watchdog.settings import Settings

MAX_JSON_BYTES = 8192


def section(exchange: Exchange, settings: Settings, now_ns: int) -> dict[str, object]:
    """`drift`: a row for each difference, of this node and of the others as they told it.

    `drift_untold` is how many there are besides. "here" in a row is the value of the row's own node.
    """
    reports = exchange.reports(now_ns)
    own = [_row(settings, settings.node_id, one, exchange.since_ns(one), now_ns) for one in exchange.found]
    others = [_row(settings, node, one, None, now_ns) for node in sorted(reports) for one in reports[node].told]
    rows = sorted(own + others, key=lambda row: not row["fatal"])
    told: list[dict[str, object]] = []
    room = MAX_JSON_BYTES
    for row in rows:
        room -= len(json.dumps(row))
        if room < 0:
            break
        told.append(row)
    known = len(own) + sum(state.differing for state in reports.values())
    return {"drift": told, "drift_untold": known - len(told)}


def _row(settings: Settings, node: int, one: Difference, since_ns: int | None, now_ns: int) -> dict[str, object]:
    return {
        "node": node,
        "label": settings.label(node),
        "key": one.key,
        "here": one.here,
        "leader": one.leader,
        "fatal": one.fatal,
        "since_ms": None if since_ns is None else (now_ns - since_ns) // NS_PER_MS,
    }
