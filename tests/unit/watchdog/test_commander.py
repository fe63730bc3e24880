"""The starting of users' commands with real processes: once, under a lease, with everything that they need to know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from tests.unit.watchdog.backends import document
from tests.unit.watchdog.peers_lab import settings

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import StopMode
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog import commander
from pgvigil.watchdog.commander import MAX_DETAIL, Commander
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.events import CommandEnded, Note, StartCommand, Tick, VipDown
from pgvigil.watchdog.core.record import Document, Intent, Record, blank_record
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.settings import CommandSettings, UserCommand

ARGUMENTS = ("d=2", "h=pg-c", "p=5434", "m=0", "H=pg-a")


@dataclass
class Core:
    """Stands in for the core."""

    state: State = State.LEADER
    held: bool = True
    leads_by_half: bool = False
    sentence: str = "hands over: an operator asked"
    document: Document | None = None
    record: Record = field(default_factory=lambda: replace(blank_record("test", 1, 1), won_term=7, term=7))

    def lease_held_at(self, now_ns: int) -> bool:
        return self.held


class Stand:
    """A commander with a loop and everything that it says."""

    def __init__(self, **commands: str) -> None:
        self.core, self.loop = Core(document=document()), Loop()
        self.runner = Runner(self.loop)
        self.ended: list[CommandEnded] = []
        self.notes: list[Note] = []
        self.idle = 0
        chosen = {name: UserCommand(run, 20, "once") for name, run in commands.items()}
        made = replace(settings(1, 1, 1), commands=CommandSettings(**chosen))
        self.commander = Commander(
            made, self.runner, cast(Watchdog, self.core), self.ended.append, self.notes.append, self._idle
        )

    def _idle(self) -> None:
        self.idle += 1

    def order(self, name: str, event: str = "decision 5", arguments: tuple[str, ...] = ARGUMENTS) -> None:
        intent = Intent(name, event, "once", 7, 1, 3, "pending", arguments)
        assert self.core.document is not None
        self.core.document = replace(self.core.document, intents=(intent,))
        self.commander.start(StartCommand(intent, 0))

    def until(self, done: Callable[[], object]) -> None:
        deadline_ns = boottime_ns() + 20 * NS_PER_S
        while not done():
            assert boottime_ns() < deadline_ns, (self.ended, self.notes)
            self.loop.run_once(10 * NS_PER_MS)

    def stop_leading(self) -> None:
        """As a hand-over goes: release, then the address is gone."""
        self.core.state = State.RELEASING
        self.commander.stepped(Tick())
        self.core.state = State.STANDBY
        self.commander.stepped(VipDown())


@pytest.fixture
def stand() -> Iterator[Callable[..., Stand]]:
    made: list[Stand] = []

    def make(**commands: str) -> Stand:
        made.append(Stand(**commands))
        return made[-1]

    yield make
    for one in made:
        while one.runner.running:
            one.loop.run_once(10 * NS_PER_MS)
        one.loop.close()


Make = Callable[..., Stand]


def test_a_command_gets_its_values_in_words_and_in_the_environment(
    stand: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgvigil")
    one = stand(failover="echo %d %h %p [%D] %m; env | grep ^PGVIGIL_ | sort")
    one.order("failover")
    one.until(lambda: one.ended)
    text = caplog.messages[-1]
    assert text.startswith("failover for decision 5: ended with status 0 after ")
    assert one.notes == []  # the core says on every node how it ended
    assert "2 pg-c 5434 [] 0" in text
    for line in (
        "PGVIGIL_BACKEND_DIRECTORY=", "PGVIGIL_BACKEND_ID=2", "PGVIGIL_CLUSTER=test", "PGVIGIL_COMMAND=failover",
        "PGVIGIL_EVENT=decision 5", "PGVIGIL_NEW_MAIN_HOST=pg-a",
    ):  # fmt: skip
        assert line in text
    assert one.ended[0].token == 3 and one.ended[0].succeeded and len(one.ended[0].detail) <= MAX_DETAIL


def test_the_reason_is_that_of_the_decision(stand: Make) -> None:
    one = stand(follow_primary='echo "$PGVIGIL_REASON/$PGVIGIL_TERM/$PGVIGIL_TOKEN/$PGVIGIL_NODE_ID"')
    one.order("follow_primary", "decision 5 backend 2")
    one.order("follow_primary", "decision 4 backend 2")
    one.until(lambda: len(one.ended) == 2)
    said = sorted(ended.detail.rpartition(": ")[2] for ended in one.ended)
    assert said == ["/7/3/1", "its pgpool-II reports a failure/7/3/1"]


def test_a_percent_sign_of_the_escalation_is_left_alone(stand: Make) -> None:
    one = stand(escalation="printf '%s' %d")
    one.order("escalation", "term 7", ())
    one.until(lambda: one.ended)
    assert one.notes[0].text.endswith(": %d")


def test_a_failure_is_told_with_what_was_said(stand: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = stand(failover="echo no such host; exit 3")
    one.order("failover")
    one.until(lambda: one.ended)
    assert not one.ended[0].succeeded
    assert one.ended[0].detail.startswith("ended with status 3 after ") and "no such host" in one.ended[0].detail
    assert caplog.records[-1].levelname == "WARNING"


@pytest.mark.parametrize(
    ("state", "held", "name", "why"),
    [
        (State.RELEASING, True, "failover", "the lease has ended"),
        (State.LEADER, False, "failover", "the lease has ended"),
        (State.LEADER, True, "failback", "none is configured on this node"),
    ],
)
def test_nothing_starts_without_a_lease_or_a_command(
    stand: Make, tmp_path: Path, state: State, held: bool, name: str, why: str
) -> None:
    one = stand(failover=f"touch {tmp_path}/ran")
    one.core.state, one.core.held = state, held
    one.order(name)
    assert one.ended == [CommandEnded(3, False, f"not started: {why}")]
    assert one.runner.running == 0 and not (tmp_path / "ran").exists()


def test_a_node_de_escalates_once_after_its_address_is_down(stand: Make) -> None:
    one = stand(de_escalation='echo "$PGVIGIL_TERM $PGVIGIL_EVENT $PGVIGIL_COMMAND"')
    one.commander.stepped(Tick())
    one.commander.stepped(VipDown())  # lets go of the address while its interface is down, and leads on
    assert one.runner.running == 0
    one.stop_leading()
    assert one.commander.de_escalating
    one.commander.stepped(VipDown())
    one.until(lambda: one.idle)
    one.commander.stepped(VipDown())
    assert one.runner.running == 0 and one.ended == [] and one.idle == 1
    assert [note.text.rpartition(": ")[2] for note in one.notes] == ["7 term 7 de_escalation"]


@pytest.mark.parametrize(("state", "half"), [(State.STANDBY, False), (State.ELECTED, False), (State.LEADER, True)])
def test_who_never_led_alone_does_not_de_escalate(stand: Make, state: State, half: bool) -> None:
    one = stand(de_escalation="true")
    one.core.state, one.core.leads_by_half = state, half
    one.commander.stepped(Tick())
    one.stop_leading()
    assert not one.commander.de_escalating and one.notes == []


def test_an_escalation_waits_for_a_de_escalation_and_looks_at_the_lease_then(stand: Make, tmp_path: Path) -> None:
    one = stand(de_escalation=f"until [ -e {tmp_path}/go ]; do sleep 0.02; done", escalation="true")
    one.commander.stepped(Tick())
    one.stop_leading()
    one.core.state = State.LEADER
    one.order("escalation", "term 8")
    assert one.runner.running == 1 and one.ended == []
    (tmp_path / "go").touch()
    one.until(lambda: one.ended)
    assert one.ended[0].succeeded
    assert [note.text.partition(":")[0] for note in one.notes] == ["de_escalation for term 7", "escalation for term 8"]


def test_an_order_that_waited_is_not_started_when_another_leader_has_settled_it(stand: Make, tmp_path: Path) -> None:
    one = stand(de_escalation=f"until [ -e {tmp_path}/go ]; do sleep 0.02; done", failover=f"touch {tmp_path}/again")
    one.commander.stepped(Tick())
    one.stop_leading()
    one.core.state = State.LEADER
    one.order("failover")
    # The lease is lost, another node leads and runs it, and this one leads again before the de-escalation has ended.
    assert one.core.document is not None
    settled = tuple(replace(intent, state="unknown") for intent in one.core.document.intents)
    one.core.document = replace(one.core.document, intents=settled)
    (tmp_path / "go").touch()
    one.until(lambda: one.ended)
    assert not one.ended[0].succeeded and "settled meanwhile" in one.ended[0].detail
    assert one.runner.running == 0 and not (tmp_path / "again").exists()


@pytest.mark.parametrize("before", [True, False])
def test_a_stop_ends_a_de_escalation_that_takes_too_long(
    stand: Make, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setitem(commander.STOP_WAIT_NS, StopMode.FAST, 200 * NS_PER_MS)
    one = stand(de_escalation="sleep 77", escalation="sleep 0.3")
    one.commander.stepped(Tick())
    one.order("escalation", "term 7")
    if before:
        one.commander.stopping(StopMode.FAST)
    one.stop_leading()
    if not before:
        one.commander.stopping(StopMode.FAST)
    one.until(lambda: one.idle)
    assert "was stopped at its time limit" in one.notes[-1].text
    one.until(lambda: one.ended)
    assert one.ended[0].succeeded  # a stop is no business of the others
