"""What a node does to become leader: waiting for its turn, pre-votes, votes (PROTOCOL 5)."""

from __future__ import annotations

from abc import abstractmethod

from pgvigil.watchdog.core.base import Round
from pgvigil.watchdog.core.half import Half
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Granted, PreVote, Refused, RoundId, Vote
from pgvigil.watchdog.core.quorum import Tally, tally
from pgvigil.watchdog.core.states import State, Trigger


class Standing(Half):
    """The candidate's side."""

    def advance_standing(self) -> None:
        """Stand when it is this node's turn, end rounds that are over."""
        if self.round is not None and self.now_ns >= self.round.ends_at_ns:
            if self.half_elects():  # P22 d; such a round always takes its whole time, so it tells nothing of the disks
                self.note(f"half of {len(self.voter_ids)} voters agree, and the tie-breaker answers")
                self._round_won(self.round)
            else:
                self._learn_pace(self.round)
                self._round_lost("no majority answered in time")
        if self.state in (State.ASKING, State.VOTING) and self.unfit_reason() is not None:
            self.round = None
            self.go(Trigger.UNFIT, str(self.unfit_reason()))
        stand_at_ns = self.stand_at_ns()
        if stand_at_ns is not None and self.now_ns >= stand_at_ns:
            self._ask()

    def stand_at_ns(self) -> int | None:
        """P10: the instant to stand, or None while something must happen first."""
        if self.free_since_ns is None:
            return None
        return max(self.free_since_ns + self.rank() * self.stagger_ns, self.pause_until_ns)

    def note_freedom(self) -> None:
        """P10: since when nothing but rank has kept this node from standing."""
        if not self._free():
            self.free_since_ns = None
        elif self.free_since_ns is None:
            self.free_since_ns = self.now_ns

    def _free(self) -> bool:
        return (
            self.state is State.STANDBY
            and self.stopping is None
            and self.named
            and (self.promise is None or not self.promise.live(self.now_ns))
            and self.now_ns >= self.restart_wait_until_ns  # P14
            and self.now_ns >= self.no_stand_until_ns  # P9
            and self.unfit_reason() is None
        )

    def freedom_wake_ns(self) -> list[int]:
        """Instants at which `_free` may become true by time alone."""
        if self.state is not State.STANDBY:
            return []
        promised_ns = 0 if self.promise is None else self.promise.until_ns
        return [at for at in (promised_ns, self.restart_wait_until_ns, self.no_stand_until_ns) if at > self.now_ns]

    def _next_round(self, term: int, real: bool) -> Round:
        self.round_number += 1
        round_id = RoundId(self.record.boot, self.round_number)
        limit_ns = self.round_ns if real else self.settings.round_ns
        return Round(round_id, term, real, self.now_ns + limit_ns, {self.me}, set(), {})

    def _ask(self) -> None:
        """P11, P12: pre-votes first, for a term above every term ever heard of."""
        term = self.next_term()
        if self.state is State.STANDBY:
            why = "no leader" if self.leader_id == 0 else f"{self.label(self.leader_id)} has not renewed in time"
            self.go(Trigger.STANDS, why, term)
        self.round = self._next_round(term, real=False)
        for voter in self.voter_ids:
            if voter != self.me:
                self.send(voter, PreVote(self.round.round_id, term, self.record.stamp))
        self._count()

    def _stand(self, term: int) -> None:
        """P11, P12: one's own vote is durable before it is asked for; it gives no promise (P5)."""
        if self.state is State.ASKING:
            self.go(Trigger.PREVOTES_WON, term=term)
        self.persist(term=term, voted_for=self.me)
        self.known_term = max(self.known_term, term)
        self.round = self._next_round(term, real=True)
        told_ms = 0 if self.round_ns == self.settings.round_ns else self.round_ns // NS_PER_MS
        for voter in self.voter_ids:
            if voter != self.me:
                self.send(voter, Vote(self.round.round_id, term, self.record.stamp, told_ms))
        self._count()

    def on_granted(self, sender: int, record_id: int, message: Granted) -> None:
        """Count a yes of this very round."""
        if self._of_this_round(message) and self.is_voter(sender, record_id) and self.round is not None:
            self.round.yes.add(sender)
            self._count()

    def on_refused(self, sender: int, record_id: int, message: Refused) -> None:
        """P12: remember the term; P11: take the newer document and ask again at once."""
        self.known_term = max(self.known_term, message.known_term)
        if not self._of_this_round(message) or self.round is None:
            return
        if self._take_document(message.document, f"{self.label(sender)} had a newer one"):
            if self.named and self.round is not None:
                self._ask_again()
            return
        if self.is_voter(sender, record_id):
            self.round.no.add(sender)
            self.round.reasons[sender] = message.reason
            self._count()

    def _ask_again(self) -> None:
        if self.state is State.VOTING:
            self.go(Trigger.ROUND_LOST, "a voter had a newer document", self.record.term)
        elif self.state is State.ASKING:
            self.go(Trigger.ROUND_LOST, "a voter had a newer document")
        self._ask()

    def _of_this_round(self, message: Granted | Refused) -> bool:
        asked = self.round
        return (
            asked is not None
            and message.round_id == asked.round_id
            and message.term == asked.term
            and message.real == asked.real
        )

    def _count(self) -> None:
        """P13: a round ends as soon as it is won or cannot be won."""
        asked = self.round
        if asked is None:
            return
        outcome = tally(self.voter_ids, asked.yes, asked.no)
        if outcome is not Tally.PENDING:
            self._learn_pace(asked)
        if outcome is Tally.LOST:
            said = "; ".join(f"{self.label(node)}: {reason}" for node, reason in sorted(asked.reasons.items()))
            self._round_lost(said or "a majority refused")
        elif outcome is Tally.WON:
            self._round_won(asked)

    def _round_won(self, asked: Round) -> None:
        """P11: after pre-votes come votes, after votes the term is won."""
        self.round = None
        if asked.real:
            self.won(asked.term)
        else:
            self._stand(asked.term)

    def _learn_pace(self, asked: Round) -> None:
        """P13: how long the next round of votes may take. Pre-votes write nothing, so they tell nothing of the disks.

        Candidate and voters have to write before they speak. A round that was not answered in time doubles the limit,
        up to L (writes that slow earn no lease either); answers within a quarter of it halve it, down to R.
        """
        left_ns = asked.ends_at_ns - self.now_ns
        if asked.real and left_ns <= 0:
            self.round_ns = max(min(2 * self.round_ns, self.lease_ns), self.settings.round_ns)
        elif asked.real and 4 * left_ns >= 3 * self.round_ns:
            self.round_ns = max(self.round_ns // 2, self.settings.round_ns)

    def _round_lost(self, reason: str) -> None:
        """P13: a random pause follows, so that two candidates do not meet for ever."""
        term = self.record.term if self.round is None else self.round.term
        self.round = None
        self.pause_until_ns = self.now_ns + 1 + self.draw(self.settings.round_ns)
        if self.state in (State.ASKING, State.VOTING):
            self.go(Trigger.ROUND_LOST, reason, term)

    @abstractmethod
    def won(self, term: int) -> None:
        """A majority has voted for this node; the leader's side goes on from here."""
