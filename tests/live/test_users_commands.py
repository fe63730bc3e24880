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


def line(command: str, member: Member, term: int) -> list[str]:
    """What a command of this node writes for this term."""
    return [command, str(member.node_id), "term", str(term), str(term), "live"]


def escalated(cluster: Cluster, log: Path) -> tuple[Member, int]:
    """The leader and its term, once it has escalated."""
    leader = cluster.settle()
    term = leader.status()["term"]
    wait_for("the escalation", lambda: line("escalation", leader, term) in lines(log))
    return leader, term


def test_who_takes_over_escalates_and_who_stops_leading_de_escalates(make_cluster: MakeCluster, tmp_path: Path) -> None:
    log = tmp_path / "ran"
    cluster = make_cluster(3, extra=commands(log))
    cluster.start()
    leader, term = escalated(cluster, log)
    assert line("de_escalation", leader, term) not in lines(log)
    assert leader.run("switchover").code == 0
    wait_for("the de-escalation", lambda: line("de_escalation", leader, term) in lines(log))
    leader.wait_status(
        "the outcome among the events",
        lambda one: any(f"de_escalation for term {term}" in event["text"] for event in one["events"]),
    )
    successor, fresh = escalated(cluster, log)
    assert fresh > term
    assert successor.run("stop").code == 0
    assert line("de_escalation", successor, fresh) in lines(log)  # the stop has waited for it
    assert len({tuple(one) for one in lines(log)}) == len(lines(log))  # each once


def test_a_stop_does_not_wait_for_ever_for_a_de_escalation(make_cluster: MakeCluster, tmp_path: Path) -> None:
    log = tmp_path / "ran"
    cluster = make_cluster(3, extra=commands(log, "; sleep 3000"))
    cluster.start()
    leader, term = escalated(cluster, log)
    assert leader.run("stop", "-m", "fast").code == 0
    assert "did not end in time" not in leader.log_text()
    assert f"de_escalation for term {term}: was stopped at its time limit" in leader.log_text()
    assert line("de_escalation", leader, term) in lines(log)
    assert cluster.leader() is not leader
