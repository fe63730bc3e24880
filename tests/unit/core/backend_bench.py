"""A leader, or a follower, on a bench with a table of three backends: the test plays the pgpool-IIs and the callers."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.bench import Bench, document, known_record, only, renew, sent

from pgvigil.ipc.frames import StopMode
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreCommand, CoreConsensus
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskBackend, Outcome, RenewRefused, Seen, SeenBackend, SeenStatus, TellBackend
from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    BackendStatus,
    Decision,
    DecisionKind,
    Document,
    Record,
    Stamp,
)

UP, DOWN = BackendStatus.UP, BackendStatus.DOWN
PRIMARY, STANDBY = BackendRole.PRIMARY, BackendRole.STANDBY
KIND_DOWN, KIND_UP, PROMOTE, FOLLOW = DecisionKind.DOWN, DecisionKind.UP, DecisionKind.PROMOTE, DecisionKind.FOLLOW
SEEN_DOWN = SeenStatus.DOWN
LEADERS = 2  # the node that leads where node 1 follows
ALL_COMMANDS = ("failover", "failback", "follow_primary")
FAILS = ("d=0", "h=db0", "p=5432", "m=1", "H=db1", "r=5432", "R=/data1", "P=0", "M=0", "D=/data0")


def backend(backend_id: int, status: BackendStatus = UP, role: BackendRole = STANDBY, decision: int = 1) -> Backend:
    """A backend of the agreed table."""
    return Backend(backend_id, f"db{backend_id}", 5432, status, role, "", decision)


def table(size: int = 3) -> tuple[Backend, ...]:
    """A primary and standbys, all up since change 1."""
    return tuple(backend(number, role=STANDBY if number else PRIMARY) for number in range(size))


def agreed(size: int = 3, **changes: object) -> Document:
    """The document of a cluster with that table."""
    found = replace(document(size=size), backends=table(), decided=1)
    return replace(found, **changes)  # type: ignore[arg-type]


def look(
    backend_id: int,
    status: SeenStatus = SeenStatus.UP,
    role: BackendRole | None = None,
    failed: bool = False,
    decision: int = 1,
) -> SeenBackend:
    """A backend as a pgpool-II sees it."""
    found = role or (STANDBY if backend_id else PRIMARY)
    return SeenBackend(backend_id, f"db{backend_id}", 5432, status, found, failed, decision)


class BackendBench(Bench):
    """Node 1 of `size`."""

    def __init__(
        self,
        size: int = 3,
        commands: tuple[str, ...] = ALL_COMMANDS,
        policy: str = "once",
        rule: CoreConsensus | None = None,
        doc: Document | None = None,
        record: Record | None = None,
        witnesses: tuple[int, ...] = (),
    ) -> None:
        kept = record or known_record(size=size, document=agreed(size) if doc is None else doc)
        super().__init__(
            size=size,
            record=kept,
            witnesses=witnesses,
            commands=tuple(CoreCommand(name, policy) for name in commands),
            consensus=rule or CoreConsensus(),
        )
        self.numbers: dict[int, int] = {}
        self.told: list[tuple[int, TellBackend]] = []
        self.started: list[ev.StartCommand] = []
        self.answers: list[ev.Answer] = []

    def at(self, now_ms: float, event: ev.Event | None = None) -> list[ev.Effect]:
        """One step; what was told, started and answered is kept."""
        effects = super().at(now_ms, event)
        self._keep(effects)
        return effects

    def wait_until(self, now_ms: float) -> list[ev.Effect]:
        """As the bench's; steps that time alone brings about go through `at`, too."""
        effects: list[ev.Effect] = []
        for _ in range(10_000):
            wake_ns = self.core.wake()
            if wake_ns is None or wake_ns > now_ms * NS_PER_MS:
                return effects + self.at(now_ms)
            effects += self.at(wake_ns / NS_PER_MS)
        raise AssertionError("wake() never lets go")

    def _keep(self, effects: list[ev.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.Send) and isinstance(effect.message, TellBackend):
                self.told.append((effect.to, effect.message))
        self.started += only(effects, ev.StartCommand)
        self.answers += only(effects, ev.Answer)

    @property
    def now_ms(self) -> float:
        """What the clock shows."""
        return self.core.now_ns / NS_PER_MS

    @property
    def doc(self) -> Document:
        """The newest document."""
        assert self.core.document is not None
        return self.core.document

    def ids(self) -> list[int]:
        """The backends of the table."""
        return [item.backend_id for item in self.doc.backends]

    def state_of(self, backend_id: int) -> tuple[BackendStatus, BackendRole]:
        """Status and role by the newest document."""
        found = self.doc.backend(backend_id)
        assert found is not None
        return found.status, found.role

    def leads(self) -> BackendBench:
        """Lead with a committed document."""
        self.lead()
        self.commit()
        return self

    def leads_paused(self) -> BackendBench:
        """Nobody stands in a paused cluster: it is paused while this node leads."""
        doc = self.doc
        self.core.record = replace(self.core.record, document=replace(doc, paused=False))
        self.leads()
        self.core.propose(replace(self.doc, paused=True))
        self.commit()
        return self

    def stay_stopping(self) -> list[ev.Effect]:
        """The process is told to end."""
        return self.at(self.now_ms, ev.Stop(StopMode.FAST))

    @staticmethod
    def refused(known_term: int) -> RenewRefused:
        """Somebody knows a higher term."""
        return RenewRefused(2, 5, known_term)

    def commit(self, *voters: int) -> list[ev.Effect]:
        """The others store and acknowledge whatever is new, until nothing is new any more."""
        effects: list[ev.Effect] = []
        for _ in range(20):
            effects += self.wait_until(self.now_ms + 1)
            if self.core.committed() and self.core.lease_held():
                return effects
            for voter in voters or range(2, self.size + 1):
                effects += self.ack(self.now_ms, voter)
        raise AssertionError("never committed")

    def stay(self, until_ms: float, *voters: int) -> list[ev.Effect]:
        """Lead on until then."""
        return self.renewed_until(until_ms, *(voters or range(2, self.size + 1)))

    def ends(self, succeeded: bool = True, detail: str = "") -> list[ev.Effect]:
        """The command that was started last has ended, and that is committed."""
        token = self.started[-1].intent.token
        return self.at(self.now_ms, ev.CommandEnded(token, succeeded, detail)) + self.commit()

    def asks(
        self,
        sender: int,
        kind: DecisionKind = KIND_DOWN,
        backend_id: int = 0,
        operator: bool = False,
        decision: int = 1,
        arguments: tuple[str, ...] = FAILS,
        number: int = 1,
        reason: str = "",
        record_id: int = 0,
    ) -> list[ev.Effect]:
        """Another node asks."""
        ask = AskBackend(4, number, kind, backend_id, operator, decision, reason, arguments)
        return self.hear(self.now_ms, sender, ask, record_id)

    def wants(
        self,
        kind: DecisionKind = KIND_DOWN,
        backend_id: int = 0,
        operator: bool = False,
        number: int = 1,
        until_ms: float = 20_000,
        arguments: tuple[str, ...] = FAILS,
    ) -> list[ev.Effect]:
        """Somebody on this node asks."""
        event = ev.AskDecision(number, kind, backend_id, operator, "", arguments, int(until_ms * NS_PER_MS))
        return self.at(self.now_ms, event)

    def sees(self, node: int, *views: SeenBackend, problem: str = "", record_id: int = 0) -> list[ev.Effect]:
        """What a node's pgpool-II makes of the backends."""
        if node == self.core.me:
            return self.at(self.now_ms, ev.BackendsSeen(views, problem))
        self.numbers[node] = self.numbers.get(node, 0) + 1
        return self.hear(self.now_ms, node, Seen(4, self.numbers[node], views, problem), record_id)

    def outcomes(self, node: int) -> list[Outcome]:
        """What a node was told, in order."""
        return [told.outcome for to, told in self.told if to == node]

    def text(self, node: int) -> str:
        """The newest that a node was told."""
        return [told.text for to, told in self.told if to == node][-1]

    def follow(self, doc: Document, sequence: int = 1, committed: bool = True) -> list[ev.Effect]:
        """Node 2, leader of the term of this document, renews."""
        message = renew(doc.stamp.term, sequence, doc=doc)
        told = replace(message, committed=doc.stamp) if committed else message
        return self.hear(self.now_ms, 2, told)


def asked_of(effects: list[ev.Effect]) -> list[AskBackend]:
    """The asks that were sent."""
    return sent(effects, AskBackend)


def down_document(number: int = 2, **changes: object) -> Document:
    """Backend 0, the primary, is down by that decision."""
    doc = agreed()
    gone = replace(backend(0, DOWN, PRIMARY), decision=number)
    made = Decision(number, KIND_DOWN, 0, False, 2, "it failed")
    doc = replace(doc, backends=(gone, *table()[1:]), decided=number, decisions=(made,))
    return replace(doc, **changes)  # type: ignore[arg-type]


def decided_by_two(bench: BackendBench) -> BackendBench:
    """Backend 0 is down by two of three."""
    bench.asks(2)
    bench.asks(3)
    bench.commit()
    return bench


def following() -> BackendBench:
    """Node 1 follows node 2, which has told what is agreed."""
    bench = BackendBench()
    bench.start()
    bench.follow(agreed(stamp=Stamp(3, 2)))
    return bench
