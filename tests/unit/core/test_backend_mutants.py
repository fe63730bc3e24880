"""Each test of P23 fails when its rule is bent, and each has such a proof."""

from __future__ import annotations

import pytest
from tests.unit.core import test_asking, test_deciding
from tests.unit.core.backend_mutants import BACKEND_MUTANTS
from tests.unit.core.mutants import RELOADED, Mutant, found_in, rules_under

from pgvigil.ipc.errors import InvariantError

TESTS = found_in((test_asking, test_deciding), "test_p23")
AGAIN = (*RELOADED, "tests.unit.core.backend_bench", test_asking.__name__, test_deciding.__name__)


@pytest.mark.parametrize("mutant", BACKEND_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant) -> None:
    """The named test passes on the real core and fails on the mutant."""
    module = TESTS[mutant.test]
    getattr(module, mutant.test)()
    with (
        rules_under(mutant, module.__name__, AGAIN) as rules,
        pytest.raises((AssertionError, InvariantError, pytest.fail.Exception)),
    ):
        getattr(rules, mutant.test)()


def test_every_rule_test_has_a_mutant() -> None:
    """A test that no mutant has ever failed proves nothing."""
    assert set(TESTS) == {mutant.test for mutant in BACKEND_MUTANTS}
