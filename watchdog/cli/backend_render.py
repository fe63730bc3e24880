"""Backends as text: a table on a terminal, cells between tabs in a pipe. Pure: JSON in, text out.

Shows what was agreed beside what each pgpool-II says, because a difference is what an operator looks for.
"""

from __future__ import annotations

from typing import Any, TextIO

from pgvigil.watchdog.backend_names import address
from pgvigil.watchdog.cli import render
from pgvigil.watchdog.cli.pcp_render import cell

HEAD = ("ID", "BACKEND", "AGREED", "ROLE", "POOLS AGREE", "SEEN AS", "DECISION", "REASON")
OLD_MS = 5000
UP = ("up", "waiting")


def page(value: dict[str, Any], stream: TextIO) -> str:
    """The whole answer, for this stream."""
    rows = [row(one) for one in _dicts(value, "backends")]
    if not stream.isatty():
        return "\n".join("\t".join(cells) for cells in rows)
    return "\n".join(lines(value, render.wants_colour(stream)))


def lines(value: dict[str, Any], colour: bool) -> list[str]:
    """The table with what an operator has to know of it; also a part of `pgvigil status`."""
    rows = [row(one) for one in _dicts(value, "backends")]
    if not rows:
        return ["backends    none agreed yet"]
    made = render.table([HEAD, *rows], colour)
    if not value.get("agreed"):
        made.append(render.paint("not known to be agreed: this node has no leader now", render.YELLOW, colour))
    for pool in _dicts(value, "pools"):
        if pool.get("problem"):
            text = f"the pgpool-II of {cell(pool.get('label'))} is not known: {cell(pool['problem'])}"
            made.append(render.paint(text, render.YELLOW, colour))
    return made


def row(backend: dict[str, Any]) -> tuple[str, ...]:
    """One backend."""
    pools = _dicts(backend, "pools")
    where = address(str(backend.get("host", "?")), backend.get("port") or 0)
    return (
        cell(backend.get("id")),
        cell(where),
        cell(backend.get("status")),
        cell(backend.get("role")),
        agreement(backend, pools),
        ", ".join(_seen(pool) for pool in pools) or render.DASH,
        cell(backend.get("decision")),
        cell(backend.get("reason")),
    )


def agreement(backend: dict[str, Any], pools: list[dict[str, Any]]) -> str:
    """Whether every pgpool-II that is known has the agreed status: yes, no, or unknown."""
    if not pools:
        return render.UNKNOWN
    agreed_up = backend.get("status") == "up"
    return "yes" if all((pool.get("status") in UP) is agreed_up for pool in pools) else "no"


def _seen(pool: dict[str, Any]) -> str:
    age_ms = pool.get("age_ms")
    if isinstance(age_ms, int) and age_ms > OLD_MS:
        return f"{cell(pool.get('label'))} {render.UNKNOWN}"
    state = "quarantined" if pool.get("quarantined") else cell(pool.get("status"))
    return f"{cell(pool.get('label'))} {state}"


def _dicts(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = value.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
