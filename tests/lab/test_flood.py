"""Floods and replays against the leader of a real cluster: the VIP stays, nobody dies, and the log says why.

Short, and at whatever rate this machine manages; `make flood` is the long one at the rate that is promised.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvigil.watchdog.demo import recording
from pgvigil.watchdog.demo.config import log_path
from pgvigil.watchdog.demo.hostile import BEAT_PORT, CLUSTER_PORT, RATE_PER_S, differences, flood, look, record
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.recording import Replayed, datagrams_to, read_packets, streams_to
from pgvigil.watchdog.demo.run import send_signal, wait_until
from pgvigil.watchdog.demo.stage import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SECONDS = 5.0
LEAST_SENT = 1000
"""Far below any machine's rate: a flood of nothing would prove nothing."""


@pytest.fixture
def leader(stage: Stage) -> Iterator[Host]:
    """The leader of a settled cluster."""
    yield stage.mend()


def test_a_flood_moves_nothing(stage: Stage, leader: Host) -> None:
    result = flood(stage, leader, "both-ports", RATE_PER_S, SECONDS)
    print(result)
    logs = "\n".join(f"--- {node.name}\n{stage.cluster.log_tail(node)}" for node in stage.lab.nodes)
    assert result.broken == (), f"{result}\n{logs}"
    assert all(report.sent >= LEAST_SENT or report.kind == "connections" for report in result.reports), result


def replay(stage: Stage, source: Host, what: str, packets: Path, leader: Host, port: int) -> Replayed:
    """Say again from a host what was recorded."""
    report = source.folder / f"replay-{what}.report"
    report.unlink(missing_ok=True)
    words = (what, str(packets), leader.address, str(port), str(report))
    child = stage.lab.start_module(source, "recording", words, "replay.log")
    wait_until(lambda: child.poll() is not None, 60, "the replay to end")
    assert child.returncode == 0, (source.folder / "replay.log").read_text()
    return recording.read_report(report)


def restart(stage: Stage, node: Host, kind: str) -> None:
    """Have a process started again: it has then said nothing yet that it says once a minute at most."""
    send_signal(stage.cluster.processes(node, kind), signal.SIGKILL)
    stage.cluster.wait_settled()


def log_since(node: Host, size: int) -> str:
    with open(log_path(node), encoding="utf-8", errors="replace") as file:
        file.seek(size)
        return file.read()


def test_recorded_heartbeats_are_refused_later_and_from_elsewhere(stage: Stage, leader: Host) -> None:
    restart(stage, leader, "heartbeat receiver")
    packets = record(stage, leader)
    standby = stage.lab.others(leader)[0]
    recorded = datagrams_to(read_packets(packets), BEAT_PORT)
    assert {one.source for one in recorded} == {node.address for node in stage.lab.others(leader)}
    before, size = look(stage), log_path(leader).stat().st_size
    for source in (stage.lab.database, standby):
        for _ in range(2):
            assert replay(stage, source, "datagrams", packets, leader, BEAT_PORT).sent == len(recorded)
    wait_until(lambda: "seen before, or older" in log_since(leader, size), 5, "the log to name the replay")
    restart(stage, standby, "heartbeat receiver")
    before, other = look(stage), log_path(standby).stat().st_size
    replay(stage, stage.lab.database, "datagrams", packets, standby, BEAT_PORT)
    wait_until(lambda: "meant for another node or path" in log_since(standby, other), 5, "the log to name the mistake")
    said = log_since(leader, size)
    assert said.count("seen before, or older") == 1, said
    stage.cluster.wait_settled()
    assert differences(before, look(stage)) == []


def test_recorded_cluster_traffic_is_refused_later_and_from_elsewhere(stage: Stage, leader: Host) -> None:
    standby = stage.lab.others(leader)[0]
    restart(stage, leader, "watchdog main")
    listener = leader.folder / "streams.packets"
    listener.unlink(missing_ok=True)
    child = stage.lab.start_module(leader, "recording", ("listen", "eth0", str(listener)), "recording.log")
    try:
        wait_until(listener.exists, 10, "the recorder to begin")
        restart(stage, standby, "watchdog main")  # it connects anew
        wait_until(lambda: bool(_streams_of(listener, standby)), 20, "a connection from its beginning")
    finally:
        child.kill()
        child.wait(5)
    streams = streams_to(read_packets(listener), CLUSTER_PORT)
    before, size = look(stage), log_path(leader).stat().st_size
    for source in (stage.lab.database, standby):
        done = replay(stage, source, "streams", listener, leader, CLUSTER_PORT)
        assert done.sent == done.ended == len(streams), done
    try:
        wait_until(lambda: _refusals(log_since(leader, size), standby) >= 2, 10, "the log to name both")
    finally:
        print(log_since(leader, size))
    assert _refusals(log_since(leader, size), standby) == 2
    stage.cluster.wait_settled()
    assert differences(before, look(stage)) == []


def _streams_of(packets: Path, node: Host) -> list[bytes]:
    """What a node has said in connections that were recorded from their beginning, greeting and handshake at least."""
    found = streams_to(read_packets(packets), CLUSTER_PORT)
    return [data for (source, _), data in found.items() if source == node.address and len(data) > 500]


def _refusals(log: str, standby: Host) -> int:
    """Lines that name a refused connection, of a stranger or of the standby."""
    return sum(
        "connections of unknown hosts" in line or (f"({standby.address})" in line and "WARNING" in line)
        for line in log.splitlines()
    )
