"""The watchdog regression tests of pgpool-II's own suite that need no backend: 004, 028 and 036 (docs/scenarios.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import toml

from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.config import config_path, log_path
from pgvigil.watchdog.demo.failover.ground import in_parallel
from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import (
    PGPOOL_PORT,
    Pgpool,
    Postgres,
    postgres_binary,
    require_services,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

LIMIT_S = 40.0
HALF = {"quorum": "half", "tie_breaker": DATABASE_ADDRESS}
HEARTBEAT_ALONE = {"methods": ["heartbeat"]}


def status(cluster: Cluster, node: Host) -> dict[str, Any]:
    """The status document of a node; empty while it does not answer."""
    raw = cluster.status(node).raw
    return dict(json.loads(raw)) if raw else {}


def half_in_force(cluster: Cluster, node: Host) -> bool:
    half = status(cluster, node).get("half") or {}
    return bool(half.get("in_force") and half.get("answers"))


def leads_by_half(cluster: Cluster, node: Host) -> bool:
    return bool((status(cluster, node).get("half") or {}).get("leads_by_half"))


def leads(cluster: Cluster, node: Host) -> bool:
    view = cluster.status(node)
    return view.role == "leader" and view.vip_up


# 004.watchdog


@pytest.fixture
def pair() -> Iterator[Cluster]:
    """Two nodes with half votes and one PostgreSQL; pgvigil is not started."""
    require_services()
    with Lab(nodes=2) as lab:
        Postgres(lab).start()
        pools = [Pgpool(lab, node) for node in lab.nodes]
        for pool in pools:
            pool.start(wait=False)
        for pool in pools:
            pool.wait_ready()
        cluster = Cluster(lab)
        cluster.changes = {"cluster": HALF}
        cluster.configure()
        yield cluster


def prefer(cluster: Cluster, first: Host) -> None:
    """Give one node the higher priority, in the files of all."""
    for node in cluster.lab.nodes:
        tables = toml.loads(config_path(node).read_text(encoding="utf-8"))
        for entry in tables["node"]:
            entry["priority"] = 2 if entry["id"] == first.number else 1
        config_path(node).write_text(toml.dumps(tables), encoding="utf-8")


def test_004_a_leader_that_is_stopped_is_followed_by_the_standby(pair: Cluster) -> None:
    first, second = pair.lab.nodes
    prefer(pair, first)
    pair.start(pair.lab.nodes)
    assert pair.wait_settled() is first
    assert pair.status(second).role == "standby"
    # PGPOOL RESET through both pgpool-IIs: the watchdog beside them must not be in its way.
    for node in pair.lab.nodes:
        target = f"host={node.address} port={PGPOOL_PORT} user=postgres dbname=postgres"
        words = ("PGPOOL SET client_idle_limit = 7", "PGPOOL SHOW client_idle_limit", "PGPOOL RESET client_idle_limit")
        told = [word for text in (*words, words[1]) for word in ("-c", text)]
        answer = pair.lab.run(pair.lab.client, (postgres_binary("psql"), "-XAtq", "-d", target, *told)).checked()
        assert answer.out.split() == ["7s", "0"], answer
    wait_until(lambda: all(half_in_force(pair, node) for node in pair.lab.nodes), LIMIT_S, "half votes to be in force")
    pair.stop(first, "fast")
    assert "n1 released term 1" in log_path(second).read_text(encoding="utf-8")
    wait_until(lambda: leads_by_half(pair, second), LIMIT_S, "the standby to lead, alone")
    assert leads(pair, second)


# 028.watchdog_enable_consensus_with_half_votes


def survivors_of_a_stop(lab: Lab, half: bool) -> tuple[Cluster, Host]:
    """Start the nodes of a lab, then stop the larger half of them, none of which leads; returns who led."""
    cluster = Cluster(lab)
    cluster.changes = {"lifecheck": HEARTBEAT_ALONE, **({"cluster": HALF} if half else {})}
    cluster.configure()
    for node in lab.nodes:
        cluster.forget(node)
    cluster.start(lab.nodes)
    leader = cluster.wait_settled()
    if half:
        wait_until(lambda: half_in_force(cluster, leader), LIMIT_S, f"half votes of {len(lab.nodes)}")
    stopped = lab.others(leader)[: (len(lab.nodes) + 1) // 2]
    for node in stopped:
        cluster.stop(node, "fast")
    return cluster, leader


def check_quorum_with_half(count: int, verdicts: dict[tuple[int, bool], bool]) -> None:
    """Whether the leader of so many nodes goes on leading, without half votes and with them."""
    with Lab(nodes=count) as lab:
        for half in (False, True):
            cluster, leader = survivors_of_a_stop(lab, half)
            goes_on = half and count % 2 == 0
            if goes_on:
                wait_until(
                    lambda c=cluster, n=leader: leads_by_half(c, n),  # type: ignore[misc]
                    LIMIT_S,
                    f"the leader of {count} to lead by half",
                )
            else:
                wait_until(lambda c=cluster, n=leader: not leads(c, n), LIMIT_S, "the leader to stop leading")  # type: ignore[misc]
            verdicts[count, half] = leads(cluster, leader)
            cluster.stop_all()


def test_028_half_of_the_votes_are_enough_only_where_it_is_allowed() -> None:
    verdicts: dict[tuple[int, bool], bool] = {}
    in_parallel([lambda count=count: check_quorum_with_half(count, verdicts) for count in (2, 3, 4)])  # type: ignore[misc]
    assert verdicts == {
        (2, False): False,
        (3, False): False,
        (4, False): False,
        (2, True): True,
        (3, True): False,
        (4, True): True,
    }


# 036.trusted_servers


def test_036_a_server_upstream_that_answers_is_no_news_and_one_that_does_not_is() -> None:
    with Lab(nodes=2) as lab:
        cluster = Cluster(lab)
        upstream = {"methods": ["heartbeat", "upstream"], "upstream_servers": [DATABASE_ADDRESS]}
        cluster.changes = {"lifecheck": upstream}
        cluster.configure()
        cluster.start(lab.nodes)
        leader = cluster.wait_settled()
        asked = {node: upstream_check(cluster, node) for node in lab.nodes}
        assert {check["health"] for check in asked.values()} == {"alive"}, asked
        assert not any("isolated" in log_path(node).read_text(encoding="utf-8") for node in lab.nodes)
        lab.drop([f"{lab.between([leader], [lab.database])} drop"])
        wait_until(lambda: not leads(cluster, leader), LIMIT_S, "a leader that hears no server upstream to give way")
        (heir,) = lab.others(leader)
        wait_until(lambda: leads(cluster, heir), LIMIT_S, "the other node to lead")


def upstream_check(cluster: Cluster, node: Host) -> dict[str, Any]:
    """What the node's own row of the status says of the method upstream."""
    rows: list[dict[str, Any]] = []

    def known() -> bool:
        own = (status(cluster, node).get("nodes") or [{}] * node.number)[node.number - 1]
        rows[:] = [row for row in own.get("checks", []) if row["method"] == "upstream" and row["health"] == "alive"]
        return bool(rows)

    wait_until(known, LIMIT_S, f"{node.name} to hear the server upstream")
    return rows[0]
