"""The seams of watchdog main: what happens between parts that are each right alone. No kernel table is touched."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.watchdog.peers_lab import free_port, settings

from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import StopMode
from pgvigil.ipc.ready import Link, make_pair
from pgvigil.watchdog import process
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.record import Intent
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.settings import CommandSettings, ProcessSettings, Settings, UserCommand
from pgvigil.watchdog.store import Store
from pgvigil.watchdog.vip.status import VipStatus


class StrictVip:
    """A holder that always has something to say about the fence, and that writes down its orders."""

    orders: list[str]

    def __init__(self, *_: object) -> None:
        self.orders = StrictVip.orders

    def prepare(self) -> None:
        self.orders.append("prepare")

    def status(self) -> VipStatus:
        return VipStatus("down", (), "closed", None, ("addresses get no lifetime",), "", "lo", True)

    def keep(self) -> None:
        self.orders.append("keep")

    def hold(self, lease_end_ns: int) -> None:
        self.orders.append("hold")

    def close_gate(self) -> None:
        self.orders.append("close")

    def drop(self, on_down: Callable[[], None]) -> None:
        self.orders.append("drop")
        on_down()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings of a cluster of one, with folders of its own."""
    StrictVip.orders = []
    monkeypatch.setattr(process, "VipHolder", StrictVip)
    monkeypatch.setattr(process, "remove_tables", list)
    before = signal.getsignal(signal.SIGTERM)
    made = settings(1, 1, free_port())
    yield replace(made, process=ProcessSettings(str(tmp_path), str(tmp_path / "state"), "stderr", "info", 5000))
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def main(alone: Settings) -> Iterator[process.Main]:
    ours, theirs = make_pair()
    made = process.Main(alone, Link(theirs, "watchdog main", lambda _: None))
    yield made
    made.close()
    made.loop.close()
    ours.close()
    theirs.close()


def test_a_blank_cluster_of_one_starts_although_its_fence_has_a_problem(main: process.Main) -> None:
    main.start(1_000_000_000)
    assert main.core.state is State.STANDBY
    assert main.core.fence.reason == "addresses get no lifetime"


def test_nothing_is_touched_before_the_lock_is_held(alone: Settings) -> None:
    ours, theirs = make_pair()
    holder = Store(alone.process.state_dir, "test", 1)
    with pytest.raises(CommandError, match="is locked by another pgvigil"):
        process.Main(alone, Link(theirs, "watchdog main", lambda _: None))
    assert StrictVip.orders == []
    holder.close()
    ours.close()
    theirs.close()


def test_what_was_let_go_of_after_a_failed_write_is_not_taken_up_again(main: process.Main) -> None:
    main.start(1_000_000_000)
    main.writer.failure = CommandError("no space left")
    StrictVip.orders.clear()
    main._written()
    assert StrictVip.orders == ["close", "drop"]
    main.dispatch(events.Stop(StopMode.SMART))
    assert main.core.stopping is None and StrictVip.orders == ["close", "drop"]


def test_no_command_starts_while_the_node_hands_over(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    command = UserCommand("/bin/true", 5, "once")
    ours, theirs = make_pair()
    made = process.Main(
        replace(alone, commands=CommandSettings(command)), Link(theirs, "watchdog main", lambda _: None)
    )
    made.start(1_000_000_000)
    monkeypatch.setattr(made.core, "lease_held_at", lambda _: True)
    monkeypatch.setattr(made.runner, "start", lambda label, *_: started.append(label))
    intent = Intent("escalation", "term 1", "once", 1, 1, 1, "pending")
    order = events.StartCommand(intent, 0)
    assert made.core.document is not None  # a lone node founds at its start
    made.core.record = replace(made.core.record, document=replace(made.core.document, intents=(intent,)))
    made.core.state = State.RELEASING
    made.commander.start(order)
    assert started == []
    made.core.state = State.LEADER
    made.commander.start(order)
    assert started == ["escalation"]
    made.close()
    made.loop.close()
    ours.close()
    theirs.close()


def test_an_orphan_brings_the_node_back_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    revived: list[object] = []

    class Broken:
        orphaned = True

        def __init__(self, *_: object) -> None: ...
        def start(self, _: int) -> None: ...
        def live(self) -> int:
            return 0

        def close(self) -> None:
            raise CommandError("the disk did not take the record")

    ours, theirs = make_pair()
    monkeypatch.setattr(process, "Main", Broken)
    monkeypatch.setattr(process, "revive", revived.append)
    with pytest.raises(CommandError):
        process.run(settings(1, 1, 1), Link(theirs, "watchdog main", lambda _: None), 1)
    assert len(revived) == 1
    ours.close()
    theirs.close()
