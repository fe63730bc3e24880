"""Removal by time: voters that are stopped, lost, or never came, and their way back (P18).

The leader removes them as an operator would: one at a time, by majority commitment, never itself, never so many
that those who remain could not commit. Its timers are its own: a new leader, a restarted one, and one that
doubts itself count from the beginning, because none of them has watched. Nobody is removed on a verdict that is
merely unknown. A node whose removal was the cluster's own doing is added again when it has followed for two leases
with the record it had; with another record it has lost its word, and an operator decides.
"""

from __future__ import annotations

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core.events import ChangeVoters, Level
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Ack, AskVoters
from pgvigil.watchdog.core.record import NOBODY, Cause, Document, Removed, Voter
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.core.voters import Voters

FRESH_RENEWALS = 3


class Removal(Voters):
    """The leader's timers for voters that are gone, and for removed nodes that are back."""

    # --- the leader -------------------------------------------------------------------------------

    def on_ack(self, sender: int, record_id: int, message: Ack) -> None:
        """Whoever answers this leader is not lost, whatever lifecheck says."""
        super().on_ack(sender, record_id, message)
        if self.lease is not None and (message.term, message.boot) == (self.lease.term, self.lease.boot):
            self.acked_ns[sender] = self.now_ns
            self.absent_since_ns.pop(sender, None)

    def advance_removal(self) -> None:
        """Note who is gone or back; make the one change that is due."""
        document, rule = self.document, self.settings.removal
        idle = not (rule.lost_ms or rule.no_show_ms or (document is not None and document.removed))
        if idle or self.state is not State.LEADER or document is None or self.now_ns < self.doubt_until_ns:
            self.absent_since_ns.clear()
            self.back_since_ns.clear()
            return
        for voter in document.voters:
            self._note_absence(voter)
        back = [item for item in document.removed if self._is_back(item, document)]
        if self._not_now() is not None:
            return
        for item in back:
            if self.now_ns >= self.back_since_ns[item.node_id] + 2 * self.lease_ns and self._bring_back(item):
                return
        for voter in document.voters:
            due_ns = self._removal_due_ns(voter)
            if due_ns is not None and self.now_ns >= due_ns and self._remove(voter):
                return

    def _note_absence(self, voter: Voter) -> None:
        peer = self.view(voter.node_id)
        if peer is not None and peer.health is Health.DEAD:
            self.absent_since_ns.setdefault(voter.node_id, self.now_ns)
        else:
            self.absent_since_ns.pop(voter.node_id, None)

    def _removal_due_ns(self, voter: Voter) -> int | None:
        """When a voter that is gone is to be removed; None for one that is here, or if that is switched off."""
        rule = self.settings.removal
        limit_ms = rule.lost_ms if voter.record_id else rule.no_show_ms
        since_ns = self.absent_since_ns.get(voter.node_id)
        return None if since_ns is None or not limit_ms else since_ns + limit_ms * NS_PER_MS

    def _remove(self, voter: Voter) -> bool:
        refusal = self._change_refusal(ChangeVoters(0, NOBODY, voter.node_id))
        if refusal is not None:
            key = f"kept {voter.node_id} {self.absent_since_ns[voter.node_id]}"
            self.note_once(key, f"{self.label(voter.node_id)} has been gone for too long, but stays a voter: {refusal}")
            return False
        if self._leave_half(f"{self.label(voter.node_id)} has been gone for too long"):
            return True
        self._change_by_rule(NOBODY, voter.node_id, Cause.LOST if voter.record_id else Cause.NO_SHOW)
        return True

    def _is_back(self, item: Removed, document: Document) -> bool:
        """Whether a node that the cluster removed by itself follows again, with the record that it had."""
        known, peer = self.stored.get(item.node_id), self.view(item.node_id)
        fresh = self.now_ns <= self.acked_ns.get(item.node_id, 0) + FRESH_RENEWALS * self.renew_ns
        if not item.returns or known is None or peer is None or peer.health is not Health.ALIVE or not fresh:
            self.back_since_ns.pop(item.node_id, None)
            return False
        if item.record_id not in (0, known[0]):
            name = self.label(item.node_id)
            text = f"{name} is back with another record: it lost its state_dir; `pgvigil node add {name}` adds it"
            self.note_once(f"back {item.node_id} {known[0]}", text, Level.WARNING)
            return False
        self.back_since_ns.setdefault(item.node_id, self.now_ns)
        return known[1] == document.stamp

    def _bring_back(self, item: Removed) -> bool:
        if self._change_refusal(ChangeVoters(0, item.node_id, NOBODY)) is not None:
            return False
        if self._leave_half(f"{self.label(item.node_id)} is back"):
            return True
        self.back_since_ns.pop(item.node_id, None)
        self._change_by_rule(item.node_id, NOBODY, Cause.OPERATOR)
        return True

    def _change_by_rule(self, add: int, remove: int, cause: Cause) -> None:
        document = self.document
        assert document is not None
        self.change_voters(NOBODY, AskVoters(self.record.boot, 0, add, remove, document.epoch, cause))

    def removal_wake_ns(self) -> list[int]:
        """When a timer of the leader runs out."""
        due = [due_ns for _, due_ns in self.removals_due()]
        return due + [since_ns + 2 * self.lease_ns for since_ns in self.back_since_ns.values()]

    def removals_due(self) -> list[tuple[int, int]]:
        """The voters that are gone, and when this leader is to remove them."""
        document = self.document
        if self.state is not State.LEADER or document is None or not self.absent_since_ns:
            return []
        due = [(voter.node_id, self._removal_due_ns(voter)) for voter in document.voters]
        return [(node, at_ns) for node, at_ns in due if at_ns is not None]

    # --- a node that is stopped -------------------------------------------------------------------

    def leaves_first(self) -> bool:
        """With `remove_shutdown_nodes` a node that is stopped asks to be removed, within the time of its stop."""
        if not self.settings.removal.shutdown or self.now_ns >= (self.stop_deadline_ns or 0):
            return False
        heard_ns = self.leader_heard_ns
        led = self.leader_id not in (0, self.me) and heard_ns is not None and self.now_ns < heard_ns + self.lease_ns
        if not self.named or len(self.voter_ids) < 2 or not led:
            return False
        if not self.leaving and self.wish is None:
            self.leaving = True
            self.wish_for(None, NOBODY, self.me, Cause.SHUTDOWN)
            self.advance_voters()
        return self.wish is not None and self.wish.request_id is None
