"""What the exit codes of `pgvigil start` and of its processes mean.

Operators and systemd decide by them: 2 and 3 will not heal by starting again (the unit has them in
RestartPreventExitStatus), the others may. Numbers from sysexits.h where one fits. They are never changed.
"""

from __future__ import annotations

import signal

from pgvigil.ipc.errors import CommandError, ConfigError

CLEAN = 0  # stopped because somebody asked
FAILED = 1  # the environment refused: a port in use, a disk, the kernel
CONFIGURATION = 2  # the operator has to change something first
ALREADY_RUNNING = 3  # another pgvigil holds the run directory
SOFTWARE = 70  # pgvigil contradicts itself; please report the log (EX_SOFTWARE)
GAVE_UP = 71  # watchdog main kept failing; the virtual IP was released
TIMED_OUT = 75  # not ready in time (EX_TEMPFAIL)

MEANINGS: dict[int, str] = {
    CLEAN: "stopped as asked",
    FAILED: "the environment refused something",
    CONFIGURATION: "the configuration has to be changed",
    ALREADY_RUNNING: "already running",
    SOFTWARE: "internal error",
    GAVE_UP: "gave up restarting",
    TIMED_OUT: "not ready in time",
}


def code_of(error: BaseException) -> int:
    """The exit code for an error, by blame."""
    if isinstance(error, ConfigError):
        return CONFIGURATION
    if isinstance(error, CommandError | OSError):
        return FAILED
    return SOFTWARE


def describe(wait_status: int) -> str:
    """A status of waitpid(2) in words: "exit 1 (the environment refused something)", "killed by SIGKILL"."""
    if wait_status < 0 or wait_status & 0x7F:
        number = wait_status & 0x7F
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"killed by {name}"
    code = (wait_status >> 8) & 0xFF
    meaning = MEANINGS.get(code)
    return f"exit {code} ({meaning})" if meaning else f"exit {code}"
