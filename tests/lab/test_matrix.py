"""A sample of the fault matrix: never two answering, always back, nothing left behind.

`make matrix` plays all of it and judges speed too, on a quiet machine. A test run shares its machine: that a case was
slow is no failure here, unless it was slower by far.
"""

from __future__ import annotations

import pytest

from pgvigil.watchdog.demo.matrix.bout import play
from pgvigil.watchdog.demo.matrix.cases import select
from pgvigil.watchdog.demo.matrix.ground import Ground, Setting
from pgvigil.watchdog.demo.matrix.history import Wrong
from pgvigil.watchdog.demo.matrix.row import line
from pgvigil.watchdog.demo.stage import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SAMPLE = (
    "kill-supervisor+main/leader/steady",
    "stop-main/leader/steady",
    "kill-main/successor/hand-over",
    "peers-both/leader/hand-over",
    "kill-main/candidate/election",
    "cable-in/leader/steady",
    "delete-tables/leader/steady",
    "add-vip/standby/steady",
)
SLACK_MS = 8000
FORGIVEN = {Wrong.SLOW.name, Wrong.MOVED.name, Wrong.LATE.name}
"""What a machine without time to spare may cause."""


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_of_the_matrix_is_safe_and_comes_back(stage: Stage, name: str) -> None:
    (case,) = (case for case in select(name) if case.name == name)
    ground = Ground(stage.lab, Setting.PLAIN, stage)
    row = play(ground, case)
    assert set(row.wrong) <= FORGIVEN, f"{line(row)}\n{ground.log_tails()}"
    assert row.two_instants == 0
    assert row.outage_ms is not None and row.outage_ms <= case.limit.ms + SLACK_MS, line(row)
