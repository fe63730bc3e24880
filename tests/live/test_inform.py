"""`pgvigil inform` on real nodes: the command, the example for programs, restarts, and reports that stand alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.live.clusters import Cluster, Member, Status, kill
from tests.live.conftest import MakeCluster

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[2] / "docs" / "lifecheck.md"


def row(status: Status, node_id: int) -> dict[str, object]:
    """One node's line of a status."""
    found: dict[str, object] = next(item for item in status["nodes"] if item["id"] == node_id)
    return found


def inform(member: Member, *words: str) -> str:
    """The command says done; what it said."""
    outcome = member.run("inform", *words)
    assert outcome.code == 0, outcome
    return outcome.output


def sees(member: Member, node_id: int, health: str, evidence: str) -> Status:
    """A node comes to a verdict with such an evidence."""
    return member.wait_status(
        f"{health}: {evidence}",
        lambda status: row(status, node_id)["health"] == health and evidence in str(row(status, node_id)["evidence"]),
    )


@pytest.fixture
def cluster(module_cluster: Cluster) -> Cluster:
    """Whole, and without a report that the test before has left."""
    for member in module_cluster.members:
        for report in member.status().get("external", ()):
            inform(member, str(report["id"]), "alive", "--for", "1")
    for member in module_cluster.members:
        if member.supervisor() is not None:
            member.wait_status("no report", lambda status: status["external"] == [])
    module_cluster.heal()
    return module_cluster


def example() -> str:
    """The program that the documentation shows, exactly as it stands there."""
    found = re.search(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_a_report_makes_a_healthy_node_dead_and_another_one_brings_it_back(cluster: Cluster) -> None:
    first, peer = cluster.standbys()
    said = inform(first, peer.label, "dead", "--reason", "smoke in the rack", "--for", "300")
    assert f"lifecheck counts {peer.label} as reported dead for 300 s" in said
    status = sees(first, peer.node_id, "dead", "smoke in the rack")
    (report,) = status["external"]
    assert (report["id"], report["health"], report["reason"]) == (peer.node_id, "dead", "smoke in the rack")
    assert report["reporter"] and 0 < report["left_ms"] <= 300_000
    inform(first, str(peer.node_id), "alive")
    sees(first, peer.node_id, "alive", "reported alive by")
    assert first.run("inform", "pg77", "dead").code == 1
    assert first.run("inform", peer.label, "dead", "--for", "0").code == 2


def test_a_report_survives_the_end_of_either_process_and_ends_by_itself(cluster: Cluster) -> None:
    first, peer = cluster.standbys()
    inform(first, peer.label, "dead", "--reason", "fire", "--for", "30")
    for name in ("lifecheck", "watchdog main"):
        mark = first.mark()
        kill(first.row(name)["pid"])
        first.wait_since(mark, f"{name} is ready")
        status = sees(first, peer.node_id, "dead", "fire")
        first.wait_status(
            "the report in its status", lambda one: [item["reason"] for item in one["external"]] == ["fire"]
        )
        assert status["nodes"]
    inform(first, peer.label, "dead", "--for", "1")
    sees(first, peer.node_id, "alive", "heard on lo")
    first.wait_status("no report", lambda status: status["external"] == [])


def test_a_leader_whose_own_pgpool_is_reported_dead_hands_over(cluster: Cluster) -> None:
    leader = cluster.leader()
    inform(leader, leader.label, "dead", "--reason", "wrong answers")
    others = [member for member in cluster.members if member is not leader]
    others[0].wait_status("another leader", lambda status: status["leader_id"] not in (None, leader.node_id))
    assert row(leader.status(), leader.node_id)["pgpool"] == "dead"
    inform(leader, leader.label, "alive")
    leader.wait_status("to be able again", lambda status: row(status, leader.node_id)["electable"])


def test_the_example_for_other_programs_does_what_the_text_says(cluster: Cluster, tmp_path: Path) -> None:
    first, peer = cluster.standbys()
    program = tmp_path / "inform.py"
    program.write_text(example().replace("/run/pgvigil", str(first.run_dir)).replace("pg02", peer.label))
    outcome = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False)
    assert outcome.returncode == 0, outcome
    assert f"lifecheck counts {peer.label} as reported dead for 30 s" in outcome.stdout
    sees(first, peer.node_id, "dead", "reported dead by rack monitor: power supply failed")


def test_reports_alone_decide_who_can_lead(make_cluster: MakeCluster) -> None:
    made = make_cluster(3, extra='[lifecheck]\nmethods = ["external"]\n')
    made.start()
    first = made[1]
    status = first.wait_status("a judgement", lambda one: row(one, 2)["evidence"] == "nobody has reported yet")
    assert row(status, 1)["pgpool"] == "unknown" and status["leader_id"] is None
    for member in made.members:
        for other in made.members:
            inform(member, other.label, "alive", "--for", "120")
    leader = made.leader()
    standby = next(member for member in made.members if member is not leader)
    inform(leader, leader.label, "dead", "--for", "120")
    standby.wait_status("another leader", lambda one: one["leader_id"] not in (None, leader.node_id))
    inform(standby, leader.label, "dead", "--for", "1")
    sees(standby, leader.node_id, "unknown", "nobody has reported for")
