"""Runs the operator's command for the backends of a batch, some at once.

Each command has a session of its own, no input, a time limit, and a file for its output: a file and not a pipe, so that
a command outlives a pgvigil that was killed without dying of SIGPIPE. It passes a gate before it begins: only when its
process has been written down is it let go, so no command ever runs of which the journal does not know.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns, kernel_boot_id
from pgvigil.ipc.errors import CommandError, InvariantError
from pgvigil.ipc.runner import SHELL
from pgvigil.watchdog.rolling.decide import Stopping

GATE = 'IFS= read -r word && [ "$word" = go ] && exec /bin/sh -c "$1" pgvigil-rolling </dev/null; exit 125'
TERM_GRACE_NS = 5 * NS_PER_S
KILL_GRACE_NS = 5 * NS_PER_S
TICK_MS = 200
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""A command that says more loses what it said before."""
SHOWN_OUTPUT_BYTES = 2000
_PLACEHOLDER = re.compile(r"(?<![$\w])\{(host|port|id)\}")


@dataclass(frozen=True, slots=True)
class Job:
    """One command to run for one backend."""

    backend_id: int
    text: str
    environment: Mapping[str, str]
    output: str
    """The file for what it says."""
    limit_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; `error` is empty if it did so by itself, in time, with status 0."""

    backend_id: int
    error: str
    took_ms: int


def filled(command: str, host: str, port: int, backend_id: int) -> str:
    """The command with {host}, {port} and {id} put in, quoted for the shell; `${host}` stays the shell's."""
    values = {"host": shlex.quote(host), "port": str(port), "id": str(backend_id)}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], command)


def identity(pid: int) -> str:
    """Names a process beyond its life: start of the machine, pid, start of the process; "" if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    # proc(5): field 3 is the first after the name, 22 the start time.
    return "" if fields[0] == "Z" else f"{kernel_boot_id()} {pid} {fields[19]}"


def still_runs(process: str) -> int:
    """The pid if this very process still runs, otherwise 0."""
    words = process.split(" ")
    if len(words) != 3 or not words[1].isdigit():
        return 0
    return int(words[1]) if identity(int(words[1])) == process else 0


def tail(path: str) -> str:
    """The last lines that a command said, for people."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - SHOWN_OUTPUT_BYTES))
            data = file.read(SHOWN_OUTPUT_BYTES)
    except OSError as error:
        return f"(its output cannot be read: {error.strerror})"
    text = data.decode(errors="replace").strip()
    return "\n".join(
        "".join(one if one.isprintable() or one == "\t" else "?" for one in line) for line in text.split("\n")
    )


class _Running:
    def __init__(self, job: Job) -> None:
        self.job = job
        # Never through a link that somebody laid into the folder.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._output = os.open(job.output, flags, 0o600)
        except OSError as error:
            raise CommandError(f"cannot write the output of the command to {job.output}: {error.strerror}") from None
        try:
            self.process = subprocess.Popen(
                (SHELL, "-c", GATE, "pgvigil-rolling", job.text),
                stdin=subprocess.PIPE, stdout=self._output, stderr=subprocess.STDOUT,
                env=dict(job.environment), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(self._output)
            raise CommandError(f"cannot start the command for backend {job.backend_id}: {error.strerror}") from None
        self.pidfd = os.pidfd_open(self.process.pid)
        self._begun_ns = boottime_ns()
        self._deadline_ns = self._begun_ns + job.limit_ms * NS_PER_MS
        self._ending = ""
        self._killed = False
        self.given_up = False

    def open_gate(self) -> None:
        if self.process.stdin is None:
            raise InvariantError("a command without a gate")
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it was killed at the gate; its end tells

    def tick(self, now_ns: int, stopping: Stopping) -> None:
        """Keep its output small, its time limit, and the operator's wish."""
        if os.fstat(self._output).st_size > MAX_OUTPUT_BYTES:
            os.ftruncate(self._output, 0)
        if not self._ending and stopping is Stopping.NOW:
            self._end("stopped as asked", now_ns)
        elif not self._ending and now_ns >= self._deadline_ns:
            self._end(f"stopped at its limit of {self.job.limit_ms / 1000:g} s", now_ns)
        elif self._ending and now_ns >= self._deadline_ns:
            self.given_up = self._killed
            self._signal(signal.SIGKILL)
            self._killed = True
            self._deadline_ns = now_ns + KILL_GRACE_NS

    def _end(self, why: str, now_ns: int) -> None:
        self._ending = why
        self._signal(signal.SIGTERM)
        self._deadline_ns = now_ns + TERM_GRACE_NS

    def _signal(self, number: signal.Signals) -> None:
        """The group exists at least until the command is reaped, so the number is still its own."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def never_begin(self) -> None:
        """End it at its gate."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def let_go(self) -> None:
        """Ask it to end and look no more: the journal says that it runs, and a later session looks whether it does."""
        self._signal(signal.SIGTERM)
        self._close()

    def _close(self) -> None:
        os.close(self.pidfd)
        os.close(self._output)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def finish(self) -> Ended:
        """Reap it; what is left of a command that had to be ended goes with it."""
        took_ms = (boottime_ns() - self._begun_ns) // NS_PER_MS
        if self._ending:
            self._signal(signal.SIGKILL)
        status = None if self.given_up else self.process.wait()
        self._close()
        return Ended(self.job.backend_id, self._error(status), took_ms)

    def _error(self, status: int | None) -> str:
        if status is None:
            return f"{self._ending}, and process {self.process.pid} does not end even by SIGKILL"
        if self._ending:
            return self._ending
        if status < 0:
            return f"its command was ended by signal {-status}"
        return f"its command ended with status {status}" if status else ""


class Commands:
    """Runs batches; `stopping` is asked all the time."""

    def __init__(self, stopping: Callable[[], Stopping], tick: Callable[[], None]) -> None:
        self._stopping = stopping
        self._tick = tick

    def run(
        self,
        jobs: Sequence[Job],
        at_once: int,
        started: Callable[[int, str], None],
        ended: Callable[[Ended], None],
    ) -> None:
        """Until all have ended, or none may begin any more. A command begins after `started(backend, identity)`."""
        queue, running = list(jobs), list[_Running]()
        try:
            while running or (queue and not self._stopping()):
                while queue and len(running) < at_once and not self._stopping():
                    running.append(self._start(queue.pop(0), started))
                for one in self._wait(running):
                    running.remove(one)
                    ended(one.finish())
                self._tick()
        except BaseException:
            for one in running:
                one.let_go()
            raise

    @staticmethod
    def _start(job: Job, started: Callable[[int, str], None]) -> _Running:
        one = _Running(job)
        try:
            started(job.backend_id, identity(one.process.pid))
        except BaseException:
            one.never_begin()
            raise
        one.open_gate()
        return one

    def _wait(self, running: Sequence[_Running]) -> list[_Running]:
        """A moment; returns those that are over."""
        poll = select.poll()
        for one in running:
            poll.register(one.pidfd, select.POLLIN)
        over = {fd for fd, _ in poll.poll(TICK_MS)}
        now_ns = boottime_ns()
        for one in running:
            if one.pidfd not in over:
                one.tick(now_ns, self._stopping())
        return [one for one in running if one.pidfd in over or one.given_up]
