"""How many votes are enough, which count, and what is no ask at all (P23 b, c)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.backend_bench import KIND_DOWN, KIND_UP, look

from pgvigil.watchdog.core.consensus import (
    ALIVE_NS,
    AskKey,
    CoreConsensus,
    PoolView,
    Waiting,
    ask_problem,
    needed,
    newer,
    seen_problem,
    votes,
)
from pgvigil.watchdog.core.messages import AskBackend, Seen, SeenStatus

RULE = CoreConsensus()
ASK = AskBackend(4, 1, KIND_DOWN, 0, False, 7, "", ())


def waiting(sender: int, ask: AskBackend = ASK) -> Waiting:
    """An ask of a node."""
    return Waiting(sender, 100 + sender, ask, 0, 0)


def view(failed: bool = True, decision: int = 7) -> PoolView:
    """What a pgpool-II that holds backend 0 in quarantine says."""
    seen = look(0, SeenStatus.DOWN, failed=failed, decision=decision)
    return PoolView(101, 4, 1, (seen,), "", 0)


@pytest.mark.parametrize(
    ("members", "rule", "expected"),
    [
        (1, RULE, 1),
        (2, RULE, 2),
        (3, RULE, 2),
        (4, RULE, 3),
        (5, RULE, 3),
        (2, CoreConsensus(half_votes=True), 1),
        (4, CoreConsensus(half_votes=True), 2),
        (5, CoreConsensus(half_votes=True), 3),
        (5, CoreConsensus(required=False), 1),
    ],
)
def test_p23c_how_many_votes_are_needed(members: int, rule: CoreConsensus, expected: int) -> None:
    assert needed(members, rule) == expected


def test_p23c_asks_of_one_node_count_once_unless_configured() -> None:
    asks: dict[AskKey, Waiting] = {(1, 4, number): waiting(1) for number in (1, 2)}
    asks[2, 4, 1] = waiting(2)
    assert votes(0, 7, asks, {1: view()}, (1, 2, 3), RULE) == 2
    assert votes(0, 7, asks, {1: view()}, (1, 2, 3), CoreConsensus(several_from_node=True)) == 3


@pytest.mark.parametrize(
    "ask",
    [
        replace(ASK, decision=6),
        replace(ASK, backend_id=1),
        replace(ASK, kind=KIND_UP),
        replace(ASK, operator=True),
    ],
)
def test_p23c_other_asks_are_no_votes(ask: AskBackend) -> None:
    assert votes(0, 7, {(1, 4, 1): waiting(1, ask)}, {}, (1, 2, 3), RULE) == 0


def test_p23c_other_views_are_no_votes() -> None:
    views = {1: view(failed=False), 2: view(decision=6), 3: view(), 9: view()}
    assert votes(0, 7, {}, views, (1, 2, 3), RULE) == 1


@given(members=st.integers(1, 9), half=st.booleans())
def test_p23c_two_groups_that_may_decide_share_a_member_unless_half_is_enough(members: int, half: bool) -> None:
    enough = needed(members, CoreConsensus(half_votes=half))
    assert 1 <= enough <= members and (2 * enough > members or (half and 2 * enough == members))


def test_a_view_is_fresh_for_three_seconds_and_only_without_a_problem() -> None:
    assert view().fresh(ALIVE_NS - 1) and not view().fresh(ALIVE_NS)
    assert not replace(view(), problem="gone").fresh(0)


def test_only_a_newer_view_is_news() -> None:
    old = PoolView(101, 4, 5, (), "", 0)
    told = Seen(4, 6, (), "")
    assert newer(None, 101, told) and newer(old, 101, told) and newer(old, 102, Seen(1, 1, (), ""))
    assert not newer(old, 101, Seen(4, 5, (), "")) and not newer(old, 101, Seen(3, 9, (), ""))
    assert newer(old, 101, Seen(5, 1, (), ""))


def test_a_good_ask_and_a_good_view_have_no_problem() -> None:
    assert ask_problem(ASK) is None and seen_problem((look(0), look(1)), "") is None


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((look(0), look(0)), "twice"),
        (tuple(look(number) for number in range(65)), "at most 64"),
        ((replace(look(0), port=70_000),), "port 70000"),
        ((replace(look(0), host="x" * 300),), "expected a host"),
        ((look(2000),), "expected 0 to 1023"),
    ],
)
def test_views_that_cannot_be_are_named(seen: tuple[object, ...], said: str) -> None:
    found = seen_problem(seen, "")  # type: ignore[arg-type]
    assert found is not None and said in found
