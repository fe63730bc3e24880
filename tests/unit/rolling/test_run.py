"""Whole runs with real commands against a cluster that is a few values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.rolling.cluster import FakeCluster, Told, down, primary_and, up

from pgvigil.watchdog.rolling import run
from pgvigil.watchdog.rolling.cluster import Seen
from pgvigil.watchdog.rolling.decide import Stopping
from pgvigil.watchdog.rolling.journal import Journal
from pgvigil.watchdog.rolling.plan import OnFailure, Phase, Plan, Rules, State, draw_up, resumed
from pgvigil.watchdog.rolling.run import Ending, Outcome, Rolling

COMMAND = "echo {id} >> $PWD/log"


class Stage:
    """A folder, a cluster, and sessions of one run."""

    def __init__(self, folder: Path, seen: Seen) -> None:
        self.folder = folder
        self.cluster = FakeCluster(seen)
        self.told = Told()
        self.stopping = Stopping.NO
        self.journal = Journal(str(folder / "rolling.json"))

    def plan(self, command: str = COMMAND, batch: str = "half", settle_ms: int = 20_000, **more: object) -> Plan:
        text = f"cd {self.folder} && {command}"
        return draw_up("ab", Rules(text, batch, settle_ms=settle_ms, **more), self.cluster.seen)  # type: ignore[arg-type]

    def session(self, plan: Plan) -> Rolling:
        return Rolling(plan, self.cluster, self.journal, self.told, lambda: self.stopping)

    def go(self, plan: Plan) -> Ending:
        return self.session(plan).go()

    def saved(self) -> Plan:
        plan = self.journal.load()
        assert plan is not None
        return plan

    def resume(self) -> Ending:
        return self.go(resumed(self.saved()))

    def ran(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text(encoding="ascii").split() if path.exists() else []

    def phases(self) -> list[str]:
        return [member.phase.value for member in self.saved().members]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(run, "LOOK_S", 0.01)
    stage = Stage(tmp_path, primary_and(4))
    yield stage
    stage.journal.close()


def change_after(stage: Stage, when: str, change: Callable[[FakeCluster], None]) -> None:
    def on_note(text: str) -> None:
        if when in text:
            change(stage.cluster)

    stage.told.on_note = on_note


def test_half_by_half(stage: Stage) -> None:
    stage.cluster.looks_until_agreed = 3
    ending = stage.go(stage.plan())
    assert ending == Ending(Outcome.FINISHED, "4 of 4 backends done")
    assert stage.cluster.orders == [
        f"{verb} {n}" for half in ((1, 2), (3, 4)) for verb in ("detach", "attach") for n in half
    ]
    assert (sorted(stage.ran()[:2]), sorted(stage.ran()[2:])) == (["1", "2"], ["3", "4"])
    assert stage.cluster.fewest == 3 and stage.saved().state is State.FINISHED
    assert all(backend.is_up for backend in stage.cluster.seen)
    assert "batch 2 of 2: detaching db3:5432, db4:5432" in stage.told.texts


def test_the_command_learns_all_about_its_backend(stage: Stage) -> None:
    text = 'echo "$PGVIGIL_BACKEND_ID $PGVIGIL_BACKEND_HOST $PGVIGIL_BACKEND_PORT $PGVIGIL_BACKEND_ROLE" > env.{id}; '
    text += 'echo "$PGVIGIL_ROLLING_RUN $PGVIGIL_ROLLING_BATCH/$PGVIGIL_ROLLING_BATCHES" >> env.{id}; '
    text += 'echo "$PGVIGIL_ROLLING_ATTEMPT" >> env.{id}'
    assert stage.go(stage.plan(text)).outcome is Outcome.FINISHED
    assert (stage.folder / "env.3").read_text(encoding="ascii") == "3 db3 5432 standby\nab 2/2\n1\n"


def test_every_deed_is_written_down_before(stage: Stage) -> None:
    """At each order and each command the journal already tells of it."""
    found: list[str] = []
    stage.cluster.before_look = lambda cluster: found.append(stage.phases()[1])
    stage.plan(f"cp rolling.json seen.{{id}} && {COMMAND}")
    stage.go(stage.plan("cp rolling.json seen.{id}", "1"))
    assert '"phase": "running"' in (stage.folder / "seen.1").read_text(encoding="ascii")
    order = [phase for number, phase in enumerate(found) if phase not in found[:number]]
    assert order == ["waiting", "detaching", "detached", "ran", "attaching", "done"]


@pytest.mark.parametrize(
    ("policy", "phases", "attached"),
    [
        (OnFailure.HOLD, ["skipped", "ran", "failed", "waiting", "waiting"], [0, 3, 4]),
        (OnFailure.LEAVE, ["skipped", "done", "failed", "waiting", "waiting"], [0, 1, 3, 4]),
        (OnFailure.ATTACH, ["skipped", "done", "waiting", "waiting", "waiting"], [0, 1, 2, 3, 4]),
    ],
)
def test_a_failure_stops_the_run_and_resume_tries_again(
    stage: Stage, policy: OnFailure, phases: list[str], attached: list[int]
) -> None:
    flag = stage.folder / "mended"
    text = f"test {{id}} != 2 -o -e {flag} || {{ echo table is locked; exit 7; }}; {COMMAND}"
    ending = stage.go(stage.plan(text, on_failure=policy))
    assert ending.outcome is Outcome.FAILED and "db2:5432: its command ended with status 7" in ending.sentence
    assert any("ends with:\ntable is locked" in told for told in stage.told.texts)
    assert stage.phases() == phases
    assert [one.backend_id for one in stage.cluster.seen if one.status == "up"] == attached
    flag.touch()
    assert stage.resume().outcome is Outcome.FINISHED
    assert sorted(stage.ran()) == ["1", "2", "3", "4"], "what was done is not done again"
    assert all(backend.is_up for backend in stage.cluster.seen)
    assert stage.saved().member(2).attempts == 2


def test_ctrl_c_while_commands_run_lets_them_end(stage: Stage) -> None:
    def wish(text: str) -> None:
        if "the command runs" in text:
            stage.stopping = Stopping.AFTER_BATCH

    stage.told.on_note = wish
    ending = stage.go(stage.plan(batch="1"))
    assert ending == Ending(Outcome.INTERRUPTED, "stopped as asked before batch 2 of 4")
    assert stage.ran() == ["1"] and stage.phases() == ["skipped", "done", "waiting", "waiting", "waiting"]
    assert all(backend.is_up for backend in stage.cluster.seen)
    stage.stopping, stage.told.on_note = Stopping.NO, lambda text: None
    assert stage.resume().outcome is Outcome.FINISHED
    assert stage.ran() == ["1", "2", "3", "4"]


@pytest.mark.parametrize("when", ["detaching", "detached everywhere"])
def test_ctrl_c_before_a_command_undoes_the_batch(stage: Stage, when: str) -> None:
    def wish(text: str) -> None:
        if when in text:
            stage.stopping = Stopping.AFTER_BATCH

    stage.told.on_note = wish
    assert stage.go(stage.plan()).outcome is Outcome.INTERRUPTED
    assert stage.ran() == [] and all(backend.is_up for backend in stage.cluster.seen)
    assert stage.phases() == ["skipped", *["waiting"] * 4]


def test_a_second_ctrl_c_ends_the_commands(stage: Stage) -> None:
    def wish(text: str) -> None:
        if "db1:5432: the command is done" in text:
            stage.stopping = Stopping.NOW

    stage.told.on_note = wish
    ending = stage.go(stage.plan("test {id} = 1 || exec sleep 600"))
    assert (
        ending.outcome is Outcome.INTERRUPTED
        and "db2:5432: stopped as asked; db2:5432 stay detached" in ending.sentence
    )
    assert stage.phases() == ["skipped", "done", "failed", "waiting", "waiting"]


# --- sessions that were killed ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing more is done."""


