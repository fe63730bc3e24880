"""Decisions on backends where something else happens meanwhile: a lost record, a hand-over, a second failover."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.core.backend_bench import (
    DOWN,
    FAILS,
    KIND_UP,
    PRIMARY,
    PROMOTE,
    STANDBY,
    UP,
    BackendBench,
    agreed,
    backend,
    down_document,
)
from tests.unit.core.bench import only

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.backends import FOLLOWS
from pgvigil.watchdog.core.messages import Outcome
from pgvigil.watchdog.core.record import Decision, Document, Intent
from pgvigil.watchdog.core.states import State


def following(*intents: Intent, primary_up: bool = True) -> Document:
    """Backend 1 was promoted by decision 2, backend 2 waits to follow it."""
    backends = (
        replace(backend(0, DOWN, STANDBY, 2), reason="backend 1 was promoted"),
        backend(1, UP if primary_up else DOWN, PRIMARY, 2),
        replace(backend(2, DOWN, STANDBY, 2), reason=FOLLOWS),
    )
    made = Decision(2, PROMOTE, 1, True, 2, "")
    return agreed(backends=backends, decided=2, decisions=(made,), intents=intents)


# --- who may ask ------------------------------------------------------------------------------------


@pytest.mark.parametrize("witness", [True, False])
def test_up_takes_the_pgpool_of_a_voter(witness: bool) -> None:
    bench = BackendBench(doc=down_document(), witnesses=(3,) if witness else ()).leads()
    bench.asks(3, KIND_UP, 0, decision=2, record_id=0 if witness else 999)
    assert bench.outcomes(3) == [Outcome.REFUSED] and bench.state_of(0)[0] is DOWN
    bench.asks(2, KIND_UP, 0, decision=2)
    assert bench.state_of(0)[0] is UP


def test_a_node_that_lost_its_record_gets_no_answer_of_its_former_life() -> None:
    bench = BackendBench().leads()
    bench.asks(3, operator=True)
    bench.commit()
    bench.ends()
    assert bench.outcomes(3)[-1] is Outcome.DONE
    told = len(bench.told)
    bench.asks(3, KIND_UP, 0, decision=1, record_id=999)  # the same boot and number, from a blank record
    assert [outcome.outcome for _, outcome in bench.told[told:]] == [Outcome.REFUSED]
    assert bench.state_of(0)[0] is DOWN


def test_a_long_reason_is_cut_in_the_document() -> None:
    bench = BackendBench().leads()
    bench.asks(2, operator=True, reason="x" * 400)
    assert [len(item.reason) for item in bench.doc.decisions] == [200]


# --- those that wait to follow ----------------------------------------------------------------------


def test_an_operator_waits_for_a_follow_primary_that_runs() -> None:
    bench = BackendBench(doc=following()).leads()
    assert [item.intent.name for item in bench.started] == ["follow_primary"]
    bench.asks(3, KIND_UP, 2, operator=True, decision=2)
    assert bench.outcomes(3) == [Outcome.BUSY] and bench.state_of(2)[0] is DOWN


# --- a hand-over in the middle ----------------------------------------------------------------------


def test_no_hand_over_is_asked_of_a_leader_whose_command_runs() -> None:
    bench = BackendBench().leads()
    bench.asks(2, operator=True, arguments=FAILS)
    bench.commit()
    assert [item.intent.name for item in bench.started] == ["failover"]
    (answer,) = only(bench.at(bench.now_ms, ev.SwitchOver(77, 2)), ev.Answer)
    assert not answer.accepted and "outcome" in answer.text and bench.core.state is State.LEADER
