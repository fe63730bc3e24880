"""Real pgpool-IIs whose settings differ, and a node with another virtual IP, which does not get to carry it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.config import write_config
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_USER, Pgpool, Postgres, require_services

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LIMIT_S = 60.0
OTHER_VIP = "10.77.0.199/24"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes; the pgpool-II of the third keeps more connections than the others."""
    require_services()
    with Lab() as lab:
        postgres = Postgres(lab)
        postgres.start()
        pools = [Pgpool(lab, node, {"max_pool": 3} if node is lab.nodes[2] else None) for node in lab.nodes]
        for pool in pools:
            pool.start(wait=False)
        for pool in pools:
            pool.wait_ready()
        password = lab.root / "pcp_password"
        password.touch(mode=0o600)
        password.write_text(PCP_PASSWORD + "\n", encoding="ascii")
        made = Cluster(lab)
        made.changes = {"pgpool": {"pcp_user": PCP_USER, "pcp_password_file": str(password)}}
        made.configure()
        made.start(lab.nodes)
        yield made


def rows(cluster: Cluster, node: Host) -> dict[tuple[int, str], tuple[str, str]]:
    """What one node's status says of the differences of all."""
    status: dict[str, Any] = json.loads(cluster.pgvigil(node, "status", "--json", limit_s=5).out)
    return {(row["node"], row["key"]): (row["here"], row["leader"]) for row in status.get("drift", [])}


def test_settings_of_pgpool_are_compared_and_another_virtual_ip_keeps_a_node_out(cluster: Cluster) -> None:
    one, two, three = cluster.lab.nodes
    if cluster.wait_settled() is not one:
        cluster.switchover(one, one).checked()
        wait_until(lambda: cluster.wait_settled() is one, LIMIT_S, "the first node to lead", 0.2)
    expected = {(3, "pgpool.conf.max_pool"): ("3", "1")}
    for node in cluster.lab.nodes:
        wait_until(lambda n=node: rows(cluster, n) == expected, LIMIT_S, f"one difference on {node.name}", 0.2)  # type: ignore[misc]
    assert cluster.status(one).electable == {1, 2, 3}

    cluster.stop(three)
    write_config(cluster.lab, three, {**cluster.changes, "vip": {"addresses": [OTHER_VIP]}})
    cluster.start([three])
    wait_until(lambda: (3, "vip.addresses") in rows(cluster, one), LIMIT_S, "the other virtual IP to be seen", 0.2)
    assert rows(cluster, one)[(3, "vip.addresses")][0] == OTHER_VIP
    wait_until(lambda: cluster.status(one).electable == {1, 2}, LIMIT_S, "the node to be kept out", 0.2)
    refused = cluster.switchover(one, three)
    assert refused.code != 0, refused
    cluster.switchover(one).checked()
    wait_until(lambda: cluster.status(two).role == "leader", LIMIT_S, "the other node to lead", 0.2)
