"""Names become addresses without anybody waiting: a look-up that hangs, fails, floods, or is asked for too often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.resolver import AGAIN_NS, LIMIT_NS, Resolver, first_address, literal


class Bench:
    """A resolver in a loop, and a `getent` that the test has written."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.resolver = Resolver(self.loop, boottime_ns)
        self._folder = folder

    def getent(self, script: str) -> None:
        program = self._folder / "getent"
        program.write_text(f'#!/bin/sh\necho "$@" >>{self._folder}/asked\n{script}\n')
        program.chmod(0o755)

    def asked(self) -> list[str]:
        path = self._folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, condition: Callable[[], bool]) -> None:
        start_ns = boottime_ns()
        while not condition():
            assert boottime_ns() - start_ns < 20 * NS_PER_S
            self.loop.run_once(50 * NS_PER_MS)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    bench = Bench(tmp_path)
    yield bench
    bench.resolver.close()
    bench.loop.close()


def test_an_address_is_its_own(bench: Bench) -> None:
    bench.getent("echo 10.0.0.9")
    bench.resolver.look_up("10.0.0.1", 0)
    bench.resolver.look_up("::1", 0)
    assert bench.resolver.address("10.0.0.1") == "10.0.0.1" and bench.resolver.address("::1") == "::1"
    assert bench.resolver.wake() is None and bench.asked() == []


def test_names_are_found_one_after_the_other(bench: Bench) -> None:
    bench.getent('case $2 in pg02) echo "10.0.0.2 STREAM pg02";; *) echo "fd00::3 STREAM pg03";; esac')
    for name in ("pg02", "pg03"):
        assert bench.resolver.address(name) is None
        bench.resolver.look_up(name, boottime_ns())
    bench.until(lambda: bench.resolver.address("pg03") is not None)
    assert (bench.resolver.address("pg02"), bench.resolver.address("pg03")) == ("10.0.0.2", "fd00::3")
    assert bench.asked() == ["ahosts pg02", "ahosts pg03"]
    assert bench.resolver.wake() is None


def test_a_name_is_not_asked_for_again_at_once_and_keeps_its_address_when_it_is_lost(
    bench: Bench,
) -> None:
    bench.getent("echo 10.0.0.2")
    bench.resolver.look_up("pg02", 0)
    bench.until(lambda: bench.resolver.address("pg02") == "10.0.0.2")
    bench.getent("exit 2")
    bench.resolver.look_up("pg02", AGAIN_NS - 1)
    assert bench.resolver.wake() is None
    bench.resolver.look_up("pg02", AGAIN_NS)
    bench.until(lambda: bench.resolver.wake() is None)
    assert bench.resolver.address("pg02") == "10.0.0.2" and len(bench.asked()) == 2


def test_a_look_up_that_hangs_is_killed_and_the_next_one_has_its_turn(bench: Bench) -> None:
    bench.getent("case $2 in pg02) exec sleep 600;; *) echo 10.0.0.3;; esac")
    bench.resolver.look_up("pg02", 0)
    bench.resolver.look_up("pg03", 0)
    assert bench.resolver.wake() == LIMIT_NS
    bench.resolver.late(NS_PER_S)
    bench.resolver.tick(LIMIT_NS)
    assert bench.resolver.wake() == LIMIT_NS + NS_PER_S
    bench.resolver.tick(LIMIT_NS + NS_PER_S)
    bench.until(lambda: bench.resolver.address("pg03") == "10.0.0.3")
    assert bench.resolver.address("pg02") is None


def test_an_endless_answer_is_cut_off(bench: Bench) -> None:
    bench.getent("while :; do echo nonsense nonsense nonsense; done")
    bench.resolver.look_up("pg02", boottime_ns())
    bench.until(lambda: bench.resolver.wake() is None)
    assert bench.resolver.address("pg02") is None


def test_without_getent_a_name_stays_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    bench.resolver.look_up("pg02", 0)
    assert bench.resolver.wake() is None and bench.resolver.address("pg02") is None


def test_what_getent_says_is_read_with_care() -> None:
    assert first_address(b"10.0.0.2      STREAM pg02\n10.0.0.2      DGRAM\n") == "10.0.0.2"
    assert first_address(b"\n\xff\xfe\nnot-an-address x\nfd00::2 STREAM\n") == "fd00::2"
    assert first_address(b"") is None
    assert first_address(b"10.0.0.2") is None
    assert literal("pg02") is None
