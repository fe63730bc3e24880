"""The moments at which a fault strikes: in the middle of a hand-over, or of an election.

Each waits for something that the cluster itself shows within a millisecond or two: the old leader's address that goes,
the log line of a node that stands. The faults were prepared before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.config import log_path
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.ground import Ground

LOOK_EVERY_S = 0.0005
LIMIT_S = 10.0
STANDS = b"asks for pre-votes"
"""What a node's log says when it stands."""


def await_hand_over(ground: Ground, leader: Host, successor: Host) -> None:
    """Order a switchover and return as soon as the leader's address changes."""
    tape = ground.stage.addresses_tape(leader)
    before = size_of(tape)
    command = ground.cluster.command(leader, "switchover", str(successor.number))
    ground.lab.start(leader, command, "switchover.log")
    _spin(lambda: size_of(tape) > before, f"{leader.name} to begin the hand-over to {successor.name}")


def await_election(ground: Ground, leader: Host) -> Host:
    """Kill all of the leader and return the first other node that stands, as soon as it does."""
    logs = {node: (log_path(node), size_of(log_path(node))) for node in ground.lab.others(leader)}
    ground.cluster.kill_all(leader)
    found: list[Host] = []

    def stands() -> bool:
        found.extend(node for node, (path, size) in logs.items() if STANDS in read_from(path, size))
        return bool(found)

    _spin(stands, f"a node to stand after the loss of {leader.name}")
    return found[0]


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def read_from(path: Path, offset: int) -> bytes:
    """What was appended to a file since it had a size."""
    if size_of(path) <= offset:
        return b""
    with open(path, "rb") as file:
        file.seek(offset, os.SEEK_SET)
        return file.read()


def _spin(condition: Callable[[], bool], what: str) -> None:
    deadline_ns = boottime_ns() + int(LIMIT_S * NS_PER_S)
    while not condition():
        if boottime_ns() > deadline_ns:
            raise CommandError(f"waited {LIMIT_S} s in vain: {what}")
        time.sleep(LOOK_EVERY_S)
