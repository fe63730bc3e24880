"""The command socket of pgpool-II's watchdog: bytes of a real 4.3.5, and bytes of nobody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.errors import PeerError
from pgvigil.lifecheck.core import pgpool_ipc as ipc

# What a pgpool-II 4.3.5 answered, in a lab of three.
REAL = (
    b'7\x00\x00\x03t{"RemoteNodeCount":2,"MemberRemoteNodeCount":2,"NodesRequireForQuorum":2,"QuorumStatus":1,'
    b'"AliveNodeCount":2,"Escalated":1,"LeaderNodeName":"10.77.0.11:9999 Linux vm","LeaderHostName":"10.77.0.11",'
    b'"NodeCount":3,"WatchdogNodes": [{"ID":0,"State":4,"Membership":0,"MembershipString":"MEMBER",'
    b'"NodeName":"10.77.0.11:9999 Linux vm","HostName":"10.77.0.11","StateName":"LEADER",'
    b'"DelegateIP":"10.77.0.100","WdPort":9010,"PgpoolPort":9999,"Priority":9},{"ID":1,"State":7,"Membership":0,'
    b'"MembershipString":"MEMBER","NodeName":"10.77.0.12:9999 Linux vm","HostName":"10.77.0.12",'
    b'"StateName":"STANDBY","DelegateIP":"10.77.0.100","WdPort":9010,"PgpoolPort":9999,"Priority":8},{"ID":2,'
    b'"State":7,"Membership":0,"MembershipString":"MEMBER","NodeName":"10.77.0.13:9999 Linux vm",'
    b'"HostName":"10.77.0.13","StateName":"STANDBY","DelegateIP":"10.77.0.100","WdPort":9010,"PgpoolPort":9999,'
    b'"Priority":7}]}\x00'
)
WRONG_KEY = b'6\x00\x00\x001{"MESSAGE":"authentication failed: invalid KEY"}\x00'
WRONG_ID = b"6\x00\x00\x00\x00"
ROW = {"ID": 0, "State": 4, "HostName": "a", "PgpoolPort": 9999, "Priority": 1, "DelegateIP": "Not_Set"}
LIST = {"QuorumStatus": -2, "Escalated": 0, "WatchdogNodes": [ROW]}


def test_the_list_of_a_real_one() -> None:
    reply = ipc.whole_reply(REAL)
    assert reply is not None and reply[0] == ipc.OK
    known = ipc.parse_node_list(reply[1])
    assert (known.quorum, known.escalated) == (1, True)
    assert [(node.pgpool_id, ipc.STATE_NAMES[node.state], node.name) for node in known.nodes] == [
        (0, "leader", "10.77.0.11:9999"),
        (1, "standby", "10.77.0.12:9999"),
        (2, "standby", "10.77.0.13:9999"),
    ]
    assert known.leader() == known.nodes[0]
    assert known.nodes[0].delegate_ip == "10.77.0.100"


def test_requests_are_what_the_real_one_took() -> None:
    assert ipc.node_list_request("") == b'3\x00\x00\x00\x0e{"NodeID": -1}'
    request = ipc.status_request(2, False, "pgvigil: n3 is dead", "secret")
    assert request[:1] == b"2" and int.from_bytes(request[1:5]) == len(request) - 5
    assert json.loads(request[5:]) == {
        "NodeID": 2, "NodeStatus": 1, "Message": "pgvigil: n3 is dead", "IPCAuthKey": "secret",
    }  # fmt: skip
    assert json.loads(ipc.status_request(0, True, "x" * 999, "")[5:]) == {
        "NodeID": 0, "NodeStatus": 2, "Message": "x" * ipc.MAX_TEXT,
    }  # fmt: skip


def test_a_reply_is_whole_only_with_its_last_byte() -> None:
    assert all(ipc.whole_reply(REAL[:length]) is None for length in range(len(REAL)))
    assert ipc.whole_reply(WRONG_ID) == (ipc.BAD, b"")


def test_a_refusal_is_told_in_its_own_words() -> None:
    for reply, sentence in (
        (WRONG_KEY, "refuses: authentication failed: invalid KEY"),
        (WRONG_ID, "refuses"),
        (b"5\x00\x00\x00\x00", "has its cluster in transition"),
        (b"8\x00\x00\x00\x00", "ran into a time limit of its own"),
        (b"6\x00\x00\x00\x02[]", "refuses"),
        (b'6\x00\x00\x00\x16{"MESSAGE":"a\\u001bb"}', "refuses: a?b"),
    ):
        whole = ipc.whole_reply(reply)
        assert whole is not None and ipc.refusal(*whole) == sentence


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"WatchdogNodes": []}, "expected a list of 1 to 128"),
        ({"WatchdogNodes": [ROW] * 2}, "two nodes of one ID"),
        ({"WatchdogNodes": [7]}, "a node is 7"),
        ({"WatchdogNodes": [{**ROW, "ID": "0"}]}, "ID is '0'"),
        ({"WatchdogNodes": [{**ROW, "ID": 128}]}, "expected an integer of 0 to 127"),
        ({"WatchdogNodes": [{**ROW, "HostName": 1}]}, "HostName is 1"),
        ({"QuorumStatus": 2}, "QuorumStatus is 2"),
        ({"Escalated": None}, "Escalated is None"),
    ],
)
def test_a_list_that_is_none_is_refused_with_what_is_wrong(change: dict[str, object], expected: str) -> None:
    with pytest.raises(PeerError, match=expected):
        ipc.parse_node_list(json.dumps(LIST | change).encode())


def test_names_that_are_not_set_are_empty_and_odd_letters_harmless() -> None:
    row = {**ROW, "HostName": "a\x1b[31m", "Priority": -1}
    (node,) = ipc.parse_node_list(json.dumps(LIST | {"WatchdogNodes": [row]}).encode()).nodes
    assert (node.delegate_ip, node.host, node.priority) == ("", "a?[31m", 0)


def test_with_two_leaders_nobody_is_called_the_leader() -> None:
    rows = [ROW, {**ROW, "ID": 1}]
    assert ipc.parse_node_list(json.dumps(LIST | {"WatchdogNodes": rows}).encode()).leader() is None


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: REAL[:400] + tail))
def test_hostile_bytes_raise_only_peer_errors(data: bytes) -> None:
    for read in (ipc.whole_reply, ipc.parse_node_list):
        try:
            read(data)
        except PeerError:
            pass
