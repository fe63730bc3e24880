"""Every row of the table of lifecheck, once and short: the right sentence, no wrong verdict, the right node leads.

`make lifecheck` plays them in full and judges speed too, on a quiet machine. A test run shares its machine: how long
the VIP was away is no failure here, nor is a leader whose lease ran out. One that a verdict moved is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pgvigil.watchdog.demo.lifecheck.bout import play
from pgvigil.watchdog.demo.lifecheck.case import SHORT, Case
from pgvigil.watchdog.demo.lifecheck.cases import all_cases
from pgvigil.watchdog.demo.lifecheck.ground import Setting, fresh_ground
from pgvigil.watchdog.demo.lifecheck.row import line
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.matrix.history import Wrong
from pgvigil.watchdog.demo.services import require_services

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

FORGIVEN = {Wrong.SLOW.name, Wrong.MOVED.name, Wrong.LATE.name}
"""What a machine without time to spare may cause."""


class Grounds:
    """One ground at a time: that of the setting asked for last, as long as its cases hold."""

    def __init__(self) -> None:
        self._built = ExitStack()
        self._current: tuple[Setting, Ground] | None = None

    def on(self, setting: Setting) -> Ground:
        if self._current is None or self._current[0] is not setting:
            self.close()
            self._current = setting, self._built.enter_context(fresh_ground(setting))
        return self._current[1]

    def close(self) -> None:
        self._current = None
        self._built.close()


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    require_services()
    grounds = Grounds()
    try:
        yield grounds
    finally:
        grounds.close()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_a_fault_is_named_and_nothing_else_is(grounds: Grounds, case: Case) -> None:
    ground = grounds.on(case.setting)
    row = play(ground, case, SHORT)
    if not set(row.wrong) <= FORGIVEN:
        tails = ground.log_tails(40)
        grounds.close()  # whatever went wrong here shall not spoil the next case
        pytest.fail(f"{line(row)}\n{tails}")
    assert row.two_instants == 0
    assert row.false_verdicts == 0
