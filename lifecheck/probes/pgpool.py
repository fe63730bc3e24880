"""Is the local pgpool-II alive? Its process, found by pid file, known by pid and start, watched by pidfd.

A pid alone is no identity: it is reused. The process is pinned by a pidfd (pidfd_open(2)), whose readability tells of
its death within milliseconds; the pid file is looked at twice a second to follow a restart. The probe refuses to
believe a pid file that is older than the process it names, unless that process is called pgpool.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.probes.reading import Reading, Watcher

CHECK_INTERVAL_NS = 500 * NS_PER_MS
PID_FILE_MAX_BYTES = 64
MAX_PID = 2**22  # the kernel's PID_MAX_LIMIT (proc(5), pid_max)
START_SLACK_S = 2.0  # a process writes its pid file after it started; the clocks of both differ by rounding
STOPPED_STATES = (b"T", b"t")
DEAD_STATES = (b"Z", b"X")

FileStamp = tuple[int, int, int]


class PinnedProcess:
    """One process that cannot be mistaken for a later one of the same pid."""

    def __init__(self, pid: int) -> None:
        """`CommandError` if no such process runs."""
        self.pid = pid
        self.pidfd: int | None = None
        self._stat_fd: int | None = None
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise CommandError(f"no process {pid} runs") from None
        except OSError:
            pass  # an old kernel or a sandbox: `state` notices its end at the next check
        try:
            self._stat_fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.pidfd is None or not psutil.pid_exists(pid):
                self.close()
                raise CommandError(f"no process {pid} runs") from None
        except OSError:
            pass  # hidden from us (hidepid of proc(5)); the pidfd still tells of its end

    def state(self) -> bytes | None:
        """The state letter of proc(5), b"X" if it is gone, None if it is hidden from us."""
        if self._stat_fd is None:
            return None
        try:
            stat = os.pread(self._stat_fd, 512, 0)
        except OSError:
            return b"X"
        return stat[stat.rfind(b")") + 2 :][:1]

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self.pidfd, self._stat_fd):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = self._stat_fd = None


class PgpoolProbe:
    """The method process; `on_change` is called when the verdict is another one."""

    method = "process"

    def __init__(
        self, pid_file: str, deadtime_ns: int, watcher: Watcher, on_change: Callable[[Reading], None], now_ns: int
    ) -> None:
        self._pid_file = pid_file
        self._deadtime_ns = deadtime_ns
        self._watcher = watcher
        self._on_change = on_change
        self._process: PinnedProcess | None = None
        self._file_stamp: FileStamp | None = None
        self._stopped_since_ns: int | None = None
        self._due_ns = now_ns
        self.reading = Reading(Health.UNKNOWN, now_ns, "not looked at yet")

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        self._due_ns = now_ns + CHECK_INTERVAL_NS
        before = self._process
        state = None if before is None else before.state()
        try:
            self._follow_pid_file(state in DEAD_STATES)
        except CommandError as error:
            # A file that vanished says nothing against a process that is pinned and runs.
            self._file_stamp = None
            if self._process is None or state in DEAD_STATES:
                self._forget()
                self._conclude(Health.DEAD, str(error), now_ns)
                return
            self._judge_process(self._process, state, now_ns, f"; but {error}")
            return
        if self._process is not None:
            state = state if self._process is before else self._process.state()
            self._judge_process(self._process, state, now_ns, "")

    def late(self, lateness_ns: int) -> None:
        """Our own loop was late: the time counts for no deadline."""
        if self._stopped_since_ns is not None:
            self._stopped_since_ns += lateness_ns

    def close(self) -> None:
        """Give the descriptors back."""
        self._forget()

    def _follow_pid_file(self, has_ended: bool) -> None:
        """Pin whom the file names; `has_ended`: the process that is pinned has."""
        stamp = self._stat_file()
        if stamp == self._file_stamp and self._process is not None and not has_ended:
            return
        pid = parse_pid(read_pid_file(self._pid_file), self._pid_file)
        if self._process is not None and self._process.pid == pid and not has_ended:
            self._file_stamp = stamp
            return
        found = identify(pid, stamp[0] / 1e9, self._pid_file)
        self._forget()
        self._process = found
        self._file_stamp = stamp
        if found.pidfd is not None:
            self._watcher.watch(found.pidfd, self._on_exit)

    def _stat_file(self) -> FileStamp:
        try:
            info = os.stat(self._pid_file)
        except OSError as error:
            raise CommandError(_unreadable(self._pid_file, error)) from None
        return info.st_mtime_ns, info.st_ino, info.st_size

    def _on_exit(self) -> None:
        now_ns = boottime_ns()
        pid = self._process.pid if self._process is not None else 0
        self._forget()
        self._conclude(Health.DEAD, f"pgpool-II (pid {pid}) has ended", now_ns)
        self._due_ns = now_ns + CHECK_INTERVAL_NS

    def _judge_process(self, process: PinnedProcess, state: bytes | None, now_ns: int, remark: str) -> None:
        if state in DEAD_STATES:
            self._forget()
            self._conclude(Health.DEAD, f"pgpool-II (pid {process.pid}) has ended", now_ns)
        elif state in STOPPED_STATES:
            self._judge_stopped(process.pid, now_ns, remark)
        else:
            self._stopped_since_ns = None
            hidden = ", its state is hidden from us" if state is None else ""
            self._conclude(Health.ALIVE, f"pgpool-II (pid {process.pid}) runs{hidden}{remark}", now_ns)

    def _judge_stopped(self, pid: int, now_ns: int, remark: str) -> None:
        if self._stopped_since_ns is None:
            self._stopped_since_ns = now_ns
        deadline_ns = self._stopped_since_ns + self._deadtime_ns
        stopped_ms = (now_ns - self._stopped_since_ns) // NS_PER_MS
        sentence = f"pgpool-II (pid {pid}) has been stopped by a signal for {stopped_ms} ms{remark}"
        if now_ns >= deadline_ns:
            self._conclude(Health.DEAD, sentence, now_ns)
            return
        self._due_ns = min(self._due_ns, deadline_ns)
        known = self.reading.health
        self._conclude(Health.ALIVE if known is Health.UNKNOWN else known, sentence, now_ns)

    def _conclude(self, health: Health, evidence: str, now_ns: int) -> None:
        if health is self.reading.health:
            self.reading = Reading(health, self.reading.since_ns, evidence)
            return
        self.reading = Reading(health, now_ns, evidence)
        self._on_change(self.reading)

    def _forget(self) -> None:
        if self._process is not None:
            if self._process.pidfd is not None:
                self._watcher.unwatch(self._process.pidfd)
            self._process.close()
        self._process = None
        self._stopped_since_ns = None


def read_pid_file(path: str) -> bytes:
    """At most `PID_FILE_MAX_BYTES` and one; `CommandError` if it cannot be read."""
    try:
        # Not to hang on a fifo that somebody put there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, PID_FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CommandError(_unreadable(path, error)) from None


def parse_pid(content: bytes, path: str) -> int:
    """The pid in a file; pgpool-II ends it with a NUL byte. `CommandError` for anything else."""
    text = content.strip(b"\0 \t\r\n")
    if not text:
        raise CommandError(f"pid file {path} is empty")
    if not text.isdigit() or len(content) > PID_FILE_MAX_BYTES or not 0 < int(text) <= MAX_PID:
        shown = content[:20].decode("ascii", "backslashreplace")
        raise CommandError(f"pid file {path} holds {shown!r}, expected a process id")
    return int(text)


def identify(pid: int, written_at_s: float, path: str) -> PinnedProcess:
    """Pin the process that a pid file written at `written_at_s` (wall clock) means, or `CommandError`."""
    try:
        process = PinnedProcess(pid)
    except CommandError:
        raise CommandError(f"pgpool-II does not run (no process {pid}, named in {path})") from None
    try:
        known = psutil.Process(pid)
        name, started_at_s = known.name(), known.create_time()
    except psutil.Error:
        return process
    # Both are wall clock times, and a step of that clock between the two may deceive; the name then decides.
    if started_at_s > written_at_s + START_SLACK_S and "pgpool" not in name:
        process.close()
        raise CommandError(f"pgpool-II does not run: pid {pid} in {path} is {name} now, started after the file")
    if process.state() in DEAD_STATES:
        process.close()
        raise CommandError(f"pgpool-II (pid {pid}) has ended and waits for its parent (zombie)")
    return process


def _unreadable(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"pid file {path} does not exist; does pgpool-II run?"
    return f"pid file {path} cannot be read: {error.strerror}"
