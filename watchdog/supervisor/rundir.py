"""The run directory while the node runs: looked at once a second, and made again after somebody deleted it.

Without its sockets a node goes on, because what is connected stays connected, but no command and no restarted process
finds it. The folder and the pid file can be made again here; the sockets only by their owners, which are restarted one
after the other, watchdog main last: it resumes its term within the lease, so the VIP does not move. Nothing is
restarted before the new pid file is locked: until then another start could be under way.
"""

from __future__ import annotations

import logging
import os

from pgvigil.ipc import endpoints, log
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog.supervisor.child import Child
from pgvigil.watchdog.supervisor.pidfile import PidFile

_log = logging.getLogger(log.LOGGER)


class RunDir:
    """The folder that the supervisor has started in; held open, so that no other can ever have its inode."""

    def __init__(self, path: str, pid_file: PidFile, group: str = "") -> None:
        """`CommandError` if the folder cannot be opened."""
        self.path = path
        self._pid_file = pid_file
        self._group = group
        self._made_ns = 0  # 0: as it was at the start
        self._complained = ""
        self._fd = _opened(path)

    def mend(self) -> bool:
        """Make again what is gone; False if it cannot be, which is said once."""
        try:
            self._mend_folder()
            self._mend_pid_file()
        except (CommandError, ConfigError) as error:
            if str(error) != self._complained:
                self._complained = str(error)
                _log.error("%s", error)
            return False
        self._complained = ""
        return True

    def _mend_folder(self) -> None:
        if self._is_in_place():
            return
        endpoints.ensure_run_dir(self.path, self._group)
        fd = _opened(self.path)
        os.close(self._fd)
        self._fd, self._made_ns = fd, boottime_ns()
        _log.warning("%s was deleted while pgvigil runs; it was made again", self.path)

    def _is_in_place(self) -> bool:
        try:
            there, ours = os.stat(self.path, follow_symlinks=False), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _mend_pid_file(self) -> None:
        if self._pid_file.is_in_place():
            return
        try:
            self._pid_file.put_back()
        except CommandError as error:
            raise CommandError(f"{error}; stop one of the two") from None
        _log.warning("%s was deleted while pgvigil runs; it was made again", self._pid_file.path)

    def lacks_sockets_of(self, child: Child) -> bool:
        """Whether what a running child has bound cannot be reached any more."""
        sockets = child.spec.sockets
        older = bool(sockets) and child.started_ns < self._made_ns  # whatever lies there under that name is another's
        return older or not all(map(os.path.lexists, sockets))


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"run_dir {path}: {error.strerror}") from None
