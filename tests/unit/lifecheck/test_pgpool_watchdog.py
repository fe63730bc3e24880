"""The client of pgpool-II's command socket against a scripted one: answers, silence, refusals, restarts."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.core.informing import LIST_NS, Wish
from pgvigil.lifecheck.probes import pgpool_watchdog
from pgvigil.lifecheck.probes.knock import AGAIN_NS, SURE_NS
from pgvigil.lifecheck.probes.knock import LIMIT_NS as KNOCK_LIMIT_NS
from pgvigil.lifecheck.probes.pgpool_watchdog import (
    ANSWER_LIMIT_NS,
    MAX_RETRY_NS,
    RETRY_NS,
    PgpoolWatchdogProbe,
)
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.settings import PgpoolAddress, PgpoolWatchdogSettings

KEY = "a wd_authkey"
# Names: nothing outside of this machine is knocked at.
ADDRESSES = tuple(PgpoolAddress(node, f"pg0{node}", (f"pg0{node}",), 9999) for node in (1, 2))
LIMIT_NS = 10 * NS_PER_S


class Pgpool:
    """A watchdog of pgpool-II that answers as a 4.3.5 does, or as it is told to."""

    def __init__(self, path: Path, loop: Loop) -> None:
        self.path = path
        self.loop = loop
        self.states = [7, 4]
        self.port = 9999
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.answer: Callable[[bytes], bytes | None] | None = None
        self.held: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(8)
        self.loop.watch(self.socket.fileno(), self.serve)

    def stop(self) -> None:
        self.loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.path.unlink(missing_ok=True)
        for connection in self.held:
            connection.close()

    def serve(self) -> None:
        connection, _ = self.socket.accept()
        connection.settimeout(5)
        kind = connection.recv(1)
        if not kind:
            connection.close()
            return
        length = int.from_bytes(connection.recv(4))
        body = connection.recv(length)
        self.asked.append((kind.decode(), json.loads(body)))
        reply = self.real(kind) if self.answer is None else self.answer(kind)
        if reply is None:
            self.held.append(connection)
            return
        connection.sendall(reply)
        connection.close()

    def real(self, kind: bytes) -> bytes:
        body = self.asked[-1][1]
        if body.get("IPCAuthKey") != KEY:
            return b'6\x00\x00\x001{"MESSAGE":"authentication failed: invalid KEY"}\x00'
        if kind == b"2":
            self.states[int(str(body["NodeID"]))] = 8 if body["NodeStatus"] == 1 else 1
            return b""
        rows = [
            {"ID": number, "State": state, "HostName": f"pg0{number + 1}", "PgpoolPort": port, "Priority": 1}
            for number, (state, port) in enumerate(zip(self.states, (9999, self.port), strict=True))
        ]
        data = json.dumps({"QuorumStatus": 1, "Escalated": 0, "WatchdogNodes": rows}).encode() + b"\0"
        return b"7" + len(data).to_bytes(4) + data


class Bench:
    """A probe and a pgpool-II in one loop; the time given to `tick` may run ahead of the clock."""

    def __init__(self, path: Path, authkey: str = KEY) -> None:
        self.loop = Loop()
        self.pgpool = Pgpool(path, self.loop)
        self.changes: list[Reading] = []
        self.news = 0
        self.now_ns = boottime_ns()
        self.authkey = authkey
        self.pid_file = path.with_name("pgpool.pid")
        self.probe = self.make(ADDRESSES)

    def make(self, addresses: tuple[PgpoolAddress, ...]) -> PgpoolWatchdogProbe:
        settings = PgpoolWatchdogSettings(str(self.pgpool.path), str(self.pid_file), self.authkey, addresses)
        return PgpoolWatchdogProbe(settings, 1, self.loop, self.changes.append, self.note, self.now_ns)

    def note(self) -> None:
        self.news += 1

    def later(self, ns: int) -> None:
        """So much time passes for the probe."""
        self.now_ns = max(self.now_ns, boottime_ns()) + ns
        self.probe.tick(self.now_ns)

    def until(self, condition: Callable[[], object]) -> None:
        """The loop goes round until the condition holds."""
        end_ns = boottime_ns() + LIMIT_NS
        while not condition():
            assert boottime_ns() < end_ns, (self.probe.reading, self.pgpool.asked)
            self.loop.run_once(20 * NS_PER_MS)

    def read(self) -> None:
        """One more list is read."""
        before_ns = self.probe.report().read_at_ns
        self.later(LIST_NS)
        self.until(lambda: self.probe.report().read_at_ns > before_ns)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.pgpool.asked]

    def close(self) -> None:
        self.probe.close()
        self.pgpool.stop()
        self.loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "wd")
    yield made
    made.close()


def test_the_list_is_read_and_reported(bench: Bench) -> None:
    assert bench.probe.reading.health is Health.UNKNOWN
    bench.read()
    assert bench.probe.reading.evidence == "pgpool-II's watchdog answers: pg02:9999 leads"
    assert [change.health for change in bench.changes] == [Health.ALIVE] and bench.news == 1
    report = bench.probe.report()
    assert (report.leader, report.quorum, report.trouble) == ("pg02:9999", "exists", "")
    assert [(member.node_id, member.state) for member in report.members] == [(1, "standby"), (2, "leader")]
    bench.read()
    assert bench.news == 1, "the same list is no news"


def test_a_silent_peer_is_told_at_once_and_the_list_shows_that_it_was_taken(bench: Bench) -> None:
    bench.read()
    bench.probe.wish({2: Wish(Health.DEAD, "pg02 is dead: silent on eth0 for 1000 ms")}, boottime_ns())
    bench.until(lambda: bench.kinds()[-1] == "2")
    assert bench.pgpool.asked[-1][1] == {
        "NodeID": 1, "NodeStatus": 1, "Message": "pgvigil: pg02 is dead: silent on eth0 for 1000 ms", "IPCAuthKey": KEY,
    }  # fmt: skip
    bench.until(lambda: bench.probe.report().members[1].told is Health.DEAD)
    bench.read()
    assert bench.probe.report().members[1].state == "lost"
    bench.read()
    assert bench.kinds().count("2") == 1


def test_a_pgpool_that_starts_anew_is_found_and_told_again(bench: Bench) -> None:
    bench.read()
    bench.pgpool.stop()
    bench.later(LIST_NS)
    bench.until(lambda: bench.probe.reading.health is Health.DEAD)
    assert bench.probe.reading.evidence == f"pgpool-II's watchdog has no socket {bench.pgpool.path}"
    assert bench.probe.report().members == ()
    bench.probe.wish({2: Wish(Health.DEAD, "silent")}, boottime_ns())
    bench.pgpool.start()
    bench.later(RETRY_NS)
    bench.until(lambda: bench.kinds()[-1] == "2")
    assert bench.probe.reading.health is Health.ALIVE


def test_a_file_that_nobody_listens_on_is_named(bench: Bench) -> None:
    bench.loop.unwatch(bench.pgpool.socket.fileno())
    bench.pgpool.socket.close()
    bench.later(0)
    assert bench.probe.reading.health is Health.DEAD
    assert bench.probe.reading.evidence.endswith(f"cannot be reached at {bench.pgpool.path}: Connection refused")
    bench.pgpool.path.unlink()
    bench.pgpool.start()


def test_a_hung_watchdog_has_a_deadline_and_is_asked_ever_more_seldom(bench: Bench) -> None:
    bench.pgpool.answer = lambda kind: None
    bench.later(0)
    bench.until(lambda: len(bench.pgpool.asked) == 1)
    waits = []
    for number in range(6):
        bench.later(ANSWER_LIMIT_NS)
        assert bench.probe.reading.evidence == "pgpool-II's watchdog has not answered for 3000 ms"
        wake_ns = bench.probe.wake()
        assert wake_ns is not None
        waits.append(wake_ns - bench.now_ns)
        bench.later(waits[-1])
        bench.until(lambda wanted=number + 2: len(bench.pgpool.asked) == wanted)  # type: ignore[misc]
    assert waits == [min(RETRY_NS << number, MAX_RETRY_NS) for number in range(6)]
    bench.pgpool.answer = None
    bench.later(ANSWER_LIMIT_NS)
    bench.later(MAX_RETRY_NS)
    bench.until(lambda: bench.probe.reading.health is Health.ALIVE)


def test_our_own_standstill_is_not_held_against_it(bench: Bench) -> None:
    bench.pgpool.answer = lambda kind: None
    bench.later(0)
    bench.until(lambda: bench.pgpool.asked)
    bench.probe.late(NS_PER_S)
    bench.later(ANSWER_LIMIT_NS)
    assert bench.changes == []
    bench.later(NS_PER_S)
    assert bench.probe.reading.health is Health.DEAD


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (b"", "closed the connection without an answer"),
        (b"7\x00\x00\x00\x04nul", "closed the connection without an answer"),
        (b"7\x00\x00\x00\x02{}", "answers with something invalid: WatchdogNodes is None, expected a list of 1 to 128"),
        (b"HTTP/1.1 400", "answers with something invalid: a reply of type b'H', expected one of 5, 6, 7, 8"),
        (b"7\xff\xff\xff\xff", "answers with something invalid: a reply of 4294967295 bytes, expected at most 262144"),
        (b"5\x00\x00\x00\x00", "has its cluster in transition"),
    ],
)
def test_what_is_no_list_is_told_and_asked_again(bench: Bench, reply: bytes, sentence: str) -> None:
    bench.pgpool.answer = lambda kind: reply
    bench.later(0)
    bench.until(lambda: bench.probe.reading.health is Health.DEAD)
    assert bench.probe.reading.evidence == f"pgpool-II's watchdog {sentence}"
    bench.pgpool.answer = None
    bench.later(MAX_RETRY_NS)
    bench.until(lambda: bench.probe.reading.health is Health.ALIVE)


def test_a_silent_peer_whose_pgpool_answers_is_not_called_dead_until_it_does_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "wd")
    door = socket.create_server(("127.0.0.1", 0))
    answers = True

    def open_door() -> None:
        connection, _ = door.accept()
        if answers:
            connection.sendall(b"N")
        bench.pgpool.held.append(connection)

    try:
        bench.loop.watch(door.fileno(), open_door)
        there = PgpoolAddress(2, "pg02", ("pg02", "127.0.0.1"), door.getsockname()[1])
        bench.probe = bench.make((ADDRESSES[0], there))
        bench.pgpool.port = there.port
        bench.read()
        bench.probe.wish({2: Wish(Health.DEAD, "silent", certain=False)}, boottime_ns())

        def troubled() -> str:
            bench.probe.tick(boottime_ns())
            return bench.probe.report().trouble

        bench.until(troubled)
        trouble = "pg02: silent for pgvigil, but pgpool-II there answers, so it is not called dead"
        assert bench.probe.report().trouble == trouble
        bench.read()
        assert "2" not in bench.kinds()
        answers = False
        for wait_ns in (AGAIN_NS, KNOCK_LIMIT_NS, SURE_NS, KNOCK_LIMIT_NS):
            bench.later(wait_ns)
        bench.until(lambda: "2" in bench.kinds())
        assert bench.pgpool.asked[-1][1]["Message"] == "pgvigil: silent"
    finally:
        door.close()
        bench.close()


def test_a_stranger_at_the_socket_is_not_given_the_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    monkeypatch.setattr(pgpool_watchdog, "ROOT", own + 2)
    bench.later(0)
    assert bench.probe.reading.health is Health.DEAD and bench.pgpool.asked == []
    assert f"user {own} is, expected root, {own + 1} or the owner of {bench.pid_file}" in bench.probe.reading.evidence
    bench.pid_file.touch()
    bench.later(MAX_RETRY_NS)
    bench.until(lambda: bench.probe.reading.health is Health.ALIVE)


def test_a_wrong_key_is_told_in_pgpools_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "wd", authkey="another")
    try:
        bench.later(0)
        bench.until(lambda: bench.probe.reading.health is Health.DEAD)
        assert bench.probe.reading.evidence == "pgpool-II's watchdog refuses: authentication failed: invalid KEY"
    finally:
        bench.close()


def test_without_a_descriptor_left_it_says_so_and_asks_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        bench.later(LIST_NS)
    assert bench.probe.reading.evidence.endswith(": Too many open files")
    bench.read()
