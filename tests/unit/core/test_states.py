"""The transition table is whole: every state can be reached and left, and every sentence can be said."""

from __future__ import annotations

import pytest

from pgvigil.ipc.errors import InvariantError
from pgvigil.watchdog.core.states import TABLE, State, Trigger, follow


def test_every_state_is_reached_from_blank() -> None:
    """And every one but the last leads on."""
    reached = {State.BLANK}
    for _ in State:
        reached |= {row.to for (state, _), row in TABLE.items() if state in reached}
    assert reached == set(State)
    assert {state for state, _ in TABLE} == set(State) - {State.STOPPED}


def test_every_trigger_is_used() -> None:
    """A trigger without a row is a mistake waiting to happen."""
    assert {trigger for _, trigger in TABLE} == set(Trigger)


def test_every_sentence_can_be_said() -> None:
    """Nothing but reason and term is filled in; each is one line and no full sentence with a stop."""
    for row in TABLE.values():
        said = row.sentence.format(reason="because", term=7)
        assert said and "{" not in said and "\n" not in said and not said.endswith(".")


def test_a_way_that_is_not_in_the_table_ends_the_process() -> None:
    """With the state and the trigger in the message."""
    with pytest.raises(InvariantError, match="from blank by 'lease gained'"):
        follow(State.BLANK, Trigger.LEASE_GAINED)


def test_every_state_that_may_hold_the_vip_can_lose_it() -> None:
    """A higher term ends each of them."""
    for state in (State.ELECTED, State.LEADER, State.RELEASING):
        assert follow(state, Trigger.HIGHER_TERM).to is State.STANDBY
