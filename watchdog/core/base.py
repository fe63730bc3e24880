"""The state of the decision core, and what every part of it needs: transitions, effects, deadlines.

The engine is one object in several files: this one holds the state; `following`, `half`, `standing`, `leading`,
`voters` and `founding` hold the rules of the protocol by role; `engine` dispatches. Nothing here reads a clock:
`self.now_ns` is the instant that `step` was told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core.consensus import AskKey, PoolView, Waiting, Wanted
from pgvigil.watchdog.core.consensus import CoreConsensus as CoreConsensus
from pgvigil.watchdog.core.events import (
    Answer,
    BackendsSeen,
    Effect,
    FenceState,
    Level,
    Note,
    PeerView,
    Persist,
    Send,
    Views,
)
from pgvigil.watchdog.core.lease import NS_PER_MS, Lease, Promise
from pgvigil.watchdog.core.messages import Message, Outcome, RoundId
from pgvigil.watchdog.core.quorum import majority
from pgvigil.watchdog.core.rank import Standing, rank
from pgvigil.watchdog.core.record import BLANK_STAMP, SENTENCES, Backend, Cause, Document, QuorumRule, Record, Stamp
from pgvigil.watchdog.core.states import State, Trigger, follow


@dataclass(frozen=True, slots=True)
class CoreNode:
    """A configured node, as far as decisions go."""

    node_id: int
    label: str
    witness: bool
    priority: int


@dataclass(frozen=True, slots=True)
class CoreCommand:
    """A user's command that runs on the leader only: its policy is once or retry."""

    name: str
    policy: str


