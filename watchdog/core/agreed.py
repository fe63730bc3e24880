"""Which document this node may act on: the newest one that it knows to be committed (P23 a).

A stored document proves nothing: it may be of a leader that never got its majority. So the leader says in each renewal
which stamp is committed, and a follower acts on that very document alone, and only while it has promised itself to
that leader: an isolated node changes nothing at its pgpool-II. What was agreed is never taken back by an older word.
"""

from __future__ import annotations

from pgvigil.watchdog.core.base import Base
from pgvigil.watchdog.core.events import Level
from pgvigil.watchdog.core.messages import Renew
from pgvigil.watchdog.core.record import BLANK_STAMP, Decision, DecisionKind, Document, Intent, Stamp
from pgvigil.watchdog.core.states import State

VERBS = {DecisionKind.DOWN: "is down", DecisionKind.UP: "is up", DecisionKind.PROMOTE: "becomes primary"}


class Agreed(Base):
    """The agreed document of this node, whether it leads or follows."""

    def agreed_now(self) -> Document | None:
        """The document that this node may act on at the instant of its last step; None if there is none."""
        return self.agreed_at(self.now_ns)

    def agreed_at(self, now_ns: int) -> Document | None:
        """The same at an instant: every action outside asks once more right before it (P21)."""
        agreed = self.agreed
        if agreed is None or self.state is State.STOPPED:
            return None
        lease, promise = self.lease, self.promise
        if self.state is State.LEADER:
            leads = lease is not None and lease.held(now_ns) and not lease.by_half  # P22 g
            return agreed if leads and agreed.stamp == self.committed_stamp else None
        follows = lease is None and self.leader_id not in (0, self.me)
        promised = promise is not None and promise.leader == self.leader_id and promise.live(now_ns)
        newest = agreed.stamp == self.told_committed and agreed.stamp.term == self.leader_term
        return agreed if follows and promised and newest else None

    def hear_committed(self, message: Renew, before: Document | None) -> None:
        """P23 a: the leader says what is committed; `before` is the document from before this renewal."""
        if BLANK_STAMP < message.committed <= message.stamp:
            self.told_committed = max(self.told_committed, message.committed)
        for document in (before, self.document):
            if document is not None and document.stamp == self.told_committed:
                self.agree(document)

    def say_committed(self) -> Stamp:
        """For a renewal; a leader by half tells its followers to change nothing (P22 g)."""
        half = self.lease is not None and self.lease.by_half
        return BLANK_STAMP if half or self.committed_stamp is None else self.committed_stamp

    def agree(self, document: Document) -> None:
        """Take a committed document; every node's log tells what is new in it."""
        old, self.agreed = self.agreed, document
        if old is None or old.stamp == document.stamp:
            return
        for decision in document.decisions:
            if decision.number > old.decided:
                self.note(self.decision_sentence(document, decision))
        for intent in document.intents:
            if intent.name != "escalation" and intent not in old.intents:
                self._note_intent(intent)

    def decision_sentence(self, document: Document, decision: Decision) -> str:
        """What was decided, for people."""
        backend = document.backend(decision.backend_id)
        where = "" if backend is None else f" ({backend.host}:{backend.port})"
        who = (
            f"an operator on {self.label(decision.by)}" if decision.operator else f"asked by {self.label(decision.by)}"
        )
        why = f": {decision.reason}" if decision.reason else ""
        verb = VERBS.get(decision.kind, decision.kind.value)
        return f"decision {decision.number}: backend {decision.backend_id}{where} {verb}{why} ({who})"

    def _note_intent(self, intent: Intent) -> None:
        level = Level.WARNING if intent.state in ("failed", "unknown") else Level.INFO
        detail = f": {intent.detail}" if intent.detail else ""
        self.note(f"{intent.name} for {intent.event} is {intent.state} (token {intent.token}){detail}", level)
