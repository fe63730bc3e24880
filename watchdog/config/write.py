"""The configuration in its normal form: every setting written out, defaults included.

`toml` writes and tomllib reads back, because `toml` escapes some strings in ways that mean something else; text
that does not come back equal is refused, never printed. The secret is not part of the file, so it cannot leak here.
"""

from __future__ import annotations

import tomllib
from typing import Any

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.config import schema
from pgvigil.watchdog.config.reader import Draft, NodeDraft, Section


def normal_tables(draft: Draft) -> dict[str, Any]:
    """The tables of a draft without mistakes, in the order of the reference."""
    tables: dict[str, Any] = {"cluster": _plain(draft["cluster"]), "node": [_node(node) for node in draft.nodes]}
    for name in schema.TOP_LEVEL:
        if name in draft.tables and draft[name].values:
            tables[name] = _plain(draft[name])
    if draft.commands:
        tables["commands"] = {name: _plain(section) for name, section in draft.commands.items()}
    return tables


def to_toml(tables: dict[str, Any]) -> str:
    """TOML text that tomllib reads back as equal tables, or `CommandError`."""
    import toml

    try:
        # One table at a time, because `toml` would write all [[node]] before [cluster].
        text = "\n".join(toml.dumps({name: table}) for name, table in tables.items())
        same = tomllib.loads(text) == tables
    except (ValueError, RecursionError, IndexError):
        same = False
    if not same:
        raise CommandError("the toml library cannot write these values faithfully; look for control characters")
    return text


def _plain(section: Section) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in section.values.items()}


def _node(node: NodeDraft) -> dict[str, Any]:
    return {**_plain(node.section), "path": [_plain(path) for path in node.paths]}
