"""One child as the supervisor sees it: its process, its link, its past.

Starts, hears, orders, kills and buries; when to do so is decided by `policy` and the supervisor. What a child
sends is data: an unexpected frame is counted and dropped.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

from pgvigil.ipc import frames, log
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.ipc.ready import Link, make_pair
from pgvigil.watchdog.supervisor import birth, exits, policy
from pgvigil.watchdog.supervisor.children import ChildSpec

COMPLAINT_INTERVAL_NS = 60 * NS_PER_S
HEARD_AT_ONCE = 8  # times what a link hands out; a child that talks without end must not keep the supervisor
FAILED = "failed: "
MAX_REASON = 1000

_log = logging.getLogger(log.LOGGER)


class Child:
    """`state` is one of starting, running, stopping, backing off, failed (as in `frames.ProcessInfo`)."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = "backing off"
        self.pid = 0
        self.pidfd = -1
        self.link: Link | None = None
        self.started_ns = 0
        self.ready_ns: int | None = None
        self.life_ns = 0
        self.due_ns: int | None = None
        self.history = policy.History()
        self.last_exit = ""
        self.last_code = 0
        self.summary = ""
        self.reason = ""
        self.restart_asked = False
        self.removed = False
        self._complaints = 0
        self._complain_after_ns = 0

    @property
    def alive(self) -> bool:
        return self.pid != 0

    @property
    def ready(self) -> bool:
        return self.alive and self.ready_ns is not None

    def start(self, keep: tuple[int, ...], in_child: Callable[[], None]) -> None:
        """Fork it; `OSError` if the kernel has no process for us."""
        ours, theirs = make_pair()
        spec = self.spec

        def work() -> int:
            return run_child(spec, Link(theirs, spec.name, _log.warning))

        def drop() -> None:
            ours.close()
            in_child()

        keep = (*keep, theirs.fileno())
        how = birth.Birth(spec.name, spec.name, keep, dies_with_parent=not spec.vital, ignores_term=spec.vital)
        started_ns = boottime_ns()  # before it can do anything
        try:
            self.pid, self.pidfd = birth.fork(how, drop, work)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.link = Link(ours, "supervisor", self._complain)
        self.started_ns, self.life_ns = started_ns, boottime_ns()
        self.ready_ns = self.due_ns = None
        self.state, self.summary, self.reason = "starting", "", ""

    def hear(self) -> bool:
        """Take what it sent; True if it has just become ready.

        A sign of life counts from its sending: it may have waited in the link for the supervisor's next round.
        """
        was_ready = self.ready_ns is not None
        for _ in range(HEARD_AT_ONCE):
            if self.link is None or not (arrived := self.link.receive()):
                break
            for received in arrived:
                self._take(received, boottime_ns())
        return self.ready_ns is not None and not was_ready

    def _take(self, received: frames.Received, now_ns: int) -> None:
        frame = received.frame
        self.life_ns = max(self.life_ns, min(received.sent_at_ns, now_ns))
        if isinstance(frame, frames.Alive):
            self._heed(frame.summary)
        elif isinstance(frame, frames.Ready):
            self.ready_ns = self.ready_ns or now_ns
            self.state = "stopping" if self.state == "stopping" else "running"
        else:
            self._complain(f"{type(frame).__name__} is nothing that a child may send")

    def _heed(self, summary: str) -> None:
        if summary.startswith(FAILED):
            self.reason = summary.removeprefix(FAILED)
        else:
            self.summary = summary

    def _complain(self, reason: str) -> None:
        self._complaints += 1
        if boottime_ns() >= self._complain_after_ns:
            _log.warning("dropped %s of %s; the newest: %s", counted(self._complaints, "frame"), self.spec.name, reason)
            self._complaints, self._complain_after_ns = 0, boottime_ns() + COMPLAINT_INTERVAL_NS

    def order(self, frame: frames.Frame) -> bool:
        """Send an order; False if it could not be taken."""
        return self.link is not None and self.alive and self.link.send(frame)

    def kill(self) -> None:
        """SIGKILL, to exactly this process: a pidfd cannot mean another one."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def pardon(self, now_ns: int) -> None:
        """Give it a fresh period, because the supervisor itself was away."""
        self.life_ns = now_ns
        if self.alive and self.ready_ns is None:
            self.started_ns = now_ns

    def bury(self) -> int | None:
        """Collect its exit and free what belonged to it: the wait status, or None if it still lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.hear()  # its last words may still lie in the link
        text = exits.describe(status)
        self.last_exit = f"{text}: {self.reason}" if self.reason else text
        self.last_code = (status >> 8) & 0xFF if status & 0x7F == 0 else 0
        self.drop()
        self.pid = 0
        return status

    def drop(self) -> None:
        """Close our ends; also called in a fresh child, for the siblings it must know nothing of."""
        if self.link is not None:
            self.link.close()
            self.link = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def info(self) -> frames.ProcessInfo:
        """Its row in `pgvigil status`."""
        return frames.ProcessInfo(
            self.spec.name, self.pid, self.state, self.history.restarts, self.started_ns, self.last_exit
        )


def run_child(spec: ChildSpec, link: Link) -> int:
    """Inside the child: run it, log how it failed, and tell the supervisor the reason as the last word."""
    try:
        return spec.run(spec.settings, link, spec.life_interval_ns)
    except (ConfigError, CommandError) as error:
        _log.error("%s ends: %s", spec.name, error)
        return _last_words(link, error, str(error))
    except Exception as error:
        _log.critical("%s ends with an error that was not foreseen", spec.name, exc_info=True)
        return _last_words(link, error, f"{type(error).__name__}: {error}")


def _last_words(link: Link, error: Exception, text: str) -> int:
    link.send(frames.Alive(False, f"{FAILED}{text[:MAX_REASON]}"))
    return exits.code_of(error)
