"""Files that differ between real nodes: shown by everybody, and who has other voters is kept out until it agrees."""

from __future__ import annotations

import pytest
from tests.live.clusters import Member, Status
from tests.live.conftest import MakeCluster

pytestmark = pytest.mark.live


def rows(status: Status, member: Member) -> dict[str, tuple[str, str, bool]]:
    """What a status says of the differences of one node."""
    return {
        row["key"]: (row["here"], row["leader"], row["fatal"])
        for row in status["drift"]
        if row["node"] == member.node_id
    }


def reload(member: Member, text: str) -> None:
    member.write_config(text)
    outcome = member.run("reload")
    assert outcome.code == 0, outcome


def able(status: Status) -> list[int]:
    """Who may lead, as this node knows it."""
    return [row["id"] for row in status["nodes"] if row["electable"]]


def test_a_harmless_difference_is_shown_and_a_fatal_one_keeps_a_node_out(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    one, two, three = cluster.members
    for member in cluster.members:
        # By rank alone node 3 would follow node 1 as the leader.
        member.text = member.text.replace('host = "pg03"', 'host = "pg03"\npriority = 100')
        member.write_config(member.text)
    cluster.start()
    if cluster.settle() is not one:
        assert one.run("switchover", "pg01").code == 0
    assert cluster.settle() is one
    assert all(status["drift"] == [] for status in cluster.statuses())

    reload(two, two.text + "\n[vip]\nannounce_interval_s = 7\n")
    assert 'host = "pg02"' in three.text
    reload(three, three.text.replace('host = "pg02"', 'host = "pg2b"'))
    status = one.wait_status("what the others differ in", lambda seen: rows(seen, two) and rows(seen, three))
    assert rows(status, two) == {"vip.announce_interval_s": ("7", "60", False)}
    assert rows(status, three)["node.2.host"] == ("pg2b", "pg02", True)
    one.wait_status("who may lead", lambda seen: able(seen) == [1, 2])
    three.wait_log("differs from the leader pg01: node.2.host: here pg2b, leader pg02")
    one.wait_log("pg03 differs from this leader in .* keeps it out .*node.2.host: here pg2b, leader pg02")
    page = three.run("status").output
    assert "cannot lead now: its settings differ from those of the leader pg01" in page
    assert "node.2.host: here pg2b, leader pg02 (keeps it out)" in page

    one.end()
    two.wait_status("its turn", lambda seen: seen["state"] == "leader", 20)
    three.wait_status("the new leader", lambda seen: seen["leader_id"] == 2 and rows(seen, three))
    two.wait_log("pg03 differs from this leader")
    reload(three, two.config.read_text().replace(str(two.folder), str(three.folder)))
    three.wait_status("it in agreement", lambda seen: not seen["drift"] and able(seen) == [2, 3], 20)
    three.wait_log("its settings agree with those of the leader pg02")
    two.wait_log("pg03 does not report differences from this leader any more")
