"""A node's part in decisions on backends: it repeats what it asks and what it sees until it is answered (P23 b).

Messages are lost and leaders die, so nothing is said once: an ask is repeated to whoever leads, under the number of the
decision that this node knew to be committed when it was asked, and ends at its own time limit at the latest. Nothing is
decided here, and what may still surface is never called failed (P16).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from pgvigil.watchdog.core.backends import short
from pgvigil.watchdog.core.commanding import Commanding
from pgvigil.watchdog.core.consensus import MAX_ASKS, PoolView, Wanted, ask_problem, newer, seen_problem
from pgvigil.watchdog.core.events import AskDecision, BackendsSeen, Level
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskBackend, Outcome, Seen, TellBackend
from pgvigil.watchdog.core.record import DecisionKind
from pgvigil.watchdog.core.states import State

REPEAT_NS = 1_000 * NS_PER_MS
LEAST_UNLED_MS = 10_000
"""At least so long a report waits for a leader: the next one is found sooner, if there is a majority."""


class Asking(Commanding):
    """Asks of this node, and what every node's pgpool-II makes of the backends."""

    # --- what is seen -----------------------------------------------------------------------------

    def on_backends_seen(self, event: BackendsSeen) -> None:
        """News of the local pgpool-II go to all nodes at once, and again every second."""
        wrong = seen_problem(event.backends, event.problem)
        if wrong is not None:
            event = BackendsSeen((), short(f"its pgpool-II has told what cannot be used: {wrong}"))
        if event != self.seen:
            self.seen = event
            self.next_seen_ns = self.now_ns
        self.pools[self.me] = self._own_view(event)

    def _own_view(self, event: BackendsSeen) -> PoolView:
        number = self.seen_number
        return PoolView(self.record.record_id, self.record.boot, number, event.backends, event.problem, self.now_ns)

    def repeat_seen(self) -> None:
        """Say it again: a leader that has not heard for a while counts nothing of it."""
        event = self.seen
        if event is None or self.now_ns < self.next_seen_ns or self.state is State.STOPPED:
            return
        self.next_seen_ns = self.now_ns + REPEAT_NS
        self.seen_number += 1
        self.pools[self.me] = self._own_view(event)
        self.send_all(Seen(self.record.boot, self.seen_number, event.backends, event.problem))

    def on_seen(self, sender: int, record_id: int, message: Seen) -> None:
        """Another node's view; late and doubled copies are no news."""
        if all(node.node_id != sender for node in self.settings.nodes):
            return
        wrong = seen_problem(message.backends, message.problem)
        if wrong is not None:
            self.note_once(f"seen {sender}", f"{self.label(sender)} says what its pgpool-II sees: {wrong}; ignored")
            return
        if newer(self.pools.get(sender), record_id, message):
            view = PoolView(record_id, message.boot, message.number, message.backends, message.problem, self.now_ns)
            self.pools[sender] = view

    # --- what is asked ----------------------------------------------------------------------------

    def on_ask_decision(self, event: AskDecision) -> None:
        """Somebody on this node wants a decision."""
        ask = replace(self._ask_of(event, 0), reason=short(event.reason))
        wrong = ask_problem(ask)
        if event.request_id in self.wanted:
            wrong = f"request {event.request_id} waits already"
        elif len(self.wanted) >= MAX_ASKS:
            wrong = f"{MAX_ASKS} asks wait on this node already; try again"
        elif self.stopping is not None:
            wrong = "this node is being stopped"
        if wrong is not None:
            self.answer(event.request_id, False, f"refused: {wrong}")
            return
        self.wanted[event.request_id] = Wanted(
            event.request_id,
            event.kind,
            event.backend_id,
            event.operator,
            self._decision_known(event.backend_id),
            ask.reason,
            event.arguments,
            event.until_ns,
            self.now_ns,
        )

    def _decision_known(self, backend_id: int) -> int | None:
        """P23 b: from the newest document known to be committed, be it old: an older number harms nobody."""
        if self.agreed is None:
            return None
        backend = self.agreed.backend(backend_id)
        return self.agreed.decided if backend is None else backend.decision

    def _ask_of(self, item: AskDecision | Wanted, decision: int) -> AskBackend:
        return AskBackend(
            self.record.boot,
            item.request_id,
            item.kind,
            item.backend_id,
            item.operator,
            decision,
            item.reason,
            item.arguments,
        )

    def repeat_asks(self) -> None:
        """Ask the leader, or again; end what has waited for too long."""
        if self.agreed_now() is not None:
            self.led_ns = self.now_ns
        for wanted in tuple(self.wanted.values()):
            if self.now_ns >= wanted.until_ns:
                self._ask_ends(wanted, False, self._no_decision(wanted))
            elif self.now_ns >= self.led_ns + self._unled_ms() * NS_PER_MS and self._is_report(wanted):
                self._ask_ends(wanted, False, self._unled(wanted))
            elif self.now_ns >= wanted.next_ask_ns:
                wanted.next_ask_ns = self.now_ns + min(self.renew_ns, REPEAT_NS)
                self._ask_leader(wanted)

    def _ask_leader(self, wanted: Wanted) -> None:
        if wanted.decision is None:
            wanted.decision = self._decision_known(wanted.backend_id)
        if wanted.decision is None:
            self._ask_waits(wanted, "no leader has told yet what is agreed on the backends")
            return
        ask = self._ask_of(wanted, wanted.decision)
        if self.state is State.LEADER:
            wanted.asked = True
            self.take_ask(self.me, self.record.record_id, ask)
        elif self.leader_id not in (0, self.me):
            wanted.asked = True
            self.send(self.leader_id, ask)
        else:
            self._ask_waits(wanted, "there is no leader to ask")

    @abstractmethod
    def take_ask(self, sender: int, record_id: int, ask: AskBackend) -> None:
        """The leader's side."""

    def on_tell_backend(self, sender: int, record_id: int, message: TellBackend) -> None:
        """The leader's answer; that to an earlier life, or to an ask that is over, is dropped."""
        wanted = self.wanted.get(message.request_id)
        if wanted is None or message.boot != self.record.boot:
            return
        if message.outcome is Outcome.BUSY:
            self._ask_waits(wanted, short(message.text))
        else:
            self._ask_ends(wanted, message.outcome is Outcome.DONE, message.text)

    def _ask_waits(self, wanted: Wanted, why: str) -> None:
        if why != wanted.why_not:
            wanted.why_not = why
            self.answer(wanted.request_id, False, why, final=False)

    def _ask_ends(self, wanted: Wanted, accepted: bool, text: str) -> None:
        del self.wanted[wanted.request_id]
        self.answer(wanted.request_id, accepted, text)

    def _no_decision(self, wanted: Wanted) -> str:
        """P16: a leader that was asked may have decided."""
        why = wanted.why_not or "no answer of the leader"
        return f"{'unknown' if wanted.asked else 'refused'}: {why}; see `pgvigil backend list`"

    def _is_report(self, wanted: Wanted) -> bool:
        """A report of a failure: pgpool-II does nothing else until it is answered, and what it sees stays said."""
        return wanted.kind is DecisionKind.DOWN and not wanted.operator

    def _unled_ms(self) -> int:
        return max(self.settings.consensus.timeout_ms, LEAST_UNLED_MS)

    def _unled(self, wanted: Wanted) -> str:
        why = wanted.why_not or "there is no leader to ask"
        said = f"nothing was agreed within {self._unled_ms()} ms ({why})"
        alone = "the backend stays down on this pgpool-II alone until the cluster decides"
        return f"{'unknown' if wanted.asked else 'refused'}: {said}: {alone}"

    def refuse_asks(self, why: str) -> None:
        """A node that ends answers everybody first."""
        for wanted in tuple(self.wanted.values()):
            self._ask_ends(wanted, False, f"{'unknown' if wanted.asked else 'refused'}: {why}")
            self.note(f"ask {wanted.request_id} ends: {why}", Level.WARNING)

    def asking_wake_ns(self) -> list[int]:
        """When something is to be said again, or is over."""
        due = [at for item in self.wanted.values() for at in (item.next_ask_ns, item.until_ns)]
        due += [self.led_ns + self._unled_ms() * NS_PER_MS for item in self.wanted.values() if self._is_report(item)]
        return due if self.seen is None or self.state is State.STOPPED else [*due, self.next_seen_ns]