@dataclass(frozen=True, slots=True)
class CoreRemoval:
    """Which voters are removed without an operator: those that are stopped, lost, never seen for so long (0: never)."""

    shutdown: bool = False
    lost_ms: int = 0
    no_show_ms: int = 0


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What the core is told once: `nodes` tells peers, not voters (P18).

    `lease_ms`, `quorum` and `tie_breaker` are proposals of the file; what counts stands in the document (P19, P22 a).
    """

    node_id: int
    nodes: tuple[CoreNode, ...]
    lease_ms: int
    renew_ms: int
    preempt: bool
    commands: tuple[CoreCommand, ...] = ()
    removal: CoreRemoval = CoreRemoval()
    quorum: QuorumRule = QuorumRule.MAJORITY
    tie_breaker: str = ""
    consensus: CoreConsensus = field(default_factory=CoreConsensus)

    @property
    def stagger_ns(self) -> int:
        """P10: half a renewal interval; at least two round trips and two writes, see `Base.stagger_ns`."""
        return self.renew_ms * NS_PER_MS // 2

    @property
    def round_ns(self) -> int:
        """P13: how long a round of questions may take; one of votes may take longer, see `Base.round_ns`."""
        return self.renew_ms * NS_PER_MS


@dataclass(slots=True)
class Round:
    """One round of questions (P11, P13)."""

    round_id: RoundId
    term: int
    real: bool
    ends_at_ns: int
    yes: set[int]
    no: set[int]
    reasons: dict[int, str]


@dataclass(slots=True)
class HandOver:
    """A planned hand-over on its way, and who asked for it. `asker` is a node id, or 0 for this node's operator."""

    reason: str
    successor: int
    deadline_ns: int
    request_id: int | None
    asker: int
    stop: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the voters that the leader has proposed as `stamp`, and who asked: a node in its life `boot`.

    `asker` 0: nobody asked, the leader acts by the rules for nodes that are gone or back.
    """

    asker: int
    boot: int
    request_id: int | None
    stamp: Stamp
    text: str


@dataclass(slots=True)
class Wish:
    """A change of the voters that was asked on this node, until its answer; `asked` says that a leader was.

    `request_id` None: the wish of a node that is being stopped.
    """

    request_id: int | None
    add: int
    remove: int
    epoch: int
    cause: Cause
    deadline_ns: int
    next_ask_ns: int
    asked: bool
    why_not: str


Draw = Callable[[int], int]


class Base(ABC):
    """State and small helpers; no rule of the protocol."""

    def __init__(
        self, settings: CoreSettings, record: Record, draw: Draw, now_ns: int, restart_wait_until_ns: int
    ) -> None:
        """`record.boot` is this start's and already durable; `draw(n)` gives a random 0 <= i < n."""
        self.settings = settings
        self.me = settings.node_id
        self.record = record
        self.draw = draw
        self.now_ns = now_ns
        self.started_at_ns = now_ns
        self.state = State.BLANK
        self.sentence = "starts"
        self.effects: list[Effect] = []
        # the voter
        self.promise: Promise | None = None
        self.restart_wait_until_ns = restart_wait_until_ns
        self.known_term = record.term
        self.leader_id = 0
        self.leader_term = 0
        self.leader_heard_ns: int | None = None
        self.released_heard_term = 0
        self.claim_heard_ns = now_ns
        self.heard_ns: dict[int, int] = {}
        self.dead_since_ns: dict[int, int] = {}
        self.vote_granted_until_ns = 0
        self.vote_granted_to = 0
        # the candidate
        self.round: Round | None = None
        self.round_ns = settings.round_ns  # P13: the limit of the next round of votes; changes only when one ends
        self.round_number = 0
        self.free_since_ns: int | None = None
        self.pause_until_ns = 0
        self.no_stand_until_ns = 0
        self.stepped_back_in_round = 0
        self.unranked_until_ns: dict[int, int] = {}
        self.successor = 0
        self.successor_until_ns = 0
        # the leader
        self.lease: Lease | None = None
        self._witnesses = frozenset(node.node_id for node in settings.nodes if node.witness)
        self._voters_of: Document | None = None
        self._voter_ids: tuple[int, ...] = ()
        self.stored: dict[int, tuple[int, Stamp]] = {}  # by node: its record's id, and the stamp it has stored
        self.committed_stamp: Stamp | None = None
        self.hand_over: HandOver | None = None
        self.hand_over_told: HandOver | None = None
        self.change_request: Change | None = None
        self.wish: Wish | None = None
        self.leaving = False
        self.acked_ns: dict[int, int] = {}
        self.absent_since_ns: dict[int, int] = {}
        self.back_since_ns: dict[int, int] = {}
        self.better_since_ns: int | None = None
        self.keeps_majority_until_ns = 0
        self.vip_let_go_ns: int | None = None
        self.started_tokens: set[tuple[int, int]] = set()  # term and token
        self.ended_commands: dict[int, tuple[bool, str]] = {}
        # founding
        self.hellos: dict[int, tuple[int, int, bool, int]] = {}
        self.next_hello_ns = now_ns
        self.waiting_said = False
        # beliefs
        self.views = Views(Health.UNKNOWN, "lifecheck has not reported yet", ())
        self.fence = FenceState(True, "")
        self.obstacles: dict[str, str] = {}
        # what is committed, as far as this node knows
        self.agreed: Document | None = None
        self.told_committed = BLANK_STAMP
        # backends: what is seen and asked here, and as leader what others ask
        self.seen: BackendsSeen | None = None
        self.seen_number = 0
        self.next_seen_ns = now_ns
        self.pools: dict[int, PoolView] = {}
        self.wanted: dict[int, Wanted] = {}
        self.led_ns = now_ns  # when something was agreed last
        self.waiting: dict[AskKey, Waiting] = {}
        self.told_asks: dict[tuple[AskKey, int], tuple[Outcome, str]] = {}  # by ask and its record
        self.table_since_ns: int | None = None
        self.unwatched_since_ns: int | None = None
        self.unlisted_since_ns: dict[int, int] = {}
        self.roles_since: tuple[tuple[Backend, ...], int] | None = None
        self.doubt_until_ns = 0
        self.expected_wake_ns: int | None = None
        self.stopping: str | None = None
        self.stop_deadline_ns: int | None = None
        self.warned: set[str] = set()

    # --- effects ----------------------------------------------------------------------------------

    def emit(self, effect: Effect) -> None:
        """Add one effect; the order is the order of carrying out."""
        self.effects.append(effect)

    def send(self, to: int, message: Message) -> None:
        """One message to another node."""
        self.emit(Send(to, message))

    def send_all(self, message: Message) -> None:
        """To every other configured node, voter or not (P1)."""
        for node in self.settings.nodes:
            if node.node_id != self.me:
                self.send(node.node_id, message)

    def persist(self, **changes: object) -> None:
        """Change the record; nothing that follows leaves the node before it is durable."""
        record = replace(self.record, **changes)  # type: ignore[arg-type]
        if record != self.record:
            self.record = record
            self.emit(Persist(record))

    def note(self, text: str, level: Level = Level.INFO) -> None:
        """One sentence for the log."""
        self.emit(Note(level, text))

    def note_once(self, key: str, text: str, level: Level = Level.WARNING) -> None:
        """A sentence that is said once until `forget` is called for its key."""
        if key not in self.warned:
            self.warned.add(key)
            self.note(text, level)

    def answer(self, request_id: int | None, accepted: bool, text: str, final: bool = True) -> None:
        """Answer this node's operator, if one asked."""
        if request_id is not None:
            self.emit(Answer(request_id, final, accepted, text))

    def go(self, trigger: Trigger, reason: str = "", term: int | None = None) -> None:
        """Follow one row of the transition table and say its sentence."""
        row = follow(self.state, trigger)
        self.state = row.to
        shown = self.record.term if term is None else term
        self.sentence = row.sentence.format(reason=reason, term=shown)
        self.note(self.sentence)

    # --- facts ------------------------------------------------------------------------------------

    @property
    def document(self) -> Document | None:
        """The newest document that this node has stored."""
        return self.record.document

    @property
    def voter_ids(self) -> tuple[int, ...]:
        """P18: voters come from the newest stored document, never from the file."""
        document = self.record.document
        if document is not self._voters_of:  # a document is never changed, only replaced
            self._voters_of = document
            self._voter_ids = () if document is None else tuple(voter.node_id for voter in document.voters)
        return self._voter_ids

    @property
    def quorum(self) -> int:
        """How many voters make a majority."""
        return majority(len(self.voter_ids))

    @property
    def lease_ns(self) -> int:
        """L of the document (P19), or the file's proposal before there is one."""
        return (self.settings.lease_ms if self.document is None else self.document.lease_ms) * NS_PER_MS

    @property
    def renew_ns(self) -> int:
        """R, kept to at most L/3 even if the document's L is shorter than the file's."""
        return min(self.settings.renew_ms * NS_PER_MS, self.lease_ns // 3)

    @property
    def stagger_ns(self) -> int:
        """P10: half a round, so that it grows with the writes that a round of votes has to wait for."""
        return self.round_ns // 2

    def label(self, node_id: int) -> str:
        """A node's name for people."""
        return next((node.label for node in self.settings.nodes if node.node_id == node_id), f"node {node_id}")

    def witness(self, node_id: int) -> bool:
        """Whether the node votes but never leads."""
        return node_id in self._witnesses

    def is_voter(self, node_id: int, record_id: int) -> bool:
        """P18: a voter is known by its id and by its record."""
        voter = None if self.document is None else self.document.voter(node_id)
        return voter is not None and voter.record_id == record_id and record_id != 0

    @property
    def named(self) -> bool:
        """Whether the stored document names this very record as a voter."""
        return self.is_voter(self.me, self.record.record_id)

    def removal_sentence(self) -> str:
        """Why this node is no voter, as far as the document says, and what brings it back."""
        removed = None if self.document is None else self.document.removal(self.me)
        if self.named or removed is None:
            return ""
        same = removed.record_id in (0, self.record.record_id)
        again = f"`pgvigil node add {self.label(self.me)}` adds it again"
        if removed.returns and same:
            again = "the leader adds it again by itself when it has followed for a while"
        return f"{SENTENCES[removed.cause]}; {again}"

    @property
    def leading(self) -> bool:
        """Whether this node sends renewals."""
        return self.state in (State.ELECTED, State.LEADER)

    def lease_held(self) -> bool:
        """Whether this node's lease runs at this instant."""
        return self.lease_held_at(self.now_ns)

    def lease_held_at(self, now_ns: int) -> bool:
        """Whether this node's lease runs at an instant: what every action outside checks right before it (P21)."""
        return self.lease is not None and self.lease.held(now_ns)

    def leader_at(self, now_ns: int) -> int:
        """The leader while its lease, or this node's promise to it, runs; 0 afterwards, for it may be another one."""
        if self.leader_id == self.me:
            known = self.lease_held_at(now_ns)
        else:
            known = self.leader_heard_ns is not None and now_ns < self.leader_heard_ns + self.lease_ns
        return self.leader_id if known else 0

    def unfit_reason(self) -> str | None:
        """Why this node cannot lead, apart from promises and waiting; None if it can (P10)."""
        if self.witness(self.me):
            return "it is a witness"
        if self.document is not None and self.document.paused:
            return "the cluster is paused"
        if self.views.pgpool is not Health.ALIVE:
            return f"its pgpool-II is {self.views.pgpool.value}: {self.views.evidence}"
        if self.views.unfit:
            return self.views.unfit
        if self.obstacles:
            return next(iter(self.obstacles.values()))
        if not self.fence.can_hold:
            return f"it cannot hold the VIP safely: {self.fence.reason}"
        return None

    def standing(self) -> Standing:
        """This node in the order of rank."""
        mine = next((node.priority for node in self.settings.nodes if node.node_id == self.me), 1)
        return Standing(self.me, mine, self.started_at_ns)

    def view(self, node_id: int) -> PeerView | None:
        """What lifecheck believes of a peer."""
        return next((peer for peer in self.views.peers if peer.node_id == node_id), None)

    def candidates(self) -> list[PeerView]:
        """The other nodes that may stand: voters, no witness, believed alive and electable, not releasing (P9, P10).

        In self-doubt a verdict of death counts for nothing.
        """
        doubting = self.now_ns < self.doubt_until_ns
        return [
            peer
            for peer in self.views.peers
            if peer.node_id in self.voter_ids
            and not self.witness(peer.node_id)
            and (peer.health is Health.ALIVE or (doubting and peer.health is Health.DEAD))
            and (peer.electable or doubting)
            and self.now_ns >= self.unranked_until_ns.get(peer.node_id, 0)
        ]

    def rank(self) -> int:
        """P10: how many nodes should stand before this one."""
        others = [Standing(peer.node_id, peer.priority, peer.started_at_ns) for peer in self.candidates()]
        chosen = self.successor if self.now_ns < self.successor_until_ns else 0
        if chosen == self.me:
            return 0
        mine = rank(self.standing(), others)
        if chosen and any(other.node_id == chosen and not other.better_than(self.standing()) for other in others):
            return mine + 1
        return mine

    def better(self, node_id: int) -> bool:
        """P13: whether a node ranks before this one."""
        if self.now_ns < self.successor_until_ns and self.me != node_id and self.successor in (self.me, node_id):
            return self.successor == node_id
        peer = self.view(node_id)
        if peer is None:
            return node_id < self.me
        return Standing(node_id, peer.priority, peer.started_at_ns).better_than(self.standing())

    @abstractmethod
    def stop_leading(self) -> None:
        """Forget the lease; the promise to oneself stays (P3)."""

    @abstractmethod
    def tell(self, hand_over: HandOver, accepted: bool, text: str, final: bool = True) -> None:
        """Answer whoever asked for a hand-over."""