KILLS = [
    "detaching",
    "detached everywhere",
    "the command runs",
    "the command is done",
    "attaching",
    "attached everywhere",
]


def kill_a_run(stage: Stage, when: str) -> None:
    """Begin a run and end it at the note that contains `when`."""

    def die(text: str) -> None:
        if when in text:
            raise Killed

    stage.told.on_note = die
    with pytest.raises(Killed):
        stage.go(stage.plan(batch="1"))
    stage.told.on_note = lambda text: None


@pytest.mark.parametrize("when", KILLS)
def test_a_run_killed_anywhere_is_continued(stage: Stage, when: str) -> None:
    kill_a_run(stage, when)
    assert stage.resume() == Ending(Outcome.FINISHED, "4 of 4 backends done")
    assert stage.ran() == ["1", "2", "3", "4"]
    assert stage.cluster.fewest == 4 and all(backend.is_up for backend in stage.cluster.seen)


@pytest.mark.parametrize("when", KILLS)
def test_a_run_killed_anywhere_can_be_given_up(stage: Stage, when: str) -> None:
    kill_a_run(stage, when)
    ending = stage.session(resumed(stage.saved())).abandon()
    assert ending.outcome is Outcome.ABANDONED and stage.saved().state is State.ABANDONED
    assert all(backend.is_up for backend in stage.cluster.seen)


