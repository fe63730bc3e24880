from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import psutil
import pytest
import zmq
from tests.unit.watchdog.peers_lab import KEY, OTHER_KEY, Node, address, free_port, run_for, run_until, settings

from pgvigil.ipc.errors import InvariantError
from pgvigil.watchdog.config.keys import curve_pair
from pgvigil.watchdog.core.messages import Release
from pgvigil.watchdog.transport import envelope

Start = Callable[..., Node]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts nodes and ends them after the test, whatever happened."""
    nodes: list[Node] = []

    def begin(*arguments: object, **keywords: object) -> Node:
        boot = keywords.pop("boot", 1)
        node = Node(settings(*arguments, **keywords), boot)  # type: ignore[arg-type]
        nodes.append(node)
        return node

    yield begin
    for node in nodes:
        if not node.context.closed:
            node.close()


class Intruder:
    """Sends raw bytes to a node's port with the keys it was given."""

    def __init__(self, port: int, own_id: int, secret: bytes = KEY) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDTIMEO, 5000)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, curve_pair(KEY, 1)[0])
        public, private = curve_pair(secret, own_id)
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, private)
        self.socket.connect(f"tcp://{address(1)}:{port}")

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def intrude() -> Iterator[Callable[..., Intruder]]:
    made: list[Intruder] = []

    def begin(port: int, own_id: int, secret: bytes = KEY) -> Intruder:
        made.append(Intruder(port, own_id, secret))
        return made[-1]

    yield begin
    for intruder in made:
        intruder.close()


def message(number: int) -> Release:
    return Release(1, 1, number, 0)


def test_three_nodes_hear_each_other(start: Start) -> None:
    port = free_port()
    nodes = [start(number, 3, port) for number in (1, 2, 3)]
    run_until(nodes, lambda: all(node.connected() for node in nodes))
    for sender in nodes:
        for receiver in nodes:
            if receiver is not sender:
                sender.peers.send(receiver.settings.node_id, message(sender.settings.node_id))
    run_until(nodes, lambda: all(len(node.heard) == 2 for node in nodes))
    assert sorted(nodes[0].heard, key=lambda item: item[0]) == [(2, 1002, message(2)), (3, 1003, message(3))]
    assert [node.said for node in nodes] == [[], [], []]


def test_every_message_goes_over_both_paths_and_is_taken_once(start: Start) -> None:
    port = free_port()
    nodes = [start(number, 2, port, paths=2) for number in (1, 2)]
    run_until(nodes, lambda: all(node.connected() for node in nodes))
    for number in range(50):
        nodes[0].peers.send(2, message(number))
        run_for(nodes, 1)
    run_until(nodes, lambda: nodes[1].peers.duplicates == 50)
    assert [item[2] for item in nodes[1].heard] == [message(number) for number in range(50)]
    assert [link.received for link in nodes[1].peers.describe()] == [50, 50]
    assert [link.sent for link in nodes[0].peers.describe()] == [50, 50]


def test_one_lost_path_loses_no_message(start: Start) -> None:
    port = free_port()
    nodes = [start(number, 2, port, paths=2) for number in (1, 2)]
    run_until(nodes, lambda: all(node.connected() for node in nodes))
    nodes[1].peers._listeners[0].close()
    run_until(nodes, lambda: not nodes[0].peers.describe()[0].connected)
    nodes[0].peers.send(2, message(1))
    run_until(nodes, lambda: nodes[1].heard == [(1, 1001, message(1))])
    lost, kept = nodes[0].peers.describe()
    assert (lost.connected, lost.last_error, lost.dropped) == (False, "connection lost", 1)
    assert (kept.connected, kept.last_error, kept.dropped) == (True, "", 0)


def test_restarted_node_is_reached_at_once(start: Start) -> None:
    port = free_port()
    first, second = (start(number, 2, port) for number in (1, 2))
    run_until([first, second], lambda: first.connected() and second.connected())
    second.close()
    run_until([first], lambda: not first.connected())
    run_for([first], 300)
    again = start(2, 2, port, boot=2)
    assert run_until([first, again], first.connected) < 500
    first.peers.send(2, message(5))
    run_until([first, again], lambda: again.heard == [(1, 1001, message(5))])
    again.peers.send(1, message(6))
    run_until([first, again], lambda: first.heard == [(2, 1002, message(6))])


def test_wrong_secret_is_named_on_both_sides_once(start: Start) -> None:
    port = free_port()
    nodes = [start(1, 2, port), start(2, 2, port, key=OTHER_KEY)]
    run_until(nodes, lambda: all(node.said for node in nodes))
    run_for(nodes, 2500)
    for node, other in ((nodes[0], "pg02 (127.0.10.2)"), (nodes[1], "pg01 (127.0.10.1)")):
        assert len(node.said) == 1
        assert node.said[0].startswith(f"{other} failed the key check: is authkey_file the same on both hosts")
        assert "key check" in node.peers.describe()[0].last_error
        assert not node.connected()


