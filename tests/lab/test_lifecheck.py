"""Every row of the table of lifecheck, once and short: the right sentence, no wrong verdict, the right node leads.

`make lifecheck` plays them in full and judges speed too, on a quiet machine. A test run shares its machine: how long
the VIP was away is no failure here, nor is a leader whose lease ran out. One that a verdict moved is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgvigil.watchdog.demo.lifecheck.bout import play
from pgvigil.watchdog.demo.lifecheck.case import Case
from pgvigil.watchdog.demo.lifecheck.cases import all_cases
from pgvigil.watchdog.demo.lifecheck.ground import fresh_ground
from pgvigil.watchdog.demo.lifecheck.row import line
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.matrix.history import Wrong
from pgvigil.watchdog.demo.services import require_services

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

FORGIVEN = {Wrong.SLOW.name, Wrong.MOVED.name, Wrong.LATE.name}
"""What a machine without time to spare may cause."""


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """The hosts of a setting; pytest plays the cases of one setting after another, so each is built once."""
    require_services()
    with fresh_ground(request.param) as ground:
        yield ground


@pytest.mark.parametrize(
    ("ground", "case"),
    [pytest.param(case.setting, case, id=case.name) for case in all_cases()],
    indirect=["ground"],
)
def test_a_fault_is_named_and_nothing_else_is(ground: Ground, case: Case) -> None:
    row = play(ground, case, short=True)
    assert set(row.wrong) <= FORGIVEN, f"{line(row)}\n{ground.log_tails(40)}"
    assert row.two_instants == 0
    assert row.false_verdicts == 0
