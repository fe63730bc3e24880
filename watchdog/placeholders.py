"""The placeholders of pgpool-II's three commands: their order, what they may hold, how they get into a command.

Without pgpool-II's quirks: no number has a blank before it, and what is not known is an empty word. The commands run
with the rights of pgvigil, while what is filled in comes from pgpool-II's user: so only letters that no shell acts on
pass, each value is quoted, and a place where quoting would mean something else (inside quotes) is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from pgvigil.ipc.errors import ConfigError

ORDER = ("d", "h", "p", "D", "m", "H", "M", "P", "r", "R", "N", "S")
"""As in failover_command = 'pgvigil failover %d %h %p "%D" %m %H %M %P %r "%R" %N %S'."""

MEANINGS: dict[str, tuple[str, str]] = {
    "d": ("BACKEND_ID", "id of the backend"),
    "h": ("BACKEND_HOST", "its host"),
    "p": ("BACKEND_PORT", "its port"),
    "D": ("BACKEND_DIRECTORY", "its data directory"),
    "m": ("NEW_MAIN_ID", "id of the new main backend (follow_primary: of the new primary), -1 if none is left"),
    "H": ("NEW_MAIN_HOST", "its host"),
    "M": ("OLD_MAIN_ID", "id of the old main backend"),
    "P": ("OLD_PRIMARY_ID", "id of the old primary, -1 if there was none"),
    "r": ("NEW_MAIN_PORT", "port of the new main backend"),
    "R": ("NEW_MAIN_DIRECTORY", "data directory of the new main backend"),
    "N": ("OLD_PRIMARY_HOST", "host of the old primary"),
    "S": ("OLD_PRIMARY_PORT", "port of the old primary"),
}
"""Letter, name of the environment variable behind `PGVIGIL_`, and what it is."""

IDS, PORTS = frozenset("dmMP"), frozenset("prS")
DIRECTORIES = ("D", "R")
MAX_VALUE = 300
"""All together have to fit into one message."""
MAX_ID = 127
NONE_LEFT = "-1"

_HARMLESS = re.compile(r"[\w .,:/@%+=-]*")
_MARK = re.compile(r"%(.)", re.DOTALL)


def from_words(words: Sequence[str]) -> tuple[str, ...]:
    """Words in the order of `ORDER` as arguments ("d=0"); those missing at the end are empty. `ConfigError`."""
    if len(words) > len(ORDER):
        raise ConfigError(f"{len(words)} values, expected at most {len(ORDER)}: {shown_order()}")
    told = zip(ORDER, _with_directories(words), strict=False)
    try:
        return tuple(f"{letter}={checked(letter, word)}" for letter, word in told)
    except ConfigError as error:
        # It leaves an empty directory out of the command line, and what follows moves up.
        raise ConfigError(f'{error}; in pgpool.conf write "%D" and "%R" in quotes') from None


def _with_directories(words: Sequence[str]) -> list[str]:
    """Without backend_data_directory, its default, pgpool-II fills in nothing and the shell takes the word away."""
    whole = list(words)
    for letter in DIRECTORIES:
        place = ORDER.index(letter)
        if place < len(whole) < len(ORDER) and whole[place].strip()[:1] not in ("/", '"', ""):
            whole.insert(place, "")
    return whole


def shown_order() -> str:
    """All placeholders in their order, for people."""
    return " ".join(f"%{letter}" for letter in ORDER)


def checked(letter: str, word: str) -> str:
    """The value without blanks around it, or `ConfigError` that names the placeholder and what was expected."""
    value = word.strip()
    if value == '""':
        value = ""  # a shell that was not asked to take pgpool-II's empty quotes off
    if letter in IDS and value and not _number(value, -1, MAX_ID):
        raise ConfigError(f"%{letter} is '{value[:80]}', expected a number of -1 to {MAX_ID}: {MEANINGS[letter][1]}")
    if letter in PORTS and value and not _number(value, 0, 65535):
        raise ConfigError(f"%{letter} is '{value[:80]}', expected a number of 0 to 65535: {MEANINGS[letter][1]}")
    if len(value) > MAX_VALUE:
        raise ConfigError(f"%{letter} has {len(value)} letters, expected at most {MAX_VALUE}")
    if not _HARMLESS.fullmatch(value) or (value.startswith("-") and letter not in IDS):
        raise ConfigError(f"%{letter} is {value[:80]!r}, expected no quotes and nothing else that a shell acts on")
    return value


def _number(text: str, least: int, most: int) -> bool:
    return re.fullmatch(r"-?[0-9]{1,6}", text) is not None and least <= int(text) <= most


def values_of(arguments: Sequence[str]) -> dict[str, str]:
    """The value of every placeholder; what `arguments` ("d=0", ...) do not tell is empty, and -1 for %m."""
    told = dict(item.partition("=")[::2] for item in arguments)
    values = {letter: told.get(letter, "") for letter in ORDER}
    return values | {"m": values["m"] or NONE_LEFT}


def substitute(run: str, arguments: Sequence[str]) -> str:
    """The shell command with every placeholder replaced by its quoted value, and %% by a percent sign."""
    values = {letter: shlex.quote(value) for letter, value in values_of(arguments).items()} | {"%": "%"}
    return _MARK.sub(lambda mark: values.get(mark[1], mark[0]), run)


def environment(arguments: Sequence[str]) -> dict[str, str]:
    """The same values for programs that would rather read the environment."""
    return {f"PGVIGIL_{MEANINGS[letter][0]}": value for letter, value in values_of(arguments).items()}


def wrong_in(run: str) -> str | None:
    """What is wrong with the placeholders of a shell command, as "what; expected", or None."""
    for mark in _MARK.finditer(run):
        if mark[1] != "%" and mark[1] not in ORDER:
            return f"%{mark[1]} is no placeholder; expected one of {shown_order()}, or %% for a percent sign"
        if mark[1] != "%" and _inside_quotes(run[: mark.start()]):
            return f"%{mark[1]} stands inside quotes; expected it without: pgvigil quotes every value itself"
    return None


def _inside_quotes(before: str) -> bool:
    """Whether a shell that has read this is inside quotes or backticks. Comments and here-documents are not known."""
    quote, escaped = "", False
    for letter in before:
        if escaped:
            escaped = False
        elif letter == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
    return quote != ""
