"""The query probe in a real loop against servers that play pgpool-II byte by byte."""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.lifecheck import pgpool_script as pg
from tests.unit.lifecheck.pgpool_script import Client, Script, ScriptedPgpool

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.query import QueryProbe, read_password
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.settings import LifecheckPeer, QuerySettings

LIMIT_NS = 20 * NS_PER_S
NO_BACKEND = "all backend nodes are down, pgpool requires at least one valid node"


class Bench:
    """A probe of one local pgpool-II and its peers, in a loop that goes round on demand."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.changes: list[Reading] = []
        self.peer_changes: list[tuple[int, Health]] = []
        self.servers: list[ScriptedPgpool] = []
        self.probe: QueryProbe | None = None

    def server(self, script: Script = pg.answer, port: int = 0) -> ScriptedPgpool:
        self.servers.append(ScriptedPgpool(script, port))
        return self.servers[-1]

    def ask(
        self,
        port: int,
        peers: dict[int, int] | None = None,
        *,
        host: str = "127.0.0.1",
        password_file: str | None = None,
        interval_ms: int = 100,
        timeout_ms: int = 10_000,
        life_points: int = 2,
    ) -> QueryProbe:
        """Port 0: no local pgpool-II, as on a witness."""
        own = host if port else ""
        settings = QuerySettings(
            own, port, "SELECT 1", "template1", "watch", password_file, interval_ms, timeout_ms, life_points
        )
        others = tuple(LifecheckPeer(node, f"pg0{node}", "127.0.0.1", at) for node, at in (peers or {}).items())
        self.probe = QueryProbe(settings, others, self.loop, self.changes.append, self._on_peer, boottime_ns())
        self.loop.join(self.probe)
        return self.probe

    def _on_peer(self, node_id: int, health: Health, _evidence: str) -> None:
        self.peer_changes.append((node_id, health))

    def until(self, condition: Callable[[], bool]) -> None:
        start_ns = boottime_ns()
        while not condition():
            assert boottime_ns() - start_ns < LIMIT_NS, self.probe and self.probe.reading
            self.loop.run_once(50 * NS_PER_MS)

    def until_health(self, health: Health) -> str:
        """The evidence, once the local pgpool-II is seen like this."""
        probe = self.probe
        assert probe is not None
        self.until(lambda: probe.reading.health is health)
        return probe.reading.evidence

    def close(self) -> None:
        if self.probe is not None:
            self.probe.close()
        self.loop.close()
        for server in self.servers:
            server.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    environment = dict(os.environ)  # the probe drops libpq's variables
    gc.collect()  # what earlier tests have left to the collector is not to be counted
    descriptors = len(os.listdir("/proc/self/fd"))
    bench = Bench()
    yield bench
    bench.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    os.environ.update(environment)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_answers_make_all_of_them_alive(bench: Bench) -> None:
    own, peer = bench.server(), bench.server()
    probe = bench.ask(own.port, {2: peer.port})
    bench.until(lambda: len(own.startups) > 3 and len(peer.startups) > 3)
    assert probe.reading.health is Health.ALIVE and "query answered in" in probe.reading.evidence
    assert bench.peer_changes == [(2, Health.ALIVE)]
    found = probe.peer(2)
    assert found is not None and found.health is Health.ALIVE and probe.peer(3) is None
    assert len(bench.changes) == 1
    assert (
        b"user\0watch\0database\0template1\0" in own.startups[0] and b"application_name\0pgvigil\0" in own.startups[0]
    )


def test_a_refused_connection_is_dead_after_its_life_points_and_back_with_one_answer(bench: Bench) -> None:
    port = closed_port()
    bench.ask(port)
    assert bench.until_health(Health.DEAD).startswith("query refused: Connection refused (2 failures in a row, for ")
    bench.server(port=port)
    bench.until_health(Health.ALIVE)
    assert [one.health for one in bench.changes] == [Health.DEAD, Health.ALIVE]


def test_a_peer_is_judged_like_the_local_one(bench: Bench) -> None:
    bench.ask(bench.server().port, {2: closed_port()})
    bench.until(lambda: (2, Health.DEAD) in bench.peer_changes)
    assert bench.until_health(Health.ALIVE)


def take_no_connection(client: Client) -> None:
    client.request_for_tls()
    client.hang()


def test_a_proxy_that_takes_no_connection_hangs(bench: Bench) -> None:
    server = bench.server(take_no_connection)
    bench.ask(server.port, timeout_ms=100)
    evidence = bench.until_health(Health.DEAD)
    assert evidence.startswith("query timed out: pgpool-II has taken no connection for 1")
    assert "it hangs, or all its children are busy" in evidence


def silent_behind(client: Client) -> None:
    client.negotiate()
    client.hang()


def test_all_silent_behind_their_proxies_means_a_backend_that_hangs(bench: Bench) -> None:
    bench.ask(bench.server(silent_behind).port, {2: bench.server(silent_behind).port}, timeout_ms=100)
    assert bench.until_health(Health.ALIVE).endswith("no other does, so a backend hangs")


def silent_ms(probe: QueryProbe) -> int:
    found = re.search(r"no result for (\d+) ms", probe.reading.evidence)
    return int(found[1]) if found else 0


def test_a_question_that_hangs_behind_the_proxy_is_not_asked_again_and_may_still_be_answered(bench: Bench) -> None:
    """Each new one would take another child of pgpool-II until none is left."""
    asked, may_answer = threading.Semaphore(0), threading.Event()

    def answer_late(client: Client) -> None:
        client.negotiate()
        asked.release()
        may_answer.wait(30)
        client.send(pg.AUTHENTICATED, pg.READY)
        client.message()
        client.send(pg.ROW, pg.DONE, pg.READY)

    server = bench.server(answer_late)
    probe = bench.ask(server.port, timeout_ms=100)
    bench.until(lambda: silent_ms(probe) > 500)
    assert asked.acquire(timeout=10) and not asked.acquire(blocking=False)
    may_answer.set()
    bench.until(lambda: "query answered in" in probe.reading.evidence)


def test_one_silent_while_others_answer_is_dead(bench: Bench) -> None:
    bench.ask(bench.server(silent_behind).port, {2: bench.server().port}, timeout_ms=1000)
    assert "while others do" in bench.until_health(Health.DEAD)


def test_one_session_that_hangs_is_one_failure(bench: Bench) -> None:
    """A backend may leave one session waiting, say for a lock, while all others are served."""
    sessions: list[Client] = []

    def the_first_hangs(client: Client) -> None:
        sessions.append(client)
        if len(sessions) == 1:
            client.negotiate()
            client.hang()
        pg.answer(client)

    probe = bench.ask(bench.server(the_first_hangs).port, {2: bench.server().port}, timeout_ms=500, life_points=2)
    assert "query answered" in bench.until_health(Health.ALIVE)
    bench.until(lambda: "query answered" in probe.reading.evidence and len(sessions) > 5)
    assert [change.health for change in bench.changes] == [Health.ALIVE]


def test_no_result_after_the_login_is_silence_behind_the_proxy_too(bench: Bench) -> None:
    def mute(client: Client) -> None:
        client.negotiate()
        client.send(pg.AUTHENTICATED, pg.READY)
        client.hang()

    bench.ask(bench.server(mute).port, timeout_ms=100)
    assert "pgpool-II answers, but has given no result" in bench.until_health(Health.ALIVE)


def test_a_missing_backend_leaves_the_proxy_alive(bench: Bench) -> None:
    def without_backend(client: Client) -> None:
        client.negotiate()
        client.send(pg.error("FATAL", NO_BACKEND, "57000", "repair the backend nodes and restart pgpool"))

    bench.ask(bench.server(without_backend).port)
    assert bench.until_health(Health.ALIVE).startswith(f"query found no backend, but pgpool-II answers: {NO_BACKEND}")


def test_an_error_before_anything_else_is_a_full_pgpool(bench: Bench) -> None:
    def full(client: Client) -> None:
        client.send(pg.error("FATAL", "Sorry, too many clients already", "53300"))
        client.request_for_tls()

    bench.ask(bench.server(full).port)
    assert "pgpool-II is out of connections" in bench.until_health(Health.DEAD)


def test_a_connection_that_is_reset_is_refused(bench: Bench) -> None:
    def reset(client: Client) -> None:
        client.request_for_tls()
        client.reset()

    bench.ask(bench.server(reset).port)
    assert bench.until_health(Health.DEAD).startswith("query refused: ")


def test_a_session_that_breaks_off_is_refused(bench: Bench) -> None:
    def break_off(client: Client) -> None:
        client.negotiate()
        client.send(pg.AUTHENTICATED, pg.READY)
        client.message()

    bench.ask(bench.server(break_off).port)
    assert "pgpool-II dropped the session" in bench.until_health(Health.DEAD)


def test_an_answer_in_single_bytes_is_an_answer(bench: Bench) -> None:
    def drip(client: Client) -> None:
        client.negotiate()
        client.send_slowly(pg.AUTHENTICATED + pg.READY)
        client.message()
        client.send_slowly(pg.ROW + pg.DONE + pg.READY)

    bench.ask(bench.server(drip).port)
    bench.until_health(Health.ALIVE)


def test_a_wrong_password_is_no_verdict_but_loud_once_and_never_shown(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(client: Client) -> None:
        client.negotiate()
        client.send(pg.CLEAR_TEXT_PASSWORD)
        assert client.message() == b"psesame\0"
        detail = 'password authentication failed for user "watch"'
        client.send(pg.error("ERROR", "authentication failed", "XX000", detail))

    file = tmp_path / "password"
    file.write_text("sesame\n")
    file.chmod(0o600)
    server = bench.server(wrong)
    with caplog.at_level(logging.INFO, "pgvigil"):
        probe = bench.ask(server.port, password_file=str(file))
        bench.until(lambda: len(server.startups) > 3)
    assert probe.reading.health is Health.UNKNOWN and not bench.changes
    assert 'password authentication failed for user "watch"' in probe.reading.evidence
    loud = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(loud) == 1 and "mend query_user" in loud[0] and "sesame" not in caplog.text


def test_an_error_of_the_statement_is_the_operators(bench: Bench) -> None:
    def no_table(client: Client) -> None:
        client.negotiate()
        client.send(pg.AUTHENTICATED, pg.READY)
        client.message()
        client.send(pg.error("ERROR", 'relation "nix" does not exist', "42P01"), pg.READY)

    server = bench.server(no_table)
    probe = bench.ask(server.port)
    bench.until(lambda: len(server.startups) > 1)
    assert probe.reading == Reading(
        Health.UNKNOWN, probe.reading.since_ns, 'query not possible: relation "nix" does not exist'
    )


def test_without_a_password_file_pgpass_is_read(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_password(client: Client) -> None:
        client.negotiate()
        client.send(pg.CLEAR_TEXT_PASSWORD)
        assert client.message() == b"popen\0"
        client.send(pg.AUTHENTICATED, pg.READY)
        client.message()
        client.send(pg.ROW, pg.DONE, pg.READY)

    pgpass = tmp_path / ".pgpass"
    pgpass.touch(mode=0o600)
    pgpass.write_text("localhost:*:template1:watch:open\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    bench.ask(bench.server(check_password).port, host="localhost")
    bench.until_health(Health.ALIVE)


def test_a_password_file_that_others_can_read_stops_the_questions(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("sesame\n")
    file.chmod(0o640)
    server = bench.server()
    probe = bench.ask(server.port, password_file=str(file))
    bench.until(lambda: "not possible" in probe.reading.evidence)
    assert "has mode 0640, expected 0600" in probe.reading.evidence and not server.startups
    file.chmod(0o600)
    bench.until_health(Health.ALIVE)


def test_our_own_standstill_moves_the_deadlines(bench: Bench) -> None:
    server = bench.server(take_no_connection)
    probe = bench.ask(server.port, timeout_ms=60_000, interval_ms=600_000, life_points=1)
    probe.tick(boottime_ns())
    asked_ns = boottime_ns()
    probe.late(60 * NS_PER_S)
    probe.tick(asked_ns + 61 * NS_PER_S)
    assert not bench.changes
    probe.tick(asked_ns + 121 * NS_PER_S)
    assert [one.health for one in bench.changes] == [Health.DEAD]


def test_one_question_follows_the_other_also_when_each_takes_all_its_time(bench: Bench) -> None:
    server = bench.server(take_no_connection)
    probe = bench.ask(server.port, interval_ms=10_000, timeout_ms=10_000, life_points=3)
    start_ns = boottime_ns()
    for passed_ms, failures in ((0, 0), (9_900, 0), (10_000, 1), (19_900, 1), (20_000, 2)):
        probe.tick(start_ns + passed_ms * NS_PER_MS)
        assert f"({failures} of 3" in probe.reading.evidence or not failures
    probe.tick(start_ns + 30_000 * NS_PER_MS)
    assert probe.reading.health is Health.DEAD and "for 30000 ms" in probe.reading.evidence


def test_an_early_tick_begins_the_next_round_if_nothing_is_on_its_way(bench: Bench) -> None:
    server = bench.server()
    probe = bench.ask(server.port, interval_ms=3_600_000, timeout_ms=10_000)
    probe.tick(boottime_ns())
    bench.until_health(Health.ALIVE)
    bench.until(lambda: len(server.startups) == 1)
    due_ns = probe.wake()
    assert due_ns is not None
    probe.tick(due_ns - 300 * NS_PER_MS)
    assert probe.wake() == due_ns
    probe.tick(due_ns - 200 * NS_PER_MS)
    bench.until(lambda: len(server.startups) == 2)


def test_libpqs_environment_does_not_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGSERVICE": "nosuch", "PGOPTIONS": "-c nothing=1", "PGUSER": "somebody"}.items():
        monkeypatch.setenv(name, value)
    server = bench.server()
    bench.ask(server.port)
    bench.until_health(Health.ALIVE)
    bench.until(lambda: bool(server.startups))
    assert b"somebody" not in server.startups[0] and b"options" not in server.startups[0]


def test_a_name_is_looked_up_without_the_loop_waiting(bench: Bench) -> None:
    bench.ask(bench.server().port, host="localhost")
    bench.until_health(Health.ALIVE)


def test_a_witness_asks_its_peers_and_has_nothing_that_could_be_dead(bench: Bench) -> None:
    probe = bench.ask(0, {2: bench.server().port})
    bench.until(lambda: bench.peer_changes == [(2, Health.ALIVE)])
    assert probe.reading.health is Health.ALIVE and probe.reading.evidence == "no pgpool-II here to query"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n", b"x" * 5000])
def test_a_file_without_a_password_is_a_mistake_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(CommandError, match="holds no password in its first line"):
        read_password(str(file))


def test_a_missing_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        read_password(str(tmp_path / "nothing"))
    assert read_password(None) == ""


@pytest.mark.timeout(30)
@pytest.mark.parametrize("copy", [b"H\0\0\0\x07\0\0\0", b"G\0\0\0\x07\0\0\0", b"W\0\0\0\x07\0\0\0"])
def test_a_copy_instead_of_a_result_is_the_operators_and_never_the_end_of_the_loop(bench: Bench, copy: bytes) -> None:
    def copies(client: Client) -> None:
        client.negotiate()
        client.send(pg.AUTHENTICATED, pg.READY)
        client.message()
        client.send(copy)
        client.hang()

    probe = bench.ask(bench.server(copies).port)
    bench.until(lambda: probe.reading.evidence != "not queried yet")
    assert probe.reading.health is Health.UNKNOWN
    assert probe.reading.evidence == "query not possible: query is a COPY, expected one with a result"
