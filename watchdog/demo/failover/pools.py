"""The pgpool-IIs of the failover lab: three backends, real health checks, and pgvigil as their failover_command.

Also what each of them makes of the backends, asked over PCP. Here is written what a site would write into its
pgpool.conf to use pgvigil.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.core.record import BackendRole
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.failover.command import PLACEHOLDERS
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_PORT, PCP_USER, POSTGRES_PORT, Pgpool
from pgvigil.watchdog.pcp.client import Address, Client
from pgvigil.watchdog.pools.view import PoolBackend, seen_backend

CHILDREN = 24
ANSWER_LIMIT_MS = 3000
_CALLS = {"failover_command": "failover", "failback_command": "failback", "follow_primary_command": "follow-primary"}


def backend_id(node: Host) -> int:
    """The backend on a host: they are listed in the order of the hosts."""
    return node.number - 1


def options(lab: Lab, cluster: Cluster, node: Host) -> dict[str, object]:
    """What the pgpool.conf of a host says besides the ports and folders."""
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
        values[key] = " ".join((*cluster.command(node, verb), PLACEHOLDERS))
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


def picture_of(nodes: tuple[PoolBackend, ...]) -> Picture:
    up = frozenset(node.backend_id for node in nodes if node.usable)
    primaries = [node.backend_id for node in nodes if node.role is BackendRole.PRIMARY and node.usable]
    quarantined = frozenset(node.backend_id for node in nodes if node.quarantined)
    return Picture(up, primaries[0] if len(primaries) == 1 else None, quarantined)


def connect(pool: Pgpool) -> Client:
    """Over the unix socket: its path is the same in every network namespace."""
    return Client(Address(str(pool.folder), PCP_PORT), PCP_USER, PCP_PASSWORD, ANSWER_LIMIT_MS)


def picture(pool: Pgpool) -> Picture | None:
    """What a pgpool-II says now; None if it does not answer (its PCP process starts again after every change).

    Asked for by the counts of its health checks: for node info it would log in at every backend.
    """
    try:
        with connect(pool) as pcp:
            return picture_of(tuple(map(seen_backend, pcp.all_health_stats(ANSWER_LIMIT_MS))))
    except (PeerError, CommandError):
        return None
