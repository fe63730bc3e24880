"""The supervisor's last will: taking the virtual IP down when watchdog main cannot.

A forked helper does it under a time limit, because a netlink call or a user's `if_down_cmd` may hang and the
supervisor must not. It decides nothing: the supervisor says when. The kernel has closed the gate by then
anyway; this removes the address that the gate makes silent.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence

from pgvigil.ipc import log
from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.settings import VipSettings
from pgvigil.watchdog.supervisor import birth, exits

LIMIT_NS = 2 * NS_PER_S

Release = Callable[[VipSettings], Sequence[str]]  # what was done, in sentences

_log = logging.getLogger(log.LOGGER)


def release_function() -> Release:
    """The real thing; imported before the first fork."""
    from pgvigil.watchdog.vip.release import release_now

    return release_now


class LastWill:
    """One helper at a time."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._deadline_ns = 0
        self.pid = 0
        self.pidfd = -1

    @property
    def running(self) -> bool:
        return self.pid != 0

    def start(self, vip: VipSettings, reason: str, now_ns: int, in_child: Callable[[], None]) -> bool:
        """Fork the helper; False if there is nothing to release or the kernel has no process for us."""
        if self.running or not vip.addresses:
            return False
        addresses = ", ".join(str(address) for address in vip.addresses)
        _log.warning("releasing %s in watchdog main's place: %s", addresses, reason)
        how = birth.Birth("last will", "last will", (), dies_with_parent=False, ignores_term=True)
        try:
            self.pid, self.pidfd = birth.fork(how, in_child, lambda: self._work(vip))
        except OSError as error:
            _log.error("cannot fork the helper that releases %s: %s", addresses, error.strerror)
            return False
        extra_ns = vip.command_timeout_s * NS_PER_S if vip.driver == "command" else 0
        self._deadline_ns = now_ns + LIMIT_NS + extra_ns
        return True

    def _work(self, vip: VipSettings) -> int:
        os.setsid()  # a user's command that it starts dies with this group, see `tick`
        try:
            for sentence in self._release(vip):
                _log.warning("last will: %s", sentence)
        except Exception as error:
            _log.error("the virtual IP could not be released: %s", error)
            return exits.code_of(error)
        return exits.CLEAN

    def wake(self) -> int | None:
        """The instant at which the helper has had its time."""
        return self._deadline_ns if self.running else None

    def tick(self, _now_ns: int) -> None:
        """Kill a helper that is late, with what it started."""
        _log.error("the helper that releases the virtual IP is late and is killed")
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(self.pid, signal.SIGKILL)
        self._deadline_ns += LIMIT_NS

    def reap(self) -> bool:
        """Collect the helper; True once it has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        if status != 0:
            _log.error("the helper that releases the virtual IP failed: %s", exits.describe(status))
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        return True
