"""Every row of the acceptance table, once: who answers, what moves, and that the service comes back.

Speed is judged by `make acceptance` on a quiet machine, ten times a row. Here the limits have slack, because a test
run shares its machine. Whether two nodes answer, and whether the VIP moves when it must not, has none.
"""

from __future__ import annotations

import pytest

from pgvigil.watchdog.demo.acceptance import run_scene
from pgvigil.watchdog.demo.scenes import SCENES, Result, reasons
from pgvigil.watchdog.demo.stage import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SLACK_MS = 2000


def broken_promises(result: Result) -> list[str]:
    """What a scene showed that slowness does not excuse."""
    found = []
    for phase in result.phases:
        found += [reason for reason in reasons(phase) if "without an answer" not in reason]
        if phase.outage_ms > phase.limit_ms + SLACK_MS:
            found.append(f"{phase.name}: {phase.outage_ms:.0f} ms without an answer, {phase.limit_ms:.0f} are promised")
    return found


@pytest.mark.parametrize("name", SCENES)
def test_a_fault_moves_the_vip_as_promised(stage: Stage, name: str) -> None:
    result = run_scene(stage, SCENES[name])
    logs = "\n".join(f"--- {node.name}\n{stage.cluster.log_tail(node)}" for node in stage.lab.nodes)
    assert broken_promises(result) == [], f"{result.fault}: {result.verdict}\n{result.details}\n{logs}"
