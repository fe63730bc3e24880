"""Upstream servers: when a node is isolated, and the rounds of questions with programs for servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.core.upstream import UpstreamMethod
from pgvigil.lifecheck.probes import upstream
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.probes.upstream import Command, UpstreamProbe, command_words, is_address
from pgvigil.lifecheck.settings import UpstreamSettings

MS = NS_PER_MS
A, B = "10.0.0.1", "10.0.0.2"


# --- the core ---------------------------------------------------------------------------------------


def test_before_any_answer_nothing_is_known_until_the_life_points_are_used_up() -> None:
    made = UpstreamMethod((A, B), 3, 1000 * MS)
    assert made.opinion(1000 * MS).health is Health.UNKNOWN
    for _ in range(3):
        assert made.opinion(1000 * MS).health is Health.UNKNOWN
        made.missed(A, "no answer within 1000 ms")
        made.missed(B, "no answer within 1000 ms")
    opinion = made.opinion(4150 * MS)
    assert opinion.health is Health.DEAD
    assert opinion.evidence == f"none of {A}, {B} has answered for 3.1 s (no answer within 1000 ms)"


def test_one_that_answers_is_enough() -> None:
    made = UpstreamMethod((A, B), 2, 0)
    for second in range(10):
        made.missed(A, "no answer")
        made.answered(B, second * NS_PER_S)
    opinion = made.opinion(10 * NS_PER_S)
    assert opinion.health is Health.ALIVE
    assert opinion.evidence == f"{B} answers; no answer from {A}"


def test_isolated_is_who_has_no_life_point_left_with_any_server() -> None:
    made = UpstreamMethod((A, B), 2, 0)
    made.answered(A, 1 * NS_PER_S)
    made.answered(B, 1 * NS_PER_S)
    assert made.opinion(NS_PER_S).evidence == f"{A}, {B} answer"
    made.missed(A, "cannot ping: Network is unreachable")
    made.missed(A, "cannot ping: Network is unreachable")
    made.missed(B, "no answer")
    assert made.opinion(3 * NS_PER_S).health is Health.ALIVE
    assert made.opinion(3 * NS_PER_S).evidence == f"no answer from {A}, {B} for 2.0 s"
    made.missed(B, "no answer")
    opinion = made.opinion(4 * NS_PER_S)
    assert opinion.health is Health.DEAD
    assert opinion.evidence == (
        f"none of {A}, {B} has answered for 3.0 s (cannot ping: Network is unreachable; no answer)"
    )
    made.answered(A, 5 * NS_PER_S)
    assert made.opinion(5 * NS_PER_S).health is Health.ALIVE


def test_a_node_wavers_from_the_first_round_that_nobody_answers() -> None:
    made = UpstreamMethod((A, B), 3, 0)
    assert not made.wavering()
    made.missed(A, "no answer")
    assert not made.wavering()
    made.missed(B, "no answer")
    assert made.wavering()
    made.answered(B, NS_PER_S)
    assert not made.wavering()


def test_after_isolation_a_node_wavers_until_one_server_has_answered_for_all_life_points() -> None:
    made = UpstreamMethod((A, B), 2, 0)
    for _ in range(2):
        made.missed(A, "no answer")
        made.missed(B, "no answer")
    made.answered(A, 1 * NS_PER_S)
    assert made.opinion(NS_PER_S).health is Health.ALIVE and made.wavering()
    made.answered(B, 1 * NS_PER_S)
    made.missed(A, "no answer")
    assert made.wavering()
    made.answered(B, 2 * NS_PER_S)
    assert not made.wavering()


def test_a_single_server_has_a_sentence_of_its_own_and_long_reasons_are_cut() -> None:
    made = UpstreamMethod((A,), 1, 0)
    made.missed(A, "x" * 1000)
    assert made.opinion(NS_PER_S).evidence == f"{A} has not answered for 1.0 s ({'x' * 120})"


# --- the probe --------------------------------------------------------------------------------------


class FakeEcho:
    """A server that is asked by echo; `made` finds it by its address."""

    made: dict[str, FakeEcho]

    def __init__(self, address: str, _watcher: object, on_end: Callable[[str], None]) -> None:
        self.on_end = on_end
        self.asked = 0
        self.refuses = ""
        self.open = False
        self.made[address] = self

    def ask(self) -> None:
        self.asked += 1
        if self.refuses:
            raise CommandError(self.refuses)
        self.open = True

    def answer(self) -> None:
        if self.open:
            self.open = False
            self.on_end("")

    def forget(self) -> None:
        self.open = False

    def close(self) -> None:
        self.open = False


class Bench:
    """A probe whose time is told by hand; questions every 500 ms, answers within 200 ms, two life points."""

    def __init__(self, servers: tuple[str, ...], interval_ms: int = 500, timeout_ms: int = 200) -> None:
        self.loop = Loop()
        self.changes: list[Reading] = []
        self.now_ns = boottime_ns()
        settings = UpstreamSettings(servers, None, interval_ms, timeout_ms, 2)
        self.wavers: list[bool] = []
        self.probe = UpstreamProbe(settings, self.loop, self.changes.append, self.waver, self.now_ns)
        self.probe.tick(self.now_ns)

    def waver(self) -> None:
        self.wavers.append(self.probe.wavering)

    def health(self) -> Health:
        """The verdict of now."""
        return self.probe.reading.health

    def pass_ms(self, duration_ms: int) -> None:
        """Tick whenever the probe wants it."""
        end_ns = self.now_ns + duration_ms * MS
        while (at_ns := self.probe.wake()) is not None and at_ns <= end_ns:
            assert at_ns > self.now_ns, "it would keep the loop busy"
            self.now_ns = at_ns
            self.probe.tick(at_ns)
        self.now_ns = end_ns


@pytest.fixture
def echoes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, FakeEcho]]:
    made: dict[str, FakeEcho] = {}
    monkeypatch.setattr(FakeEcho, "made", made, raising=False)
    monkeypatch.setattr(upstream, "Echo", FakeEcho)
    monkeypatch.setattr(upstream, "permitted", lambda _family: True)
    yield made


def test_answers_make_it_alive_and_each_round_asks_everybody_once(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A, B))
    for number in range(1, 5):
        assert [echoes[A].asked, echoes[B].asked] == [number, number]
        echoes[A].answer()
        echoes[B].answer()
        bench.pass_ms(500)
    assert [change.health for change in bench.changes] == [Health.ALIVE]
    assert bench.probe.reading.evidence == f"{A}, {B} answer"


def test_silence_of_all_for_two_rounds_is_isolation_and_the_first_answer_ends_it(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A, B))
    echoes[A].answer()
    bench.pass_ms(500)  # the second round has begun; B has missed the first
    bench.pass_ms(300)
    assert bench.health() is Health.ALIVE
    bench.pass_ms(400)
    assert bench.health() is Health.DEAD
    assert bench.probe.reading.evidence.startswith(f"none of {A}, {B} has answered for ")
    bench.pass_ms(300)
    echoes[B].answer()
    assert [change.health for change in bench.changes] == [Health.ALIVE, Health.DEAD, Health.ALIVE]


def test_wavering_is_told_at_once_but_is_no_change_of_the_verdict(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,))
    echoes[A].answer()
    bench.pass_ms(750)  # the second round has passed in vain, the third has begun
    assert bench.wavers == [True] and [change.health for change in bench.changes] == [Health.ALIVE]
    bench.pass_ms(300)
    echoes[A].answer()
    assert bench.wavers == [True, False] and len(bench.changes) == 1


def test_what_cannot_be_asked_is_silent_at_once_but_not_asked_more_often(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,))
    echoes[A].refuses = "cannot ping: Network is unreachable"
    bench.pass_ms(2000)
    assert echoes[A].asked in (4, 5)
    assert "Network is unreachable" in bench.probe.reading.evidence


def test_an_answer_after_the_limit_counts_for_nothing(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,))
    bench.pass_ms(300)
    echoes[A].on_end("")
    assert bench.health() is Health.UNKNOWN


def test_our_own_standstill_takes_no_life_point(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,))
    echoes[A].answer()
    bench.pass_ms(600)  # the next question is open
    bench.probe.late(5000 * MS)
    bench.now_ns += 5000 * MS
    bench.probe.tick(bench.now_ns)
    assert echoes[A].open
    echoes[A].answer()
    assert bench.probe.reading.evidence == f"{A} answers"


def test_an_early_tick_ends_no_round_but_may_begin_one(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,))
    bench.probe.tick(bench.now_ns + 199 * MS)
    assert echoes[A].open and echoes[A].asked == 1
    echoes[A].answer()
    bench.probe.tick(bench.now_ns + 300 * MS)
    assert echoes[A].asked == 2


def test_a_limit_longer_than_the_interval_is_waited_for(echoes: dict[str, FakeEcho]) -> None:
    bench = Bench((A,), interval_ms=100, timeout_ms=1000)
    bench.pass_ms(900)
    assert echoes[A].asked == 1 and echoes[A].open
    bench.pass_ms(250)
    assert echoes[A].asked == 2


# --- commands ---------------------------------------------------------------------------------------


class Script:
    """An upstream command that notes whom it was asked about, and answers while the file `here` exists."""

    def __init__(self, folder: Path, body: str = "") -> None:
        self.folder = folder
        self.program = folder / "ask it"
        self.here = folder / "here"
        self.program.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/asked"\n{body}\ntest -e "{self.here}"\n')
        self.program.chmod(0o755)
        self.loop = Loop()
        self.changes: list[Reading] = []

    def probe(self, *servers: str, timeout_ms: int = 20_000) -> UpstreamProbe:
        command = f"'{self.program}' --to %h 100%%"
        settings = UpstreamSettings(servers, command, 100, timeout_ms, 2)
        probe = UpstreamProbe(settings, self.loop, self.changes.append, lambda: None, boottime_ns())
        self.loop.join(probe)
        return probe

    def until(self, condition: Callable[[], object]) -> None:
        end_ns = boottime_ns() + 30 * NS_PER_S
        while not condition():
            assert boottime_ns() < end_ns, "waited 30 s in vain"
            self.loop.run_once(50 * MS)


def test_a_command_is_run_without_a_shell_and_its_status_is_the_answer(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.here.touch()
    probe = script.probe("gw;reboot", B)
    script.until(lambda: probe.reading.health is Health.ALIVE)
    script.here.unlink()
    script.until(lambda: probe.reading.health is Health.DEAD)
    assert "ended with status 1 after" in probe.reading.evidence
    script.here.touch()
    script.until(lambda: probe.reading.health is Health.ALIVE)
    assert set((tmp_path / "asked").read_text().splitlines()) == {"--to gw;reboot 100%", f"--to {B} 100%"}
    probe.close()
    runner = probe._runner
    assert runner is not None
    script.until(lambda: not runner.running)
    script.loop.close()


def test_a_command_that_hangs_is_ended_at_its_limit_and_asked_again(tmp_path: Path) -> None:
    script = Script(tmp_path, body="exec sleep 600")
    probe = script.probe(A, timeout_ms=150)
    script.until(lambda: probe.reading.health is Health.DEAD)
    assert "no answer within 150 ms" in probe.reading.evidence
    probe.close()
    runner = probe._runner
    assert runner is not None
    script.loop.leave(probe)
    script.until(lambda: not runner.running)
    script.loop.close()


def test_a_command_that_cannot_be_started_is_silence_with_a_reason() -> None:
    loop = Loop()
    settings = UpstreamSettings((A,), "/nonexistent/ask %h", 100, 20_000, 1)
    probe = UpstreamProbe(settings, loop, lambda _: None, lambda: None, boottime_ns())
    loop.join(probe)
    end_ns = boottime_ns() + 20 * NS_PER_S
    while probe.reading.health is not Health.DEAD:
        assert boottime_ns() < end_ns
        loop.run_once(50 * MS)
    assert "could not be started" in probe.reading.evidence and "No such file" in probe.reading.evidence
    probe.close()
    loop.close()


@pytest.mark.parametrize(("server", "may_ping"), [("gw.example", True), (A, False)])
def test_a_name_and_a_host_without_the_permission_are_asked_by_the_program_ping(
    monkeypatch: pytest.MonkeyPatch, server: str, may_ping: bool
) -> None:
    monkeypatch.setattr(upstream, "permitted", lambda _family: may_ping)
    loop = Loop()
    settings = UpstreamSettings((server,), None, 500, 200, 2)
    probe = UpstreamProbe(settings, loop, lambda _: None, lambda: None, boottime_ns())
    way = probe._ways[server]
    assert isinstance(way, Command) and way._words == ["ping", "-q", "-c", "1", server]
    loop.close()


def test_only_what_needs_no_lookup_is_an_address() -> None:
    assert is_address("10.0.0.1") and is_address("fd00::1")
    assert not any(is_address(name) for name in ("gw", "gw.example", "host.1", "10.0.0", "fe80::1%eth0"))


def test_the_words_of_a_command() -> None:
    assert command_words("ask -a 'b c' %h:%% x%hy %%h", "gw") == ["ask", "-a", "b c", "gw:%", "xgwy", "%h"]
