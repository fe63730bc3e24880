"""Three nodes with real processes: what others hear counts, is taken back, and does not count for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.heartbeat.pipeline import Child, Node, Nursery, free_port, wait_for

from pgvigil.heartbeat.settings import PeerAddress
from pgvigil.ipc.frames import Health, NodeVerdict
from pgvigil.lifecheck.settings import LifecheckPeer

pytestmark = pytest.mark.live

PATIENCE_S = 40.0


class Trio:
    """Nodes 2, 3 and 4."""

    def __init__(self, folder: Path, deadtime_ms: int, deaf_to_three: bool) -> None:
        """`deaf_to_three`: what node 3 sends to node 2 goes to a port where nobody listens."""
        self.port = free_port(*(f"127.0.0.{node_id}" for node_id in (2, 3, 4)))
        self.nursery = Nursery(folder)
        self.nodes = {node_id: self._node(folder, node_id, deadtime_ms) for node_id in (2, 3, 4)}
        if deaf_to_three:
            astray = free_port("127.0.0.2")
            peers = tuple(
                replace(peer, port=astray) if peer.node_id == 2 else peer for peer in self.nodes[3].heartbeat.peers
            )
            self.nodes[3].heartbeat = replace(self.nodes[3].heartbeat, peers=peers)
        self.senders: dict[int, Child] = {}
        for node_id in (3, 4):
            self.senders[node_id] = self.nodes[node_id].start()[0]
        self.wait(3, 4, Health.ALIVE)
        self.senders[2] = self.nodes[2].start_sender()
        self.nodes[2].start_receiver().wait_ready()
        self.wait(2, 4, Health.ALIVE)
        # The last of all: its dead times begin now, and it has a dead time to learn what the others know.
        self.nodes[2].start_lifecheck()

    def _node(self, folder: Path, own: int, deadtime_ms: int) -> Node:
        others = [node_id for node_id in (2, 3, 4) if node_id != own]
        peers = tuple(PeerAddress(other, f"pg0{other}", f"127.0.0.{other}", self.port) for other in others)
        node = Node(self.nursery, folder, own, f"127.0.0.{own}", peers, self.port)
        node.heartbeat = replace(node.heartbeat, deadtime_ms=deadtime_ms, latest_ms=deadtime_ms)
        labels = tuple(LifecheckPeer(peer.node_id, peer.label) for peer in peers)
        node.lifecheck = replace(node.lifecheck, peers=labels, deadtime_ms=deadtime_ms)
        return node

    def view(self, of: int, by: int) -> NodeVerdict | None:
        """What a node believes of another."""
        latest = self.nodes[by].latest()
        return None if latest is None else next(peer for peer in latest.peers if peer.node_id == of)

    def wait(self, of: int, by: int, health: Health, words: str = "") -> NodeVerdict:
        """Until it believes that."""

        def believed() -> NodeVerdict | None:
            verdict = self.view(of, by)
            return verdict if verdict is not None and verdict.health is health and words in verdict.evidence else None

        return wait_for(believed, PATIENCE_S)

    def close(self) -> None:
        self.nursery.close()
        for node in self.nodes.values():
            node.close()


Make = Callable[[int, bool], Trio]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Trio] = []

    def make_one(deadtime_ms: int, deaf_to_three: bool) -> Trio:
        made.append(Trio(tmp_path, deadtime_ms, deaf_to_three))
        return made[-1]

    yield make_one
    for trio in made:
        trio.close()


def test_a_peer_that_a_third_node_hears_is_alive_for_three_dead_times(make: Make) -> None:
    trio = make(1000, True)
    alive = trio.wait(3, 2, Health.ALIVE, "here, but pg04 hears it")
    assert alive.paths[0].silent and alive.evidence.startswith("never heard on lo for ")
    dead = trio.wait(3, 2, Health.DEAD, ", although pg04 hears it")
    assert dead.since_ns - alive.since_ns >= 2_000_000_000
    assert trio.wait(3, 4, Health.ALIVE).paths[0].silent is False


def test_a_dead_peer_is_confirmed_by_the_others(make: Make) -> None:
    trio = make(3000, False)
    for by, of in ((2, 3), (2, 4), (4, 3)):
        trio.wait(of, by, Health.ALIVE)
    wait_for(
        lambda: (seen := trio.view(4, 2)) is not None and seen.beat is not None and 3 in seen.beat.hears, PATIENCE_S
    )
    trio.senders[3].kill()
    dead = trio.wait(3, 2, Health.DEAD, "silent on lo for ")
    assert dead.confirmed_by == (4,)
