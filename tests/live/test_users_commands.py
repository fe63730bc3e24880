"""The users' commands with real nodes: on the leader only, once, and what the node that stops leading runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.live.clusters import Cluster, Member
from tests.live.conftest import MakeCluster
from tests.live.nodes import wait_for

pytestmark = pytest.mark.live

WRITE = 'echo "$PGVIGIL_COMMAND $PGVIGIL_NODE_ID $PGVIGIL_EVENT $PGVIGIL_TERM $PGVIGIL_CLUSTER" >> {log}'


def commands(log: Path, more: str = "") -> str:
    """Both commands of leadership write a line each."""
    run = WRITE.format(log=log)
    return f"[commands]\nescalation = {{ run = '{run}' }}\nde_escalation = {{ run = '{run}{more}' }}\n"


def lines(log: Path) -> list[list[str]]:
    """What has been written: command, node, and the term twice."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def started(make_cluster: MakeCluster, log: Path, more: str = "") -> tuple[Cluster, Member]:
    cluster = make_cluster(3, extra=commands(log, more))
    cluster.start()
    leader = cluster.settle()
    wait_for("the escalation", lambda: lines(log))
    return cluster, leader


def test_who_takes_over_escalates_and_who_stops_leading_de_escalates(make_cluster: MakeCluster, tmp_path: Path) -> None:
    log = tmp_path / "ran"
    cluster, leader = started(make_cluster, log)
    term = str(leader.status()["term"])
    assert lines(log) == [["escalation", str(leader.node_id), "term", term, term, "live"]]
    assert leader.run("switchover").code == 0
    wait_for("both commands of the change", lambda: len(lines(log)) == 3)
    successor = cluster.settle()
    assert successor is not leader
    fresh = str(successor.status()["term"])
    assert sorted(lines(log)[1:]) == [
        ["de_escalation", str(leader.node_id), "term", term, term, "live"],
        ["escalation", str(successor.node_id), "term", fresh, fresh, "live"],
    ]
    leader.wait_status(
        "the outcome among the events",
        lambda one: any("de_escalation for term" in event["text"] for event in one["events"]),
    )
    assert successor.run("stop").code == 0
    wait_for("the commands of the stop", lambda: len(lines(log)) == 5)
    assert ["de_escalation", str(successor.node_id), "term", fresh, fresh, "live"] in lines(log)


def test_a_stop_does_not_wait_for_ever_for_a_de_escalation(make_cluster: MakeCluster, tmp_path: Path) -> None:
    log = tmp_path / "ran"
    cluster, leader = started(make_cluster, log, "; sleep 3000")
    assert leader.run("stop", "-m", "fast").code == 0
    assert "did not end in time" not in leader.log_text()
    assert "de_escalation for term" in leader.log_text() and "was stopped at its time limit" in leader.log_text()
    assert [line[0] for line in lines(log)].count("de_escalation") == 1
    assert cluster.leader() is not leader
