"""Each test of a rule fails when its rule is bent, and every rule has such a proof."""

from __future__ import annotations

import pytest
from tests.unit.core import test_election_rules, test_rules, test_voter_rules
from tests.unit.core.mutants import Mutant, found_in, rules_under
from tests.unit.core.rule_mutants import MUTANTS

from pgvigil.ipc.errors import InvariantError

RULES = {f"p{number:02}" for number in range(1, 22)} - {"p20"}  # P20, the gate, lies in watchdog/vip
TESTS = found_in((test_rules, test_election_rules, test_voter_rules), "test_p")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant) -> None:
    """The named test passes on the real core and fails on the mutant."""
    module = TESTS[mutant.test]
    getattr(module, mutant.test)()
    with rules_under(mutant, module.__name__) as rules, pytest.raises((AssertionError, InvariantError)):
        getattr(rules, mutant.test)()


def test_every_rule_has_a_test_and_a_mutant() -> None:
    """P1 to P19 and P21."""
    assert {name[5:8] for name in TESTS} == RULES
    assert {mutant.test[5:8] for mutant in MUTANTS} == RULES


def test_every_rule_test_has_a_mutant() -> None:
    """A test that no mutant has ever failed proves nothing."""
    assert set(TESTS) - {mutant.test for mutant in MUTANTS} == set()
