"""Each test of a rule fails when its rule is bent, and every rule has such a proof."""

from __future__ import annotations

import pytest
from tests.unit.core import test_rules
from tests.unit.core.mutants import MUTANTS, Mutant, rules_under

from pgvigil.ipc.errors import InvariantError

RULES = {f"p{number:02}" for number in range(1, 22)} - {"p20"}  # P20, the gate, lies in watchdog/vip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant) -> None:
    """The named test passes on the real core and fails on the mutant."""
    getattr(test_rules, mutant.test)()
    with rules_under(mutant) as rules, pytest.raises((AssertionError, InvariantError)):
        getattr(rules, mutant.test)()


def test_every_rule_has_a_test_and_a_mutant() -> None:
    """P1 to P19 and P21."""
    tests = {name[5:8] for name in vars(test_rules) if name.startswith("test_p")}
    assert tests == RULES
    assert {mutant.test[5:8] for mutant in MUTANTS} == RULES


def test_every_rule_test_has_a_mutant() -> None:
    """A test that no mutant has ever failed proves nothing."""
    tests = {name for name in vars(test_rules) if name.startswith("test_p")}
    assert tests - {mutant.test for mutant in MUTANTS} == set()
