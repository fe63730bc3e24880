"""Commands of the user on exactly one node (PROTOCOL 7, P17).

An intent to run a command is part of the document. Only the incarnation that wrote it may start it, after the
commit and under a lease. For every other incarnation it may have run: policy `once` says "outcome unknown" and
never starts it, `retry` starts it again under a new token.
"""

from __future__ import annotations

from dataclasses import replace

from pgvigil.watchdog.core.events import CommandEnded, Level, StartCommand
from pgvigil.watchdog.core.founding import Founding
from pgvigil.watchdog.core.record import Document, Intent
from pgvigil.watchdog.core.states import State

PENDING, DONE, FAILED, UNKNOWN = "pending", "done", "failed", "unknown"
KEPT_INTENTS = 16


class Commanding(Founding):
    """Intents of the leader."""

    def advance_commands(self) -> None:
        """Settle one intent at a time: other incarnations' first, then the own, then what a new term calls for."""
        document = self.document
        if self.state is not State.LEADER or document is None or not self.committed() or not self.lease_held():
            return
        if self.leads_by_half:
            return  # P22 g
        for intent in document.intents:
            if intent.state == PENDING:
                self._settle_intent(document, intent)
                return
        self._escalate(document)

    def _own(self, intent: Intent) -> bool:
        return (intent.term, intent.boot) == (self.record.won_term, self.record.boot)

    def _settle_intent(self, document: Document, intent: Intent) -> None:
        if self._own(intent):
            if intent.token in self.ended_commands:
                state = DONE if self.ended_commands.pop(intent.token) else FAILED
                self._replace_intent(document, intent, replace(intent, state=state))
            elif intent.token not in self.started_tokens:
                self.started_tokens.add(intent.token)
                assert self.lease is not None and self.lease.until_ns is not None
                self.emit(StartCommand(intent, self.lease.until_ns))
            return
        if intent.policy == "retry":
            self.note(f"runs {intent.name} for {intent.event} again: an earlier leader may have run it")
            again = replace(intent, term=self.record.won_term, boot=self.record.boot, token=self._next_token(document))
            self._replace_intent(document, intent, again)
            return
        self.note(
            f"outcome unknown: {intent.name} for {intent.event} may have run under an earlier leader", Level.WARNING
        )
        self._replace_intent(document, intent, replace(intent, state=UNKNOWN))

    def _next_token(self, document: Document) -> int:
        return max((intent.token for intent in document.intents), default=0) + 1

    def _replace_intent(self, document: Document, old: Intent, new: Intent) -> None:
        self.propose(replace(document, intents=tuple(new if item == old else item for item in document.intents)))

    def _escalate(self, document: Document) -> None:
        """The escalation command runs once for every won term."""
        command = next((item for item in self.settings.commands if item.name == "escalation"), None)
        event = f"term {self.record.won_term}"
        if command is None or any(item.name == command.name and item.event == event for item in document.intents):
            return
        intent = Intent(
            command.name,
            event,
            command.policy,
            self.record.won_term,
            self.record.boot,
            self._next_token(document),
            PENDING,
        )
        self.propose(replace(document, intents=(*document.intents, intent)[-KEPT_INTENTS:]))

    def on_command_ended(self, event: CommandEnded) -> None:
        """Keep the outcome until it can be noted in the document, so that no later leader wonders."""
        self.ended_commands[event.token] = event.succeeded
