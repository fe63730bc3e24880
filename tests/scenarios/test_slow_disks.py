"""Elections on slow disks: a record's write takes as long as a whole usual round, or longer.

A write is two fsyncs, so 100 to 300 ms a write stand for disks that need 50 to 150 ms for each. Candidate and voters
write one after the other, before the votes and again before the first acknowledgement; with a limit of R = 200 ms no
round could ever be won. The rounds have to find out by themselves how long they must be.
"""

from __future__ import annotations

import pytest
from tests.scenarios.cluster import Cluster, Weather

from pgvigil.watchdog.core.base import CoreNode, CoreSettings
from pgvigil.watchdog.core.lease import NS_PER_MS

LEASE_MS, RENEW_MS = 1000, 200
# After the end of the old lease: limits of 200, 400, 800 and 1000 ms in vain with their pauses, for two candidates in
# turn, and the round that is won.
MARGIN_MS = 2 * (200 + 400 + 800 + 1000 + 4 * RENEW_MS) + 1000


def cluster_of(size: int, seed: int, write_ms: tuple[int, int]) -> Cluster:
    """A cluster that has begun; its disks need so long for a write."""
    nodes = tuple(CoreNode(node, f"n{node}", False, 1) for node in range(1, size + 1))
    settings = {node.node_id: CoreSettings(node.node_id, nodes, LEASE_MS, RENEW_MS, False) for node in nodes}
    least_ms, most_ms = write_ms
    cluster = Cluster(settings, seed, Weather((200, 2_000), (least_ms * 1000, most_ms * 1000)))
    for node in nodes:
        cluster.start(node.node_id)
    return cluster


def led(cluster: Cluster, within_ms: int) -> float:
    """How many ms it took until somebody led with an open gate; -1 if nobody did in time."""
    begin_ns = cluster.now_ns
    found = cluster.run(within_ms * NS_PER_MS, lambda: cluster.leader() is not None and len(cluster.open_gates()) == 1)
    return (cluster.now_ns - begin_ns) / NS_PER_MS if found else -1.0


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("write_ms", [(100, 300), (200, 200), (280, 300)])
def test_a_lost_leader_is_replaced_although_every_disk_is_slow(size: int, write_ms: tuple[int, int]) -> None:
    """With the cluster's first leader, and with the next one after that machine was lost (and came back, for two)."""
    for seed in range(10):
        cluster = cluster_of(size, seed, write_ms)
        assert led(cluster, LEASE_MS + MARGIN_MS) >= 0, "\n".join(cluster.story)
        cluster.run(3_000 * NS_PER_MS)
        first = cluster.leader()
        assert first is not None, "the first leader did not stay\n" + "\n".join(cluster.story)
        cluster.crash(first.node.node_id)
        if size == 2:
            cluster.start(first.node.node_id)
        waited_ms = led(cluster, 2 * LEASE_MS + MARGIN_MS)
        assert waited_ms >= 0, f"seed {seed}\n" + "\n".join(cluster.story)
        cluster.run(5_000 * NS_PER_MS)
        assert cluster.leader() is not None and len(cluster.open_gates()) == 1, "the second leader did not stay"
