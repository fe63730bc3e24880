"""What was recorded on the wire between two nodes is worth nothing later, from wherever it comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import zmq
from tests.unit.watchdog.peers_lab import KEY, Node, address, free_port, run_for, run_until, settings

from pgvigil.watchdog.config.keys import curve_pair
from pgvigil.watchdog.core.messages import Release
from pgvigil.watchdog.transport import envelope

STRANGER = "127.0.0.77"


class Tap:
    """A cable with an ear: passes on what a caller and a node say, and keeps what the caller said."""

    def __init__(self, port: int) -> None:
        self.said = bytearray()
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        caller, _ = self._server.accept()
        with caller, socket.create_connection((address(1), self._port)) as node:
            back = threading.Thread(target=_pump, args=(node, caller, bytearray()), daemon=True)
            back.start()
            _pump(caller, node, self.said)
            node.shutdown(socket.SHUT_RDWR)
            back.join(5)

    def close(self) -> None:
        self._server.close()
        self._thread.join(5)


def _pump(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65536):
            kept += data
            target.sendall(data)
    except OSError:
        return


@contextmanager
def tapped(port: int) -> Iterator[Tap]:
    tap = Tap(port)
    try:
        yield tap
    finally:
        tap.close()


def say_as_node_2(tap: Tap, node: Node, message: Release) -> None:
    """Node 2 says something to node 1 through the tap."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    caller = context.socket(zmq.PUSH)
    try:
        caller.setsockopt(zmq.LINGER, 0)
        caller.setsockopt(zmq.CURVE_SERVERKEY, curve_pair(KEY, 1)[0])
        caller.setsockopt(zmq.CURVE_PUBLICKEY, curve_pair(KEY, 2)[0])
        caller.setsockopt(zmq.CURVE_SECRETKEY, curve_pair(KEY, 2)[1])
        caller.connect(f"tcp://127.0.0.1:{tap.port}")
        run_until([node], lambda: bool(caller.poll(0, zmq.POLLOUT)))
        caller.send(envelope.seal(message, 2, 1, 1, 1, 1002))
        run_until([node], lambda: bool(node.heard))
    finally:
        caller.close()
        context.term()


def test_a_recorded_conversation_is_refused_from_a_stranger_and_from_the_peers_own_address() -> None:
    port = free_port()
    node = Node(settings(1, 2, port), 1)
    try:
        with tapped(port) as tap:
            say_as_node_2(tap, node, Release(1, 1, 1, 0))
        assert node.heard == [(2, 1002, Release(1, 1, 1, 0))] and len(tap.said) > 500
        for source in (STRANGER, address(2)):
            with socket.create_connection((address(1), port), 5, (source, 0)) as replayer:
                replayer.sendall(tap.said[:10])
                run_for([node], 100)  # a caller that is gone at once cannot be named
                replayer.sendall(tap.said[10:])
                replayer.settimeout(0)
                run_until([node], lambda: _hung_up(replayer))
        run_for([node], 100)
        assert len(node.heard) == 1
        assert any(
            line.startswith(f"dropped 1 connections of unknown hosts; the newest: {STRANGER} ") for line in node.said
        )
        assert any(line.startswith("pg02 (127.0.10.2) ") for line in node.said)
    finally:
        node.close()


def _hung_up(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
