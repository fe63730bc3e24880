"""The pid file, which is a lock and not a rumour.

`<run_dir>/pgvigil.pid` is held with flock(2) for as long as the supervisor or its watchdog main lives: the
kernel frees it with the last of them, so a stale pid never matters, whoever has that number now. Watchdog main
inherits the lock on purpose: after the death of its supervisor a new start is refused until it has handed over.
Nobody else may open it (0600), because whoever can open it can lock it.
The file is never unlinked while held, because two starts could then hold two files of one name.
"""

from __future__ import annotations

import fcntl
import os
import time

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError

NAME = "pgvigil.pid"
# `holder` takes the lock for some microseconds to test it; a start that meets it tries again.
RETRY_NS = 200 * NS_PER_MS
RETRY_PAUSE_S = 0.01


class AlreadyRunning(ConfigError):
    """Another process holds the run directory."""


def path_of(run_dir: str) -> str:
    """The pid file's path."""
    return os.path.join(run_dir, NAME)


class PidFile:
    """A held pid file."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, run_dir: str, wait_ns: int = RETRY_NS) -> PidFile:
        """Lock the file and write our pid, or `AlreadyRunning` naming the holder."""
        path = path_of(run_dir)
        deadline_ns = boottime_ns() + wait_ns
        while True:
            fd = _open(path)
            if _locked(fd):
                if _is_the_file(path, fd):
                    break
            elif boottime_ns() >= deadline_ns:
                text = _holder_text(fd)
                os.close(fd)
                raise AlreadyRunning(f"already running: {text} holds {path}; stop it first (pgvigil stop)")
            os.close(fd)
            time.sleep(RETRY_PAUSE_S)
        held = cls(path, fd)
        held._write()
        return held

    def _write(self) -> None:
        pid = os.getpid()
        os.fchmod(self.fd, 0o600)  # an older version's may be open to others
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{pid}\n{start_time_of(pid)}\n".encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the path still names the file that we hold; somebody may have deleted it."""
        return _is_the_file(self.path, self.fd)

    def put_back(self) -> None:
        """Make and lock the file again after it was deleted; `CommandError` if another start was faster."""
        try:
            fd = _open(self.path)
        except ConfigError as error:
            raise CommandError(str(error)) from None
        if not _locked(fd):
            text = _holder_text(fd)
            os.close(fd)
            raise CommandError(f"{self.path} was deleted and {text} holds its successor")
        os.close(self.fd)  # a watchdog main that inherited the old one goes on holding that
        self.fd = fd
        try:
            self._write()
        except OSError as error:
            raise CommandError(f"pid file {self.path}: {error.strerror}") from None

    def release(self) -> None:
        """Forget the pid, then let the lock go (unless a child holds it too)."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)


def holder(run_dir: str) -> int | None:
    """The pid of the running supervisor, or None. Asks the lock and the start time, never `kill -0`."""
    try:
        fd = os.open(path_of(run_dir), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _locked(fd) else _living_pid(fd)
    finally:
        os.close(fd)


def start_time_of(pid: int) -> int:
    """Start of a process in clock ticks since boot (proc(5), field 22); 0 if there is none.

    With the pid it names a process for the life of the kernel: a pid alone may be given again.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold blanks and parentheses; the last one ends it.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"pid file {path}: {error.strerror}; expected a file that pgvigil may write") from None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_the_file(path: str, fd: int) -> bool:
    try:
        there, ours = os.stat(path, follow_symlinks=False), os.fstat(fd)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _living_pid(fd: int) -> int | None:
    words = os.pread(fd, 64, 0).split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    pid, started = int(words[0]), int(words[1])
    return pid if started and start_time_of(pid) == started else None


def _holder_text(fd: int) -> str:
    pid = _living_pid(fd)
    if pid is not None:
        return f"pid {pid}"
    return "the watchdog main of an ended supervisor (it is handing over; try again in a few seconds)"
