"""Each test of P22 fails when its rule is bent, and each has such a proof."""

from __future__ import annotations

import pytest
from tests.unit.core import test_half_rules
from tests.unit.core.half_mutants import HALF_MUTANTS
from tests.unit.core.mutants import RELOADED, Mutant, rules_under

from pgvigil.ipc.errors import InvariantError

RULES = "tests.unit.core.test_half_rules"


@pytest.mark.parametrize("mutant", HALF_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant) -> None:
    """The named test passes on the real core and fails on the mutant."""
    getattr(test_half_rules, mutant.test)()
    with (
        rules_under(mutant, RULES, (*RELOADED, RULES)) as rules,
        pytest.raises((AssertionError, InvariantError, pytest.fail.Exception)),
    ):
        getattr(rules, mutant.test)()


def test_every_rule_test_has_a_mutant() -> None:
    """A test that no mutant has ever failed proves nothing."""
    tests = {name for name in vars(test_half_rules) if name.startswith("test_p22")}
    assert tests == {mutant.test for mutant in HALF_MUTANTS}
