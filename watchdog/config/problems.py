"""What is wrong with a configuration, collected instead of raised one by one.

An operator who mends one mistake per start gives up after the third. So every check adds a `Problem` here and
goes on; only the end of the reading decides whether the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config.source import Location, Source

MAX_SHOWN_VALUE = 60
# A hostile file of a million unknown keys must not become a report of a million lines.
MAX_PROBLEMS = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, or one warning. `where` is "[table] key = value" or "[table]"; line 0 means the whole file."""

    path: str
    line: int
    where: str
    wrong: str
    expected: str
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        where = f" {self.where}:" if self.where else ""
        kind = " warning:" if self.warning else ""
        return f"{place}:{kind}{where} {self.wrong}; {self.expected}"


@dataclass(slots=True)
class Problems:
    """The list that every check writes to."""

    source: Source
    found: list[Problem] = field(default_factory=list)

    def mistake(self, location: Location, wrong: str, expected: str) -> None:
        """The file is refused; `wrong` says what is wrong, `expected` what would be right."""
        self._add(location, wrong, expected, warning=False)

    def warn(self, location: Location, wrong: str, expected: str) -> None:
        """The file is accepted, and `pgvigil check` and the log say this."""
        self._add(location, wrong, expected, warning=True)

    def _add(self, location: Location, wrong: str, expected: str, warning: bool) -> None:
        if len(self.found) < MAX_PROBLEMS:
            line, where = self.source.line(location), self._where(location)
            self.found.append(Problem(self.source.path, line, where, wrong, expected, warning))

    def _where(self, location: Location) -> str:
        if not location:
            return ""
        value = self.source.value(location)
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            return self.source.table_name(location)
        last = max(index for index, step in enumerate(location) if isinstance(step, str))
        head, key = self.source.table_name(location[:last]), location[last]
        shown = f"{key} = {show(self.source.value(location[: last + 1]))}" if value is not None else str(key)
        return f"{head} {shown}".strip()

    @property
    def mistakes(self) -> list[Problem]:
        """What makes the file unusable, in the order of the lines."""
        return sorted((problem for problem in self.found if not problem.warning), key=lambda problem: problem.line)

    @property
    def warnings(self) -> list[Problem]:
        """What works but deserves a thought, in the order of the lines."""
        return sorted((problem for problem in self.found if problem.warning), key=lambda problem: problem.line)


def refusal(problems: Sequence[Problem]) -> ConfigError:
    """The error that carries all mistakes, one a line."""
    return ConfigError("\n".join(str(problem) for problem in problems))


def show(value: object) -> str:
    """A value as it would stand in the file, cut to one short line."""
    text = _plain(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= MAX_SHOWN_VALUE else text[: MAX_SHOWN_VALUE - 3] + "..."


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value[:200]}"'
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) if not isinstance(item, list) else "[...]" for item in value[:8]) + "]"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return str(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" or nothing."""
    import difflib  # here, because only a mistake needs it and a running node would keep it

    close = difflib.get_close_matches(word[:80], list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
