"""The order of actions: persist before send, and the gate never waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.carrier import MAX_WAITING, Agreement, Carrier
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.messages import Ack
from pgvigil.watchdog.core.record import Document, Record, Stamp, Voter, blank_record

RECORD = blank_record("c", 1, 7)


class SlowDisk:
    """A writer whose tickets complete when the test says so."""

    def __init__(self) -> None:
        self.failure: CommandError | None = None
        self.submitted: list[Record] = []
        self.done: list[int] = []

    def submit(self, record: Record) -> int:
        self.submitted.append(record)
        return len(self.submitted)

    def completed(self) -> list[int]:
        done, self.done = self.done, []
        return done


class FakeVip:
    def __init__(self, log: list[object]) -> None:
        self._log = log

    def keep(self) -> None:
        self._log.append("keep")

    def hold(self, lease_end_ns: int) -> None:
        self._log.append(f"hold {lease_end_ns}")

    def close_gate(self) -> None:
        self._log.append("close")

    def drop(self, on_down: Callable[[], None]) -> None:
        self._log.append("drop")
        on_down()


class Bench:
    def __init__(self) -> None:
        self.log: list[object] = []
        self.disk = SlowDisk()
        self.carrier = Carrier(self.disk, FakeVip(self.log), lambda: self.log.append("down"), self.log.append)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def send(number: int) -> events.Send:
    return events.Send(2, Ack(1, 1, number, Stamp(1, 1)))


def test_a_message_waits_for_the_record_before_it(bench: Bench) -> None:
    bench.carrier.carry([events.Persist(RECORD), send(1)])
    assert bench.log == []
    bench.disk.done = [1]
    bench.carrier.written()
    assert bench.log == [send(1)]
    assert bench.carrier.idle


def test_a_later_message_does_not_overtake(bench: Bench) -> None:
    bench.carrier.carry([events.Persist(RECORD), send(1)])
    bench.carrier.carry([send(2)])
    bench.carrier.carry([events.Persist(replace(RECORD, term=2)), send(3)])
    bench.disk.done = [1]
    bench.carrier.written()
    assert bench.log == [send(1), send(2)]
    bench.disk.done = [2]
    bench.carrier.written()
    assert bench.log == [send(1), send(2), send(3)]


def test_two_records_done_at_once_release_everything(bench: Bench) -> None:
    bench.carrier.carry([events.Persist(RECORD), send(1), events.Persist(replace(RECORD, term=2)), send(2)])
    bench.disk.done = [1, 2]
    bench.carrier.written()
    assert bench.log == [send(1), send(2)]


def test_the_gate_never_waits_for_the_disk(bench: Bench) -> None:
    bench.carrier.carry([events.Persist(RECORD), send(1), events.CloseGate(), events.DropVip(), events.HoldVip(5)])
    assert bench.log == ["close", "drop", "down", "hold 5"]


def test_nothing_leaves_after_the_disk_has_failed(bench: Bench) -> None:
    bench.carrier.carry([events.Persist(RECORD), send(1)])
    bench.disk.done, bench.disk.failure = [1], CommandError("disk full")
    with pytest.raises(CommandError, match="disk full"):
        bench.carrier.written()
    assert bench.log == []


def test_behind_a_disk_that_hangs_messages_have_a_limit_and_everything_else_has_none(bench: Bench) -> None:
    answer = events.Answer(1, True, True, "done")
    bench.carrier.carry([events.Persist(RECORD), *(send(number) for number in range(2 * MAX_WAITING)), answer])
    warnings = [item for item in bench.log if isinstance(item, events.Note)]
    assert [note.level for note in warnings] == [events.Level.WARNING]
    bench.disk.done = [1]
    bench.carrier.written()
    kept = [item for item in bench.log if isinstance(item, events.Send)]
    assert kept == [send(number) for number in range(MAX_WAITING - 1)]
    assert bench.log[-1] == answer
    bench.carrier.carry([events.Persist(RECORD), *(send(number) for number in range(MAX_WAITING))])
    assert [type(item) for item in bench.log[-1:]] == [events.Note], "the next episode is said again"


class Alone:
    """A core that has just committed."""

    def __init__(self, *voters: Voter) -> None:
        self.agreed: Document | None = Document(Stamp(1, 2), 1, voters, 1000, False, ())

    def agreed_at(self, now_ns: int) -> Document | None:
        return self.agreed


@pytest.mark.parametrize(("voters", "at_once"), [((Voter(1, 7),), False), ((Voter(1, 7), Voter(2, 8)), True)])
def test_a_voter_that_is_alone_acts_only_on_what_it_has_written(voters: tuple[Voter, ...], at_once: bool) -> None:
    disk = SlowDisk()
    carrier = Carrier(disk, FakeVip([]), lambda: None, lambda effect: None)
    core = Alone(*voters)
    agreement = Agreement(core, carrier)
    assert agreement.agreed_at(0) is core.agreed
    assert agreement.agreed is core.agreed
    carrier.carry([events.Persist(replace(RECORD, term=1))])
    assert (agreement.agreed_at(0) is core.agreed) is at_once
    disk.done = [1]
    carrier.written()
    assert agreement.agreed_at(0) is core.agreed
