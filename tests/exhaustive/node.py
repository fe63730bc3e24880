"""One machine as a value: the real core, the disk, the effects that wait for it, the kernel's gate; and what it can do.

It does what `watchdog.carrier` does: orders to the gate at once; everything else behind a `Persist` waits until the
disk has it. In a crash memory and what waits are gone, but the gate stays open for as long as it was armed. What a
machine does depends on nothing but its state and the event, so equal states are one object with a number, and a search
over whole clusters is mostly a matter of looking numbers up.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from tests.exhaustive import invariants
from tests.exhaustive.invariants import Fact
from tests.exhaustive.state import BASE_NS, age, clone, key

from pgvigil.ipc.errors import InvariantError
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreSettings
from pgvigil.watchdog.core.engine import Watchdog, restart_wait_ns
from pgvigil.watchdog.core.messages import Message, Refused
from pgvigil.watchdog.core.record import Record
from pgvigil.watchdog.core.states import State

Waiting = tuple[ev.Effect, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a clock runs: `local` for every `true` nanoseconds."""

    local: int = 1
    true: int = 1

    def shown(self, true_ns: int) -> int:
        """What the clock counts while `true_ns` pass."""
        return true_ns * self.local // self.true

    def lasts(self, local_ns: int) -> int:
        """How long it truly takes until the clock has counted `local_ns`."""
        return -(-local_ns * self.true // self.local)


@dataclass(frozen=True, slots=True)
class Mail:
    """A message on its way."""

    sender: int
    to: int
    record_id: int
    message: Message


class Node:
    """One state of one machine. Never changed once it is made."""

    __slots__ = ("core", "disk", "dropping", "due", "gate_ns", "lease", "next_ns", "number", "open", "waiting")

    def __init__(self, core: Watchdog | None, disk: Record, waiting: Waiting, gate_ns: int, dropping: bool) -> None:
        self.core = core
        self.disk = disk
        self.waiting = waiting
        self.gate_ns = gate_ns
        self.dropping = dropping
        self.number = -1
        self.open = gate_ns > BASE_NS
        self.lease = core is not None and core.lease is not None and core.lease.held(BASE_NS)
        wake_ns = None if core is None else core.expected_wake_ns
        self.due = wake_ns is not None and wake_ns <= BASE_NS
        self.next_ns = self._next(wake_ns)

    def _next(self, wake_ns: int | None) -> int | None:
        """The next instant at which something changes here, wished for by the core or not."""
        instants = [self.gate_ns, 0 if wake_ns is None else wake_ns]
        if self.core is not None:
            instants.append(self.core.restart_wait_until_ns)
            instants.append(0 if self.core.promise is None else self.core.promise.until_ns)
        later = [at for at in instants if at > BASE_NS]
        return min(later) - BASE_NS if later else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step of one machine leads to. `wrong` names a broken invariant."""

    node: Node
    mail: tuple[Mail, ...]
    facts: tuple[Fact, ...]
    wrong: str | None
    notes: tuple[str, ...]


class Machine:
    """Node `node_id` of a model, in every state that it has been seen in."""

    def __init__(self, settings: CoreSettings, rate: Rate, views: ev.Views, record: Record) -> None:
        """`record` is what the disk holds before the first start."""
        self.settings = settings
        self.me = settings.node_id
        self.rate = rate
        self.views = views
        self.record_id = record.record_id
        self.states: list[Node] = []
        self._known: dict[Hashable, Node] = {}
        self.off = self.intern(Node(None, record, (), BASE_NS, False))

    def intern(self, node: Node) -> Node:
        """The one node that is equal to this one."""
        core_key = None if node.core is None else key(node.core)
        known = self._known.setdefault((core_key, node.disk, node.waiting, node.gate_ns, node.dropping), node)
        if known is node:
            node.number = len(self.states)
            self.states.append(node)
        return known

    # --- what can happen to a machine --------------------------------------------------------------

    def pass_time(self, node: Node, true_ns: int) -> Node:
        """Time passes on this machine's clock."""
        passed_ns = self.rate.shown(true_ns)
        core = None if node.core is None else clone(node.core)
        if core is not None:
            age(core, passed_ns)
        gate_ns = max(node.gate_ns - passed_ns, BASE_NS)
        return self.intern(Node(core, node.disk, node.waiting, gate_ns, node.dropping))

    def step(self, node: Node, event: ev.Event, patient: bool) -> Outcome:
        """The core takes an event. `patient`: writes take time, so that a crash may come first."""
        assert node.core is not None
        return _Turn(self, node, patient).take(clone(node.core), event)

    def write(self, node: Node) -> Outcome:
        """The disk has the first of the writes that wait, and what stood behind it leaves."""
        turn = _Turn(self, node, True)
        turn.write()
        return turn.end(node.core)

    def crash(self, node: Node) -> Node:
        """The process is killed: memory is gone, and every write that was not done. The kernel's gate is not."""
        return self.intern(Node(None, node.disk, (), node.gate_ns, False))

    def start(self, node: Node, patient: bool) -> Outcome:
        """Start the process: its boot is raised durably before anything else (PROTOCOL 1)."""
        record = replace(node.disk, boot=node.disk.boot + 1, clean_stop=False)
        wait_ns = restart_wait_ns(node.disk.promised_ms, node.disk.clean_stop, BASE_NS)
        core = Watchdog(self.settings, record, lambda n: n - 1, BASE_NS, wait_ns)
        turn = _Turn(self, Node(None, record, (), node.gate_ns, False), patient)
        return turn.take(core, ev.Started(), ev.FenceState(True, ""), self.views)


class _Turn:
    """One step on its way: what the shell around the core does with the effects."""

    def __init__(self, machine: Machine, node: Node, patient: bool) -> None:
        self.machine = machine
        self.disk = node.disk
        self.waiting = list(node.waiting)
        self.gate_ns = node.gate_ns
        self.dropping = node.dropping
        self.patient = patient
        self.mail: list[Mail] = []
        self.facts: list[Fact] = []
        self.wrong: str | None = None
        self.notes: list[str] = []

    def take(self, core: Watchdog, *events: ev.Event) -> Outcome:
        """Let the core take the events and carry out what follows."""
        try:
            for event in events:
                if isinstance(event, ev.VipDown):
                    self.dropping = False
                for effect in core.step(BASE_NS, event):
                    self._carry(effect)
        except (InvariantError, AssertionError) as error:
            self.wrong = f"the core gave up: {error!r}"
        while self.waiting and not self.patient:
            self.write()
        age(core, 0)
        return self.end(core)

    def end(self, core: Watchdog | None) -> Outcome:
        """The node that has become of it. A stopped process ends when its last write is done."""
        if core is not None and core.state is State.STOPPED and not self.waiting:
            core = None
        node = self.machine.intern(Node(core, self.disk, tuple(self.waiting), self.gate_ns, self.dropping))
        if core is not None:
            self.facts += invariants.facts_of(core, self.disk)
        return Outcome(node, tuple(self.mail), tuple(self.facts), self.wrong, tuple(self.notes))

    def _carry(self, effect: ev.Effect) -> None:
        """As `watchdog.carrier` does: gate and address at once, the rest not before what precedes it is durable."""
        if isinstance(effect, ev.Note):
            self.notes.append(effect.text)
        elif isinstance(effect, ev.HoldVip):
            self.gate_ns, self.dropping = max(effect.lease_end_ns, BASE_NS), False
            self.notes.append(f"  gate open for {(self.gate_ns - BASE_NS) / 1e6:g} ms")
        elif isinstance(effect, ev.CloseGate):
            if self.gate_ns > BASE_NS:
                self.notes.append("  gate closed")
            self.gate_ns = BASE_NS
        elif isinstance(effect, ev.DropVip):
            self.dropping = True
        elif isinstance(effect, ev.Persist) or self.waiting:
            if isinstance(effect, ev.Persist | ev.Send):
                self.waiting.append(bare(effect))
        elif isinstance(effect, ev.Send):
            self._send(effect)

    def write(self) -> None:
        """One write is done; what stood behind it leaves, up to the next write."""
        first = self.waiting.pop(0)
        assert isinstance(first, ev.Persist), "the first that waits is a write"
        self.wrong = self.wrong or invariants.went_back(self.machine.settings.node_id, self.disk, first.record)
        self.disk = first.record
        while self.waiting and isinstance(self.waiting[0], ev.Send):
            self._send(self.waiting.pop(0))

    def _send(self, effect: ev.Effect) -> None:
        assert isinstance(effect, ev.Send)
        effect = bare(effect)
        assert isinstance(effect, ev.Send)
        me, record_id = self.machine.me, self.machine.record_id
        self.wrong = self.wrong or invariants.not_durable(me, self.disk, effect)
        self.facts += invariants.votes_in(me, record_id, effect)
        self.mail.append(Mail(me, effect.to, record_id, effect.message))


def bare(effect: ev.Effect) -> ev.Effect:
    """An effect without the words for people, which differ from one refusal to the next and decide nothing."""
    if isinstance(effect, ev.Send) and isinstance(effect.message, Refused):
        return ev.Send(effect.to, replace(effect.message, reason=""))
    return effect
