"""What the nodes said: the lines of their logs, and the texts of their status, read back.

It knows how a log line is built and which of them are verdicts of death; what was to be expected it does not know. The
instant of a sentence is that of its log line, so a busy reader makes no verdict look late. Those stamps are wall clock:
they are only ever compared with another stamp of the same machine, and decide nothing in the product.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pgvigil.watchdog.demo.config import log_path
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.moments import read_from, size_of

_LINE = re.compile(r"(?P<when>\S+) (?P<node>\S+) (?P<process>.+?)\[(?P<pid>\d+)\] (?P<level>[A-Z]+) (?P<text>.*)")
_DEATH = re.compile(r"\bdead(?: from here)?: ")
_HANDS_OVER = re.compile(r"\bhands over: ")
JUDGE = "lifecheck"
"""The process that gives verdicts."""
STATUS = "status"
"""Said in the status document instead of a process's log."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that a node said. `at_s` is wall clock."""

    at_s: float
    node: str
    process: str
    text: str

    @property
    def is_death(self) -> bool:
        """A verdict that a node or a pgpool-II is dead, or that a node must not lead; a dead path is none."""
        return self.process == JUDGE and _DEATH.search(self.text) is not None and not self.text.startswith("path ")

    @property
    def is_hand_over(self) -> bool:
        """A leader that gives the leadership away by itself."""
        return self.process != STATUS and _HANDS_OVER.search(self.text) is not None

    def __str__(self) -> str:
        return f"{self.node}: {self.text}"


def parse(line: str) -> Sentence | None:
    """A line of `ipc.log`; None for anything else, such as one that is not written to its end."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        at_s = datetime.datetime.fromisoformat(match["when"]).timestamp()
    except ValueError:
        return None
    return Sentence(at_s, match["node"], match["process"], match["text"])


class Logs:
    """Reads what was appended to the logs of some nodes since it was made."""

    def __init__(self, nodes: Sequence[Host]) -> None:
        self._marks = {log_path(node): size_of(log_path(node)) for node in nodes}

    def read(self) -> list[Sentence]:
        """Everything so far, by time."""
        texts = [read_from(path, size).decode(errors="replace") for path, size in self._marks.items()]
        lines = [line for text in texts for line in text.splitlines()]
        return sorted(filter(None, map(parse, lines)), key=lambda sentence: sentence.at_s)


def status_sentences(node: Host, raw: str, at_s: float) -> list[Sentence]:
    """Every text of a node's status document; none if the node did not answer."""
    return [Sentence(at_s, node.name, STATUS, text) for text in _texts(json.loads(raw or "null"))]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
