"""Two nodes, two real pgpool-IIs, one real PostgreSQL under two names: what is agreed is imposed, hands are noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.demo.cluster import PGVIGIL, Cluster
from pgvigil.watchdog.demo.config import config_path
from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import (
    PCP_PASSWORD,
    PCP_PORT,
    PCP_USER,
    POSTGRES_PORT,
    Pgpool,
    Postgres,
    require_services,
)
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Address, Client
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pools import classify

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LIMIT_S = 60.0
# pgpool-II leaves an empty folder out of the command line: in quotes it stays a word.
PLACEHOLDERS = '%d %h %p "%D" %m %H %M %P %r "%R" %N %S'
CHECKS = {
    "health_check_period": 1,
    "health_check_user": "postgres",
    "health_check_database": "postgres",
    "sr_check_period": 1,
    "sr_check_user": "postgres",
    "sr_check_database": "postgres",
    "failover_on_backend_shutdown": "off",
}


@dataclass
class Scene:
    """The nodes and their pgpool-IIs."""

    cluster: Cluster
    pools: dict[str, Pgpool]
    started_ns: int

    def order(self, node: Host, request: Request[Any]) -> None:
        """As a person with pgpool-II's own tools; its PCP process may just be starting anew."""

        def taken() -> bool:
            try:
                with Client(Address(str(self.pools[node.name].folder), PCP_PORT), PCP_USER, PCP_PASSWORD, 2000) as pcp:
                    pcp.ask(request, 5000)
            except (CommandError, PeerError):
                return False
            return True

        wait_until(taken, LIMIT_S, f"pgpool-II of {node.name} to take {request.name}", 0.2)

    def backend(self, node: Host, backend_id: int) -> dict[str, Any]:
        """As `pgvigil backend list` on a node has it."""
        listed = json.loads(self.cluster.pgvigil(node, "backend", "list", "--json").checked().out)
        found = [one for one in listed["backends"] if one["id"] == backend_id]
        return found[0] if found else {"status": "unknown", "reason": "", "pools": []}

    def wait(self, what: str, status: str, reason: str, backend_id: int = 1) -> dict[str, Any]:
        """Until a backend is agreed, and in both pgpool-IIs."""
        node, last = self.cluster.lab.node(1), {}

        def settled() -> bool:
            last.update(self.backend(node, backend_id))
            pools = ["down" if pool["status"] == "down" else "up" for pool in last["pools"]]
            return last["status"] == status and pools == [status] * 2 and reason in last["reason"]

        try:
            wait_until(settled, LIMIT_S, what, 0.3)
        except CommandError as error:
            raise CommandError(f"{error}; last seen: {last}\n{self.log()}") from None
        return last

    def log(self) -> str:
        return "".join(self.cluster.log_tail(node, 500) for node in self.cluster.lab.nodes)


def options(node: Host) -> dict[str, object]:
    """pgpool-II with two names for one PostgreSQL, that reports to its node."""
    call = " ".join((*PGVIGIL, "--config", str(config_path(node)), "--node-id", str(node.number)))
    names = {
        f"backend_{key}{number}": value
        for number in (0, 1)
        for key, value in (("hostname", DATABASE_ADDRESS), ("port", POSTGRES_PORT), ("weight", 1))
    }
    return {
        **names,
        "backend_flag0": "ALLOW_TO_FAILOVER",
        "backend_flag1": "ALLOW_TO_FAILOVER",
        **CHECKS,
        "failover_command": f"{call} failover {PLACEHOLDERS}",
        "failback_command": f"{call} failback {PLACEHOLDERS}",
    }


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    require_services()
    with Lab(nodes=2) as lab:
        Postgres(lab).start()
        password = lab.root / "pcp_password"
        password.write_text(f"{PCP_PASSWORD}\n", encoding="ascii")
        password.chmod(0o600)
        pools = {node.name: Pgpool(lab, node, options(node)) for node in lab.nodes}
        for pool in pools.values():
            pool.start(wait=False)
        for pool in pools.values():
            pool.wait_ready()
        cluster = Cluster(lab)
        cluster.changes = {"pgpool": {"pcp_user": PCP_USER, "pcp_password_file": str(password)}}
        cluster.configure()
        cluster.start(lab.nodes)
        cluster.wait_settled()
        yield Scene(cluster, pools, boottime_ns())
        cluster.stop_all()


def test_what_is_agreed_is_imposed_and_what_is_done_by_hand_is_spread(scene: Scene) -> None:
    first, second = scene.cluster.lab.nodes
    scene.wait("the table of both pgpool-IIs", "up", "")

    scene.cluster.pgvigil(first, "backend", "detach", "1", limit_s=90).checked()
    down = scene.wait("both to detach it", "down", "detached by")
    assert scene.log().count("told its pgpool-II to detach backend 1") == 2

    scene.order(second, requests.attach(1))
    up = scene.wait("the attach to be spread", "up", "attached")
    assert up["decision"] > down["decision"] and "attached" in up["reason"]

    # A word against a failure needs failed health checks counted some time before; pgvigil counts from its start on.
    old_enough_ns = scene.started_ns + classify.OLD_ENOUGH_NS + 5 * NS_PER_S
    wait_until(lambda: boottime_ns() > old_enough_ns, LIMIT_S, "the count of failed health checks to be old enough")
    scene.order(second, requests.detach(1))
    scene.wait("the detach to be spread", "down", "detached by hand on n2")

    # A restart forgets what is agreed: the new one comes up with both, and is no word of a person.
    pool = scene.pools[second.name]
    pool.kill9()
    pool.start()
    scene.wait("the new pgpool-II to be brought in line", "down", "detached by hand on n2")
    scene.cluster.wait_settled(LIMIT_S)  # its node was not electable until then
    assert "backend 1 was attached at its pgpool-II" not in scene.log().split("by hand on n2")[-1]

    scene.cluster.pgvigil(second, "backend", "attach", "1", limit_s=90).checked()
    scene.wait("both to attach it", "up", "")

    # Which puts the primary before it down there, and only there.
    scene.order(second, requests.promote(1))
    scene.wait("the promotion to be spread", "down", "backend 1 was promoted", backend_id=0)
    assert scene.backend(first, 1)["role"] == "primary"
    assert "backend 1 promoted by hand at its pgpool-II: this is agreed on" in scene.log()
