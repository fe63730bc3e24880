"""Faults of the network: cut in one or both directions, flapping, lossy; the whole cable, between nodes, or one path.

They are made at the switch (nftables in its namespace, or the cable itself), where no process of a node can see why
frames are missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.matrix.case import Blow, Fault
from pgvigil.watchdog.demo.matrix.ground import Ground

FLAP_S = 0.3
RuleMaker = Callable[[Lab, Sequence[Host]], list[str]]


def _rules(make: RuleMaker) -> Fault:
    """A fault that consists of nftables rules at the switch."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        lab, rules = ground.lab, make(ground.lab, hosts)
        return Blow(lambda: lab.drop(rules), lab.heal)

    return prepare


def cable_one_way(outgoing: bool, path: int | None = None) -> Fault:
    """Nothing that the hosts send arrives anywhere, or nothing arrives at them; their carrier stays."""

    def make(lab: Lab, hosts: Sequence[Host]) -> list[str]:
        everybody = lab.nodes if path else lab.hosts
        rest = [host for host in everybody if host not in hosts]
        sources, targets = (hosts, rest) if outgoing else (rest, hosts)
        return [f"{lab.between(sources, targets, path)} drop"]

    return _rules(make)


def peers(outgoing: bool, incoming: bool, path: int | None = None) -> Fault:
    """Frames between the hosts and the other nodes are dropped; clients and database are reached as before."""

    def make(lab: Lab, hosts: Sequence[Host]) -> list[str]:
        rest = [node for node in lab.nodes if node not in hosts]
        out = [f"{lab.between(hosts, rest, path)} drop"] if outgoing else []
        back = [f"{lab.between(rest, hosts, path)} drop"] if incoming else []
        return out + back

    return _rules(make)


def loss(percent: int, between_nodes: bool) -> Fault:
    """Frames are lost at random: all of these hosts' frames, or those between nodes only."""

    def make(lab: Lab, hosts: Sequence[Host]) -> list[str]:
        rest = [host for host in (lab.nodes if between_nodes else lab.hosts) if host not in hosts]
        pairs = [(hosts, rest), (rest, hosts)] if rest else []
        pairs += [(hosts, hosts)] if len(hosts) > 1 else []
        return [f"{lab.between(*pair)} numgen random mod 100 < {percent} drop" for pair in pairs]

    return _rules(make)


def unplug(path: int | None = None) -> Fault:
    """The cable is pulled: the host sees its carrier go."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        def strike() -> None:
            for host in hosts:
                ground.lab.cut(host, path)

        def undo() -> None:
            for host in hosts:
                ground.lab.restore(host, path)

        return Blow(strike, undo)

    return prepare


def flap(path: int | None = None) -> Fault:
    """The cable goes and comes every 300 ms until the fault is undone."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        plug = Flapping(ground.lab, hosts, path)
        return Blow(plug.start, plug.stop, plug.note)

    return prepare


class Flapping:
    """A thread that pulls cables and puts them back."""

    def __init__(self, lab: Lab, hosts: Sequence[Host], path: int | None) -> None:
        self._lab = lab
        self._hosts = hosts
        self._path = path
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error = ""
        self._turns = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends with the cables in place; `CommandError` if the flapping itself failed."""
        self._leave.set()
        if self._thread.is_alive():
            self._thread.join(10)
        for host in self._hosts:
            self._lab.restore(host, self._path)
        if self._error:
            raise CommandError(f"the cables did not flap: {self._error}")

    def note(self) -> str:
        return f"{self._turns} times"

    def _run(self) -> None:
        try:
            while True:
                self._all(self._lab.cut)
                self._turns += 1
                if self._leave.wait(FLAP_S):
                    return
                self._all(self._lab.restore)
                if self._leave.wait(FLAP_S):
                    return
        except CommandError as error:
            self._error = str(error)

    def _all(self, act: Callable[[Host, int | None], None]) -> None:
        for host in self._hosts:
            act(host, self._path)
