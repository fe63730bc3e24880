"""Holding back new clients on a real kernel: two namespaces, a cable, TCP that retransmits. Needs root."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.lab.vip_network import Cable

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.recovery import hold as holding
from pgvigil.watchdog.recovery.hold import Hold, peers_of, remove_leftover

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

PORT = 9999
LIMIT_S = 30.0
NODE4, NODE6 = "10.99.0.1", "fd99::1"
PEER = ("10.99.0.2", "fd99::2")


@pytest.fixture
def cable() -> Iterator[Cable]:
    cable = Cable()
    try:
        yield cable
    finally:
        cable.close()


@pytest.fixture
def server(cable: Cable) -> Iterator[socket.socket]:
    """Stands for pgpool-II; the kernel completes its connections."""
    with cable.inside("node"):
        listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    with listener:
        yield listener


@pytest.fixture
def hold(cable: Cable) -> Iterator[Hold]:
    with cable.inside("node"):
        made = Hold(PORT, (), 90_000)
    yield made
    made.close()


class Knock:
    """A client that connects from a namespace and waits."""

    def __init__(self, cable: Cable, side: str, address: str, port: int = PORT) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with cable.inside(side):
            self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT_S)
        self._thread = threading.Thread(target=self._connect, args=((address, port),), daemon=True)
        self.outcome = "waits"
        self._thread.start()

    def _connect(self, target: tuple[str, int]) -> None:
        try:
            self.socket.connect(target)
            self.outcome = "connected"
        except OSError as error:
            self.outcome = str(error)

    def ended(self) -> str:
        self._thread.join(LIMIT_S)
        self.socket.close()
        return self.outcome


def arrived(cable: Cable) -> int:
    """Packets that reached the node's interface, whatever became of them."""
    return int(cable.run("node", "cat /sys/class/net/va/statistics/rx_packets"))


def test_new_clients_wait_and_get_through_after_the_release(cable: Cable, server: socket.socket, hold: Hold) -> None:
    early = Knock(cable, "peer", NODE4)
    assert early.ended() == "connected"
    assert hold.hold(1, 60_000).breaks == 0 and hold.is_held()
    before = arrived(cable)
    knocks = [Knock(cable, "peer", address) for address in (NODE4, NODE6)]
    # Both have come, and have been sent again: they wait, nobody refused them.
    wait_until(lambda: arrived(cable) >= before + 4, LIMIT_S, "the clients to try again")
    assert [knock.outcome for knock in knocks] == ["waits", "waits"]
    hold.release()
    assert not hold.is_held() and "pgvigil_hold" not in cable.run("node", "nft list tables")
    assert [knock.ended() for knock in knocks] == ["connected", "connected"]


def test_what_is_connected_local_or_for_another_port_passes(cable: Cable, server: socket.socket, hold: Hold) -> None:
    with cable.inside("peer"):
        old = socket.create_connection((NODE4, PORT), LIMIT_S)
    served, _ = server.accept()
    with cable.inside("node"):
        pcp = socket.create_server((NODE4, PORT - 1))
    with old, served, pcp:
        hold.hold(1, 60_000)
        old.sendall(b"question")
        assert served.recv(64) == b"question"
        served.sendall(b"answer")
        assert old.recv(64) == b"answer"
        assert Knock(cable, "node", "127.0.0.1").ended() == "connected"
        assert Knock(cable, "node", NODE4).ended() == "connected"
        assert Knock(cable, "peer", NODE4, PORT - 1).ended() == "connected"


def test_other_nodes_pass_because_their_lifecheck_asks(cable: Cable, server: socket.socket) -> None:
    with cable.inside("node"):
        hold = Hold(PORT, peers_of((*PEER, "pg02.example.org")), 90_000)
    hold.hold(1, 60_000)
    assert Knock(cable, "peer", NODE4).ended() == "connected"
    assert Knock(cable, "peer", NODE6).ended() == "connected"
    hold.close()


def test_the_kernel_opens_it_when_the_process_was_killed(cable: Cable, server: socket.socket) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with cable.inside("node"):
            Hold(PORT, (), 90_000).hold(1, 3000)
            os.write(writing, b"held")
            signal.pause()
        os._exit(0)
    assert os.read(reading, 4) == b"held"
    held_at_ns = boottime_ns()
    os.close(reading)
    os.close(writing)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    knock = Knock(cable, "peer", NODE4)
    assert "pgvigil_hold" in cable.run("node", "nft list tables")
    assert knock.ended() == "connected"
    assert boottime_ns() - held_at_ns >= 2500 * NS_PER_MS
    with cable.inside("node"):
        assert remove_leftover().startswith("a hold of an earlier process")
        assert remove_leftover() == ""
    assert cable.run("node", "nft list tables") == ""


def test_renewals_end_at_the_limit(cable: Cable) -> None:
    with cable.inside("node"):
        hold = Hold(PORT, (), 1500)
    begun_ns = boottime_ns()
    limit_ns = hold.hold(7, 60_000).limit_ns
    while hold.hold(7, 60_000).until_ns > boottime_ns():
        assert hold.state.until_ns <= limit_ns <= boottime_ns() + 1500 * NS_PER_MS
    wait_until(lambda: not hold.is_held(), LIMIT_S, "the kernel to open it")
    assert boottime_ns() - begun_ns >= 1400 * NS_PER_MS
    assert hold.hold(8, 1000).limit_ns > limit_ns  # another cause begins anew
    hold.close()


def test_a_table_that_somebody_flushed_is_put_back_and_counts_as_a_break(cable: Cable, hold: Hold) -> None:
    hold.prepare()
    assert not hold.is_held() and holding.TABLE in cable.run("node", "nft list tables")
    assert hold.hold(1, 60_000).breaks == 0
    assert hold.hold(1, 60_000).breaks == 0
    cable.run("node", "nft flush ruleset")
    assert hold.hold(1, 60_000).breaks == 1 and hold.is_held()
    cable.run("node", f"nft flush set inet {holding.TABLE} {holding.PORTS}")
    assert hold.hold(1, 60_000).breaks == 2 and hold.is_held()
    assert hold.hold(1, 60_000).breaks == 2
    assert hold.hold(2, 60_000).breaks == 0
