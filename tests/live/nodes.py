"""Nodes of real processes for the live tests: written, started, observed and swept here.

The test process becomes the subreaper of all that it starts, so that every descendant, also one whose parent was
killed, stays in reach by pid and none can be left behind unseen.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from pgvigil.watchdog.supervisor import pidfile

T = TypeVar("T")

PR_SET_CHILD_SUBREAPER = 36
STUB = Path(__file__).with_name("stub_node.py")
REPOSITORY = Path(__file__).parents[2]
REAL = (sys.executable, "-P", "-m", "pgvigil.watchdog.cli")


_spared: set[psutil.Process] = set()
"""What ran below this process before the test began: a lab of the same session, say. Not the test's to end."""


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children (prctl(2)); what runs already is spared from now on."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
    _spared.clear()
    _spared.update(psutil.Process().children())


def wait_for(what: str, condition: Callable[[], T | None], limit_s: float = 10.0) -> T:
    """The first true value of the condition, or a failure that says what was waited for."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit_s} s in vain for {what}"
        time.sleep(0.01)


def descendants(spared: bool = False) -> list[psutil.Process]:
    """All living processes below this one; without `spared`, not those that ran before and what is below them."""
    found = []
    waiting = [child for child in psutil.Process().children() if spared or child not in _spared]
    while waiting:
        process = waiting.pop()
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            waiting.extend(process.children())
        except psutil.NoSuchProcess:
            continue
    return found


def title(process: psutil.Process) -> str:
    """What `ps` shows; the empty rest of a re-titled process is cut."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return words[0].rstrip("\0 ") if words and words[0].startswith("pgvigil:") else " ".join(words)


@dataclass
class Outcome:
    """What a finished command said."""

    code: int
    output: str
    errors: str


class Node:
    """One node: its file, its folders, its processes."""

    def __init__(self, config: Path, node_id: int, folder: Path, program: Sequence[str]) -> None:
        self.config = config
        self.node_id = node_id
        self.folder = folder
        self.run_dir = folder / "run"
        self.state_dir = folder / "state"
        self.log = folder / "log"
        self.program = tuple(program)
        self._foreground: subprocess.Popen[str] | None = None

    # --- starting ---------------------------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        """A command line of this node."""
        return [*self.program, "--config", str(self.config), "--node-id", str(self.node_id), *words]

    def run(self, *words: str, limit_s: float = 30, environment: dict[str, str] | None = None) -> Outcome:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=limit_s, cwd=REPOSITORY, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self) -> Outcome:
        """Start as a daemon; it must be ready when the command ends."""
        outcome = self.run("start")
        assert outcome.code == 0, f"start failed: {outcome}\n{self.log_text()}"
        return outcome

    def start_foreground(self, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start in the foreground and wait until it has started."""
        self._foreground = subprocess.Popen(
            self.command("start", "--foreground"), text=True, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self.wait_log(r"started: \d+ processes are ready")
        return self._foreground

    def foreground_code(self, limit_s: float = 20) -> int:
        """The exit code of the foreground supervisor, when it has ended."""
        assert self._foreground is not None
        return self._foreground.wait(limit_s)

    # --- looking ----------------------------------------------------------------------------------------

    def supervisor(self) -> int | None:
        """Pid of the supervisor, by its lock."""
        return pidfile.holder(str(self.run_dir))

    def supervisor_pid(self) -> int:
        """The same, waiting for it."""
        return wait_for("a supervisor", self.supervisor)

    def processes(self) -> dict[str, int]:
        """Title (without its state in parentheses) and pid of the supervisor's living children."""
        pid = self.supervisor()
        if pid is None:
            return {}
        found = {}
        for child in psutil.Process(pid).children():
            text = title(child)
            if text.startswith("pgvigil: "):
                found[re.sub(r" \(.*", "", text.removeprefix("pgvigil: "))] = child.pid
        return found

    def pid_of(self, name: str) -> int:
        """Pid of a child by the beginning of its title, waiting for it."""
        return wait_for(f"a process {name}", lambda: self._pid_of(name))

    def _pid_of(self, name: str) -> int | None:
        try:
            return next((pid for text, pid in self.processes().items() if text.startswith(name)), None)
        except psutil.NoSuchProcess:
            return None

    def titles(self) -> list[str]:
        """Full titles of the supervisor and its children."""
        pid = self.supervisor_pid()
        process = psutil.Process(pid)
        return [title(process), *sorted(title(child) for child in process.children())]

    def log_text(self) -> str:
        """The whole log."""
        return self.log.read_text() if self.log.exists() else ""

    def wait_log(self, pattern: str, limit_s: float = 10, times: int = 1) -> str:
        """Wait for the pattern in the log: the newest match."""

        def found() -> str | None:
            matches = re.findall(f".*(?:{pattern}).*", self.log_text())
            return matches[-1] if len(matches) >= times else None

        try:
            return wait_for(f"{pattern!r} in the log", found, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_text()}") from None

    # --- acting -----------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.supervisor_pid(), number)

    def wait_stopped(self, limit_s: float = 20) -> None:
        """Wait until nothing holds the run directory any more."""
        wait_for("the end of the node", lambda: self.supervisor() is None, limit_s)

    def close(self) -> None:
        """Close what the test process holds."""
        if self._foreground is not None:
            if self._foreground.stdout is not None:
                self._foreground.stdout.close()
            self._foreground.wait(10)


def sweep() -> list[str]:
    """Kill everything below this process, by pid; the titles of what was found alive."""
    found: list[str] = []
    for _ in range(50):
        living = descendants()
        if not living:
            break
        for process in living:
            found.append(title(process))
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    return found


def reap_orphans(own: set[int]) -> None:
    """Collect inherited zombies, but not the children that `subprocess` waits for."""
    for child in psutil.Process().children():
        if child.pid not in own and child not in _spared and child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, os.WNOHANG)
