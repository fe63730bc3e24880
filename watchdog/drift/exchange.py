"""How a node finds out in what its settings differ from the leader's, and what it makes of that; pure.

Every node tells every other one the digest of its settings, every `REPEAT_NS` and whenever it changes. Whose digest
is not the leader's asks the leader for its settings and compares. Settings are changed node by node, so a difference is
warned of only once it has lasted for `GRACE_NS`; one that is fatal keeps this node out at once, because leadership may
move at any moment. The reference is the leader, whoever it is: drift never unseats one. Without a leader it is what a
majority of the voters agrees on; otherwise the loss of a leader in the middle of a change would leave nobody to lead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.core.events import Note
from pgvigil.watchdog.core.lease import NS_PER_S
from pgvigil.watchdog.drift import facts as made_of
from pgvigil.watchdog.drift import messages
from pgvigil.watchdog.drift.compare import Difference, differences, in_short
from pgvigil.watchdog.drift.diary import Diary
from pgvigil.watchdog.drift.facts import FATAL_SCHEME, Facts
from pgvigil.watchdog.drift.messages import Ask, State, Values

REPEAT_NS = 10 * NS_PER_S
GREET_NS = NS_PER_S
"""A node that has not been heard is told more often, for it may just have come."""
AGAIN_NS = GREET_NS // 2
TOLD_AT_ONCE = 16
ASK_NS = 2 * NS_PER_S
SILENT_NS = 60 * NS_PER_S
"""What a node said of its differences is not shown for longer than this after its last word."""
NOBODY = 0


@dataclass(frozen=True, slots=True)
class Send:
    """One body to one node."""

    to: int
    body: bytes


@dataclass(frozen=True, slots=True)
class KeepOut:
    """Why this node must not lead; empty: nothing is against it."""

    reason: str


Effect = Send | KeepOut | Note


@dataclass(slots=True)
class Peer:
    """What another node has said last, and what was said to it."""

    boot: int = 0
    number: int = 0
    state: State | None = None
    heard_ns: int = 0
    told_ns: int | None = None
    answered_ns: int | None = None


class Exchange:
    """`tick` about once a second, `take` for every message; both give effects."""

    def __init__(self, me: int, labels: Mapping[int, str], own: Facts) -> None:
        """`labels` names every node of the file by id, this one among them."""
        self._me = me
        self._labels = labels
        self._parts: dict[str, Facts] = {"file": own}
        self._peers = {node: Peer() for node in labels if node != me}
        self._leader = NOBODY
        self._voters: tuple[int, ...] = tuple(labels)
        self._gathered: dict[int, Values] = {}
        self._reference: tuple[bytes, Facts] | None = None
        self._asked_ns: int | None = None
        self._kept_out: str | None = None
        self._diary = Diary(labels)
        self.found: tuple[Difference, ...] = ()
        self.compared_with = NOBODY
        self._add_up()

    # --- this node's settings ---------------------------------------------------------------------

    def set_part(self, name: str, facts: Facts, now_ns: int) -> list[Effect]:
        """Settings from another source than the file ("pgpool"); none if they are not known."""
        if self._parts.get(name, {}) == facts:
            return []
        self._parts[name] = facts
        self._add_up()
        self._compare()
        self._tell_all()
        return [*self._decide(), *self._tell_due(now_ns)]

    def _add_up(self) -> None:
        """Both digests of all that is known."""
        together = {key: text for part in self._parts.values() for key, text in part.items()}
        self._facts: Facts = {key: together[key] for key in sorted(together)}
        self._bodies: tuple[bytes, ...] = ()
        self._all, self._fatal = made_of.digest(self._facts), made_of.fatal_digest(self._facts)

    # --- time and messages ------------------------------------------------------------------------

    def tick(self, now_ns: int, leader: int, voters: tuple[int, ...]) -> list[Effect]:
        """Repeat what has to be repeated. `leader` is 0 while none is known."""
        effects: list[Effect] = []
        self._voters = voters or self._voters
        if leader != self._leader:
            self._leader, self._asked_ns = leader, None
            if leader != NOBODY:
                self._gathered, self._reference = {}, None
                self._diary.new_leader(leads=leader == self._me)
        effects += self._settle(now_ns)
        return [*effects, *self._tell_due(now_ns), *self._ask(now_ns), *self._notes(now_ns)]

    def take(self, sender: int, boot: int, number: int, body: bytes, now_ns: int) -> list[Effect]:
        """One message of another node, or `PeerError`."""
        peer = self._peers.get(sender)
        if peer is None:
            raise PeerError(f"settings of node {sender}, which the configuration does not name")
        said = messages.decode(body)
        if isinstance(said, Ask):
            return self._answer(sender, peer, said, now_ns)
        if isinstance(said, Values):
            return self._gather(sender, said, now_ns)
        # A lost record begins to count its boots anew, so a lower one may be newer.
        if boot == peer.boot and number <= peer.number:
            return []
        peer.boot, peer.number, peer.state, peer.heard_ns = boot, number, said, now_ns
        effects = self._settle(now_ns)
        if said.yours != self._all and (peer.told_ns is None or now_ns >= peer.told_ns + AGAIN_NS):
            effects.append(self._tell(sender, now_ns))
        return [*effects, *self._tell_due(now_ns), *self._ask(now_ns)]

    def _tell(self, node: int, now_ns: int) -> Send:
        peer = self._peers[node]
        peer.told_ns = now_ns
        yours = b"" if peer.state is None else peer.state.all
        told = messages.told(self.found)
        state = State(FATAL_SCHEME, self._all, self._fatal, yours, self.compared_with, len(self.found), told)
        return Send(node, messages.encode(state))

    def _tell_all(self) -> None:
        """Something is new: everybody shall know soon."""
        for peer in self._peers.values():
            peer.told_ns = None

    def _tell_due(self, now_ns: int) -> list[Effect]:
        """A few at a time, the leader first: all of a large cluster at once would hold the loop up."""
        due = [(node != self._leader, peer.told_ns or 0, node) for node, peer in self._peers.items()
               if self._is_due(peer, now_ns)]  # fmt: skip
        return [self._tell(node, now_ns) for _, _, node in sorted(due)[:TOLD_AT_ONCE]]

    @staticmethod
    def _is_due(peer: Peer, now_ns: int) -> bool:
        heard = peer.state is not None and now_ns < peer.heard_ns + 2 * REPEAT_NS
        return peer.told_ns is None or now_ns >= peer.told_ns + (REPEAT_NS if heard else GREET_NS)

    # --- the leader's settings --------------------------------------------------------------------

    def _wanted(self) -> bytes | None:
        """The digest of the settings that this node has to see, if it lacks them."""
        peer = self._peers.get(self._leader)
        state = None if peer is None else peer.state
        if state is None or state.all == self._all:
            return None
        return None if self._reference is not None and self._reference[0] == state.all else state.all

    def _ask(self, now_ns: int) -> list[Effect]:
        wanted = self._wanted()
        if wanted is None or (self._asked_ns is not None and now_ns < self._asked_ns + ASK_NS):
            return []
        self._asked_ns = now_ns
        return [Send(self._leader, messages.encode(Ask(wanted)))]

    def _answer(self, sender: int, peer: Peer, ask: Ask, now_ns: int) -> list[Effect]:
        """Nobody needs all settings several times a second; who asks for old ones is told the new digest."""
        if peer.answered_ns is not None and now_ns < peer.answered_ns + ASK_NS // 2:
            return []
        peer.answered_ns = now_ns
        if ask.wanted != self._all:
            return [self._tell(sender, now_ns)]
        if not self._bodies:
            self._bodies = tuple(messages.encode(values) for values in messages.parts(self._all, self._facts))
        return [Send(sender, body) for body in self._bodies]

    def _gather(self, sender: int, values: Values, now_ns: int) -> list[Effect]:
        if sender != self._leader or values.all != self._wanted():
            return []
        if any((one.all, one.parts) != (values.all, values.parts) for one in self._gathered.values()):
            self._gathered = {}
        self._gathered[values.part] = values
        if len(self._gathered) < values.parts:
            return []
        gathered, self._gathered = self._gathered, {}
        facts = {fact.key: fact.text for one in gathered.values() for fact in one.facts}
        if made_of.digest(facts) != values.all:
            raise PeerError(f"settings of node {sender} that are not those of their digest")
        self._reference = (values.all, facts)
        return [*self._settle(now_ns), *self._tell_due(now_ns)]

    # --- what follows -----------------------------------------------------------------------------

    def _settle(self, now_ns: int) -> list[Effect]:
        """Compare, decide, tell the log what is new, and have the others told."""
        before = self.found, self.compared_with
        self._compare()
        effects = self._decide()
        if before != (self.found, self.compared_with):
            self._tell_all()
            effects += self._notes(now_ns)
        return effects

    def _compare(self) -> None:
        """The differences from the leader; what was found last stands until the leader's settings are known."""
        if self._leader == self._me:
            self.found, self.compared_with = (), self._me
            return
        peer = self._peers.get(self._leader)
        state = None if peer is None else peer.state
        if state is None:
            return
        if state.all == self._all:
            self.found, self.compared_with = (), self._leader
        elif self._reference is not None and self._reference[0] == state.all:
            self.found, self.compared_with = differences(self._facts, self._reference[1]), self._leader

    def _decide(self) -> list[Effect]:
        """Whether this node may lead."""
        if self._leader == NOBODY:
            return self._without_leader()
        if self._leader != self.compared_with:
            return []
        fatal = [one for one in self.found if one.fatal]
        who = f"the leader {self._label(self._leader)}"
        return self._keep_out(f"its settings differ from those of {who}: {in_short(fatal)}" if fatal else "")

    def _without_leader(self) -> list[Effect]:
        """What most voters agree on decides; as long as nobody can tell, what was so stays so."""
        said = {node: peer.state.fatal for node, peer in self._peers.items()
                if node in self._voters and peer.state is not None and peer.state.scheme == FATAL_SCHEME}  # fmt: skip
        if self._me in self._voters:
            said[self._me] = self._fatal
        common, count = Counter(said.values()).most_common(1)[0] if said else (b"", 0)
        if count <= len(self._voters) // 2:
            return []
        if common == self._fatal:
            return self._keep_out("")
        names = ", ".join(self._label(node) for node in sorted(said) if said[node] == common)
        return self._keep_out(
            f"there is no leader, and a majority ({names}) agrees on other virtual IPs or voters than its own settings"
        )

    def _keep_out(self, reason: str) -> list[Effect]:
        if reason == self._kept_out or (not reason and self._kept_out is None):
            return []
        self._kept_out = reason or None
        return [KeepOut(reason)]

    def _label(self, node: int) -> str:
        return self._labels.get(node, f"node {node}")

    # --- for people -------------------------------------------------------------------------------

    def reports(self, now_ns: int) -> dict[int, State]:
        """What the other nodes said lately of their differences from the present leader."""
        return {
            node: peer.state
            for node, peer in self._peers.items()
            if peer.state is not None
            and now_ns < peer.heard_ns + SILENT_NS
            and peer.state.differing
            and self._leader in (NOBODY, peer.state.leader)
            and node != self._leader
        }

    @property
    def kept_out(self) -> str:
        """Why this node must not lead because of its settings; empty if it may."""
        return self._kept_out or ""

    def _notes(self, now_ns: int) -> list[Effect]:
        if self._leader == self._me:
            return [*self._diary.others(self.reports(now_ns), now_ns)]
        leader = self.compared_with if self.compared_with != self._me else NOBODY
        return [*self._diary.own(self.found, leader, now_ns)]

    def since_ns(self, difference: Difference) -> int | None:
        """When a difference of this node was first seen."""
        return self._diary.since_ns(difference)
