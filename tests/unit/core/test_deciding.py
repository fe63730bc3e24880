"""Decisions on backends (P23): asks, votes, commands and what follows from them."""

from __future__ import annotations

from tests.unit.core.backend_bench import DOWN, PRIMARY, STANDBY, UP, BackendBench

from pgvigil.watchdog.core.messages import Outcome


def test_p23_two_of_three_pgpools_decide_and_the_command_runs_once() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    assert bench.state_of(0) == (UP, PRIMARY) and bench.text(2) == "waits for consensus: 1 of 2"
    bench.asks(3)
    assert bench.state_of(0) == (DOWN, PRIMARY) and bench.started == []
    bench.commit()
    assert [item.intent.event for item in bench.started] == ["decision 2"]
    bench.ends()
    assert (bench.outcomes(2)[-1], bench.outcomes(3)[-1]) == (Outcome.DONE, Outcome.DONE)
    assert [bench.state_of(item) for item in (0, 1, 2)] == [(DOWN, STANDBY), (UP, PRIMARY), (DOWN, STANDBY)]
    assert [item.intent.event for item in bench.started] == ["decision 2", "decision 2 backend 2"]
    bench.ends()
    assert bench.state_of(2) == (UP, STANDBY) and len(bench.started) == 2
