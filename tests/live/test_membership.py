"""Adding, removing and leaving with real nodes: asked on the leader, on a standby and on the node itself."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.live import clusters
from tests.live.clusters import Cluster, Member, leadership_stays
from tests.live.conftest import MakeCluster
from tests.live.nodes import wait_for

pytestmark = pytest.mark.live


def ask(member: Member, *words: str) -> str:
    """A change of the voters that succeeds; what it said."""
    member.wait_status("a leader to ask", lambda one: bool(one["leader_id"]))
    outcome = member.run("node", *words)
    assert outcome.code == 0, (outcome, member.log_text()[-3000:])
    return outcome.output


def refused(member: Member, *words: str, because: str) -> None:
    """A change of the voters that is refused for this reason, once a node that has just started can tell."""

    def told() -> bool:
        outcome = member.run("node", *words)
        assert outcome.code == 1, outcome
        return because in outcome.errors

    wait_for(f"a refusal because {because}", told)


def voters(cluster: Cluster, *node_ids: int) -> None:
    """Every node of the cluster knows exactly these voters."""
    for member in cluster.members:
        if member.supervisor() is not None:
            member.wait_status(f"voters {node_ids}", lambda one: one["voters"]["ids"] == list(node_ids))


def test_a_standby_is_removed_and_added_from_any_node(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start()
    cluster.settle()
    with leadership_stays(cluster) as leader:
        here, there = cluster.standbys()
        rest = sorted(member.node_id for member in (leader, here))
        assert f"{there.label} is no voter any more, 2 voters: committed" in ask(here, "remove", there.label)
        voters(cluster, *rest)
        assert "; nothing was changed" in ask(leader, "remove", str(there.node_id))
        there.wait_log("is no voter any more: document .* does not name this record .an operator removed it")
        page = there.run("status").output
        assert f"no voter: an operator removed it; `pgvigil node add {there.label}` adds it again" in page
        assert f"no voter    {there.label}" in leader.run("status").output
        found = json.loads(ask(there, "add", there.label, "--json"))
        assert (found["outcome"], found["action"]) == ("done", "add")
        voters(cluster, 1, 2, 3)
        refused(here, "remove", leader.label, because="run `pgvigil switchover`")
        ask(leader, "remove", there.label)
        ask(leader, "add", there.label)
        voters(cluster, 1, 2, 3)
        ask(here, "leave", "--stop")
        assert here.supervisor() is None
        voters(cluster, *sorted(member.node_id for member in (leader, there)))


def test_a_leader_hands_over_before_it_leaves(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start()
    old = cluster.settle()
    output = ask(old, "leave")
    assert "leads term" in output and f"{old.label} is no voter any more" in output
    new = cluster.leader()
    assert new is not old
    voters(cluster, *sorted(member.node_id for member in cluster.members if member is not old))
    with leadership_stays(cluster):
        ask(old, "add", old.label)
        voters(cluster, 1, 2, 3)


def test_a_node_that_lost_its_state_is_replaced(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start()
    cluster.settle()
    with leadership_stays(cluster) as leader:
        lost = cluster.standbys()[0]
        lost.end()
        shutil.rmtree(lost.state_dir)
        leader_mark = leader.mark()
        lost.start()
        leader.wait_since(leader_mark, f"{lost.label} answers with another record than the cluster knows")
        refused(lost, "add", lost.label, because=f"`pgvigil node remove {lost.label}`")
        ask(lost, "remove", lost.label)
        ask(lost, "add", lost.label)
        voters(cluster, 1, 2, 3)
        cluster.settle()


def test_a_node_that_the_files_do_not_name_yet(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(4)
    full = {member: member.text for member in cluster.members}
    founders, fresh = cluster.members[:3], cluster.members[3]
    for member in founders:
        member.text = clusters._text(member, founders, (), "")
        member.write_config(member.text)
    cluster.members = founders
    cluster.start()
    cluster.settle()
    try:
        with leadership_stays(cluster) as leader:
            standby = cluster.standbys()[0]
            refused(standby, "add", fresh.label, because="no node 'pg04'")
            standby.write_config(full[standby])
            assert standby.run("reload").code == 0
            refused(standby, "add", fresh.label, because="has no [[node]] of id 4 in its file")
            for member in (cluster.standbys()[1], leader):
                member.write_config(full[member])
                assert member.run("reload").code == 0
            refused(leader, "add", fresh.label, because="start pgvigil there")
            fresh.start()
            fresh.wait_status("a leader", lambda one: one["leader_id"] == leader.node_id)
            leader.wait_status("it alive", lambda one: one["nodes"][3]["health"] == "alive")
            ask(fresh, "add", fresh.label)
            voters(cluster, 1, 2, 3, 4)
    finally:
        cluster.members = [*founders, fresh]


def test_stopped_and_lost_nodes_are_removed_and_come_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, extra="remove_shutdown_nodes = true\nlost_node_removal_timeout_s = 3\n")
    cluster.start()
    cluster.settle()
    with leadership_stays(cluster) as leader:
        lost, stopped = cluster.standbys()
        lost.end()
        leader.wait_status("the removal ahead", lambda one: [row["id"] for row in one["voters"]["going"]])
        voters(cluster, *sorted((leader.node_id, stopped.node_id)))
        row = leader.status()["voters"]["removed"][0]
        assert (row["id"], row["cause"], row["returns"]) == (lost.node_id, "lost", True)
        assert stopped.run("stop").code == 0
        voters(cluster, leader.node_id)
        stopped.start()
        stopped.wait_log("the leader adds it again by itself when it has followed for a while")
        lost.start()
        voters(cluster, 1, 2, 3)
        cluster.settle()
