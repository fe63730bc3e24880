"""pgvigil on the hosts of a lab, driven through its command line as an operator would.

This is the only place of the lab that knows pgvigil's commands and the shape of `status --json`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.config import config_path, key_path, log_path, write_config
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.run import Finished, kill_at_once, run, send_signal, wait_until

PGVIGIL = (sys.executable, "-m", "pgvigil.watchdog.cli")
START_LIMIT_S = 20.0
SETTLE_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node says about itself and the cluster; empty when it does not answer."""

    role: str = "unknown"
    term: int = 0
    leader: int = 0
    """Node id, 0 for none known."""
    alive: frozenset[int] = frozenset()
    electable: frozenset[int] = frozenset()
    vip_up: bool = False
    raw: str = field(default="", repr=False)


class Cluster:
    """The pgvigils of all nodes of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.environments: dict[str, dict[str, str]] = {}
        """By node name: what `start` adds to the environment of that node."""
        self.changes: dict[str, dict[str, Any]] = {}
        """What every node's file says besides, or instead, by section."""

    def configure(self) -> None:
        """Make the key with `pgvigil keygen` and every node's file."""
        if not key_path(self.lab).exists():
            run((*PGVIGIL, "keygen", str(key_path(self.lab)))).checked()
        for node in self.lab.nodes:
            write_config(self.lab, node, self.changes)

    def command(self, node: Host, *words: str) -> tuple[str, ...]:
        """A pgvigil command for one node, to be run in its namespace."""
        return (*PGVIGIL, "--config", str(config_path(node)), "--node-id", str(node.number), *words)

    def pgvigil(self, node: Host, *words: str, limit_s: float = START_LIMIT_S) -> Finished:
        return self.lab.run(node, self.command(node, *words), limit_s)

    def start(self, nodes: Sequence[Host]) -> None:
        """`pgvigil start` on several nodes at once; waits until every command says "started"."""
        commands = [(node, self._launch(node)) for node in nodes]
        for node, child in commands:
            wait_until(lambda c=child: c.poll() is not None, START_LIMIT_S, f"pgvigil start on {node.name}")  # type: ignore[misc]
            if child.returncode != 0:
                output = (node.folder / "start.log").read_text(errors="replace")[-2000:]
                raise CommandError(f"pgvigil start on {node.name} ended with code {child.returncode}: {output}")

    def _launch(self, node: Host) -> subprocess.Popen[bytes]:
        return self.lab.start(node, self.command(node, "start"), "start.log", self.environments.get(node.name))

    def stop(self, node: Host, mode: str = "smart") -> None:
        self.pgvigil(node, "stop", "-m", mode).checked()

    def stop_all(self) -> None:
        for node in self.running():
            self.stop(node, "fast")

    def switchover(self, node: Host, target: Host | None = None) -> Finished:
        """Ask one node for a planned switchover."""
        words = ("switchover",) if target is None else ("switchover", str(target.number))
        return self.pgvigil(node, *words)

    def forget(self, node: Host) -> None:
        """Remove the node's durable state: it joins as a new machine."""
        shutil.rmtree(node.folder / "state", ignore_errors=True)

    # looking

    def running(self) -> tuple[Host, ...]:
        return tuple(node for node in self.lab.nodes if self.lab.is_on(node) and self.lab.pgvigil(node))

    def status(self, node: Host) -> NodeView:
        """The view of one node; an empty one when it cannot be asked."""
        if not self.lab.is_on(node):
            return NodeView()
        try:
            answer = self.pgvigil(node, "status", "--json", limit_s=5)
            return view_of(json.loads(answer.out))
        except (CommandError, ValueError, KeyError, TypeError):
            return NodeView()

    def leader(self) -> Host:
        """The one node that says it leads; `CommandError` when there is none or more than one."""
        leaders = [node for node in self.lab.nodes if self.status(node).role == "leader"]
        if len(leaders) != 1:
            raise CommandError(f"leaders: {[node.name for node in leaders]}, expected exactly one")
        return leaders[0]

    def wait_settled(self, limit_s: float = SETTLE_LIMIT_S) -> Host:
        """Wait until all nodes agree on one leader that has the VIP, and on all being alive; returns the leader."""
        views: dict[str, NodeView] = {}

        def settled() -> bool:
            views.update({node.name: self.status(node) for node in self.lab.nodes})
            return is_settled(list(views.values()))

        try:
            wait_until(settled, limit_s, "all nodes to agree on one leader and to be alive", 0.2)
        except CommandError as error:
            raise CommandError(f"{error}; last seen: {views}") from None
        return self.leader()

    def log_tail(self, node: Host, lines: int = 30) -> str:
        """The last lines of a node's log, for a report of a failure."""
        texts = []
        for path in (log_path(node), node.folder / "start.log"):
            if path.exists():
                texts.append("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(texts)

    # processes

    def processes(self, node: Host, kind: str = "") -> list[int]:
        """Pids of a node's pgvigil processes whose title starts with `kind`; the supervisor first."""
        titles = self.lab.pgvigil(node)
        pids = [pid for pid, text in titles.items() if text.removeprefix("pgvigil: ").startswith(kind)]
        return sorted(pids, key=lambda pid: (not titles[pid].startswith("pgvigil: supervisor"), pid))

    def kill_all(self, node: Host) -> None:
        """kill -9 of every pgvigil process of a node at one instant: nobody is left to react."""
        kill_at_once(self.processes(node))

    def pause_all(self, node: Host) -> None:
        send_signal(self.processes(node), signal.SIGSTOP)

    def resume_all(self, node: Host) -> None:
        send_signal(self.processes(node), signal.SIGCONT)


def view_of(status: Any) -> NodeView:
    """Translate the status document; the only function that knows its shape."""
    nodes, vip = status["nodes"], status["vip"]
    return NodeView(
        role=str(status["state"]),
        term=int(status["term"]),
        leader=int(status["leader_id"] or 0),
        alive=frozenset(int(node["id"]) for node in nodes if node["health"] == "alive"),
        electable=frozenset(int(node["id"]) for node in nodes if node["electable"]),
        vip_up=vip["gate"] == "open" and all(address["present"] for address in vip["addresses"]),
        raw=json.dumps(status),
    )


def is_settled(views: Sequence[NodeView]) -> bool:
    """One leader with the VIP, all nodes in one term, everybody alive in everybody's eyes and able to lead."""
    everybody = frozenset(range(1, len(views) + 1))
    leaders = [view for view in views if view.role == "leader"]
    same_term = len({(view.term, view.leader) for view in views}) == 1
    well = all(view.alive >= everybody and view.electable >= everybody for view in views)
    return len(leaders) == 1 and leaders[0].vip_up and same_term and well
