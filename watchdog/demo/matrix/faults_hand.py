"""What a person or a tool does by hand: the gate's tables, the address, the run directory, the pid file."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence

from pgvigil.watchdog.demo.lab import VIP, Host
from pgvigil.watchdog.demo.matrix.case import Blow, Fault
from pgvigil.watchdog.demo.matrix.faults_process import pids_of
from pgvigil.watchdog.demo.matrix.ground import Ground, run_dir
from pgvigil.watchdog.demo.run import send_signal, wait_until

STOP_LIMIT_S = 20.0


def by_command(*argv: str) -> Fault:
    """A command on each host that must succeed; pgvigil itself has to put right what it did."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        def strike() -> None:
            for host in hosts:
                ground.lab.run(host, argv).checked()

        return Blow(strike)

    return prepare


delete_tables = by_command("nft", "delete table inet pgvigil; delete table arp pgvigil")
flush_ruleset = by_command("nft", "flush ruleset")
remove_vip = by_command("ip", "addr", "del", f"{VIP}/24", "dev", "eth0")
add_vip = by_command("ip", "addr", "add", f"{VIP}/24", "dev", "eth0")


def delete_run_dir(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The folder with sockets and pid file goes. The operator's remedy: TERM to the supervisor, start again."""
    supervisors = {host: pids_of(ground, [host], ("supervisor",)) for host in hosts}

    def strike() -> None:
        for host in hosts:
            shutil.rmtree(run_dir(host))

    def undo() -> None:
        for host, pids in supervisors.items():
            send_signal(pids, signal.SIGTERM)
            wait_until(lambda host=host: ground.is_gone(host), STOP_LIMIT_S, f"pgvigil on {host.name} to stop")  # type: ignore[misc]
            ground.cluster.start([host])

    return Blow(strike, undo)


def delete_pid_file(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The supervisor must make it again."""
    paths = [run_dir(host) / "pgvigil.pid" for host in hosts]

    def strike() -> None:
        for path in paths:
            path.unlink()

    def note() -> str:
        return "made again" if all(path.exists() for path in paths) else "NOT made again"

    return Blow(strike, note=note)
