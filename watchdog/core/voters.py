"""Who votes: wishes to add or remove a voter, from any node to the leader and its answer back (PROTOCOL 7, P18).

The leader alone changes the voters, one at a time, and only while its own document is committed: then a majority of the
old voters and one of the new always share a node. A wish is repeated until it is answered, because messages are lost;
the epoch in it makes every copy but the first harmless. It refuses to call failed what may still surface (P16).
"""

from __future__ import annotations

from pgvigil.ipc.counted import counted
from pgvigil.watchdog.core.base import Change, HandOver, Wish
from pgvigil.watchdog.core.events import ChangeVoters, Leave, Level
from pgvigil.watchdog.core.handing_over import HandingOver
from pgvigil.watchdog.core.leading import HALF_FIRST, TOO_EARLY
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskVoters, Outcome, TellVoters
from pgvigil.watchdog.core.record import NOBODY, SENTENCES, Cause, Document
from pgvigil.watchdog.core.states import State

WISH_NS = 10_000 * NS_PER_MS

Answer = tuple[Outcome, str]


class Voters(HandingOver):
    """Changes of the voters, on the node that is asked and on the leader."""

    # --- the node that is asked -------------------------------------------------------------------

    def on_change_voters(self, event: ChangeVoters) -> None:
        """An operator's wish on this node; a node that does not lead passes it on."""
        document = self.document
        if self.state is State.LEADER and document is not None:
            ask = self._ask_for(event.request_id, event.add, event.remove, document.epoch, Cause.OPERATOR)
            answer = self._decide(self.me, ask)
            if answer is not None and answer[1] is HALF_FIRST:
                self.wish_for(event.request_id, event.add, event.remove, Cause.OPERATOR, leading=True)
            elif answer is not None:
                self.answer(event.request_id, answer[0] is Outcome.DONE, answer[1])
            return
        self.wish_for(event.request_id, event.add, event.remove, Cause.OPERATOR)

    def on_leave(self, event: Leave) -> None:
        """An operator wants this node out: a leader hands over first, then asks the next one."""
        if self.document is not None and not self.named:
            self.answer(event.request_id, True, f"{self.label(self.me)} is no voter; nothing was changed")
            return
        if self.state is not State.LEADER:
            self.wish_for(event.request_id, NOBODY, self.me, Cause.LEFT)
            return
        refusal = self._catching_up(ChangeVoters(event.request_id, NOBODY, self.me))
        if refusal is not None:  # the hand-over would be for nothing
            self.answer(event.request_id, False, f"refused: {refusal}")
            return
        self.wish_for(event.request_id, NOBODY, self.me, Cause.LEFT, leading=True)
        if self.wish is not None and self.wish.request_id == event.request_id:
            self._asked_to_hand_over(NOBODY, event.request_id, self.me)

    def tell(self, hand_over: HandOver, accepted: bool, text: str, final: bool = True) -> None:
        """The hand-over of a leader that leaves is only the first half of its operator's wish."""
        wish = self.wish
        ours = wish is not None and wish.request_id is not None and wish.request_id == hand_over.request_id
        if not ours or hand_over.asker != self.me:
            super().tell(hand_over, accepted, text, final)
        elif accepted:
            self.answer(hand_over.request_id, True, text, final=False)
        else:
            self.wish = None
            self.answer(hand_over.request_id, False, f"{text}; {self.label(self.me)} leads and stays a voter")

    def wish_for(self, request_id: int | None, add: int, remove: int, cause: Cause, leading: bool = False) -> None:
        """Begin to ask the leader; refuse where there is nobody to ask."""
        document = self.document
        if document is None:
            why = "this node has no document yet: it waits for a leader, or for the founding of its cluster"
            self.answer(request_id, False, f"refused: {why}; see `pgvigil status`")
        elif self.wish is not None:
            self.answer(request_id, False, "refused: another change asked here waits for its answer; try again")
        elif self.leader_id in (0, self.me) and not leading:
            self.answer(request_id, False, "refused: there is no leader to ask; see `pgvigil status`")
        else:
            until_ns = self.now_ns + WISH_NS
            why = "no answer of a leader"
            self.wish = Wish(request_id, add, remove, document.epoch, cause, until_ns, self.now_ns, False, why)

    def advance_voters(self) -> None:
        """Repeat the wish until it is answered, or for `WISH_NS`."""
        wish = self.wish
        if wish is None:
            return
        if self.now_ns >= wish.deadline_ns:
            self._wish_ends(False, self._no_answer(wish))
        elif self.now_ns >= wish.next_ask_ns and self.state is not State.RELEASING:
            if self.state is State.LEADER:
                self._wish_at_home(wish)
            elif self.leader_id not in (0, self.me):
                wish.next_ask_ns = self.now_ns + self.renew_ns
                wish.asked = True
                ask = self._ask_for(wish.request_id or 0, wish.add, wish.remove, wish.epoch, wish.cause)
                self.send(self.leader_id, ask)

    def _wish_at_home(self, wish: Wish) -> None:
        """The node that asked has become the leader meanwhile."""
        if wish.remove == self.me:
            wish.why_not = f"{self.label(self.me)} leads again; run `pgvigil switchover`, then this again"
            return
        ask = self._ask_for(wish.request_id or 0, wish.add, wish.remove, wish.epoch, wish.cause)
        answer = self._decide(self.me, ask)
        if answer is None:
            self.wish = None  # it is on its way as any change of this leader
        elif answer[0] is not Outcome.BUSY:
            self._wish_ends(answer[0] is Outcome.DONE, answer[1])

    def _no_answer(self, wish: Wish) -> str:
        if wish.asked:  # P16: a leader that was asked may have sent the change to others
            return f"unknown: {wish.why_not} within {WISH_NS // NS_PER_MS} ms; see `pgvigil status`"
        return f"refused: {wish.why_not}; see `pgvigil status`"

    def _wish_ends(self, accepted: bool, text: str) -> None:
        wish, self.wish = self.wish, None
        if wish is None:
            return
        if wish.request_id is None and not accepted:
            self.note(f"stays a voter while it is stopped: {text}", Level.WARNING)
        self.answer(wish.request_id, accepted, text)

    def on_tell_voters(self, sender: int, record_id: int, message: TellVoters) -> None:
        """The leader's answer; that of an earlier life's wish, or of an earlier wish, is dropped."""
        wish = self.wish
        if wish is None or (message.boot, message.request_id) != (self.record.boot, wish.request_id or 0):
            return
        if message.outcome is Outcome.BUSY:
            wish.why_not = f"no final answer ({message.text})"
            return
        self._wish_ends(message.outcome is Outcome.DONE, message.text)

    def voters_wake_ns(self) -> list[int]:
        """When the wish is due again, or over."""
        return [] if self.wish is None else [self.wish.next_ask_ns, self.wish.deadline_ns]

    def _ask_for(self, request_id: int, add: int, remove: int, epoch: int, cause: Cause) -> AskVoters:
        return AskVoters(self.record.boot, request_id, add, remove, epoch, cause)

    # --- the leader -------------------------------------------------------------------------------

    def on_ask_voters(self, sender: int, record_id: int, message: AskVoters) -> None:
        """Another node's wish."""
        change = self.change_request
        asked = (sender, message.boot, message.request_id)
        if change is not None and (change.asker, change.boot, change.request_id) == asked:
            return  # repeated, while the first copy is on its way
        answer = self._decide(sender, message)
        if answer is not None:
            self.send(sender, TellVoters(message.boot, message.request_id, *answer))

    def _decide(self, asker: int, ask: AskVoters) -> Answer | None:
        """The answer to a wish, or None if the change is on its way."""
        document, later = self.document, self._not_now()
        if document is None or later is not None:
            return Outcome.BUSY, later or "there is no document yet"
        done = self._done_already(document, ask)
        if done is not None:
            return done
        if ask.epoch != document.epoch:
            text = f"the voters have changed since then (epoch {ask.epoch}, now {document.epoch})"
            return Outcome.REFUSED, f"refused: {text}; see `pgvigil status` and try again"
        refusal = self._change_refusal(ChangeVoters(ask.request_id, ask.add, ask.remove))
        if refusal is not None:
            return Outcome.BUSY if refusal is TOO_EARLY else Outcome.REFUSED, f"refused: {refusal}"
        if self._leave_half("a change of the voters is asked for"):
            return Outcome.BUSY, HALF_FIRST
        self.change_voters(asker, ask)
        return None

    def _done_already(self, document: Document, ask: AskVoters) -> Answer | None:
        """A repeated wish finds what it wanted."""
        if ask.add and ask.remove:
            return None
        voter = document.voter(ask.add)
        if ask.add and voter is not None:
            known = self.stored.get(ask.add)
            if known is not None and known[0] != voter.record_id != 0:
                lost = f"{self.label(ask.add)} is a voter under the record that it has lost with its state_dir"
                again = f"run `pgvigil node remove {self.label(ask.add)}`, then this again"
                return Outcome.REFUSED, f"refused: {lost}; {again}"
            return Outcome.DONE, f"{self.label(ask.add)} is a voter already; nothing was changed"
        if ask.remove and document.voter(ask.remove) is None and not self._would_return(document, ask):
            return Outcome.DONE, f"{self.label(ask.remove)} is no voter; nothing was changed"
        return None

    def _would_return(self, document: Document, ask: AskVoters) -> bool:
        """An operator's word also counts for a node that would be added again by itself."""
        removed = document.removal(ask.remove)
        return removed is not None and removed.returns and ask.cause in (Cause.OPERATOR, Cause.LEFT)

    def change_voters(self, asker: int, ask: AskVoters) -> None:
        """P18: propose the one change; it counts at once, and is answered when it is committed."""
        document = self.document
        assert document is not None
        if ask.add:
            wanted = document.with_voter(ask.add, self.stored[ask.add][0])
            text = f"{self.label(ask.add)} is a voter now"
        else:
            wanted = document.without_voter(ask.remove, ask.cause)
            why = f" ({SENTENCES[ask.cause]})" if asker == NOBODY or ask.cause is Cause.SHUTDOWN else ""
            text = f"{self.label(ask.remove)} is no voter any more{why}"
        stamp = self.propose(wanted)
        self.change_request = Change(
            asker, ask.boot, ask.request_id, stamp, f"{text}, {counted(len(wanted.voters), 'voter')}"
        )

    def tell_change(self, change: Change, outcome: Outcome, text: str) -> None:
        """Answer whoever asked for a change, and tell the log what a committed one did."""
        if outcome is Outcome.DONE:
            self.note(f"{change.text}: {text}")
            text = f"{change.text}: {text}"
        if change.asker == self.me:
            self.answer(change.request_id, outcome is Outcome.DONE, text)
        elif change.asker != NOBODY and change.request_id is not None:
            self.send(change.asker, TellVoters(change.boot, change.request_id, outcome, text))
