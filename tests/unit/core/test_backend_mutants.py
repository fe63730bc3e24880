"""Each test of P23 fails when its rule is bent, and each has such a proof."""

from __future__ import annotations

import pytest
from tests.unit.core import test_deciding
from tests.unit.core.backend_mutants import BACKEND_MUTANTS
from tests.unit.core.mutants import RELOADED, Mutant, rules_under

from pgvigil.ipc.errors import InvariantError

RULES = "tests.unit.core.test_deciding"
BENCH = "tests.unit.core.backend_bench"


@pytest.mark.parametrize("mutant", BACKEND_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant) -> None:
    """The named test passes on the real core and fails on the mutant."""
    getattr(test_deciding, mutant.test)()
    with (
        rules_under(mutant, RULES, (*RELOADED, BENCH, RULES)) as rules,
        pytest.raises((AssertionError, InvariantError, pytest.fail.Exception)),
    ):
        getattr(rules, mutant.test)()


def test_every_rule_test_has_a_mutant() -> None:
    """A test that no mutant has ever failed proves nothing."""
    tests = {name for name in vars(test_deciding) if name.startswith("test_p23")}
    assert tests == {mutant.test for mutant in BACKEND_MUTANTS}
