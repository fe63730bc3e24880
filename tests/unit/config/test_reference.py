"""The reference names every setting and every command, with the defaults that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from pgvigil.watchdog.cli import codes
from pgvigil.watchdog.cli.parser import COMMANDS, GLOBAL
from pgvigil.watchdog.config import schema

DOCS = Path(__file__).parents[3] / "docs"


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, heading
    return match[1]


def test_every_setting_stands_in_the_reference_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    headings = {"node": "[[node]]", "node.path": "[[node.path]]", "commands.*": "[commands]"}
    for table, keys in schema.ALL.items():
        part = section(text, headings.get(table, f"[{table}]"))
        for key in keys:
            if key.later:
                assert key.name.partition("_")[0] in part
                continue
            row = re.search(rf"^\| `{key.name}` \| ([^|]+) \|", part, re.MULTILINE)
            assert row is not None, f"{table}.{key.name}"
            if isinstance(key.default, bool | int | str):
                assert row[1].strip("`\"'").lower() == str(key.default).lower(), f"{table}.{key.name}"


def test_every_command_option_and_exit_code_stands_in_the_reference() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        part = section(text, f"pgvigil {command.name}")
        for argument in command.arguments:
            for name in argument.names:
                assert not name.startswith("-") or f"{name}" in part, f"{command.name} {name}"
    for argument in GLOBAL:
        assert all(name in text for name in argument.names)
    for code in codes.MEANINGS:
        assert f"\n| {code} | " in text
