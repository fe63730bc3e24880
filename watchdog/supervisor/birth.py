"""Forking: a child that shares memory with its parent and nothing else.

Between fork and the child's own code lie the traps: a signal that arrives too early would be written into the
parent's wake-up pipe, an inherited descriptor keeps a dead process's socket answering, `sys.exit` would run the
parent's exit handlers. So signals are blocked around the fork, every descriptor that is not named is closed, and
a child ends with `os._exit` whatever happens.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pgvigil.ipc import log
from pgvigil.watchdog.supervisor import exits

PR_SET_PDEATHSIG = 1
# No-op handlers instead of SIG_IGN: an ignored signal would stay ignored in the user's commands (execve(2)).
QUIET_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_libc = ctypes.CDLL(None, use_errno=True)
_log = logging.getLogger(log.LOGGER)


@dataclass(frozen=True, slots=True)
class Birth:
    """How a child is to be born. `keep` are the descriptors beside 0, 1, 2 and the log's that it may have.

    `dies_with_parent`: SIGKILL at the parent's death. `ignores_term`: until its own loop takes SIGTERM.
    """

    name: str
    title: str
    keep: tuple[int, ...]
    dies_with_parent: bool
    ignores_term: bool


def fork(birth: Birth, in_child: Callable[[], None], work: Callable[[], int]) -> tuple[int, int]:
    """Pid and pidfd of a new child: it runs `in_child` (to drop inherited objects), then exits with what `work` says.

    `OSError` if the kernel has no process or no descriptor for us; no child is left then.
    """
    pid = _fork(birth, in_child, work)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _fork(birth: Birth, in_child: Callable[[], None], work: Callable[[], int]) -> int:
    parent = os.getpid()
    everything = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    try:
        pid = os.fork()
        if pid == 0:
            _live(birth, parent, in_child, work)
    finally:
        # Only the parent comes here: `_live` does not return.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _live(birth: Birth, parent: int, in_child: Callable[[], None], work: Callable[[], int]) -> None:
    code = exits.SOFTWARE
    try:
        _settle(birth, parent)
        in_child()
        close_all_but((0, 1, 2, *log.descriptors(), *birth.keep))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = work()
    except BaseException:  # whatever it is: it must be logged, and the parent's stack must never go on here
        _log.critical("%s ended with an error that was not foreseen", birth.name, exc_info=True)
    finally:
        os._exit(code & 0xFF)


def _settle(birth: Birth, parent: int) -> None:
    if birth.dies_with_parent:
        die_with_parent(parent)
    signal.set_wakeup_fd(-1)
    reset_signals(birth.ignores_term)
    log.rename(birth.name)
    set_title(birth.title)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)


def die_with_parent(parent: int) -> None:
    """SIGKILL for us when the parent dies (prctl(2)); also if it died before we could ask for that."""
    if _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:
        os._exit(exits.FAILED)


def reset_signals(ignore_term: bool) -> None:
    """Defaults, but quiet where a signal to the whole process group (Ctrl-C) is meant for the supervisor."""
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for number in QUIET_SIGNALS:
        signal.signal(number, _quiet)
    signal.signal(signal.SIGTERM, _quiet if ignore_term else signal.SIG_DFL)


def _quiet(_number: int, _frame: object) -> None:
    """Does nothing; see QUIET_SIGNALS."""


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not named."""
    kept = set(keep)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one that listed the folder


def set_title(title: str) -> None:
    """The text that `ps` shows."""
    import setproctitle

    setproctitle.setproctitle(f"pgvigil: {title}")
