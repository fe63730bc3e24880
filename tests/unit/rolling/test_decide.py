"""What comes next, for every situation in which a run can find itself. The run as a whole is told in test_run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.unit.rolling.cluster import down, primary_and, up

from pgvigil.watchdog.rolling.cluster import PoolView, Seen
from pgvigil.watchdog.rolling.decide import (
    Attach,
    Detach,
    Finish,
    Run,
    Settle,
    Step,
    Stop,
    Stopping,
    Wait,
    Why,
    abandon_step,
    newcomers,
    next_step,
)
from pgvigil.watchdog.rolling.plan import OnFailure, Phase, Plan, Rules, draw_up

OURS = "rolling ab"
WHOLE = primary_and(4)
HALF_OUT = (WHOLE[0], down(1, OURS), down(2, OURS), WHOLE[3], WHOLE[4])


def plan_of(*phases: Phase, on_failure: OnFailure = OnFailure.HOLD, keep: int = 1) -> Plan:
    """Four standbys in two batches, with these phases; RAN and DONE have succeeded, FAILED has an error."""
    plan = draw_up("ab", Rules("true", "half", keep, on_failure=on_failure), WHOLE)
    well = (Phase.RAN, Phase.DONE, Phase.ATTACHING)
    return plan.put(
        *(
            replace(member, phase=phase, succeeded=phase in well, error="status 1" if phase is Phase.FAILED else "")
            for member, phase in zip(plan.working, phases, strict=False)
        )
    )


def ids(step: Step) -> list[int]:
    assert isinstance(step, Detach | Run | Attach)
    return [member.backend_id for member in step.members]


W, G, D, R, F, A, E = (
    Phase.WAITING, Phase.DETACHING, Phase.DETACHED, Phase.RAN, Phase.FAILED, Phase.ATTACHING, Phase.DONE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("phases", "seen", "kind", "expected"),
    [
        ((W, W, W, W), WHOLE, Detach, [1, 2]),
        ((G, G, W, W), WHOLE, Detach, [1, 2]),
        ((D, G, W, W), (*HALF_OUT[:2], *WHOLE[2:]), Detach, [2]),
        ((D, D, W, W), HALF_OUT, Run, [1, 2]),
        ((R, D, W, W), HALF_OUT, Run, [2]),
        ((R, R, W, W), HALF_OUT, Attach, [1, 2]),
        ((A, R, W, W), HALF_OUT, Attach, [1]),
        ((E, R, W, W), (*WHOLE[:2], *HALF_OUT[2:]), Attach, [2]),
        ((E, E, W, W), WHOLE, Detach, [3, 4]),
        ((E, Phase.SKIPPED, E, W), WHOLE, Detach, [4]),
    ],
)
def test_the_way_through_a_batch(phases: Sequence[Phase], seen: Seen, kind: type, expected: list[int]) -> None:
    step = next_step(plan_of(*phases), seen)
    assert isinstance(step, kind) and ids(step) == expected


def test_the_end() -> None:
    assert isinstance(next_step(plan_of(E, E, E, E), WHOLE), Finish)
    assert isinstance(next_step(plan_of(E, Phase.SKIPPED, E, E), WHOLE, Stopping.NOW), Finish)


@pytest.mark.parametrize(
    ("policy", "phases", "attaches"),
    [
        (OnFailure.HOLD, (R, F, W, W), None),
        (OnFailure.LEAVE, (R, F, W, W), [1]),
        (OnFailure.LEAVE, (E, F, W, W), None),
        (OnFailure.ATTACH, (R, F, W, W), [1, 2]),
    ],
)
def test_after_a_failure(policy: OnFailure, phases: Sequence[Phase], attaches: list[int] | None) -> None:
    step = next_step(plan_of(*phases, on_failure=policy), HALF_OUT)
    if attaches is None:
        assert isinstance(step, Stop) and step.why is Why.FAILED
        assert "db2:5432: status 1" in step.reason and "stay detached" in step.reason
    else:
        assert isinstance(step, Attach) and ids(step) == attaches


def test_what_failed_and_was_attached_nevertheless_stops_the_run_too() -> None:
    plan = plan_of(E, W, W, W)
    plan = plan.put(replace(plan.member(2), error="status 1"))
    step = next_step(plan, WHOLE)
    assert isinstance(step, Stop) and step.why is Why.FAILED and "attached again nevertheless" in step.reason


def test_a_wish_to_stop_undoes_what_has_not_begun_and_attaches_what_is_done() -> None:
    for stopping in (Stopping.AFTER_BATCH, Stopping.NOW):
        assert ids(next_step(plan_of(G, G, W, W), WHOLE, stopping)) == [1, 2]
        assert ids(next_step(plan_of(R, D, W, W), HALF_OUT, stopping)) == [2]
        assert ids(next_step(plan_of(R, R, W, W), HALF_OUT, stopping)) == [1, 2]
        between = next_step(plan_of(E, E, W, W), WHOLE, stopping)
        assert isinstance(between, Stop) and between.why is Why.INTERRUPTED
        assert between.reason == "stopped as asked before batch 2 of 2"


def test_commands_that_were_ended_hold_back_nobody_else() -> None:
    assert ids(next_step(plan_of(R, F, W, W), HALF_OUT, Stopping.NOW)) == [1]
    step = next_step(plan_of(E, F, W, W), HALF_OUT, Stopping.NOW)
    assert isinstance(step, Stop) and step.why is Why.INTERRUPTED


Change = Callable[[Seen], Seen]


def with_(*backends: object) -> Change:
    return lambda seen: tuple(
        next((one for one in backends if getattr(one, "backend_id", -1) == backend.backend_id), backend)  # type: ignore[misc]
        for backend in seen
    )


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (with_(up(1, "primary"), up(0)), "it became the primary meanwhile"),
        (with_(down(1, "disk died")), "went down meanwhile: db1:5432 is down (disk died)"),
        (with_(replace(up(1), host="other")), "backend 1 is other:5432 now"),
        (lambda seen: (seen[0], *seen[2:]), "the cluster knows no backend of this id any more"),
    ],
)
def test_a_backend_that_changed_before_its_turn_loses_it(change: Change, note: str) -> None:
    step = next_step(plan_of(W, W, W, W), change(WHOLE))
    assert isinstance(step, Settle) and not step.halt
    assert (step.member.backend_id, step.member.phase, step.member.note) == (1, Phase.SKIPPED, note)


@pytest.mark.parametrize(
    ("change", "keep", "said"),
    [
        (
            with_(down(0, "dead"), down(3, "dead"), down(4, "dead")),
            1,
            "without db1:5432, db2:5432 only 0 would be attached",
        ),
        (with_(replace(up(3), pools=(PoolView("n1", "up", failed=True),))), 3, "--keep 3"),
        (with_(replace(up(2), pools=(PoolView("n2", "down"),))), 1, "db2:5432 is up, but n2 says down"),
        (with_(down(4, "rolling cd")), 1, "another run works here: db4:5432 is down (rolling cd)"),
    ],
)
def test_a_batch_waits_for_the_cluster(change: Change, keep: int, said: str) -> None:
    step = next_step(plan_of(W, W, W, W, keep=keep), change(WHOLE))
    assert isinstance(step, Wait) and said in step.reason


def test_too_few_attached_after_all_and_the_batch_is_undone() -> None:
    lost = with_(*(down(number, "dead", "standby") for number in (0, 3, 4)))
    step = next_step(plan_of(D, D, W, W), lost(HALF_OUT))
    assert isinstance(step, Attach) and ids(step) == [1, 2] and "--keep 1" in step.why
    step = next_step(plan_of(G, G, W, W), lost((WHOLE[0], down(1, OURS), *WHOLE[2:])))
    assert isinstance(step, Attach) and ids(step) == [1, 2] and step.why


def test_nothing_runs_on_what_somebody_else_attached() -> None:
    step = next_step(plan_of(D, D, W, W), (*HALF_OUT[:2], *WHOLE[2:]))
    assert isinstance(step, Stop) and step.why is Why.BLOCKED
    assert step.reason == "attached by somebody else, nothing was run there: db2:5432"


@pytest.mark.parametrize("phase", [G, D, R, F, A])
def test_what_others_took_down_is_not_attached_by_this_run(phase: Phase) -> None:
    seen = with_(down(1, "disk died"))(HALF_OUT)
    plan = plan_of(phase, phase, W, W)
    for step, halt in ((next_step(plan, seen), True), (abandon_step(plan, seen), False)):
        assert isinstance(step, Settle) and step.halt is halt
        assert step.member.phase is Phase.SKIPPED and "db1:5432 is down (disk died)" in step.member.note


def test_what_became_the_primary_while_it_was_being_detached_waits_for_judgement() -> None:
    step = next_step(plan_of(G, G, W, W), with_(up(1, "primary"), up(0))(WHOLE))
    assert isinstance(step, Settle) and step.member.phase is Phase.WAITING


def test_giving_up_attaches_what_is_out() -> None:
    assert ids(abandon_step(plan_of(R, F, W, W), HALF_OUT)) == [1, 2]
    assert isinstance(abandon_step(plan_of(E, E, W, W), WHOLE), Finish)
    gone = abandon_step(plan_of(R, F, W, W), (HALF_OUT[0], *HALF_OUT[2:]))
    assert isinstance(gone, Settle) and gone.member.backend_id == 1


def test_newcomers_have_no_part() -> None:
    assert newcomers(plan_of(), (*WHOLE, up(5))) == (up(5),)
