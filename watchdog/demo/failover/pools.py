"""The pgpool-IIs of the failover lab: three backends, real health checks, and pgvigil as their failover_command.

Also what each of them makes of the backends, asked over PCP. Here is written what a site would write into its
pgpool.conf to use pgvigil: the same on all hosts, for pgvigil warns of settings in which pgpool-IIs differ.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.failover.command import PLACEHOLDERS
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_PORT, PCP_USER, POSTGRES_PORT, Pgpool
from pgvigil.watchdog.pcp.client import Address, Client
from pgvigil.watchdog.pcp.records import BackendStatus, NodeInfo, Role

CHILDREN = 24
ADDRESS_FILE = "/sys/class/net/eth0/address"
ANSWER_LIMIT_MS = 10_000
"""pgpool-II asks each backend before it answers, and waits for one that keeps silent."""
_CALLS = {"failover_command": "failover", "failback_command": "failback", "follow_primary_command": "follow-primary"}


def backend_id(node: Host) -> int:
    """The backend on a host: they are listed in the order of the hosts."""
    return node.number - 1


def write_caller(lab: Lab, cluster: Cluster) -> Path:
    """A command that is pgvigil on whatever host it is called: sites have one path for it, the hosts here share a disk.

    The host is known by its hardware address.
    """
    path = lab.root / "pgvigil"
    path.write_text(caller_text({node.mac: cluster.command(node) for node in lab.nodes}), encoding="utf-8")
    path.chmod(0o755)
    return path


def caller_text(commands: Mapping[str, Sequence[str]]) -> str:
    """The shell script: what to become, by the hardware address of the host."""
    cases = [f'{mac}) exec {shlex.join(command)} "$@" ;;' for mac, command in commands.items()]
    other = '*) echo "no host of this lab: $mac" >&2; exit 1 ;;'
    lines = ("#!/bin/sh", f"read -r mac < {ADDRESS_FILE}", 'case "$mac" in', *cases, other, "esac")
    return "\n".join(lines) + "\n"


def options(lab: Lab, caller: Path) -> dict[str, object]:
    """What every pgpool.conf says besides the ports and folders; `caller` is the command for pgvigil."""
    values: dict[str, object] = {
        "num_init_children": CHILDREN,
        "connect_timeout": 1000,
        "health_check_period": 1,
        "health_check_timeout": 2,
        "health_check_max_retries": 1,
        "health_check_retry_delay": 1,
        "health_check_user": "postgres",
        "health_check_database": "postgres",
        "sr_check_period": 1,
        "sr_check_user": "postgres",
        "sr_check_database": "postgres",
        "search_primary_node_timeout": 10,
        "failover_on_backend_error": "off",
    }
    for other in lab.nodes:
        number = backend_id(other)
        values[f"backend_hostname{number}"] = other.address
        values[f"backend_port{number}"] = POSTGRES_PORT
        values[f"backend_weight{number}"] = 1
        values[f"backend_flag{number}"] = "ALLOW_TO_FAILOVER"
        values[f"backend_data_directory{number}"] = other.folder / "postgres" / "data"
    for key, verb in _CALLS.items():
        values[key] = f"{caller} {verb} {PLACEHOLDERS}"
    return values


@dataclass(frozen=True, slots=True)
class Picture:
    """What one pgpool-II makes of the backends: the ids that it uses, and which of them is its primary."""

    up: frozenset[int]
    primary: int | None
    quarantined: frozenset[int] = frozenset()

    def __str__(self) -> str:
        quarantine = f", quarantined {sorted(self.quarantined)}" if self.quarantined else ""
        return f"up {sorted(self.up)}, primary {self.primary}{quarantine}"


def picture_of(nodes: tuple[NodeInfo, ...]) -> Picture:
    usable = (BackendStatus.UP, BackendStatus.WAITING)
    up = frozenset(node.node_id for node in nodes if node.status in usable)
    primaries = [node.node_id for node in nodes if node.role is Role.PRIMARY and node.node_id in up]
    quarantined = frozenset(node.node_id for node in nodes if node.quarantined)
    return Picture(up, primaries[0] if len(primaries) == 1 else None, quarantined)


def connect(pool: Pgpool) -> Client:
    """Over the unix socket: its path is the same in every network namespace."""
    return Client(Address(str(pool.folder), PCP_PORT), PCP_USER, PCP_PASSWORD, ANSWER_LIMIT_MS)


def picture(pool: Pgpool) -> Picture | None:
    """What a pgpool-II says now; None if it does not answer (its PCP process starts again after every change)."""
    try:
        with connect(pool) as pcp:
            return picture_of(pcp.nodes(ANSWER_LIMIT_MS))
    except (PeerError, CommandError):
        return None
