"""Faults of pgvigil's own processes: killed, stopped for a while, alone or two at one instant."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.config import write_config
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.case import Blow, Fault
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.run import kill_at_once, send_signal

TITLES = {
    "supervisor": "supervisor",
    "main": "watchdog main",
    "lifecheck": "lifecheck",
    "sender": "heartbeat sender",
    "receiver": "heartbeat receiver",
}
"""Short names of the processes and how their titles begin."""


def kill(*kinds: str) -> Fault:
    """kill -9; of two processes at one instant, so that none sees the other one die."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        pids = pids_of(ground, hosts, kinds)
        return Blow(lambda: kill_at_once(pids) if len(pids) > 1 else send_signal(pids, signal.SIGKILL))

    return prepare


def stop(*kinds: str) -> Fault:
    """SIGSTOP, and SIGCONT afterwards to whatever is there by then."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        pids = pids_of(ground, hosts, kinds)

        def undo() -> None:
            for host in hosts:
                ground.cluster.resume_all(host)

        return Blow(lambda: send_signal(pids, signal.SIGSTOP), undo)

    return prepare


def kill_whole(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """kill -9 of every process of the node at one instant."""
    pids = [pid for host in hosts for pid in ground.cluster.processes(host)]
    return Blow(lambda: kill_at_once(pids))


def stop_whole(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """SIGSTOP of every process of the node."""
    return stop(*TITLES)(ground, hosts)


def kill_while_reloading(pause_s: float) -> Fault:
    """SIGHUP with a changed file that restarts watchdog main, and kill -9 of the supervisor a moment later."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        pids = pids_of(ground, hosts, ("supervisor",))

        def strike() -> None:
            for host in hosts:
                write_config(ground.lab, host, {"vip": {"announce_interval_s": 30}})
            send_signal(pids, signal.SIGHUP)
            time.sleep(pause_s)
            send_signal(pids, signal.SIGKILL)

        def undo() -> None:
            for host in hosts:
                write_config(ground.lab, host)

        return Blow(strike, undo)

    return prepare


def pids_of(ground: Ground, hosts: Sequence[Host], kinds: Sequence[str]) -> list[int]:
    """The processes of these kinds on these hosts; `CommandError` if one is missing."""
    found: list[int] = []
    for host in hosts:
        for kind in kinds:
            pids = ground.cluster.processes(host, TITLES[kind])
            if not pids:
                raise CommandError(f"no process `pgvigil: {TITLES[kind]}` on {host.name}: {ground.lab.pgvigil(host)}")
            found += pids
    return found
