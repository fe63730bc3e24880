"""Whatever the file holds, reading it ends in settings or in a report."""

from __future__ import annotations

import string
import tomllib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.config.helpers import CLUSTER, GOOD, MACHINE, outcome

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.config import schema, source
from pgvigil.watchdog.config.load import examine
from pgvigil.watchdog.config.write import normal_tables, to_toml

WORDS = sorted({key.name for keys in schema.ALL.values() for key in keys} | set(schema.TOP_LEVEL) | {"path", "x"})
SCALARS = st.one_of(
    st.integers(-5, 70_000), st.booleans(), st.floats(), st.dates(),
    st.text(string.ascii_letters + string.digits + ":/.$_#\"'[]é\n ", max_size=12),
    st.sampled_from(["10.0.0.1", "10.0.0.9/24", "member", "witness", "heartbeat", "netlink", "eth0", "fd00::1", "pg"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)),
    max_leaves=12,
)


def settles(data: bytes) -> None:
    result = examine("fuzz.toml", 1, MACHINE, environment={}, data=data)
    assert (result.settings is None) == bool(result.mistakes)
    for problem in (*result.mistakes, *result.warnings):
        text = str(problem)
        assert text.startswith("fuzz.toml")
        assert "\n" not in text
        assert problem.wrong and problem.expected


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"\r")
def test_random_bytes(data: bytes) -> None:
    settles(data)


@given(st.text("[]{}=\"'#\\\n\r .,abc1", max_size=60))
def test_random_toml_letters(text: str) -> None:
    settles(text.encode())


@given(st.integers(0, len(GOOD)), st.text(max_size=6), st.integers(0, 20))
def test_a_damaged_good_file(position: int, inserted: str, removed: int) -> None:
    settles((GOOD[:position] + inserted + GOOD[position + removed :]).encode("utf-8", errors="replace"))


def as_toml(value: Any) -> str:
    """Inline TOML of a value; hypothesis needs no pretty file."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=8))
def test_random_tables_of_known_and_unknown_keys(tables: dict[str, Any]) -> None:
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in tables.items())
    tomllib.loads(text)
    settles(text.encode())


@settings(max_examples=200)
@given(st.sampled_from(sorted(schema.TABLES)), st.data())
def test_random_values_for_each_key(table: str, data: st.DataObject) -> None:
    keys = [key.name for key in schema.TABLES[table]]
    chosen = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=4))
    lines = "\n".join(f"{key} = {as_toml(value)}" for key, value in chosen.items())
    base = GOOD.removeprefix(CLUSTER) if table == "cluster" else GOOD
    settles(f"{base}[{table}]\n{lines}\n".encode())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("x\"'#[]\n\\", max_size=6)), max_size=8))
def test_every_key_is_found_in_its_line(entries: list[tuple[str, str]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}
    for number, (name, value) in enumerate(entries):
        lines += [f"[[{name}]]", f"key = {as_toml(value)} # ' \"", f"list = [{as_toml(value)},", "  '#]', ]"]
        index = sum(1 for other, _ in entries[:number] if other == name)
        expected[(name, index, "key")] = 4 * number + 2
        expected[(name, index, "list")] = 4 * number + 3
    text = "\n".join(lines)
    tomllib.loads(text)
    found = source.find_lines(text)
    assert {place: found[place] for place in expected} == expected


@given(
    st.integers(300, 60_000), st.integers(1, 127), st.text(string.printable, min_size=1, max_size=20).filter(str.strip)
)
def test_the_normal_form_means_the_same(lease_ms: int, priority: int, command: str) -> None:
    text = GOOD.replace("insecure = true", f"insecure = true\nlease_ms = {lease_ms}\nrenew_ms = 100")
    text = text.replace("id = 2\n", f"id = 2\npriority = {priority}\n")
    text += "[commands.escalation]\nrun = " + toml_string(command) + "\n"
    first = outcome(text)
    assert first.settings is not None and first.draft is not None
    try:
        written = to_toml(normal_tables(first.draft))
    except CommandError:
        return  # the library cannot write some strings; then nothing is printed
    again = outcome(written)
    assert again.settings == first.settings


def toml_string(value: str) -> str:
    return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
