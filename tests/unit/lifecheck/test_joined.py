"""The whole lifecheck process but its shell: the query's results and the peers' words in what it reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.unit.lifecheck.pgpool_script import ScriptedPgpool

from pgvigil.heartbeat.shell import Shell
from pgvigil.ipc import frames
from pgvigil.ipc.channel import Inbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import Beat, Health, Heard, HeardTogether, Role
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.process import Lifecheck
from pgvigil.lifecheck.settings import LifecheckPeer, LifecheckSettings, QuerySettings

ME = 1


class FakeShell:
    """Loop, outbox and title; what is sent is kept."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.sent: list[frames.Verdicts] = []
        self.title = ""

    def outbox(self, _endpoint: str, _on_connected: Callable[[], None]) -> FakeShell:
        return self

    def send(self, frame: frames.Verdicts) -> bool:
        self.sent.append(frame)
        return True

    def set_title(self, title: str) -> None:
        self.title = title


class FakeInbox:
    """Has one frame."""

    def __init__(self, frame: frames.Frame) -> None:
        self._frame = frame

    def receive(self) -> list[frames.Received]:
        return [frames.Received(self._frame, "receiver", 1, 1)]


class Bench:
    """A node with two peers; every pgpool-II answers unless the test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.servers = [ScriptedPgpool() for _ in range(3)]
        own, second, third = [server.port for server in self.servers]
        pid_file = folder / "pgpool.pid"
        pid_file.write_text(f"{os.getpid()}\n")
        self.shell = FakeShell()
        settings = LifecheckSettings(
            node_id=ME,
            peers=(LifecheckPeer(2, "pg02", "127.0.0.1", second), LifecheckPeer(3, "pg03", "127.0.0.1", third)),
            interfaces=("eth0",),
            methods=("heartbeat", "process", "query"),
            interval_ms=200,
            deadtime_ms=60_000,
            pgpool_pid_file=str(pid_file),
            run_dir=str(folder),
            query=QuerySettings("127.0.0.1", own, "SELECT 1", "template1", "watch", None, 100, 10_000, 2),
        )
        self.lifecheck = Lifecheck(settings, cast(Shell, self.shell))
        self.shell.loop.join(self.lifecheck)

    def hear(self, *cannot_query: int) -> None:
        """Both peers say that they cannot query these."""
        now_ns = boottime_ns()
        beat = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1000, (ME,), 0, cannot_query)
        together = HeardTogether(tuple(Heard(node, 0, now_ns, beat) for node in (2, 3)))
        self.lifecheck.on_frames(cast(Inbox, FakeInbox(together)))

    def until(self, condition: Callable[[frames.Verdicts], bool]) -> frames.Verdicts:
        """The first report of which it is true."""
        start_ns = boottime_ns()
        while not self.shell.sent or not condition(self.shell.sent[-1]):
            assert boottime_ns() - start_ns < 20 * NS_PER_S, self.shell.sent[-1:]
            self.shell.loop.run_once(50 * NS_PER_MS)
        return self.shell.sent[-1]

    def close(self) -> None:
        for probe in self.lifecheck._probes:
            probe.close()
        self.shell.loop.close()
        for server in self.servers:
            server.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    environment = dict(os.environ)
    bench = Bench(tmp_path)
    yield bench
    bench.close()
    os.environ.update(environment)


def checks(report: frames.Verdicts) -> dict[str, Health]:
    return {check.method: check.health for check in report.checks}


def test_all_checks_and_the_peers_queries_are_reported(bench: Bench) -> None:
    bench.hear()
    report = bench.until(
        lambda one: (
            one.pgpool is Health.ALIVE
            and checks(one).get("query") is Health.ALIVE
            and all(peer.query is Health.ALIVE for peer in one.peers)
        )
    )
    assert checks(report) == {"process": Health.ALIVE, "query": Health.ALIVE, "peers": Health.UNKNOWN}
    assert "runs; query answered in" in report.pgpool_evidence
    assert all(peer.query_evidence.startswith("query answered in") for peer in report.peers)


def test_the_peers_words_make_a_healthy_pgpool_dead_and_take_it_back(bench: Bench) -> None:
    bench.hear(ME)
    report = bench.until(lambda one: one.pgpool is Health.DEAD)
    assert report.pgpool_evidence == "2 of 2 peers cannot query it: pg02, pg03"
    assert "pgpool dead" in bench.shell.title
    bench.hear(3)
    report = bench.until(lambda one: one.pgpool is Health.ALIVE)
    assert checks(report)["peers"] is Health.UNKNOWN


def test_a_peer_that_cannot_be_queried_is_no_dead_peer(bench: Bench) -> None:
    bench.hear()
    bench.servers[2].close()
    report = bench.until(lambda one: any(peer.query is Health.DEAD for peer in one.peers))
    assert [(peer.node_id, peer.health, peer.query) for peer in report.peers] == [
        (2, Health.ALIVE, Health.ALIVE),
        (3, Health.ALIVE, Health.DEAD),
    ]
