"""Starts the users' commands: those that the core orders for the leader, and the de-escalation of a node that was one.

Decides nothing about backends and never retries: the core orders, the lease is looked at once more right before the
start (P21), and the outcome goes back to the core, the log and the events. The de-escalation is nobody's order but
follows from what the core did: this node led a term, leads no more, and its virtual IP is down. It delays no hand-over
(the release is said first), and a stop only for a few seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import StopMode
from pgvigil.ipc.runner import Result, Runner
from pgvigil.watchdog import placeholders
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.events import CommandEnded, Event, Level, Note, StartCommand, VipDown
from pgvigil.watchdog.core.record import Intent
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.settings import Settings, UserCommand

MAX_DETAIL = 200
WITH_PLACEHOLDERS = ("failover", "failback", "follow_primary")
DE_ESCALATION = "de_escalation"
STOP_WAIT_NS = {StopMode.SMART: 6 * NS_PER_S, StopMode.FAST: 1 * NS_PER_S, StopMode.IMMEDIATE: 0}
"""How long a stop waits for a de-escalation before its group is stopped; the supervisor gives a stop 10 and 3 s."""
LEAST_MS = 500
"""What a de-escalation gets in any case: a hand-over may have used up the time of a stop."""

logger = logging.getLogger("pgvigil")


class Commander:
    """The users' commands of one node."""

    def __init__(
        self,
        settings: Settings,
        runner: Runner,
        core: Watchdog,
        dispatch: Callable[[CommandEnded], None],
        say: Callable[[Note], None],
        on_idle: Callable[[], None],
    ) -> None:
        """`say` takes what belongs into log and events; `on_idle` is called when a de-escalation has ended."""
        self._settings = settings
        self._runner = runner
        self._core = core
        self._dispatch = dispatch
        self._say = say
        self._on_idle = on_idle
        self._led_term = 0
        self._stop_by_ns: int | None = None
        self._waiting: list[StartCommand] = []
        self.de_escalating = False

    # --- what the core orders -------------------------------------------------------------------------

    def start(self, order: StartCommand) -> None:
        """P21: the lease is checked once more, right before the start. A de-escalation of an older term ends first."""
        if self.de_escalating:
            self._waiting.append(order)
            return
        intent, now_ns = order.intent, boottime_ns()
        command = self._settings.commands.get(intent.name)
        leads = self._core.state is State.LEADER  # while it hands over, its lease may still run
        document = self._core.document  # another leader may have settled it while this order waited (P17)
        pending = document is not None and intent in document.intents
        if command is None or not leads or not pending or not self._core.lease_held_at(now_ns):
            why = "the lease has ended" if pending else "it has been settled meanwhile"
            why = "none is configured on this node" if command is None else why
            self._say(Note(Level.WARNING, f"does not start {intent.name} for {intent.event}: {why}"))
            self._dispatch(CommandEnded(intent.token, False, f"not started: {why}"))
            return

        def done(result: Result) -> None:
            self._tell(intent.name, intent.event, result)
            self._dispatch(CommandEnded(intent.token, result.succeeded, _detail(result)))

        filled = intent.name in WITH_PLACEHOLDERS
        run = placeholders.substitute(command.run, intent.arguments) if filled else command.run
        logger.info("starts %s for %s: %s", intent.name, intent.event, run)
        self._runner.start(intent.name, run, command.timeout_s * 1000, done, self._environment(intent))

    def _environment(self, intent: Intent) -> dict[str, str]:
        known = {
            **self._common(intent.name, intent.term, intent.event),
            "PGVIGIL_TOKEN": str(intent.token),
            "PGVIGIL_REASON": self._reason(intent.event),
        }
        return known | (placeholders.environment(intent.arguments) if intent.name in WITH_PLACEHOLDERS else {})

    def _common(self, name: str, term: int, event: str) -> dict[str, str]:
        return {
            **os.environ,
            "PGVIGIL_COMMAND": name,
            "PGVIGIL_TERM": str(term),
            "PGVIGIL_EVENT": event,
            "PGVIGIL_NODE_ID": str(self._settings.node_id),
            "PGVIGIL_CLUSTER": self._settings.cluster.name,
        }

    def _reason(self, event: str) -> str:
        """The reason of the decision that the event names ("decision 5", "decision 5 backend 2")."""
        words, document = event.split(), self._core.document
        number = words[1] if len(words) > 1 and words[0] == "decision" else ""
        decisions = () if document is None else document.decisions
        return next((decision.reason for decision in decisions if str(decision.number) == number), "")

    def _tell(self, name: str, event: str, result: Result) -> None:
        """The core says on every node how a decision's command ended; here follows what it said."""
        text = f"{name} for {event}: {result.describe().removeprefix(name).strip()}"
        if name in WITH_PLACEHOLDERS:
            logger.log(logging.INFO if result.succeeded else logging.WARNING, "%s", text)
        else:
            self._say(Note(Level.INFO if result.succeeded else Level.WARNING, text))

    # --- the end of a leadership ----------------------------------------------------------------------

    def stepped(self, event: Event) -> None:
        """Called after every step of the core: de-escalates after the virtual IP of a term that this node led is down.

        A term that was led with half of the voters alone does not count: no command ran in it (P22 g).
        """
        if self._core.state is State.LEADER and not self._core.leads_by_half:
            self._led_term = self._core.record.won_term
        elif isinstance(event, VipDown):
            self._vip_down()

    def _vip_down(self) -> None:
        term, command = self._led_term, self._settings.commands.de_escalation
        if not term or self._core.state in (State.LEADER, State.RELEASING):
            return  # a leader lets go of it while its interface is down, and goes on
        self._led_term = 0
        if command is not None:
            self._de_escalate(term, command)

    def _de_escalate(self, term: int, command: UserCommand) -> None:
        event = f"term {term}"

        def done(result: Result) -> None:
            self.de_escalating = False
            self._tell(DE_ESCALATION, event, result)
            waiting, self._waiting = self._waiting, []
            for order in waiting:
                self.start(order)
            self._on_idle()

        limit_ms = command.timeout_s * 1000
        if self._stop_by_ns is not None:
            limit_ms = max(LEAST_MS, min(limit_ms, (self._stop_by_ns - boottime_ns()) // NS_PER_MS))
        self.de_escalating = True
        environment = self._common(DE_ESCALATION, term, event) | {"PGVIGIL_REASON": self._core.sentence}
        logger.info("starts %s for %s: %s", DE_ESCALATION, event, command.run)
        self._runner.start(DE_ESCALATION, command.run, limit_ms, done, environment)

    def stopping(self, mode: StopMode) -> None:
        """The process shall end: a de-escalation, running or yet to come, has until then."""
        by_ns = boottime_ns() + STOP_WAIT_NS[mode]
        self._stop_by_ns = by_ns if self._stop_by_ns is None else min(self._stop_by_ns, by_ns)
        self._runner.limit(DE_ESCALATION, self._stop_by_ns)


def _detail(result: Result) -> str:
    return result.describe().removeprefix(result.label).strip()[:MAX_DETAIL]
