"""What a person or a tool does by hand: the gate's tables, the address, the run directory, the pid file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from pgvigil.watchdog.demo.lab import VIP, Host
from pgvigil.watchdog.demo.matrix.case import Blow, Fault
from pgvigil.watchdog.demo.matrix.ground import Ground, run_dir

SOCKETS = {"watchdog.ipc", "control.ipc", "lifecheck.ipc"}
"""The last to be made again; each sender has one more."""


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
    """The folder with sockets and pid file goes. The supervisor must make it again, and its children their sockets."""

    def strike() -> None:
        for host in hosts:
            shutil.rmtree(run_dir(host))

    def are_back() -> bool:
        folders = [{path.name for path in run_dir(host).glob("*")} for host in hosts]
        return all(names > SOCKETS for names in folders)

    return Blow(strike, note=lambda: "made again" if are_back() else "NOT made again")


def delete_pid_file(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The supervisor must make it again."""
    paths = [run_dir(host) / "pgvigil.pid" for host in hosts]

    def strike() -> None:
        for path in paths:
            path.unlink()

    def note() -> str:
        return "made again" if all(path.exists() for path in paths) else "NOT made again"

    return Blow(strike, note=note)
