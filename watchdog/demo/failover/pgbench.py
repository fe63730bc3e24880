"""pgbench through the virtual IP, for the whole time of a play: an application that nobody of us wrote.

A client of pgbench whose session is lost is aborted, and does not come back. So the runs are short and follow each
other without end, and each leaves a line: what it did, and why it failed if it did. A low rate, because the machine is
shared; how long writes failed is measured by `writer`, twenty times as finely.

    python -m pgvigil.watchdog.demo.failover.pgbench ADDRESS PORT FILE
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.run import Finished, run
from pgvigil.watchdog.demo.services import postgres_binary

CLIENTS = 2
RUN_S = 1
"""Of one run; pgbench counts in whole seconds."""
RATE_PER_S = 20
"""Transactions that are begun per second by all clients together."""
RUN_LIMIT_S = 6.0
"""A run that is not done then is ended: pgpool-II may keep silent, and pgbench waits for ever."""
PAUSE_S = 0.2
"""After a run that failed, for a refused connection fails within milliseconds."""
CREATE_LIMIT_S = 60.0
NEWEST_BYTES = 4096
MAX_SAID = 300
# A session whose peer has vanished ends in seconds, not in the quarter of an hour that TCP takes by itself.
_OPTIONS = (
    "user=postgres dbname=postgres connect_timeout=2 "
    "keepalives_idle=1 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=3000"
)
_PROCESSED = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_ABORTED = re.compile(r"\bclient (\d+) (?:script \d+ )?aborted\b")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of pgbench. Times are CLOCK_BOOTTIME in nanoseconds."""

    began_at_ns: int
    ended_at_ns: int
    transactions: int
    """That were committed."""
    failed: int
    """That were rolled back, as pgbench counts them."""
    aborted: int
    """Clients that lost their session, or were told an error."""
    code: int
    """The exit code, -1 for a run that was ended by us or did not start."""
    said: str = ""
    """The first complaint."""

    @property
    def is_good(self) -> bool:
        return self.code == 0 and self.transactions > 0 and not self.failed and not self.aborted

    @property
    def took_s(self) -> float:
        return (self.ended_at_ns - self.began_at_ns) / NS_PER_S


def target(address: str, port: int | str) -> str:
    """The connection string that stands where pgbench expects the name of a database."""
    return f"host={address} port={port} {_OPTIONS}"


def creation(address: str, port: int) -> tuple[str, ...]:
    """The command that makes pgbench's tables, at the smallest scale that there is."""
    return (postgres_binary("pgbench"), "-i", "-q", "-s", "1", target(address, port))


def short_run(address: str, port: int | str) -> tuple[str, ...]:
    """The command of one run; without vacuum, which would wait for others."""
    how = ("-n", "-N", "-c", str(CLIENTS), "-T", str(RUN_S), "-R", str(RATE_PER_S))
    return (postgres_binary("pgbench"), *how, target(address, port))


def carry_out(argv: Sequence[str], limit_s: float = RUN_LIMIT_S) -> Run:
    """One run, to its end or its limit; what went wrong stands in it."""
    began_at_ns = boottime_ns()
    try:
        finished = run(argv, limit_s=limit_s, env={**os.environ, "LC_ALL": "C"})
    except CommandError as error:
        return Run(began_at_ns, boottime_ns(), 0, 0, 0, -1, _shortened(str(error)))
    return parse(finished, began_at_ns, boottime_ns())


def parse(finished: Finished, began_at_ns: int, ended_at_ns: int) -> Run:
    """What pgbench said about a run. One that could not connect says nothing about transactions."""
    return Run(
        began_at_ns,
        ended_at_ns,
        transactions=_number(_PROCESSED, finished.out),
        failed=_number(_FAILED, finished.out),
        aborted=len(set(_ABORTED.findall(finished.err))),
        code=finished.code,
        said="" if finished.code == 0 else _shortened(finished.err.strip().partition("\n")[0]),
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match[1]) if match else 0


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}..."


# the file of runs


def note(descriptor: int, done: Run) -> None:
    """Add a run to the file, by one write."""
    os.write(descriptor, json.dumps(asdict(done)).encode() + b"\n")


def read_runs(path: Path, since_ns: int = 0) -> list[Run]:
    """The runs that ended at or after an instant, in their order."""
    if not path.exists():
        return []
    return [done for done in _runs_in(path.read_bytes().splitlines(keepends=True)) if done.ended_at_ns >= since_ns]


def newest_runs(path: Path) -> list[Run]:
    """The last few runs of a file that may be long."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        skipped = max(0, file.seek(0, os.SEEK_END) - NEWEST_BYTES)
        file.seek(skipped)
        lines = file.read().splitlines(keepends=True)
    return _runs_in(lines[1:] if skipped else lines)


def _runs_in(lines: Iterable[bytes]) -> list[Run]:
    """A line without its end is still being written."""
    return [Run(**json.loads(line)) for line in lines if line.endswith(b"\n")]


def main(arguments: list[str]) -> None:
    address, port, path = arguments
    argv = short_run(address, port)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        done = carry_out(argv)
        note(descriptor, done)
        if not done.is_good:
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1:])
