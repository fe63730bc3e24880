"""Faults that lifecheck has to see: of pgpool-II, of its way to clients and database, and of what lies upstream.

Those of paths, cables, loss and load are the matrix's own (`matrix.faults_network`, `matrix.faults_machine`).
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence

from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.lifecheck.ground import OTHER_PASSWORD, PASSWORD, USER
from pgvigil.watchdog.demo.matrix.case import Blow
from pgvigil.watchdog.demo.matrix.faults_machine import end
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.run import send_signal
from pgvigil.watchdog.demo.services import DATABASE_TARGET, PGPOOL_PORT, query

HELD_SESSIONS = 16
"""Twice as many as a pgpool-II of the lab has children."""


def kill_pgpool(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """kill -9 of all of it; started again when the fault is undone (`Stage.mend_host`)."""

    def strike() -> None:
        for host in hosts:
            ground.stage.pools[host].kill9()

    def undo() -> None:
        for host in hosts:
            ground.stage.mend_host(host)

    return Blow(strike, undo)


def stop_pgpool(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """SIGSTOP of all of it: the port takes connections, nobody serves them."""
    return _stopped([pid for host in hosts for pid in ground.stage.pools[host].pids()])


def stop_children(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """SIGSTOP of all but the parent: the process that the pid file names is in the best of health."""
    return _stopped([pid for host in hosts for pid in ground.stage.pools[host].pids()[1:]])


def _stopped(pids: Sequence[int]) -> Blow:
    return Blow(lambda: send_signal(pids, signal.SIGSTOP), lambda: send_signal(pids, signal.SIGCONT))


def use_up_connections(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """Clients take every child of pgpool-II and stay."""
    running: list[subprocess.Popen[bytes]] = []

    def strike() -> None:
        for host in hosts:
            arguments = (host.address, str(PGPOOL_PORT), str(HELD_SESSIONS))
            running.append(ground.lab.start_module(ground.lab.client, "lifecheck.hold", arguments, "hold.log"))

    return Blow(strike, lambda: end(running))


def firewall_pgpool(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The other nodes do not reach pgpool-II's port; clients, and all else between the nodes, are not touched."""
    lab = ground.lab
    rest = [node for node in lab.nodes if node not in hosts]
    rule = f"{lab.between(rest, hosts)} tcp dport {PGPOOL_PORT} drop"
    return Blow(lambda: lab.drop([rule]), lab.heal)


def close_port(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """No node reaches the pgpool-II of another one; clients, and all else between the nodes, are not touched."""
    lab = ground.lab
    rule = f"{lab.between(lab.nodes, lab.nodes)} tcp dport {PGPOOL_PORT} drop"
    return Blow(lambda: lab.drop([rule]), lab.heal)


def database_down(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """kill -9 of PostgreSQL, the only backend of every pgpool-II."""

    def undo() -> None:
        ground.stage.postgres.start_again()
        for pool in ground.stage.pools.values():
            pool.wait_ready()

    return Blow(ground.stage.postgres.kill9, undo)


def database_hangs(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """SIGSTOP of PostgreSQL: pgpool-II takes every session and waits with it."""
    return _stopped(ground.lab.pids(ground.lab.database))


def change_password(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The database user of the query gets another password, and nobody tells pgvigil."""

    def become(password: str) -> None:
        query(ground.lab, ground.lab.client, DATABASE_TARGET, f"alter role {USER} password '{password}'").checked()

    return Blow(lambda: become(OTHER_PASSWORD), lambda: become(PASSWORD))


def silence_upstream(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """Echo requests of the hosts to the upstream servers are lost; nothing else is."""
    lab = ground.lab
    rule = f"{lab.between(hosts, [lab.client, lab.database])} ip protocol icmp icmp type echo-request drop"
    return Blow(lambda: lab.drop([rule]), lab.heal)
