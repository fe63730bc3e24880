"""What the tests of the checkers share."""

from __future__ import annotations

import pytest
from tests.simulation.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
