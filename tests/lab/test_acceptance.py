"""Every row of the acceptance table, once, with the limits of the issue. `make acceptance` runs them ten times each."""

from __future__ import annotations

import pytest

from pgvigil.watchdog.demo.acceptance import run_scene
from pgvigil.watchdog.demo.scenes import SCENES
from pgvigil.watchdog.demo.stage import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


@pytest.mark.parametrize("name", SCENES)
def test_a_fault_costs_no_more_than_promised(stage: Stage, name: str) -> None:
    result = run_scene(stage, SCENES[name])
    logs = "\n".join(f"--- {node.name}\n{stage.cluster.log_tail(node)}" for node in stage.lab.nodes)
    assert result.holds, f"{result.fault}: {result.verdict}\n{result.details}\n{logs}"
