"""One decision core on a bench: the test plays every other node and the clock, in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreCommand, CoreNode, CoreRemoval, CoreSettings
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Ack, Granted, Message, PreVote, Refused, Renew, RoundId, Vote
from pgvigil.watchdog.core.record import Document, Intent, QuorumRule, Record, Stamp, Voter, blank_record

M = TypeVar("M")
L_MS = 1000
FIRST = Stamp(1, 1)
NEWEST = Stamp(9, 9)
R_MS = 200
TIE_BREAKER = "10.0.0.254"


def document(
    stamp: Stamp = FIRST,
    size: int = 3,
    lease_ms: int = L_MS,
    intents: tuple[Intent, ...] = (),
    voters: tuple[int, ...] | None = None,
) -> Document:
    """A document that names nodes 1 to `size` with the records 101 and up."""
    named = voters or tuple(range(1, size + 1))
    return Document(stamp, 1, tuple(Voter(node, 100 + node) for node in named), lease_ms, False, intents)


def known_record(me: int = 1, size: int = 3, **changes: object) -> Record:
    """The record of a voter of a founded cluster, in term 1, which node 2 won long ago."""
    record = replace(blank_record("c", me, 100 + me), boot=5, term=1, voted_for=2, document=document(size=size))
    return replace(record, **changes)  # type: ignore[arg-type]


WON = known_record(won_term=1, voted_for=1, promised_ms=L_MS)


def half_record(me: int = 1, size: int = 2, **changes: object) -> Record:
    """The record of a voter whose document says half (P22)."""
    named = replace(document(size=size), quorum=QuorumRule.HALF, tie_breaker=TIE_BREAKER)
    return replace(known_record(me, size), document=named, **changes)  # type: ignore[arg-type]


class Bench:
    """A core with node id `me`; nothing has happened yet."""

    def __init__(
        self,
        me: int = 1,
        size: int = 3,
        record: Record | None = None,
        wait_ms: int = 0,
        witnesses: tuple[int, ...] = (),
        policy: str = "",
        lease_ms: int = L_MS,
        draw: int = 0,
        removal: CoreRemoval | None = None,
        quorum: QuorumRule = QuorumRule.MAJORITY,
        tie_breaker: str = TIE_BREAKER,
        **settings_of: object,
    ) -> None:
        """`wait_ms`: the end of the restart wait; `draw`: what every random draw gives; the rest are more settings."""
        nodes = tuple(CoreNode(node, f"n{node}", node in witnesses, 1) for node in range(1, size + 1))
        commands = (CoreCommand("escalation", policy),) if policy else ()
        settings = CoreSettings(
            me, nodes, lease_ms, R_MS, False, commands, removal or CoreRemoval(), quorum, tie_breaker
        )
        settings = replace(settings, **settings_of)  # type: ignore[arg-type]
        self.size = size
        self.core = Watchdog(settings, record or known_record(me, size), lambda n: draw, 0, wait_ms * NS_PER_MS)

    def at(self, now_ms: float, event: ev.Event | None = None) -> list[ev.Effect]:
        """One step; without an event, time alone."""
        return self.core.step(int(now_ms * NS_PER_MS), event or ev.Tick())

    def hear(self, now_ms: float, sender: int, message: Message, record_id: int = 0) -> list[ev.Effect]:
        """A message of another node, under its own record unless told otherwise."""
        return self.at(now_ms, ev.Arrived(sender, record_id or 100 + sender, message))

    def see(
        self, now_ms: float, pgpool: Health = Health.ALIVE, electable: bool = True, peers: Health = Health.ALIVE
    ) -> list[ev.Effect]:
        """Lifecheck's verdicts: the same for all peers."""
        me = self.core.me
        others = [node for node in range(1, self.size + 1) if node != me]
        views = tuple(ev.PeerView(node, peers, electable, 1, 0) for node in others)
        return self.at(now_ms, ev.Views(pgpool, "", views))

    def see_all(self, now_ms: float, peers: dict[int, Health]) -> list[ev.Effect]:
        """Lifecheck's verdicts, one by one."""
        views = tuple(ev.PeerView(node, health, True, 1, 0) for node, health in sorted(peers.items()))
        return self.at(now_ms, ev.Views(Health.ALIVE, "", views))

    def alone_until(
        self, now_ms: int, since_ms: int = 1, peers: Health = Health.DEAD, address: str = TIE_BREAKER
    ) -> list[ev.Effect]:
        """Nobody else is there; the tie-breaker is asked every 50 ms, and has answered since `since_ms`."""
        others = [node for node in range(1, self.size + 1) if node != self.core.me]
        seen = tuple(ev.PeerView(node, peers, True, 1, 0) for node in others)
        effects: list[ev.Effect] = []
        for at_ms in range(self.core.now_ns // NS_PER_MS + 50, now_ms + 1, 50):
            effects += self.wait_until(at_ms)
            told = (at_ms * NS_PER_MS, since_ms * NS_PER_MS) if at_ms >= since_ms else (0, 0)
            effects += self.at(at_ms, ev.Views(Health.ALIVE, "", seen, "", False, address, *told))
        return effects + self.wait_until(now_ms)

    def renewed_until(self, now_ms: float, *voters: int) -> list[ev.Effect]:
        """Lead on: these voters acknowledge every renewal at once."""
        effects: list[ev.Effect] = []
        while self.core.now_ns < now_ms * NS_PER_MS:
            at_ms = min(now_ms, self.core.now_ns / NS_PER_MS + R_MS)
            effects += self.wait_until(at_ms)
            for voter in voters:
                effects += self.ack(at_ms, voter)
        return effects

    def start(self, now_ms: float = 0) -> list[ev.Effect]:
        """Start and see everybody healthy: the lowest id stands in this very step."""
        return self.at(now_ms, ev.Started()) + self.see(now_ms)

    def wait_until(self, now_ms: float) -> list[ev.Effect]:
        """Let time pass as the shell does: wake when told to. All effects on the way."""
        effects: list[ev.Effect] = []
        for _ in range(10_000):
            wake_ns = self.core.wake()
            if wake_ns is None or wake_ns > now_ms * NS_PER_MS:
                return effects + self.at(now_ms)
            effects += self.core.step(wake_ns, ev.Tick())
        raise AssertionError("wake() never lets go")

    def win(self, now_ms: float = 0, voters: tuple[int, ...] = (2,)) -> list[ev.Effect]:
        """Grant whatever was asked until the core is elected."""
        effects: list[ev.Effect] = []
        for _ in range(2):
            asked = self.core.round
            assert asked is not None
            for voter in voters:
                effects += self.hear(now_ms, voter, Granted(asked.round_id, asked.term, asked.real))
        return effects

    def ack(self, now_ms: float, sender: int = 2, sequence: int = 0, **changes: int) -> list[ev.Effect]:
        """Acknowledge the newest renewal, or the one of that number, with the newest document stored."""
        lease = self.core.lease
        assert lease is not None
        message = Ack(lease.term, lease.boot, sequence or lease.sequence, self.core.record.stamp)
        return self.hear(now_ms, sender, replace(message, **changes))  # type: ignore[arg-type]

    def lead(self, **options: int) -> list[ev.Effect]:
        """Start, win and gain a lease, all at 0 ms."""
        return self.start() + self.win() + self.ack(0)


def renew(term: int = 1, sequence: int = 1, boot: int = 1, lease_ms: int = L_MS, doc: Document | None = None) -> Renew:
    """A renewal."""
    return Renew(term, boot, sequence, lease_ms, Stamp(term, 1) if doc is None else doc.stamp, doc)


def pre_vote(term: int, stamp: Stamp = NEWEST, number: int = 1) -> PreVote:
    """A pre-vote; its document is newer than anything unless told otherwise."""
    return PreVote(RoundId(1, number), term, stamp)


def vote(term: int, stamp: Stamp = NEWEST, number: int = 1) -> Vote:
    """A vote."""
    return Vote(RoundId(1, number), term, stamp)


def sent(effects: list[ev.Effect], kind: type[M]) -> list[M]:
    """The messages of that kind."""
    return [item.message for item in effects if isinstance(item, ev.Send) and isinstance(item.message, kind)]


def sent_to(effects: list[ev.Effect], kind: type[M]) -> list[int]:
    """To whom messages of that kind went."""
    return [item.to for item in effects if isinstance(item, ev.Send) and isinstance(item.message, kind)]


def only(effects: list[ev.Effect], kind: type[M]) -> list[M]:
    """The effects of that kind."""
    return [item for item in effects if isinstance(item, kind)]


def order(effects: list[ev.Effect]) -> list[str]:
    """The names of the effects in their order, notes left out, messages by their own name."""
    return [
        type(item.message if isinstance(item, ev.Send) else item).__name__
        for item in effects
        if not isinstance(item, ev.Note)
    ]


def refusals(effects: list[ev.Effect]) -> list[str]:
    """The reasons of refused votes and pre-votes."""
    return [message.reason for message in sent(effects, Refused)]
