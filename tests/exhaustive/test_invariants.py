"""Each invariant speaks up when it should, and only then. Most are also shown by a broken core, in `mutants`."""

from __future__ import annotations

from dataclasses import replace

from tests.exhaustive import invariants
from tests.exhaustive.catalogue import MODELS
from tests.exhaustive.invariants import Committed, Leads, Memory, Voted
from tests.exhaustive.model import Start
from tests.exhaustive.node import Node
from tests.exhaustive.space import NODES, Space
from tests.unit.core.bench import document, known_record

from pgvigil.ipc.frames import StopMode
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.messages import Ack, Granted, RoundId, Vote
from pgvigil.watchdog.core.record import Record, Stamp, Voter

OLD = document(Stamp(2, 1))
NEW = replace(OLD, stamp=Stamp(2, 2), epoch=OLD.epoch + 1, voters=OLD.voters[:2])


def disks(*stored: Stamp) -> list[Record]:
    """The disks of n1, n2, ... with the documents of these stamps."""
    return [known_record(place + 1, document=replace(NEW, stamp=stamp)) for place, stamp in enumerate(stored)]


def test_two_holders() -> None:
    """Of gates and of leases, each for itself."""
    one, two, none = (False, True, False), (True, True, False), (False, False, False)
    assert invariants.two_holders(one, (True, False, False)) is None
    assert invariants.two_holders(two, one) == "two gates are open: n1 and n2"
    assert invariants.two_holders(none, two) == "two leases run: n1 and n2"


def test_a_record_never_goes_back() -> None:
    """Not in any of its numbers, and one stamp never stands for two documents."""
    record = known_record(promised_ms=1000, won_term=1, released_term=1)
    assert invariants.went_back(1, record, replace(record, term=2, boot=6)) is None
    for change in ({"boot": 4}, {"term": 0}, {"promised_ms": 999}, {"won_term": 0}, {"released_term": 0}):
        name = next(iter(change))
        said = invariants.went_back(1, record, replace(record, **change))  # type: ignore[arg-type]
        assert said is not None
        assert said.startswith(f"the {name} ")
    assert record.document is not None
    other = replace(record.document, epoch=9)
    assert "two documents" in (invariants.went_back(1, record, replace(record, document=other)) or "")
    assert "stamp" in (invariants.went_back(1, record, replace(record, document=None)) or "")


def test_what_leaves_a_node_is_on_its_disk() -> None:
    """Votes for others, the own vote, acknowledgements of terms and of documents."""
    disk = replace(known_record(1), term=3, voted_for=2)
    asked = RoundId(1, 1)
    for sound in (
        ev.Send(2, Granted(asked, 3, True)),
        ev.Send(3, Granted(asked, 9, False)),
        ev.Send(2, Ack(3, 1, 1, disk.stamp)),
    ):
        assert invariants.not_durable(1, disk, sound) is None
    for wrong in (
        ev.Send(3, Granted(asked, 3, True)),
        ev.Send(2, Granted(asked, 4, True)),
        ev.Send(2, Vote(asked, 3, disk.stamp)),
        ev.Send(2, Ack(4, 1, 1, disk.stamp)),
        ev.Send(2, Ack(3, 1, 1, Stamp(9, 9))),
    ):
        assert invariants.not_durable(1, disk, wrong) is not None


def test_one_vote_and_one_leader_a_term() -> None:
    """The memory grows with what is new, and speaks at the second of a kind."""
    memory, wrong = invariants.remember(Memory(), [Voted(101, 2, 1), Leads(1, 2, OLD)], [])
    assert wrong is None
    assert memory == Memory(frozenset({Voted(101, 2, 1)}), frozenset({(2, 1)}))
    assert invariants.remember(memory, [Voted(101, 2, 1), Leads(1, 2, OLD), Voted(102, 2, 3)], [])[1] is None
    assert invariants.remember(memory, [Voted(101, 2, 3)], [])[1] == "record 101 voted for n1 and for n3 in term 2"
    assert invariants.remember(memory, [Leads(3, 2, OLD)], [])[1] == "term 2 has two leaders: n1 and n3"


def test_what_is_committed_is_on_a_majority_of_disks() -> None:
    """Of the voters that the document itself names."""
    enough, few = disks(NEW.stamp, NEW.stamp, OLD.stamp), disks(NEW.stamp, OLD.stamp, NEW.stamp)
    memory, wrong = invariants.remember(Memory(), [Committed(NEW)], enough)
    assert (memory.committed, wrong) == (NEW, None)
    assert "only 1 of its voters" in (invariants.remember(Memory(), [Committed(NEW)], few)[1] or "")


def test_what_is_committed_is_never_lost() -> None:
    """A later leader has it, a later commit builds upon it; an earlier leader may still lack it."""
    memory = Memory(committed=NEW)
    assert invariants.remember(memory, [Leads(2, 3, replace(NEW, stamp=Stamp(3, 1)))], [])[1] is None
    assert invariants.remember(memory, [Leads(3, 2, OLD)], [])[1] is None
    assert "without the committed document 2.2" in (invariants.remember(memory, [Leads(3, 3, OLD)], [])[1] or "")
    other = replace(NEW, voters=(Voter(1, 101), Voter(3, 103)))
    assert "without the committed document 2.2" in (invariants.remember(memory, [Leads(3, 3, other)], [])[1] or "")
    lost = replace(OLD, stamp=Stamp(2, 3))
    assert "without the change" in (invariants.remember(memory, [Committed(lost)], disks(*[lost.stamp] * 3))[1] or "")


def test_a_core_that_gives_up_is_an_error_too() -> None:
    """An `InvariantError` of the core is found like a broken invariant."""
    space = Space(next(model for model in MODELS if model.start is Start.LED))
    node: Node = space.nodes[0][space.first[NODES]]
    outcome = space.machines[0].step(node, ev.Stop(StopMode.IMMEDIATE), False)
    assert "an immediate stop never asks the core" in (outcome.wrong or "")
