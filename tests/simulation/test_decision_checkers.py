"""Every checker of decisions and calls fires when its promise is broken, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulation.bench import LEASE_MS, Bench, fires
from tests.simulation.disk import SimWriter
from tests.simulation.faults import Fault
from tests.simulation.host import Host
from tests.simulation.options import draw
from tests.simulation.pools import Call, Pool, Servers
from tests.simulation.run import Run

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    BackendStatus,
    Decision,
    DecisionKind,
    Document,
    Stamp,
    Voter,
)


def decided(version: int, *made: Decision, status: BackendStatus = BackendStatus.UP, number: int = 1) -> Document:
    """A committed document with one backend, or two."""
    voters = tuple(Voter(node, node) for node in (1, 2, 3))
    backend = Backend(0, "db0", 5432, status, BackendRole.PRIMARY, "", number)
    document = Document(Stamp(5, version), 1, voters, LEASE_MS, False, ())
    newest = max((item.number for item in made), default=1)
    return replace(document, backends=(backend,), decided=max(newest, number), decisions=made)


DOWN, UP = BackendStatus.DOWN, BackendStatus.UP
GOES_DOWN = Decision(2, DecisionKind.DOWN, 0, True, 1, "")


def test_two_decisions_of_one_number(bench: Bench) -> None:
    checks = bench.checks.decisions
    checks.asks(DecisionKind.DOWN, 0)
    checks.commits(decided(1))
    checks.commits(decided(2, GOES_DOWN, status=DOWN, number=2))
    with fires("decision"):
        checks.commits(decided(3, replace(GOES_DOWN, by=2), status=DOWN, number=2))


@pytest.mark.parametrize("number", [1, 3])
def test_a_state_that_changes_without_a_newer_number(bench: Bench, number: int) -> None:
    checks = bench.checks.decisions
    checks.commits(decided(1, number=3))
    with fires("decision"):
        checks.commits(decided(2, status=DOWN, number=number))


def test_decisions_that_go_back(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1, number=3))
    with fires("decision"):
        bench.checks.decisions.commits(replace(decided(2, number=3), decided=2))


def test_a_backend_that_goes_down_twice(bench: Bench) -> None:
    checks = bench.checks.decisions
    checks.asks(DecisionKind.DOWN, 0)
    checks.asks(DecisionKind.DOWN, 0)
    checks.commits(decided(1))
    checks.commits(decided(2, GOES_DOWN, status=DOWN, number=2))
    with fires("decision"):
        checks.commits(decided(3, GOES_DOWN, replace(GOES_DOWN, number=3), status=DOWN, number=3))


def test_a_decision_that_nobody_asked_for(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1))
    with fires("twice"):
        bench.checks.decisions.commits(decided(2, GOES_DOWN, status=DOWN, number=2))


def test_a_backend_that_goes_down_without_consensus(bench: Bench) -> None:
    bench.checks.decisions.commits(decided(1))
    with fires("consensus"):
        bench.checks.decisions.commits(decided(2, replace(GOES_DOWN, operator=False), status=DOWN, number=2))


def test_acting_on_what_is_not_committed_or_older(bench: Bench) -> None:
    checks = bench.checks.decisions
    pool = Pool(bench.run.world, bench.hosts[2], Servers(1), bench.run.world.source("pool"))
    checks.committed = lambda term: Stamp(5, 3)
    checks.acts(pool, decided(3))
    with fires("acted"):
        checks.acts(pool, decided(4))
    with fires("acted"):
        checks.acts(pool, decided(2))


def test_tables_that_differ_are_named(bench: Bench) -> None:
    for host, status in zip(bench.hosts.values(), (UP, UP, DOWN), strict=True):
        assert host.main is not None
        agreed = decided(3, status=status)
        host.main.core.agreed_now = lambda agreed=agreed: agreed  # type: ignore[method-assign,misc]
    two = {node: host for node, host in bench.hosts.items() if node < 3}
    assert bench.checks.decisions.unlike(two) == ""
    assert "the tables differ" in bench.checks.decisions.unlike(bench.hosts)


def call_for_a_second(bench: Bench) -> Host:
    """The pgpool-II of n1 waits for an answer that never comes; its watchdog main runs and does nothing."""
    run, one = bench.run, bench.hosts[1]
    assert one.main is not None
    one.main.process.dead = True  # takes no step, and does not stand still either
    pool = Pool(run.world, one, Servers(1), run.world.source("pool"))
    pool.running, pool.on_late = True, run.unanswered
    pool.call = Call(7, 0, one.main, one.clock.read() + 1000 * NS_PER_MS)
    return one


def write_slowly(host: Host) -> None:
    """A write is on its way, before the answer."""
    assert host.main is not None and host.disk.record is not None
    host.main.writer.submit(host.disk.record)


def test_a_call_without_an_answer(bench: Bench) -> None:
    call_for_a_second(bench)
    bench.pass_ms(1000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_stalled_disk_excuses_a_call_for_as_long_as_it_stalls(bench: Bench) -> None:
    one = call_for_a_second(bench)
    one.disk.stalled_until_ns = bench.run.world.now_ns + 20_000 * NS_PER_MS
    write_slowly(one)
    bench.pass_ms(20_000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_slow_disk_excuses_a_call_for_as_long_as_it_writes(bench: Bench) -> None:
    one = call_for_a_second(bench)
    one.disk.delay_us = (1_500_000, 1_500_000)
    bench.pass_ms(500)
    write_slowly(one)
    write_slowly(one)
    bench.pass_ms(3000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


@pytest.mark.parametrize("stalled_ms", [900, 20_000])
def test_a_stall_that_holds_no_answer_back_excuses_nothing(bench: Bench, stalled_ms: int) -> None:
    one = call_for_a_second(bench)
    one.disk.stalled_until_ns = bench.run.world.now_ns + stalled_ms * NS_PER_MS
    if stalled_ms < 1000:
        write_slowly(one)  # durable before the answer was due
    bench.pass_ms(1000 + 2900)
    with fires("liveness"):
        bench.pass_ms(300)


def test_a_call_that_is_answered_when_the_disk_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a leader whose disk stalls and a backend that fails; without the excuse it would be found."""
    calm = replace(draw(32_000_438, "backends"), rates_ppm=(0, 0, 0), tail_permille=0, loss_permille=0)
    stall = Fault(2632 * NS_PER_MS, "stall", 0, 1, 23_400 * NS_PER_MS, 50_785, "")
    backend = Fault(13_184 * NS_PER_MS, "backend", 0, 2, 557 * NS_PER_MS, 37_434, "")
    result = Run(calm, (stall, backend)).run()
    assert result.checker == "", result.report()
    monkeypatch.setattr(SimWriter, "writing_ns", lambda writer, since_ns: 0)
    assert "for backend 0 got no answer" in Run(calm, (stall, backend)).run().text