# --- a cluster that does not do as it is told -------------------------------------------------------------------------


def test_a_lost_answer_is_not_a_failure(stage: Stage) -> None:
    stage.cluster.lose_answers = True
    assert stage.go(stage.plan()).outcome is Outcome.FINISHED
    assert len(stage.cluster.orders) == 8


def test_a_refusal_stops_the_run(stage: Stage) -> None:
    stage.cluster.refuse = "refused: the cluster is paused"
    ending = stage.go(stage.plan())
    assert ending == Ending(Outcome.BLOCKED, "db1:5432: refused: the cluster is paused")
    stage.cluster.refuse = ""
    assert stage.resume().outcome is Outcome.FINISHED


def test_a_pgpool_that_never_agrees_stops_the_run_before_any_command(stage: Stage) -> None:
    stage.cluster.looks_until_agreed = 10**9
    ending = stage.go(stage.plan(settle_ms=300))
    assert ending.outcome is Outcome.BLOCKED and stage.ran() == []
    assert "after 0.3 s: db1:5432 is down (rolling ab), but n1 says up, n2 says up" in ending.sentence


def test_a_cluster_that_nobody_can_ask_stops_the_run(stage: Stage) -> None:
    plan = stage.plan(settle_ms=300)
    stage.cluster.silent = True
    ending = stage.go(plan)
    assert ending.outcome is Outcome.BLOCKED and "nobody can say how the backends are" in ending.sentence


def test_waiting_for_other_backends_has_an_end_and_goes_on_when_they_are_back(stage: Stage) -> None:
    plan = stage.plan(settle_ms=300)
    for number in (0, 3, 4):
        stage.cluster.put(down(number, "power"))
    ending = stage.go(plan)
    assert ending.outcome is Outcome.BLOCKED and "only 0 would be attached" in ending.sentence
    assert stage.cluster.orders == []

    def heal(cluster: FakeCluster) -> None:
        for number, role in ((0, "primary"), (3, "standby"), (4, "standby")):
            cluster.put(up(number, role))

    change_after(stage, "waiting: without db1", heal)
    patient = replace(resumed(stage.saved()), rules=replace(plan.rules, settle_ms=20_000))
    assert stage.go(patient).outcome is Outcome.FINISHED


def test_another_backend_dies_while_a_batch_goes_out_and_it_comes_back_at_once(stage: Stage) -> None:
    def lose(text: str) -> None:
        if "detached everywhere" in text:
            for number in (0, 3, 4):
                stage.cluster.put(down(number, "power"))

    stage.told.on_note = lose
    ending = stage.go(stage.plan())
    assert ending == Ending(Outcome.BLOCKED, "only 0 are attached, --keep 1") and stage.ran() == []
    assert [one.backend_id for one in stage.cluster.seen if one.is_up] == [1, 2]


def test_backends_that_changed_meanwhile_are_told_and_left_alone(stage: Stage) -> None:
    plan = stage.plan()

    def change(cluster: FakeCluster) -> None:
        cluster.put(down(3, "disk died"))
        cluster.seen = (*cluster.seen, up(5))

    change_after(stage, "db1:5432, db2:5432 attached everywhere", change)
    ending = stage.go(plan)
    assert ending.outcome is Outcome.INCOMPLETE
    assert ending.sentence == "3 of 4 backends done; db3:5432: went down meanwhile: db3:5432 is down (disk died)"
    assert sorted(stage.ran()) == ["1", "2", "4"]
    assert stage.told.texts.count("db5:5432 came after the plan was made and has no part in this run") == 1


def test_one_that_dies_after_it_was_attached_stops_the_run(stage: Stage) -> None:
    plan = stage.plan(batch="1")
    change_after(stage, "attaching db1", lambda cluster: cluster.put(down(1, "health check failed")))
    ending = stage.go(plan)
    assert ending.outcome is Outcome.BLOCKED and "health check failed" in ending.sentence
    assert stage.ran() == ["1"] and stage.saved().member(1).phase is Phase.SKIPPED
