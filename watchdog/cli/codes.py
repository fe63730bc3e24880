"""Exit codes of the command line. Scripts depend on them: a number never changes its meaning."""

from __future__ import annotations

from pgvigil.ipc.errors import ConfigError

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
UNKNOWN = 4
INTERRUPTED = 130
PIPE_CLOSED = 141

MEANINGS: dict[int, str] = {
    OK: "done; status: this node runs and a leader with a lease is known",
    FAILED: "refused or failed; the reason is on standard error",
    USAGE: "a mistake in the command or in the configuration",
    NOT_RUNNING: "pgvigil does not run here (start: it runs already)",
    UNKNOWN: "the outcome is unknown; status: no leader is known, or this node does not answer",
    70: "start: pgvigil contradicts itself; please report the log",
    71: "start: watchdog main kept failing; the virtual IP was released",
    75: "start: not ready in time",
    INTERRUPTED: "interrupted (Ctrl-C)",
    PIPE_CLOSED: "whoever read the output has gone",
}


def of_error(error: BaseException) -> int:
    """By blame: what the operator wrote is 2, everything else 1."""
    return USAGE if isinstance(error, ConfigError) else FAILED
