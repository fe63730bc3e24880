"""`quorum = "half"` with two real nodes and a real tie-breaker: a TCP port on loopback."""

from __future__ import annotations

import socket

import pytest
from tests.live.conftest import MakeCluster

pytestmark = pytest.mark.live


def test_half_leads_only_while_the_tie_breaker_answers(make_cluster: MakeCluster) -> None:
    with socket.create_server(("127.0.0.99", 0)) as upstream:
        address = f"127.0.0.99:{upstream.getsockname()[1]}"
        cluster = make_cluster(2, extra=f'quorum = "half"\ntie_breaker = "{address}"\n')
        cluster.start()
        first = cluster.settle()
        first.wait_log(f"do not hear each other and both reach {address}, both lead")
        first.wait_status("half in force", lambda one: one["half"]["in_force"] and one["half"]["answers"], 20)
        assert f"tie-breaker {address} answers" in first.run("status").output
        second = cluster.standbys()[0]
        second.wait_status("answers here, too", lambda one: one["half"]["in_force"] and one["half"]["answers"], 20)
        first.end()
        status = second.wait_status("its lead by half", lambda one: one["half"]["leads_by_half"], 30)
        assert (status["state"], status["document"]["committed"]) == ("leader", False)
        outcome = second.run("node", "remove", first.label)
        assert (outcome.code, "carries the virtual IP and changes nothing" in outcome.errors) == (1, True), outcome
        upstream.close()
        second.wait_status("no lead", lambda one: one["leader_id"] is None, 20)
        page = second.run("status").output
        assert "NOT GUARANTEED: " in page and f"tie-breaker {address} DOES NOT ANSWER" in page
        first.start()
        cluster.settle()
