"""A node whose durable record cannot be trusted ends, says why, and gives nobody its vote (PROTOCOL 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.live.clusters import kill, observe
from tests.live.conftest import MakeCluster
from tests.live.nodes import wait_for

from pgvigil.watchdog import store

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

NOBODY_WINS_S = 5.0
"""Several leases and rounds of the usual settings: time enough for two voters of three to find a leader."""


def damaged(data: bytes) -> bytes:
    """One bit of the content is another."""
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def of_another_node(data: bytes) -> bytes:
    """As if the state folder had been copied from another host."""
    record = store.unpack(data)
    return store.pack(replace(record, node_id=record.node_id % 3 + 1))


CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "damaged": (damaged, "its checksum does not match its content"),
    "of another node": (of_another_node, r"it belongs to node \d of cluster 'live', expected node \d"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_node_with_a_bad_record_does_not_vote(make_cluster: MakeCluster, case: str) -> None:
    spoil, reason = CASES[case]
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.settle()
    refused, voter = cluster.standbys()
    term = leader.status()["term"]

    path = refused.state_dir / "record"
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    kill(refused.pid_of("watchdog main"))
    refused.wait_log(rf"the record {path} cannot be used: .*{reason}.*neither votes nor stands")
    wait_for("the end of the refused node", lambda: not refused.everything(), 40)
    assert path.read_bytes() == spoil(whole)
    leader.wait_status("its lease", lambda one: one["term"] == term and one["lease"]["left_ms"] is not None)

    mark = voter.mark()
    leader.end()
    for _ in observe(NOBODY_WINS_S):
        assert voter.status().get("state") != "leader"
    assert "won term" not in voter.since(mark), cluster.logs()

    path.write_bytes(whole)
    refused.start()
    winner = cluster.leader(limit_s=20)
    assert winner is not leader
    assert winner.status()["term"] > term
