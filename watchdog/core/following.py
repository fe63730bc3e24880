"""What a node does as a voter: promises, acknowledgements, votes (PROTOCOL 3, 4, 5)."""

from __future__ import annotations

from pgvigil.watchdog.core.agreed import Agreed
from pgvigil.watchdog.core.events import CloseGate, DropVip, Level
from pgvigil.watchdog.core.lease import NS_PER_MS, promise_on_renewal
from pgvigil.watchdog.core.messages import Ack, Granted, PreVote, Refused, Release, Renew, RenewRefused, Vote
from pgvigil.watchdog.core.record import NOBODY, Document
from pgvigil.watchdog.core.states import State, Trigger


class Following(Agreed):
    """The voter's side."""

    def on_renew(self, sender: int, record_id: int, message: Renew) -> None:
        """P2: refuse an older term; else make everything durable, promise, acknowledge."""
        self.claim_heard_ns = self.now_ns  # P22 d: heard, whatever becomes of it
        if message.term < self.record.term:
            self.send(sender, RenewRefused(message.term, message.boot, self.record.term))
            return
        if message.term == self.released_heard_term:
            return  # P8: a released term is over, whatever still arrives of it
        if self._foreign_claim(sender, message.term):
            return
        if message.term > self.record.term or (self.lease is not None and message.term > self.lease.term):
            self._enter_term_of(sender, message.term)
        before = self.document
        self._take_document(message.document, f"{self.label(sender)} sent it")
        if message.lease_ms > self.record.promised_ms:
            self.persist(promised_ms=message.lease_ms)  # P19: durable before the first promise of it
        until_ns = self.now_ns + message.lease_ms * NS_PER_MS
        promise = promise_on_renewal(self.promise, sender, message.term, message.boot, message.sequence, until_ns)
        if promise is None:
            return  # P6: an older renewal prolongs nothing
        self.promise = promise
        self._follow(sender, message.term)
        self.hear_committed(message, before)
        self.send(sender, Ack(message.term, message.boot, message.sequence, self.record.stamp))

    def _foreign_claim(self, sender: int, term: int) -> bool:
        """One leader per term: a second claimant is nobody's leader, and somebody must look into it."""
        own = term == self.record.term and self.record.won_term == term
        other = self.leader_term == term and self.leader_id not in (0, sender)
        if own or other:
            holder = self.label(self.me if own else self.leader_id)
            self.note_once(
                f"claim {sender} {term}",
                f"{self.label(sender)} claims term {term}, which {holder} holds; the claim is ignored",
                Level.ERROR,
            )
        return own or other

    def _enter_term_of(self, leader: int, term: int) -> None:
        """P2, P12: a renewal of a higher term proves an election; P7: it closes the gate at once."""
        if self.state in (State.LEADER, State.ELECTED, State.RELEASING):
            self.emit(CloseGate())
            self.emit(DropVip())
            self.go(Trigger.HIGHER_TERM, f"{self.label(leader)} leads the higher term {term}")
            if self.hand_over is not None and self.hand_over.request_id is not None:
                self.hand_over_told = self.hand_over
            self.hand_over = None
            self.stop_leading()
        self.known_term = max(self.known_term, term)
        if term > self.record.term:
            self.persist(term=term, voted_for=leader)

    def _follow(self, leader: int, term: int) -> None:
        if self.state in (State.ASKING, State.VOTING):
            self.round = None
            self.go(Trigger.FOLLOWS, f"{self.label(leader)}, leader of term {term}")
        elif self.leader_id != leader or self.leader_term != term:
            self.sentence = f"follows {self.label(leader)}, leader of term {term}"
            self.note(self.sentence)
        self.leader_id, self.leader_term, self.leader_heard_ns = leader, term, self.now_ns
        self.successor_until_ns = 0
        self.unranked_until_ns.pop(leader, None)
        self._hand_over_succeeded(leader, term)

    def _hand_over_succeeded(self, leader: int, term: int) -> None:
        told = self.hand_over_told
        if told is not None:
            self.hand_over_told = None
            self.tell(told, True, f"{self.label(leader)} leads term {term} now")

    def _take_document(self, document: Document | None, source: str) -> bool:
        """Store a newer document; the voters in it count from now on (P18)."""
        if document is None or document.stamp <= self.record.stamp:
            return False
        self.persist(document=document)
        self._check_named(source)
        return True

    def _check_named(self, source: str) -> None:
        if self.named and self.state is State.BLANK:
            self.go(Trigger.NAMED, source)
        elif not self.named and self.state in (State.STANDBY, State.ASKING, State.VOTING):
            self.round = None
            why = self.removal_sentence()
            reason = f"document {self.record.stamp} does not name this record{f' ({why})' if why else ''}; {source}"
            self.go(Trigger.UNNAMED, reason)

    def on_release(self, sender: int, record_id: int, message: Release) -> None:
        """P8: the promise ends only if leader, term and boot are equal and its renewal is not newer."""
        if message.term >= self.record.term:
            self.released_heard_term = max(self.released_heard_term, message.term)
        promise = self.promise
        if message.term >= self.record.term or (promise is not None and promise.term == message.term):
            self.unranked_until_ns[sender] = self.now_ns + self._unranked_ns()
            self.successor, self.successor_until_ns = message.successor, self.now_ns + self.lease_ns
        if (
            promise is not None
            and (promise.leader, promise.term, promise.boot) == (sender, message.term, message.boot)
            and promise.sequence <= message.sequence
        ):
            self.promise = None
            self.leader_id = 0
            self.sentence = f"waits for a new leader: {self.label(sender)} released term {message.term}"
            self.note(self.sentence)

    def _unranked_ns(self) -> int:
        """P9: how long a releasing node neither ranks nor stands."""
        return self.lease_ns + max(len(self.voter_ids), 1) * self.settings.stagger_ns

    # --- votes ------------------------------------------------------------------------------------

    def on_pre_vote(self, sender: int, record_id: int, message: PreVote) -> None:
        """P11: an answer to a pre-vote promises and changes nothing."""
        reason = self._refusal(sender, record_id, message) or self._pre_vote_refusal(sender)
        if reason is not None:
            self._refuse(sender, message, reason, real=False)
            return
        if self.state is State.ASKING:
            self.stepped_back_in_round = self.round_number
            self.round = None
            self.pause_until_ns = self.now_ns + self.settings.round_ns
            self.go(Trigger.STEPS_BACK, f"{self.label(sender)} ranks before it")
        self.send(sender, Granted(message.round_id, message.term, real=False))

    def on_vote(self, sender: int, record_id: int, message: Vote) -> None:
        """P11: one vote per term, durable before the grant; P5: it neither gives nor ends a promise."""
        reason = self._refusal(sender, record_id, message)
        if reason is not None:
            self._refuse(sender, message, reason, real=True)
            return
        if self.state in (State.ASKING, State.VOTING) and message.term > self.record.term:
            self.round = None
            self.pause_until_ns = self.now_ns + self.settings.round_ns
            self.go(Trigger.ROUND_LOST, f"it votes for {self.label(sender)} in term {message.term}")
        elif self.state is State.ELECTED and message.term > self.record.term:
            self.emit(CloseGate())
            self.emit(DropVip())
            self.go(Trigger.HIGHER_TERM, f"it votes for {self.label(sender)} in term {message.term}")
            self.stop_leading()
        self.known_term = max(self.known_term, message.term)
        self.persist(term=message.term, voted_for=sender)
        self.vote_granted_to = sender
        self.vote_granted_until_ns = self.now_ns + self._granted_ns(message)
        if message.round_ms:
            self.pause_until_ns = self.vote_granted_until_ns  # it may be winning for longer than the stagger
        self.send(sender, Granted(message.round_id, message.term, real=True))

    def _granted_ns(self, message: Vote) -> int:
        """P13: one round. A candidate with slow disks tells its own, of L at most; half of it more is for the write
        that stands between its victory and its first renewal.
        """
        told_ns = min(message.round_ms * NS_PER_MS, self.lease_ns)
        return max(told_ns * 3 // 2, self.settings.round_ns)

    def _refusal(self, sender: int, record_id: int, message: PreVote | Vote) -> str | None:
        """Why this node will not vote for a candidate, or None (P5, P11, P14, P18)."""
        if not self.named and (self.document is None or message.stamp <= self.record.stamp):
            return "it is no voter"  # a newer document may name it: the candidate counts by that one
        if self.now_ns < self.restart_wait_until_ns:  # P14: promises of the last life may still run
            return f"it waits {(self.restart_wait_until_ns - self.now_ns) // NS_PER_MS} ms after its restart"
        promise = self.promise
        if promise is not None and promise.leader != sender and promise.live(self.now_ns):  # P5
            return f"it has promised itself to {self.label(promise.leader)}"
        if message.term < self.record.term:
            return f"term {message.term} is older than its term {self.record.term}"
        if message.term == self.record.term and self.record.voted_for not in (NOBODY, sender):
            return f"it has voted for {self.label(self.record.voted_for)} in term {message.term}"
        if message.stamp < self.record.stamp:
            return f"document {message.stamp} is older than its document {self.record.stamp}"
        if message.stamp == self.record.stamp and not self.is_voter(sender, record_id):
            return "the candidate is no voter of its document"
        return None

    def _pre_vote_refusal(self, sender: int) -> str | None:
        """P13: who asks while this node asks or has just voted."""
        if self.vote_granted_to != sender and self.now_ns < self.vote_granted_until_ns:
            return f"it has just voted for {self.label(self.vote_granted_to)}"
        if self.state is State.ASKING:
            if not self.better(sender):
                return "it ranks before the candidate and asks itself"
            if self.stepped_back_in_round and self.round_number - self.stepped_back_in_round < 2:
                return "it stepped back a round ago"
        if self.state is State.VOTING:
            return "it stands itself"
        return None

    def _refuse(self, sender: int, message: PreVote | Vote, reason: str, real: bool) -> None:
        """P11: a refusal because of an older document carries the newer one."""
        newer = self.document if message.stamp < self.record.stamp else None
        self.send(sender, Refused(message.round_id, message.term, real, self.record.term, reason, newer))
