"""The detector with real senders, receivers and lifechecks while all cores are busy with something else.

Three nodes on loopback, each with its three processes, and as many busy loops as there are cores, all of the same
priority. It counts living peers that were called dead and takes the time until a killed sender is; the machine decides
about the figures, so they are printed and never judged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.detector.model import INTERVAL_MS, Detector
from tests.unit.heartbeat.pipeline import Child, Node, Nursery, free_port, wait_for

from pgvigil.heartbeat.settings import PeerAddress
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.settings import LifecheckPeer

NODES = (2, 3, 4)
VICTIM = 4
BUSY = "while True: pass"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Busy:
    """What was seen: verdicts against living peers, and times until a killed sender's node was dead."""

    seconds: float
    wrong: int
    doubts: int
    detected_ms: tuple[int, ...]


class Trio:
    """The nodes, and the sender of the one that is to die."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        port = free_port(*(f"127.0.0.{node_id}" for node_id in NODES))
        self._nursery = Nursery(folder)
        self.nodes = [self._node(folder, node_id, port, detector) for node_id in NODES]
        self.sender = [node.start() for node in self.nodes][-1][0]

    def _node(self, folder: Path, own: int, port: int, detector: Detector) -> Node:
        others = [node_id for node_id in NODES if node_id != own]
        peers = tuple(PeerAddress(other, f"pg0{other}", f"127.0.0.{other}", port) for other in others)
        node = Node(self._nursery, folder, own, f"127.0.0.{own}", peers, port)
        node.heartbeat = replace(node.heartbeat, deadtime_ms=detector.floor_ms, latest_ms=detector.ceiling_ms)
        node.lifecheck = replace(
            node.lifecheck,
            peers=tuple(LifecheckPeer(peer.node_id, peer.label) for peer in peers),
            deadtime_ms=detector.ceiling_ms,
            adaptive=detector.adaptive,
            deadtime_min_ms=detector.floor_ms,
        )
        return node

    def all_alive(self) -> bool:
        """Whether everybody hears everybody."""
        return all(self.view(node, other) is Health.ALIVE for node in self.nodes for other in NODES if other != node.id)

    def view(self, node: Node, of: int) -> Health | None:
        """What a node believes of another."""
        latest = node.latest()
        return None if latest is None else next(peer.health for peer in latest.peers if peer.node_id == of)

    def verdicts(self) -> list[Health]:
        """Of every report since the last time."""
        for node in self.nodes:
            node.latest()
        found = [peer.health for node in self.nodes for report in node.verdicts for peer in report.peers]
        for node in self.nodes:
            node.verdicts.clear()
        return found

    def kill_sender(self) -> int:
        """The victim falls silent; how long it takes until the others have found it dead, in ms."""
        self.sender.kill()
        killed_ns = boottime_ns()
        wait_for(lambda: all(self.view(node, VICTIM) is Health.DEAD for node in self.nodes[:-1]), PATIENCE_S)
        since = [
            peer.since_ns for node in self.nodes[:-1] for peer in node.verdicts[-1].peers if peer.node_id == VICTIM
        ]
        self.sender = self._start_sender()
        return (max(since) - killed_ns) // NS_PER_MS

    def _start_sender(self) -> Child:
        sender = self.nodes[-1].start_sender()
        wait_for(self.all_alive, PATIENCE_S)
        return sender

    def close(self) -> None:
        """End everything."""
        self._nursery.close()
        for node in self.nodes:
            node.close()


def measure(detector: Detector, seconds: float, kills: int, load: int | None = None) -> Busy:
    """`load` busy loops (one per core if None) beside the nodes for some seconds, then `kills` deaths."""
    with tempfile.TemporaryDirectory(prefix="pgvigil-detector-") as folder:
        trio = Trio(Path(folder), detector)
        busy: list[subprocess.Popen[bytes]] = []
        try:
            wait_for(trio.all_alive, PATIENCE_S)
            cores = len(os.sched_getaffinity(0))
            busy += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores if load is None else load)]
            found, end = trio.verdicts(), time.monotonic() + seconds
            found.clear()
            while time.monotonic() < end:
                time.sleep(INTERVAL_MS / 1000)
                found += trio.verdicts()
            wrong, doubts = found.count(Health.DEAD), found.count(Health.UNKNOWN)
            wait_for(trio.all_alive, PATIENCE_S)
            detected = tuple(sorted(trio.kill_sender() for _ in range(kills)))
            return Busy(seconds, wrong, doubts, detected)
        finally:
            for process in busy:
                process.kill()
                process.wait()
            trio.close()
