"""The section of the status: a row for each difference of any node, and never more than fits into the reply."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.unit.drift.network import OTHER_DRIVER, OTHER_VIP, SAME, SECOND, Net
from tests.unit.watchdog import peers_lab

from pgvigil.watchdog.settings import Settings
from pgvigil.watchdog.status import drift


def own(node: int) -> Settings:
    return replace(peers_lab.settings(1, 3, 9000), node_id=node)


def test_everybody_shows_the_rows_of_all() -> None:
    net = Net(SAME, OTHER_VIP, OTHER_DRIVER)
    net.leader = 1
    net.run(5)
    expected = [
        (2, "pg02", "vip.addresses", "10.0.0.101/24", "10.0.0.100/24", True),
        (3, "pg03", "vip.driver", "command", "netlink", False),
    ]
    for node in net.nodes:
        found = drift.section(net.nodes[node].exchange, own(node), net.now_ns)
        rows = json.loads(json.dumps(found))["drift"]
        assert [
            tuple(row[key] for key in ("node", "label", "key", "here", "leader", "fatal")) for row in rows
        ] == expected
        assert found["drift_untold"] == 0
        assert [row["since_ms"] is not None for row in rows] == [row["node"] == node for row in rows]
    assert json.loads(json.dumps(drift.section(net.nodes[3].exchange, own(3), net.now_ns + SECOND)))["drift"][1][
        "since_ms"
    ] >= 1000  # fmt: skip


def test_the_section_is_bounded_and_counts_what_it_leaves_out() -> None:
    odd = {f"node.{number:02}.priority": "\N{GRINNING FACE}" * 30 for number in range(90)}
    net = Net(SAME | odd, SAME | dict.fromkeys(odd, "1") | {"nodes": "1 2"}, SAME | odd)
    net.leader = 1
    net.run(5)
    for node in net.nodes:
        found = drift.section(net.nodes[node].exchange, own(node), net.now_ns)
        rows = json.loads(json.dumps(found["drift"]))
        assert len(json.dumps(rows)) < drift.MAX_JSON_BYTES + 200
        assert rows[0]["key"] == "nodes"
        assert found["drift_untold"] == 91 - len(rows) > 0


def test_nothing_differs() -> None:
    net = Net(SAME, SAME)
    net.leader = 1
    net.run()
    assert drift.section(net.nodes[2].exchange, own(2), net.now_ns) == {"drift": [], "drift_untold": 0}