def test_mended_secret_is_accepted_and_a_new_mistake_said_again(start: Start) -> None:
    port = free_port()
    first, wrong = start(1, 2, port), start(2, 2, port, key=OTHER_KEY)
    run_until([first, wrong], lambda: len(first.said) == 1)
    wrong.close()
    right = start(2, 2, port, boot=2)
    run_until([first, right], lambda: first.connected() and right.connected())
    right.close()
    wrong = start(2, 2, port, boot=3, key=OTHER_KEY)
    run_until([first, wrong], lambda: len(first.said) == 2)


def test_key_of_a_node_that_is_not_configured_is_refused(start: Start, intrude: Callable[..., Intruder]) -> None:
    port = free_port()
    node = start(1, 2, port)
    intrude(port, 9)
    run_until([node], lambda: bool(node.said))
    assert "127.0.0.1 has a key of no configured node" in node.said[0]


def test_message_in_the_name_of_another_node_is_dropped(start: Start, intrude: Callable[..., Intruder]) -> None:
    port = free_port()
    node = start(1, 3, port)
    second = intrude(port, 2)
    run_until([node], lambda: bool(second.socket.poll(0, zmq.POLLOUT)))
    second.socket.send(envelope.seal(message(1), 3, 1, 1, 1, 1003))
    second.socket.send(envelope.seal(message(2), 2, 3, 1, 2, 1002))
    second.socket.send_multipart([b"a", b"b"])
    second.socket.send(envelope.seal(message(3), 2, 1, 1, 3, 1002))
    run_until([node], lambda: bool(node.heard))
    assert node.heard == [(2, 1002, message(3))]
    assert node.peers.invalid.count == 4
    assert len(node.said) == 1
    assert "in the name of node 3, expected 2, whose key was used" in node.said[0]


def test_garbage_on_the_port_harms_nobody(start: Start) -> None:
    port = free_port()
    nodes = [start(number, 2, port) for number in (1, 2)]
    run_until(nodes, lambda: all(node.connected() for node in nodes))
    for data in (b"GET / HTTP/1.0\r\n\r\n" * 20, b"\xff" * 4000, b"\x00", b""):
        with socket.create_connection((address(1), port)) as stranger:
            stranger.sendall(data)
            run_for(nodes, 30)
    nodes[1].peers.send(1, message(1))
    run_until(nodes, lambda: bool(nodes[0].heard))
    assert all(node.connected() for node in nodes)


def test_oversized_message_is_cut_off_and_the_sender_may_come_back(
    start: Start, intrude: Callable[..., Intruder]
) -> None:
    port = free_port()
    node = start(1, 3, port)
    second = intrude(port, 2)
    run_until([node], lambda: bool(second.socket.poll(0, zmq.POLLOUT)))
    second.socket.send(b"x" * 1_000_000)
    run_for([node], 300)
    run_until([node], lambda: bool(second.socket.poll(0, zmq.POLLOUT)))
    second.socket.send(envelope.seal(message(3), 2, 1, 1, 3, 1002))
    run_until([node], lambda: bool(node.heard))


def test_flood_of_garbage_does_not_grow_memory(start: Start, intrude: Callable[..., Intruder]) -> None:
    port = free_port()
    node = start(1, 3, port)
    second = intrude(port, 2)
    run_until([node], lambda: bool(second.socket.poll(0, zmq.POLLOUT)))

    def flood(messages: int) -> None:
        for _ in range(messages // 50):
            wanted = node.peers.invalid.count + 50
            for _ in range(50):
                second.socket.send(b"\xc1" * 200)
            run_until([node], lambda: node.peers.invalid.count >= wanted)  # noqa: B023

    flood(2000)
    before = psutil.Process().memory_info().rss
    flood(20_000)
    assert psutil.Process().memory_info().rss - before < 4 * 1024 * 1024
    assert len(node.said) == 1


def test_missing_address_is_retried_and_said_once(start: Start) -> None:
    port = free_port()
    with socket.create_server((address(1), port)):
        node = start(1, 2, port)
        run_for([node], 400)
        assert len(node.said) == 1
        assert f"cannot listen on tcp://{address(1)}:{port}: Address already in use" in node.said[0]
        assert node.peers.unbound != ()
    run_until([node], lambda: node.peers.unbound == ())
    other = start(2, 2, port)
    run_until([node, other], lambda: node.connected() and other.connected())


def test_something_else_on_the_peers_port_is_named_and_left_again(start: Start) -> None:
    port = free_port()
    with socket.create_server((address(2), port)) as stranger:
        node = start(1, 2, port)
        connection, _ = stranger.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 10)
            run_for([node], 100)
    other = start(2, 2, port)
    run_until([node, other], lambda: node.connected() and other.connected())


def test_unknown_receiver_is_said_and_oneself_is_a_mistake(start: Start) -> None:
    node = start(1, 2, free_port())
    node.peers.send(9, message(1))
    assert "node 9 is not in /etc/pgvigil/pgvigil.toml" in node.said[0]
    with pytest.raises(InvariantError, match="to this node itself"):
        node.peers.send(1, message(1))


def test_nothing_is_kept_for_a_peer_that_is_away(start: Start) -> None:
    port = free_port()
    first = start(1, 2, port)
    for number in range(200):
        first.peers.send(2, message(number))
    assert first.peers.describe()[0].dropped == 200
    second = start(2, 2, port)
    run_until([first, second], first.connected)
    run_for([first, second], 50)
    assert second.heard == []
