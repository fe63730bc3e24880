"""The majority against a second, stupid implementation, over every answer that up to five voters can give."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from pgvigil.watchdog.core.quorum import Tally, majority, tally


def stupid(answers: tuple[str, ...]) -> Tally:
    """Try every way in which the silent voters may still answer."""
    outcomes = set()
    for rest in product("yn", repeat=answers.count("-")):
        silent = iter(rest)
        full = [next(silent) if answer == "-" else answer for answer in answers]
        outcomes.add(full.count("y") * 2 > len(full))
    if outcomes == {True}:
        return Tally.WON
    return Tally.LOST if outcomes == {False} else Tally.PENDING


@pytest.mark.parametrize("size", range(6))
def test_every_answer_of_every_cluster(size: int) -> None:
    """Won, pending and lost are what they are for every completion."""
    voters = range(1, size + 1)
    for answers in product("yn-", repeat=size):
        yes = {voter for voter, answer in zip(voters, answers, strict=True) if answer == "y"}
        no = {voter for voter, answer in zip(voters, answers, strict=True) if answer == "n"}
        assert tally(voters, yes, no) is stupid(answers)
        assert tally(voters, [*yes, *yes, 98], [*no, 99]) is stupid(answers), "strangers and repetitions count"


@pytest.mark.parametrize("size", range(1, 10))
def test_two_majorities_share_a_voter(size: int) -> None:
    """Also those of two clusters that differ in one voter (P18)."""
    now, later = range(size), range(size + 1)
    for one in combinations(now, majority(size)):
        assert all(set(one) & set(other) for other in combinations(now, majority(size)))
        assert all(set(one) & set(other) for other in combinations(later, majority(size + 1)))
