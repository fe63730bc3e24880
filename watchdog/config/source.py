"""The file itself: its tables as tomllib reads them, and the line of every key.

tomllib gives values without lines, and an operator needs lines, so a small scan of our own finds them. The scan runs
only over text that tomllib has accepted and decides nothing: where it is mistaken, a line number is wrong and
nothing else. This module refuses files that are too large, no regular files, not UTF-8 or no TOML.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import Any

MAX_FILE_BYTES = 1024 * 1024
MAX_KEY_PARTS = 16

# ("node", 1, "path", 0, "address"): table, position in an array of tables, key.
Location = tuple[str | int, ...]

_BARE = r"[A-Za-z0-9_-]+"
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
# A key with more parts than any setting has. It looks for words only where one begins and never goes back, so that
# its time is linear in the size of the file; it also finds such words in comments and texts, where nobody needs them.
_NAME = rf"(?:{_BARE}+|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')"
_DEEP_KEY = re.compile(rf"(?<![A-Za-z0-9_\-\\])(?:{_NAME}[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")
_PART = re.compile(rf"\s*({_BARE}|{_QUOTED})\s*")
_OPENING = {'"""': '"""', "'''": "'''", '"': '"', "'": "'"}


class Unreadable(Exception):
    """The file cannot be read as TOML: line (0 if none), what is wrong, what was expected."""

    def __init__(self, line: int, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.line = line
        self.wrong = wrong
        self.expected = expected


@dataclass(slots=True)
class Source:
    """A parsed file; `tables` is untyped and unchecked."""

    path: str
    tables: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """Line of a key; of the nearest thing around it if the key is not in the file; 0 for the whole file."""
        for length in range(len(location), 0, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                return line
        return 0

    def value(self, location: Location) -> Any:
        """What stands at a location, or None."""
        value: Any = self.tables
        for step in location:
            if isinstance(value, dict) and isinstance(step, str):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def table_name(self, location: Location) -> str:
        """ "[cluster]" or "[[node]]", as the operator wrote it."""
        names = ".".join(step for step in location if isinstance(step, str))
        if not names:
            return ""
        value = self.value(location)
        many = isinstance(value, list) or any(isinstance(step, int) for step in location)
        return f"[[{names}]]" if many else f"[{names}]"


def read_source(path: str) -> Source:
    """Read and parse, or `Unreadable`."""
    return parse_source(path, read_bytes(path))


def parse_source(path: str, data: bytes) -> Source:
    """A source from bytes, or `Unreadable`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(line, f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8") from None
    # tomllib takes time, and the scan for lines memory, by the square of a key's parts: hours and gigabytes for a file.
    if deep := _DEEP_KEY.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise Unreadable(line, f"a name of more than {MAX_KEY_PARTS} parts", "expected at most two levels")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise Unreadable(0, "lists or tables are nested too deeply", "expected at most two levels") from None
    except ValueError as error:
        raise _no_toml(text, error) from None
    text = text.replace("\r\n", "\n")
    return Source(path, tables, find_lines(text))


def _no_toml(text: str, error: ValueError) -> Unreadable:
    match = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    line = int(match[1]) if match else text.count("\n") + 1
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return Unreadable(line, f"not valid TOML: {reason}", "see https://toml.io; nothing after this line was read")


def read_bytes(path: str) -> bytes:
    """The file's bytes; never blocks on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(0, f"cannot read: {reason}", "name the file with --config or PGVIGIL_CONFIG") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable(0, "not a regular file", "expected a TOML file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Unreadable(0, f"cannot read: {error.strerror}", "check the disk") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise Unreadable(0, f"larger than {MAX_FILE_BYTES} bytes", "a cluster's file has a few kilobytes")
    return data


# --- the scan for lines ---------------------------------------------------------------------------------


def find_lines(text: str) -> dict[Location, int]:
    """The line of every table header and key of valid TOML; keys inside inline tables are not found."""
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    position, number = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        stripped = text[position:end].lstrip(" \t")
        start = end - len(stripped)
        if stripped.startswith("["):
            table = _enter(stripped, counts)
            lines.setdefault(table, number)
        elif stripped and not stripped.startswith("#"):
            names, after = _names(text, start)
            for length in range(1, len(names) + 1):
                lines.setdefault((*table, *names[:length]), number)
            end = _end_of_value(text, max(after, start + 1))
        number += text.count("\n", position, end) + 1
        position = end + 1
    return lines


def _enter(header: str, counts: dict[Location, int]) -> Location:
    """The location of a table header; `counts` knows how many entries each array of tables has."""
    many = header.startswith("[[")
    names, _ = _names(header, 2 if many else 1)
    location: Location = ()
    for index, name in enumerate(names):
        location = (*location, name)
        if many and index == len(names) - 1:
            counts[location] = counts.get(location, 0) + 1
        if location in counts:
            location = (*location, counts[location] - 1)
    return location


def _names(text: str, start: int) -> tuple[tuple[str, ...], int]:
    """The parts of a dotted key and the position after it."""
    names: list[str] = []
    position = start
    while match := _PART.match(text, position):
        part = match[1]
        names.append(part[1:-1] if part[0] in "\"'" else part)
        position = match.end()
        if not text.startswith(".", position):
            break
        position += 1
    return tuple(names), position


def _end_of_value(text: str, start: int) -> int:
    """Position of the line end that ends the value, past multi-line strings and lists."""
    depth, position = 0, start
    while position < len(text):
        letter = text[position]
        if letter in "\"'":
            position = _end_of_string(text, position)
            continue
        if letter == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if letter == "\n" and depth <= 0:
            return position
        depth += (letter in "[{") - (letter in "]}")
        position += 1
    return len(text)


def _end_of_string(text: str, start: int) -> int:
    """Position after the closing quotes."""
    quotes = next(opening for opening in _OPENING if text.startswith(opening, start))
    position = start + len(quotes)
    while position < len(text):
        if text[position] == "\\" and quotes[0] == '"':
            position += 2
        elif text.startswith(quotes, position):
            position += len(quotes)
            # Up to two quotes may stand directly before the closing three.
            while len(quotes) == 3 and text.startswith(quotes[0], position):
                position += 1
            return position
        else:
            position += 1
    return len(text)
