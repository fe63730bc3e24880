"""Running commands and looking after processes of a network namespace.

Every command gets its own session, a time limit and kept output. Output goes to files, not pipes: a daemon that
keeps a pipe open would make its starter wait for ever. Processes are found by the namespace they live in and killed
by pid, never by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError

NETNS_DIR = Path("/run/netns")
POLL_S = 0.01
"""Pause between two looks at a condition that no descriptor announces."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended by itself."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def checked(self) -> Finished:
        """Itself, or `CommandError` with the output if the exit code is not 0."""
        if self.code != 0:
            tail = (self.err.strip() or self.out.strip())[-2000:]
            raise CommandError(f"`{' '.join(self.argv)}` ended with code {self.code}, expected 0: {tail}")
        return self


def run(
    argv: Sequence[str],
    *,
    limit_s: float = 20.0,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Finished:
    """Run a command to its end; `CommandError` when it cannot start or takes longer than `limit_s`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as text:
        text.write(stdin.encode())
        text.seek(0)
        try:
            process = subprocess.Popen(
                argv, stdin=text, stdout=out, stderr=err, env=env, cwd=cwd, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"`{argv[0]}` cannot be started: {error}") from None
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise CommandError(f"`{' '.join(argv)}` was not done after {limit_s} s: {_text(err)}") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Finished(tuple(argv), code, _text(out), _text(err))


def _text(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    data: bytes = file.read()  # type: ignore[attr-defined]
    return data.decode(errors="replace")


def ip(namespace: str | None, lines: Sequence[str]) -> None:
    """Carry out `ip` commands, one per line, in a namespace (None: the machine's own)."""
    where = ("-n", namespace) if namespace else ()
    run(("ip", *where, "-batch", "-"), stdin="\n".join(lines) + "\n").checked()


def wait_until(condition: Callable[[], bool], limit_s: float, what: str, pause_s: float = POLL_S) -> float:
    """Wait for a condition; returns the seconds it took, `CommandError` naming `what` when the limit passes."""
    started_at_ns = boottime_ns()
    while not condition():
        if boottime_ns() - started_at_ns > limit_s * NS_PER_S:
            raise CommandError(f"waited {limit_s} s in vain: {what}")
        time.sleep(pause_s)
    return (boottime_ns() - started_at_ns) / NS_PER_S


def namespace_exists(namespace: str) -> bool:
    return (NETNS_DIR / namespace).exists()


def pids_in(namespace: str) -> list[int]:
    """The living processes of a network namespace, ascending."""
    try:
        inode = (NETNS_DIR / namespace).stat().st_ino
    except FileNotFoundError:
        return []
    return sorted(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _lives_in(pid, inode))


def _lives_in(pid: int, inode: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == inode
    except OSError:
        return False  # gone meanwhile, or a zombie: it has no namespace any more


def title(pid: int) -> str:
    """What `ps` shows for a process; empty when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def send_signal(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there, in the order given."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_at_once(pids: Sequence[int]) -> None:
    """End processes so that none of them sees another one die: all are stopped before the first is killed."""
    send_signal(pids, signal.SIGSTOP)
    send_signal(pids, signal.SIGKILL)


def empty_namespace(namespace: str, limit_s: float = 5.0) -> None:
    """Kill every process of a namespace, those that are being born included."""

    def is_empty() -> bool:
        pids = pids_in(namespace)
        kill_at_once(pids)
        return not pids

    wait_until(is_empty, limit_s, f"processes of namespace {namespace} to end after SIGKILL")
