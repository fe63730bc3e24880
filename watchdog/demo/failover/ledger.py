"""What was really done to PostgreSQL, line by line: the witness against double promotions.

Every start of a real command and every promotion that PostgreSQL carried out adds one line to a file that all hosts
of the lab share (they have one disk). It is an instrument: nobody decides anything by it. A line is written by one
`write` with O_APPEND, so lines of several hosts never mix.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pgvigil.ipc.clock import boottime_ns


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    at_ns: int
    """CLOCK_BOOTTIME."""
    what: str
    """"start" or "end" of a real command, or "promoted": a PostgreSQL became primary."""
    command: str
    node: str
    """The host that it happened on."""
    event: str = ""
    term: str = ""
    token: str = ""
    text: str = ""


class Ledger:
    """The file, for one writer or reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, what: str, command: str, node: str, origin: dict[str, str], text: str = "") -> None:
        """One line, stamped now. `origin` says which event, term and token of pgvigil it came from."""
        line = Line(boottime_ns(), what, command, node, **origin, text=text)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, json.dumps(asdict(line)).encode() + b"\n")
        finally:
            os.close(descriptor)

    def lines(self, since_ns: int = 0) -> list[Line]:
        """All lines from an instant on, in the order of writing."""
        if not self.path.exists():
            return []
        found = [Line(**json.loads(text)) for text in self.path.read_text(encoding="utf-8").splitlines()]
        return [line for line in found if line.at_ns >= since_ns]

    def promotions(self, since_ns: int) -> list[Line]:
        return [line for line in self.lines(since_ns) if line.what == "promoted"]

    def starts(self, since_ns: int, command: str) -> list[Line]:
        return [line for line in self.lines(since_ns) if line.what == "start" and line.command == command]


def origin_of(environment: dict[str, str]) -> dict[str, str]:
    """Event, term and token, as pgvigil tells them to what it runs."""
    return {name: environment.get(f"PGVIGIL_{name.upper()}", "") for name in ("event", "term", "token")}
