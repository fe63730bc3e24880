"""From untyped tables to sections whose values have their kind.

Each value is checked alone against `schema`; a wrong one becomes a problem and is absent from its section, so that
the rules which need it stay silent instead of telling the same mistake twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pgvigil.watchdog.config import schema
from pgvigil.watchdog.config.kinds import Wrong, type_name
from pgvigil.watchdog.config.problems import Problems, did_you_mean, show
from pgvigil.watchdog.config.schema import Key
from pgvigil.watchdog.config.source import Location


@dataclass(slots=True)
class Section:
    """One table. `values` holds what is right, defaults included; `given` what stands in the file."""

    location: Location
    values: dict[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def get(self, key: str) -> Any:
        """The value; None where there is none, or a wrong one."""
        return self.values.get(key)

    def at(self, key: str, *more: str | int) -> Location:
        """Where a key stands."""
        return (*self.location, key, *more)

    def whole(self, *keys: str) -> bool:
        """Whether all these have a right value."""
        return all(self.values.get(key) is not None for key in keys)


@dataclass(slots=True)
class NodeDraft:
    """One [[node]] with its paths; `paths_given` is false if the file names none."""

    section: Section
    paths: list[Section] = field(default_factory=list)
    paths_given: bool = False


@dataclass(slots=True)
class Draft:
    """The file, value by value; not yet checked against itself."""

    tables: dict[str, Section] = field(default_factory=dict)
    nodes: list[NodeDraft] = field(default_factory=list)
    commands: dict[str, Section] = field(default_factory=dict)

    def __getitem__(self, table: str) -> Section:
        return self.tables[table]


def read_draft(problems: Problems) -> Draft:
    """Read every table of the source."""
    top = problems.source.tables
    _unknown(problems, (), top, schema.TOP_LEVEL, "table")
    for name in schema.REQUIRED_TABLES:
        if name not in top:
            problems.mistake((), f"{'[[node]]' if name == 'node' else f'[{name}]'} is missing", "see conf/pgvigil.toml")
    draft = Draft()
    for name, keys in schema.TABLES.items():
        value = top.get(name, {})
        quiet = name not in top
        draft.tables[name] = _section(problems, (name,), value, keys, quiet=quiet)
    draft.nodes = _nodes(problems, top.get("node", []))
    draft.commands = _commands(problems, top.get("commands", {}))
    return draft


def _section(
    problems: Problems, location: Location, value: object, keys: tuple[Key, ...], *, quiet: bool = False,
    also: tuple[str, ...] = (),
) -> Section:  # fmt: skip
    """Check one table; `quiet` for a table that is not in the file, `also` names keys that others read."""
    section = Section(location)
    if not isinstance(value, dict):
        problems.mistake(location, f"is {type_name(value)}", "expected a table")
        return section
    section.given = frozenset(value)
    _unknown(problems, location, value, (*(key.name for key in keys), *also), "key")
    for key in keys:
        if key.name in value:
            _given(problems, section, key, value[key.name])
        elif key.default is schema.REQUIRED:
            if not quiet:
                problems.mistake(location, f"{key.name} is missing", key.kind.expected)
        elif key.default is not schema.DERIVED:
            section.values[key.name] = key.default
    return section


def _given(problems: Problems, section: Section, key: Key, value: object) -> None:
    if key.later:
        problems.mistake(section.at(key.name), "is not in this version", "remove it")
        return
    try:
        section.values[key.name] = key.kind.read(value)
    except Wrong as wrong:
        problems.mistake(section.at(key.name), wrong.wrong, wrong.expected)


def _unknown(problems: Problems, location: Location, value: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for name in value:
        if name not in known:
            hint = did_you_mean(name, known)
            expected = "expected one of " + ", ".join(known) if not hint else f"remove or correct it{hint}"
            problems.mistake((*location, name), f"unknown {what} {show(name)}", expected)


def _tables(problems: Problems, location: Location, value: object, limit: int, header: str) -> list[object]:
    """The entries of an array of tables."""
    if not isinstance(value, list):
        problems.mistake(location, f"is {type_name(value)}", f"expected {header}, with double brackets")
        return []
    if len(value) > limit:
        problems.mistake(location, f"has {len(value)} entries", f"expected at most {limit}")
    return value[:limit]


def _nodes(problems: Problems, value: object) -> list[NodeDraft]:
    nodes: list[NodeDraft] = []
    for index, entry in enumerate(_tables(problems, ("node",), value, schema.MAX_NODES, "[[node]]")):
        location: Location = ("node", index)
        section = _section(problems, location, entry, schema.NODE, also=("path",))
        node = NodeDraft(section)
        if isinstance(entry, dict) and "path" in entry:
            paths = _tables(problems, (*location, "path"), entry["path"], schema.MAX_PATHS, "[[node.path]]")
            node.paths = [
                _section(problems, (*location, "path", number), path, schema.PATH) for number, path in enumerate(paths)
            ]
            node.paths_given = True
        nodes.append(node)
    return nodes


def _commands(problems: Problems, value: object) -> dict[str, Section]:
    if not isinstance(value, dict):
        problems.mistake(("commands",), f"is {type_name(value)}", "expected a table")
        return {}
    _unknown(problems, ("commands",), value, schema.COMMAND_NAMES, "command")
    return {
        name: _section(problems, ("commands", name), value[name], schema.COMMAND_ENTRY)
        for name in schema.COMMAND_NAMES
        if name in value
    }
