"""Commands of the user on exactly one node (PROTOCOL 7, P17; P23 d).

An intent to run a command is part of the document. Only the incarnation that wrote it may start it, after the
commit and under a lease. For every other incarnation it may have run: policy `once` says "outcome unknown" and
never starts it, `retry` starts it again under a new token. Commands run one after the other. What a command of a
decision brings about is committed together with its outcome.
"""

from __future__ import annotations

from dataclasses import replace

from pgvigil.watchdog.core.backends import (
    DONE,
    FAILED,
    FOLLOW_PRIMARY,
    PENDING,
    UNKNOWN,
    arguments_to_follow,
    event_of,
    followers,
    id_of,
    not_followed,
    settled,
    up_primary_of,
    with_intent,
)
from pgvigil.watchdog.core.events import CommandEnded, Level, StartCommand
from pgvigil.watchdog.core.founding import Founding
from pgvigil.watchdog.core.record import Document, Intent
from pgvigil.watchdog.core.states import State

ESCALATION = "escalation"


class Commanding(Founding):
    """Intents of the leader."""

    def advance_commands(self) -> None:
        """Settle one intent at a time: other incarnations' first, then the own, then what a new term calls for."""
        document = self.document
        if self.state is not State.LEADER or document is None or not self.committed() or not self.lease_held():
            return
        if self.leads_by_half:
            return  # P22 g
        pending = [intent for intent in document.intents if intent.state == PENDING]
        if pending:
            self._settle_intent(document, min(pending, key=self._turn))
        elif not self._escalate(document):
            self._let_follow(document)

    def _turn(self, intent: Intent) -> int:
        """Other incarnations' commands, the one that runs, and then those that let somebody follow at last."""
        if not self._own(intent):
            return 1 if self._running(intent) else 0
        return 1 if self._running(intent) else 3 if intent.name == FOLLOW_PRIMARY else 2

    def _own(self, intent: Intent) -> bool:
        return (intent.term, intent.boot) == (self.record.won_term, self.record.boot)

    def _running(self, intent: Intent) -> bool:
        """Whether this very process has started it, be it in an earlier term: then its end will be told here."""
        return intent.boot == self.record.boot and (intent.term, intent.token) in self.started_tokens

    def _settle_intent(self, document: Document, intent: Intent) -> None:
        if self._own(intent) or self._running(intent):
            if intent.token in self.ended_commands:
                succeeded, detail = self.ended_commands.pop(intent.token)
                self._end_intent(document, intent, DONE if succeeded else FAILED, detail)
            elif self._obsolete(document, intent):
                self._give_up(document, intent)
            elif (intent.term, intent.token) not in self.started_tokens:
                self.started_tokens.add((intent.term, intent.token))
                assert self.lease is not None and self.lease.until_ns is not None
                self.emit(StartCommand(intent, self.lease.until_ns))
            return
        if intent.policy == "retry" and self._obsolete(document, intent):
            self._give_up(document, intent)
            return
        if intent.policy == "retry":
            self.note(f"runs {intent.name} for {intent.event} again: an earlier leader may have run it")
            again = replace(intent, term=self.record.won_term, boot=self.record.boot, token=self._next_token(document))
            self._replace_intent(document, intent, again)
            return
        self.note(
            f"outcome unknown: {intent.name} for {intent.event} may have run under an earlier leader", Level.WARNING
        )
        self._end_intent(document, intent, UNKNOWN, "it may have run under an earlier leader")

    def _obsolete(self, document: Document, intent: Intent) -> bool:
        """Whether it is to follow a primary that is none any more; what runs already runs to its end."""
        if intent.name != FOLLOW_PRIMARY or self._running(intent):
            return False
        primary = up_primary_of(document)
        return primary is None or id_of(intent.arguments, "m") != primary.backend_id

    def _give_up(self, document: Document, intent: Intent) -> None:
        """It is not started; its backend waits for the next primary."""
        self._replace_intent(
            document, intent, replace(intent, state=FAILED, detail="given up: the primary has changed")
        )

    def _end_intent(self, document: Document, intent: Intent, state: str, detail: str) -> None:
        """P23 d: the outcome and what follows from it are one change."""
        follow = self.command(FOLLOW_PRIMARY) is not None
        self.propose(settled(document, intent, state, detail, follow, self.me))

    def _next_token(self, document: Document) -> int:
        return max((intent.token for intent in document.intents), default=0) + 1

    def _replace_intent(self, document: Document, old: Intent, new: Intent) -> None:
        self.propose(replace(document, intents=tuple(new if item == old else item for item in document.intents)))

    def command(self, name: str) -> str | None:
        """The policy of a configured command; None if there is none of that name."""
        return next((item.policy for item in self.settings.commands if item.name == name), None)

    def with_command(self, document: Document, name: str, event: str, arguments: tuple[str, ...] = ()) -> Document:
        """The document with one more intent of this incarnation; the same one if no such command is configured."""
        policy = self.command(name)
        if policy is None:
            return document
        term, token = self.record.won_term, self._next_token(document)
        return with_intent(document, Intent(name, event, policy, term, self.record.boot, token, PENDING, arguments))

    def _escalate(self, document: Document) -> bool:
        """The escalation command runs once for every won term."""
        event = f"term {self.record.won_term}"
        if any(item.name == ESCALATION and item.event == event for item in document.intents):
            return False
        wanted = self.with_command(document, ESCALATION, event)
        if wanted is not document:
            self.propose(wanted)
        return wanted is not document

    def _let_follow(self, document: Document) -> None:
        """One follower at a time, so that one unknown outcome concerns one backend; only a primary that is up."""
        waiting = followers(document)
        if not waiting:
            return
        if self.command(FOLLOW_PRIMARY) is None:
            self.propose(not_followed(document, waiting[0], "no follow_primary command is configured any more"))
            return
        primary = up_primary_of(document)
        if primary is None:
            return
        event = event_of(waiting[0].decision, waiting[0].backend_id)
        arguments = arguments_to_follow(document, waiting[0], primary)
        self.propose(self.with_command(document, FOLLOW_PRIMARY, event, arguments))

    def on_command_ended(self, event: CommandEnded) -> None:
        """Keep the outcome until it can be noted in the document, so that no later leader wonders."""
        self.ended_commands[event.token] = (event.succeeded, event.detail)
