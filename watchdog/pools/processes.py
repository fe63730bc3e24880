"""The processes of the local pgpool-II that serve no client yet, and the sockets that they hold.

Read from `/proc` (proc(5)): the children of the main process by their titles, below the PCP process all of them. Every
read is bounded and takes microseconds. What may not be read is told, once for each reason; what is gone is no news.
"""

from __future__ import annotations

import errno
import itertools
import os

from pgvigil.watchdog.pools.freeing import RECOVERY_TITLE, SESSION_TITLE, Duty, PoolProcess, duty_of

MAX_PROCESSES = 64
MAX_SESSIONS = 64
"""At a time: the next ones have their turn 2 s later."""
MAX_CHILDREN = 4096
MAX_DESCRIPTORS = 1024
MAX_TITLE = 512
MAX_LIST = 65536
MAX_NAME = 16
NAME = b"pgpool"
"""Of the program: a pid file that was left behind may name any other by now."""
PREFIX = "socket:["
GONE = (errno.ENOENT, errno.ESRCH)
OWN_PREFIX = "pgpool: "
"""A child that has no title of its own yet may become anything."""


class Processes:
    """`find` looks; `obstacle` is why something could not be seen by the last look, empty if all could."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._others: set[int] = set()
        self.obstacle = ""

    def forget(self) -> None:
        """Read all titles again."""
        self._others.clear()

    def hidden(self, main_pid: int) -> str:
        """Why the descriptors of that process cannot be seen; empty if they can, or it is no pgpool-II that runs."""
        self.obstacle = ""
        name = self._read(f"{main_pid}/comm", MAX_NAME)
        if name.startswith(NAME) and self._title(main_pid):  # what has ended and was not waited for has no title
            self._inodes(main_pid)
        return self.obstacle

    def find(self, main_pid: int) -> list[PoolProcess]:
        """The main process and those below it that serve no client."""
        self.obstacle = ""
        name = self._read(f"{main_pid}/comm", MAX_NAME).strip()
        if not name.startswith(NAME):
            if name:
                shown = name.decode("utf-8", "backslashreplace")
                self.obstacle = f"process {main_pid} of its pid file is {shown}, expected pgpool"
            return []
        found = [(main_pid, Duty.MAIN)]
        children = self._children(main_pid)
        if not children:
            self.obstacle = self.obstacle or f"/proc/{main_pid}/task/{main_pid}/children names nobody"
        self._others &= set(children)
        for pid in children:
            duty = self._duty(pid)
            if duty is not None:
                found.append((pid, duty))
            if duty is Duty.PCP:
                found += [(worker, self._work(worker)) for worker in self._children(pid)]
        found.sort(key=lambda one: one[1] is Duty.HEALTH)  # the last ones to be left out: what nobody waits for
        return [PoolProcess(pid, duty, self._inodes(pid)) for pid, duty in found[:MAX_PROCESSES]]

    def sessions(self, main_pid: int) -> list[PoolProcess]:
        """Those that have taken a client's connection and make a session of it, but have none yet."""
        making = (pid for pid in self._children(main_pid) if self._title(pid) == SESSION_TITLE)
        return [PoolProcess(pid, Duty.SESSION, self._inodes(pid)) for pid in itertools.islice(making, MAX_SESSIONS)]

    def _title(self, pid: int) -> str:
        return self._read(f"{pid}/cmdline", MAX_TITLE).rstrip(b"\0 ").decode("utf-8", "replace")

    def _duty(self, pid: int) -> Duty | None:
        if pid in self._others:
            return None  # there may be a thousand of them, and their duty stays
        title = self._title(pid)
        duty = duty_of(title)
        if duty is None and title.startswith(OWN_PREFIX):
            self._others.add(pid)
        return duty

    def _work(self, pid: int) -> Duty:
        """What a child of the PCP process does, whatever that is."""
        return Duty.RECOVERY if self._title(pid) == RECOVERY_TITLE else Duty.PCP_WORKER

    def _children(self, pid: int) -> list[int]:
        words = self._read(f"{pid}/task/{pid}/children", MAX_LIST).split()
        return [int(word) for word in words[:MAX_CHILDREN]]

    def _inodes(self, pid: int) -> frozenset[int]:
        folder = f"{self._proc}/{pid}/fd"
        inodes: set[int] = set()
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, MAX_DESCRIPTORS)]
            for name in names:
                target = _link(f"{folder}/{name}")
                if target.startswith(PREFIX):
                    inodes.add(int(target[len(PREFIX) : -1]))
        except OSError as error:
            self._fail(f"/proc/{pid}/fd", error)
        return frozenset(inodes)

    def _read(self, path: str, limit: int) -> bytes:
        data = b""
        try:
            descriptor = os.open(f"{self._proc}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._fail(f"/proc/{path}", error)
            return b""
        try:
            while len(data) < limit and (part := os.read(descriptor, limit - len(data))):
                data += part
        except OSError as error:
            self._fail(f"/proc/{path}", error)
        finally:
            os.close(descriptor)
        return data

    def _fail(self, path: str, error: OSError) -> None:
        if error.errno not in GONE:
            code = error.errno or 0
            self.obstacle = f"{path}: {errno.errorcode.get(code, str(code))} ({os.strerror(code)})"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""  # closed meanwhile
