"""Runs the user's commands beside a loop: start, time limit, kept output, one answer.

Every command gets a session of its own, no input, and a pipe of which the first `KEPT_BYTES` are kept and the rest is
read and dropped, so that it neither blocks nor fills the memory. At the time limit its whole group gets SIGTERM, then
SIGKILL. One that does not even die of that (an unreachable disk) is given up and reported. The runner never waits and
never retries; what a command leaves running in the background after a timely end is its own business.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop

KEPT_BYTES = 16 * 1024
TERM_GRACE_NS = 1 * NS_PER_S
KILL_GRACE_NS = 2 * NS_PER_S
READ_BYTES = 65536
SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `exit_status` is None if a signal ended it, if it could not be started or was given up."""

    label: str
    exit_status: int | None
    signal: int | None
    timed_out: bool
    output: str
    duration_ms: int

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself, in time, with status 0."""
        return self.exit_status == 0 and not self.timed_out

    def describe(self) -> str:
        """One line for the log."""
        if self.timed_out:
            how = f"was stopped at its time limit after {self.duration_ms} ms"
        elif self.signal is not None:
            how = f"was ended by {_signal_name(self.signal)} after {self.duration_ms} ms"
        elif self.exit_status is None:
            how = "could not be started"
        else:
            how = f"ended with status {self.exit_status} after {self.duration_ms} ms"
        said = " | ".join(line.strip() for line in self.output.splitlines() if line.strip())
        said = "".join(letter if letter.isprintable() else "?" for letter in said)
        return f"{self.label} {how}" + (f": {said[:500]}" if said else "")


OnDone = Callable[[Result], None]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def arguments(command: str | Sequence[str]) -> list[str]:
    """Shell text runs in /bin/sh; a sequence runs as it is."""
    return [SHELL, "-c", command] if isinstance(command, str) else list(command)


class _Job:
    """One running command."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], started_at_ns: int, deadline_ns: int) -> None:
        self.label = label
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.started_at_ns = started_at_ns
        self.deadline_ns = deadline_ns
        self.kept = bytearray()
        self.pipe = process.stdout.fileno() if process.stdout is not None else -1
        self.timed_out = False
        self.killed = False

    def read(self) -> bool:
        """Take what the pipe holds; False at its end."""
        for _ in range(16):
            try:
                data = os.read(self.pipe, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.kept += data[: KEPT_BYTES - len(self.kept)]
        return True

    def signal_group(self, number: int) -> None:
        """The group exists at least until the command is reaped, so the number is still its own."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


class Runner:
    """All commands of one process; a participant of its loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._jobs: list[tuple[_Job, OnDone]] = []
        self._refused: list[tuple[Result, OnDone]] = []
        loop.join(self)

    @property
    def running(self) -> int:
        """How many commands have not answered yet."""
        return len(self._jobs) + len(self._refused)

    def start(
        self,
        label: str,
        command: str | Sequence[str],
        timeout_ms: int,
        on_done: OnDone,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a command; `on_done` is called from the loop, exactly once. `env` replaces the environment."""
        started_at_ns = boottime_ns()
        try:
            process = subprocess.Popen(
                arguments(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            self._refused.append((Result(label, None, None, False, str(error), 0), on_done))
            return
        job = _Job(label, process, started_at_ns, started_at_ns + timeout_ms * NS_PER_MS)
        os.set_blocking(job.pipe, False)
        self._jobs.append((job, on_done))
        self._loop.watch(job.pipe, lambda: self._output(job))
        self._loop.watch(job.pidfd, lambda: self._ended(job))

    def limit(self, label: str, at_ns: int) -> None:
        """Running commands of that label have until `at_ns` at most; those that are being stopped are let be."""
        for job, _ in self._jobs:
            if job.label == label and not job.timed_out:
                job.deadline_ns = min(job.deadline_ns, at_ns)

    def _output(self, job: _Job) -> None:
        if not job.read():
            self._loop.unwatch(job.pipe)

    def _ended(self, job: _Job) -> None:
        if job.timed_out:
            job.signal_group(signal.SIGKILL)  # before it is reaped: what it left behind dies with it
        status = job.process.wait()
        job.read()
        exit_status, number = (status, None) if status >= 0 else (None, -status)
        self._finish(job, exit_status, number)

    def _finish(self, job: _Job, exit_status: int | None, number: int | None) -> None:
        self._loop.unwatch(job.pidfd)
        self._loop.unwatch(job.pipe)
        os.close(job.pidfd)
        if job.process.stdout is not None:
            job.process.stdout.close()
        on_done = next(done for item, done in self._jobs if item is job)
        self._jobs = [(item, done) for item, done in self._jobs if item is not job]
        duration_ms = (boottime_ns() - job.started_at_ns) // NS_PER_MS
        output = job.kept.decode(errors="replace")
        on_done(Result(job.label, exit_status, number, job.timed_out, output, duration_ms))

    def wake(self) -> int | None:
        """The next time limit."""
        if not self._jobs:
            return 1 if self._refused else None
        return 1 if self._refused else min(job.deadline_ns for job, _ in self._jobs)

    def tick(self, now_ns: int) -> None:
        """Stop what has had its time; answer for what could not be started."""
        refused, self._refused = self._refused, []
        for result, on_done in refused:
            on_done(result)
        for job in [job for job, _ in self._jobs if job.deadline_ns <= now_ns]:
            if not job.timed_out:
                job.timed_out = True
                job.signal_group(signal.SIGTERM)
                job.deadline_ns = now_ns + TERM_GRACE_NS
            elif not job.killed:
                job.killed = True
                job.signal_group(signal.SIGKILL)
                job.deadline_ns = now_ns + KILL_GRACE_NS
            else:
                self._finish(job, None, None)
