"""Whole clusters of real nodes on loopback, started through the command line, and put right between tests.

pgpool-II is stood in by a sleeping process with a pid file, one per node. There is no virtual IP: what carries
one needs namespaces of its own (tests/lab).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
from tests.live import nodes
from tests.live.nodes import REAL, Node, wait_for

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.cli.node import ask_json
from pgvigil.watchdog.config import keys

Status = dict[str, Any]

KINDS = ("lifecheck", "heartbeat sender", "heartbeat receiver", "watchdog main")
HANG_TIMEOUT_MS = 1500
SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(86400)")


class Member(Node):
    """A node of a cluster, with its stand-in for pgpool-II."""

    def __init__(self, node_id: int, folder: Path, address: str, ports: tuple[int, int]) -> None:
        super().__init__(folder / "pgvigil.toml", node_id, folder, REAL)
        self.label = f"pg{node_id:02d}"
        self.address = address
        self.port, self.beat_port = ports
        self.key_file = folder / "authkey"
        self.pid_file = folder / "pgpool.pid"
        self.text = ""
        self.pgpool: subprocess.Popen[bytes] | None = None

    # --- pgpool-II ----------------------------------------------------------------------------------

    def start_pgpool(self) -> None:
        """Start the stand-in unless it runs."""
        if self.pgpool is None or self.pgpool.poll() is not None:
            self.pgpool = subprocess.Popen(SLEEPER)
        self.pid_file.write_text(f"{self.pgpool.pid}\n")

    def kill_pgpool(self) -> None:
        """End the stand-in as a crash would."""
        assert self.pgpool is not None
        self.pgpool.kill()
        self.pgpool.wait(10)

    # --- looking ------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What watchdog main says now; empty if it does not answer."""
        try:
            return ask_json(str(self.run_dir), "status", timeout_ms=500)
        except CommandError:
            return {}

    def wait_status(self, what: str, condition: Callable[[Status], object], limit_s: float = 10) -> Status:
        """The first status that fulfils the condition."""
        seen: list[Status] = [{}]

        def look() -> Status | None:
            seen[0] = self.status()
            return seen[0] if seen[0] and condition(seen[0]) else None

        try:
            return wait_for(f"{what} on {self.label}", look, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(seen[0], indent=1)}\n{self.log_text()}") from None

    def row(self, name: str) -> dict[str, Any]:
        """The status line of one process of this node, by the beginning of its name; empty if it is not there."""
        rows = self.status().get("processes", [])
        return next((row for row in rows if row["name"].startswith(name)), {})

    def children(self) -> dict[str, int]:
        """Title and pid of all children, none missing."""
        wait_for(f"all processes of {self.label}", lambda: len(self._processes()) == len(KINDS))
        return self._processes()

    def _processes(self) -> dict[str, int]:
        try:
            return self.processes()
        except psutil.NoSuchProcess:
            return {}

    def everything(self) -> list[psutil.Process]:
        """All living processes of this node, also those without a supervisor: they hold its log open."""
        return [process for process in nodes.descendants(spared=True) if _holds(process, self.folder)]

    def mark(self) -> int:
        """The present end of the log, for `since`."""
        return len(self.log_text())

    def since(self, mark: int) -> str:
        """What was logged after the mark."""
        return self.log_text()[mark:]

    def wait_since(self, mark: int, pattern: str, limit_s: float = 10) -> str:
        """The first line after the mark that matches."""

        def found() -> str | None:
            return next((line for line in self.since(mark).splitlines() if re.search(pattern, line)), None)

        try:
            return wait_for(f"{pattern!r} in the log of {self.label}", found, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.since(mark)}") from None

    # --- acting -------------------------------------------------------------------------------------

    def write_config(self, text: str) -> None:
        """Replace the file in one step, as editors do."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.config)

    def end(self) -> None:
        """Kill everything of this node, whatever state it is in; nobody is left the time to hand over or to leave."""
        while living := self.everything():
            for signal_all in (psutil.Process.suspend, psutil.Process.kill):
                for process in living:
                    try:
                        signal_all(process)
                    except psutil.NoSuchProcess:
                        continue
            psutil.wait_procs(living, 0.05)


def _holds(process: psutil.Process, folder: Path) -> bool:
    """Whether the process has a file below the folder open; the stand-in for pgpool-II has none."""
    try:
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


class Cluster:
    """Nodes 1 to n on 127.0.0.1 to 127.0.0.n."""

    def __init__(self, folder: Path, members: list[Member]) -> None:
        self.folder = folder
        self.members = members

    def __getitem__(self, node_id: int) -> Member:
        return next(member for member in self.members if member.node_id == node_id)

    def start(self, *node_ids: int) -> None:
        """Start these nodes (all if none is named), at the same time."""
        chosen = [self[node_id] for node_id in node_ids] or self.members
        with ThreadPoolExecutor(len(chosen)) as pool:
            list(pool.map(lambda member: member.start(), chosen))

    def statuses(self) -> list[Status]:
        """Of all nodes that answer."""
        return [status for status in (member.status() for member in self.members) if status]

    def leader(self, limit_s: float = 10) -> Member:
        """The leader by its own word, waiting for one."""

        def find() -> Member | None:
            return next((one for one in self.members if one.status().get("state") == "leader"), None)

        return wait_for("a leader", find, limit_s)

    def standbys(self) -> list[Member]:
        """Everybody else."""
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    def by_role(self, role: str) -> Member:
        """The leader, or the first standby."""
        return self.leader() if role == "leader" else self.standbys()[0]

    def settled(self) -> bool:
        """Whether everybody is here, follows one leader with a committed document, and could take over."""
        statuses = self.statuses()
        return (
            len(statuses) == len(self.members)
            and len({(status["leader_id"], status["term"]) for status in statuses}) == 1
            and statuses[0]["leader_id"] is not None
            and any(status["document"]["committed"] for status in statuses if status["state"] == "leader")
            and all(_complete(status) for status in statuses)
        )

    def settle(self, limit_s: float = 15) -> Member:
        """Wait until the cluster is whole; the leader."""
        try:
            wait_for("a whole cluster", self.settled, limit_s)
        except AssertionError as error:
            shown = "\n".join(json.dumps(status, indent=1) for status in self.statuses())
            raise AssertionError(f"{error}\n{shown}\n{self.logs()}") from None
        return self.leader()

    def heal(self) -> Member:
        """Undo what a test has done: files, pgpool-II, stopped processes, nodes that are down."""
        down = []
        for member in self.members:
            member.write_config(member.text)
            member.start_pgpool()
            for process in member.everything():
                process.send_signal(signal.SIGCONT)
            if member.supervisor() is None:
                member.end()
                down.append(member.node_id)
        if down:
            self.start(*down)
        return self.settle()

    def logs(self) -> str:
        """The newest lines of all nodes, for a failed test."""
        return "\n".join(f"--- {one.label}\n" + "\n".join(one.log_text().splitlines()[-60:]) for one in self.members)

    def end(self) -> None:
        """Leave nothing behind."""
        for member in self.members:
            member.end()
            if member.pgpool is not None:
                member.kill_pgpool()
        nodes.reap_orphans(set())


def _complete(status: Status) -> bool:
    """Whether a node sees every node alive and able (or a witness), and all its own processes running."""
    return (
        status["restart_wait_ms"] == 0
        and all(row["health"] == "alive" and (row["electable"] or row["role"] == "witness") for row in status["nodes"])
        and len(status["processes"]) == len(KINDS) + 1
        and all(row["state"] == "running" for row in status["processes"])
    )


def make_cluster(folder: Path, ports: list[int], witnesses: tuple[int, ...] = (), extra: str = "") -> Cluster:
    """Files and folders for a node per two ports, with a shared secret; nothing is started but the stand-ins."""
    secret = keys.generate()
    members = []
    for index in range(len(ports) // 2):
        home = folder / f"n{index + 1}"
        home.mkdir(parents=True)
        pair = (ports[2 * index], ports[2 * index + 1])
        members.append(Member(index + 1, home, f"127.0.0.{index + 1}", pair))
    for member in members:
        member.key_file.touch(0o600)
        member.key_file.write_text(secret)
        member.text = _text(member, members, witnesses, extra)
        member.write_config(member.text)
        member.start_pgpool()
    return Cluster(folder, members)


def _text(own: Member, members: list[Member], witnesses: tuple[int, ...], extra: str) -> str:
    tables = [f'[cluster]\nname = "live"\nauthkey_file = "{own.key_file}"\nfence = "best-effort"\n{extra}']
    for member in members:
        role = "witness" if member.node_id in witnesses else "member"
        tables.append(
            dedent(f"""
            [[node]]
            id = {member.node_id}
            host = "{member.label}"
            port = {member.port}
            role = "{role}"
            [[node.path]]
            interface = "lo"
            address = "{member.address}"
            port = {member.beat_port}
            """)
        )
    tables.append(
        dedent(f"""
        [pgpool]
        pid_file = "{own.pid_file}"
        [process]
        run_dir = "{own.run_dir}"
        state_dir = "{own.state_dir}"
        log = "file:{own.log}"
        hang_timeout_ms = {HANG_TIMEOUT_MS}
        """)
    )
    return "\n".join(tables)


def observe(seconds: float) -> Iterator[None]:
    """Rounds of looking for that long: for what must not happen, where no condition can be waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)


@contextmanager
def leadership_stays(cluster: Cluster) -> Iterator[Member]:
    """Leader and term are the same afterwards, and nobody has led in between."""
    leader = cluster.leader()
    term = leader.status()["term"]
    marks = {member: member.mark() for member in cluster.members}
    yield leader
    status = leader.wait_status("its lease", lambda one: one["lease"]["left_ms"] is not None)
    assert (status["leader_id"], status["term"]) == (leader.node_id, term), cluster.logs()
    for member, mark in marks.items():
        assert "won term" not in member.since(mark), cluster.logs()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to a process that a test started."""
    os.kill(pid, number)
