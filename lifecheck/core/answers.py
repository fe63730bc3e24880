"""What a question to a pgpool-II came to, and whose fault it was.

A query passes through two programs, and only the first of them is judged here. libpq's first packet (the request for
TLS) is answered by pgpool-II itself, before it thinks of a backend: whoever has answered that lives, whatever comes
after. So a pgpool-II without a backend is not called dead, and a wrong password says nothing about anybody.
The texts are those of pgpool-II 4.3 (never translated), PostgreSQL 15 and libpq 18; an error of unknown text that came
from pgpool-II shows that it answers, and nothing else.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

MAX_TEXT = 160


class Answer(enum.Enum):
    """Whose fault it was, worst first."""

    REFUSED = "query refused"
    FULL = "query refused, out of connections"
    HANGS = "query timed out"
    SILENT_BEHIND = "query timed out behind pgpool-II"
    NO_BACKEND = "query found no backend"
    FINE = "query answered"
    OPERATOR = "query not possible"
    OURS = "query not sent"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a question ended, as the client saw it.

    `connected`: the kernel of the other side took the connection. `answered`: pgpool-II answered the first packet.
    `error` is libpq's message, None if all went well; `sqlstate` that of a statement's error (libpq tells none for
    a failed connection).
    """

    connected: bool
    answered: bool
    timed_out: bool
    took_ms: int
    error: str | None = None
    sqlstate: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer and the sentence for the operator."""

    answer: Answer
    evidence: str


# Errors of ours, met before a packet left: they say nothing about the other side.
_OURS = ("too many open files", "could not create socket", "cannot assign requested address", "out of memory")
# pgpool-II writes a capital S; the same words of a PostgreSQL behind it begin with a small one.
_PGPOOL_IS_FULL = "Sorry, too many clients already"
# libpq 18 does not show the text of an error that came instead of an answer to its request for TLS. pgpool-II sends
# one before it has read anything in one case only: with reserved_connections, when it is full.
_ERROR_INSTEAD_OF_ANSWER = "error response during SSL exchange"
# First pgpool-II's, then PostgreSQL's, then libpq's own.
_OPERATOR = re.compile(
    r"authentication failed|authentication with pgpool failed|failed to authenticate|password size does not match"
    r"|password does not match|unable to get the password|does not exist|pg_hba\.conf|pool_hba\.conf"
    r"|is not permitted to log in|permission denied|no password supplied|password file|not currently accepting"
    r"|invalid (connection option|port number|sslmode)",
    re.IGNORECASE,
)
_OPERATOR_CLASSES = ("28", "3D", "3F", "42", "0A")  # SQLSTATE: authorization, no database, no schema, syntax, feature
_PREAMBLE = re.compile(r'connection to server at "[^"]*"(?: \([^)]*\))?, port \d+ failed:\s*')
_HINT = re.compile(r"\s*Is the server running on that host and accepting TCP/IP connections\?")


def judge(ending: Ending) -> Outcome:
    """Whose fault it was."""
    if ending.timed_out:
        return _timed_out(ending)
    if ending.error is None:
        return Outcome(Answer.FINE, f"query answered in {ending.took_ms} ms")
    text = tidy(ending.error)
    lowered = text.lower()
    if not ending.connected and any(words in lowered for words in _OURS):
        return Outcome(Answer.OURS, f"query not sent: {text}")
    if _PGPOOL_IS_FULL in text or _ERROR_INSTEAD_OF_ANSWER in text:
        return Outcome(Answer.FULL, f"query refused: pgpool-II is out of connections ({text})")
    if _is_the_operators(ending, text):
        return Outcome(Answer.OPERATOR, f"query not possible: {text}")
    if not ending.answered:
        return Outcome(Answer.REFUSED, f"query refused: {text}")
    if _went_away(lowered):
        return Outcome(Answer.REFUSED, f"query refused: pgpool-II dropped the session ({text})")
    return Outcome(Answer.NO_BACKEND, f"query found no backend, but pgpool-II answers: {text}")


def tidy(text: str) -> str:
    """libpq's message on one line, without what the reader knows."""
    words = _HINT.sub("", _PREAMBLE.sub("", text))
    line = "; ".join(" ".join(part.split()) for part in words.splitlines() if part.strip())
    line = line.removeprefix("FATAL: ").removeprefix("ERROR: ")
    if not line:
        return "an error without a text"  # so pgpool-II passes on that a PostgreSQL takes no more connections
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def _timed_out(ending: Ending) -> Outcome:
    after = f"for {ending.took_ms} ms"
    if not ending.connected:
        return Outcome(Answer.HANGS, f"query timed out: no connection {after}")
    if not ending.answered:
        busy = "it hangs, or all its children are busy"
        return Outcome(Answer.HANGS, f"query timed out: pgpool-II has taken no connection {after}; {busy}")
    return Outcome(Answer.SILENT_BEHIND, f"query timed out: pgpool-II answers, but has given no result {after}")


def _is_the_operators(ending: Ending, text: str) -> bool:
    if ending.sqlstate:
        return ending.sqlstate.startswith(_OPERATOR_CLASSES)
    return _OPERATOR.search(text) is not None


def _went_away(lowered: str) -> bool:
    return "closed the connection unexpectedly" in lowered or "connection reset" in lowered
