"""The leader's decisions on backends: one at a time, numbered, committed before anybody acts on them (P23).

A decision, the state that it brings about and the intent of its command are one document, so whoever leads next finds
all of it or nothing. Votes and asks are kept in memory only: everybody repeats them. Half of the voters decides nothing
(P22 g), and a cluster that is paused only what an operator asks for.
"""

from __future__ import annotations

from dataclasses import replace

from pgvigil.ipc.counted import counted
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core.answers import Answer, answer_of, running
from pgvigil.watchdog.core.asking import Asking
from pgvigil.watchdog.core.backends import (
    FAILBACK,
    FAILOVER,
    FOLLOW_PRIMARY,
    PENDING,
    UP,
    arguments_for,
    corrected_roles,
    decided,
    event_of,
    first_table,
    short,
    tended_table,
    unlisted,
    with_primary,
)
from pgvigil.watchdog.core.consensus import (
    ALIVE_NS,
    MAX_ASKS,
    AskKey,
    PoolView,
    Waiting,
    ask_problem,
    needed,
    votes,
)
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskBackend, Outcome, SeenBackend, TellBackend
from pgvigil.watchdog.core.quorum import majority
from pgvigil.watchdog.core.record import Backend, Decision, DecisionKind, Document
from pgvigil.watchdog.core.states import State

TABLE_NS = 5_000 * NS_PER_MS
ROLES_NS = 3_000 * NS_PER_MS
KEPT_ANSWERS = 256
SWITCHOVER = "switchover"
UNWATCHED = "refused: no pgpool-II is watched, so no backend is known: set [pgpool] pcp_user and pcp_password_file"


class Deciding(Asking):
    """What only the leader does with asks and views."""

    def advance_deciding(self) -> None:
        """Repeat what this node says; as leader answer, and make the one decision that is due."""
        if self.stopping is not None:
            self.refuse_asks("this node is being stopped")
        self.repeat_seen()
        self.repeat_asks()
        document = self.document
        if document is None or not self._may_decide():
            return
        self._forget_silent()
        self._look_for_watchers()
        if self._answer_all(document) or document.paused or running(document) is not None:
            return
        if self._decide_by_views(document) or self._tend_table(document):
            return
        self._tend_roles(document)

    def _may_decide(self) -> bool:
        """P23 e: under a lease of a majority, and only when nothing else is on its way."""
        return self.state is State.LEADER and self.committed() and self.lease_held() and not self.leads_by_half

    def stop_leading(self) -> None:
        """Votes, asks and timers are this leader's own; whoever asked asks the next one."""
        super().stop_leading()
        self.waiting.clear()
        self.told_asks.clear()
        self.unlisted_since_ns.clear()
        self.table_since_ns = None
        self.unwatched_since_ns = None
        self.roles_since = None

    # --- asks -------------------------------------------------------------------------------------

    def on_ask_backend(self, sender: int, record_id: int, message: AskBackend) -> None:
        """Another node's ask, or its next copy."""
        self.take_ask(sender, record_id, message)

    def take_ask(self, sender: int, record_id: int, ask: AskBackend) -> None:
        """Keep it until it is answered; one that was answered is answered again."""
        key = (sender, ask.boot, ask.request_id)
        waiting = self.waiting.get(key)
        wrong = ask_problem(ask)
        if wrong is not None:
            self._tell_ask(key, Outcome.REFUSED, f"refused: {wrong}")
        elif self.state is not State.LEADER:
            self._tell_ask(key, Outcome.BUSY, f"{self.label(self.me)} is not the leader")
        elif self.leads_by_half:
            self._tell_ask(key, Outcome.BUSY, "half of the voters carries the virtual IP and decides nothing")
        elif (key, record_id) in self.told_asks:
            self._tell_ask(key, *self.told_asks[key, record_id])
        elif waiting is not None:
            if (waiting.ask, waiting.record_id) == (ask, record_id):
                waiting.heard_ns, waiting.told = self.now_ns, ""
        elif sum(1 for item in self.waiting if item[0] == sender) >= MAX_ASKS:
            self._tell_ask(key, Outcome.BUSY, f"{MAX_ASKS} asks of {self.label(sender)} wait already")
        else:
            self.waiting[key] = Waiting(sender, record_id, ask, self.now_ns, self.now_ns)

    def _tell_ask(self, key: AskKey, outcome: Outcome, text: str) -> None:
        told = TellBackend(key[1], key[2], outcome, text)
        if key[0] == self.me:
            self.on_tell_backend(self.me, self.record.record_id, told)
        else:
            self.send(key[0], told)

    def _forget_silent(self) -> None:
        """P23 c: who does not repeat an ask does not mean it any more."""
        for key, waiting in tuple(self.waiting.items()):
            if self.now_ns >= waiting.heard_ns + ALIVE_NS:
                del self.waiting[key]

    def _answer_all(self, document: Document) -> bool:
        """In the order in which they came; True if that brought a decision about."""
        for key, waiting in tuple(self.waiting.items()):
            answer = self._consider(document, waiting)
            if answer is None:
                return True
            outcome, text = answer
            if outcome is not Outcome.BUSY:
                del self.waiting[key]
                self.told_asks[key, waiting.record_id] = answer
                if len(self.told_asks) > KEPT_ANSWERS:
                    del self.told_asks[next(iter(self.told_asks))]
            if text != waiting.told:
                waiting.told = text
                self._tell_ask(key, outcome, text)
        return False

    def _consider(self, document: Document, waiting: Waiting) -> Answer | None:
        """The answer to an ask; None if it has just been decided, and is answered when that is committed."""
        ask = waiting.ask
        answer = answer_of(document, ask)
        busy = running(document)
        if answer is not None:
            return (Outcome.REFUSED, UNWATCHED) if answer[0] is Outcome.BUSY and self._unwatched(document) else answer
        if busy is not None:
            waiting.since_ns = self.now_ns
            return Outcome.BUSY, f"waits for {busy.name} of {busy.event}"
        if document.paused and not ask.operator:
            return self._in_vain(waiting, "the cluster is paused: only an operator's word decides")
        if ask.kind is DecisionKind.UP and not ask.operator and not self._member(waiting):
            return Outcome.REFUSED, "refused: this takes the pgpool-II of a voter"
        if ask.kind is DecisionKind.PROMOTE:
            refusal = self._promotion_refusal(document, ask)
            if refusal is not None:
                return Outcome.REFUSED, f"refused: {refusal}"
        if ask.kind is DecisionKind.DOWN and not ask.operator:
            return self._by_consensus(document, waiting)
        self._make_decision(document, ask.kind, ask.backend_id, ask.operator, waiting.sender, ask.reason, ask.arguments)
        return None

    def _promotion_refusal(self, document: Document, ask: AskBackend) -> str | None:
        backend = document.backend(ask.backend_id)
        if not ask.operator:
            return "only an operator promotes a backend"
        if backend is None or backend.status is not UP:
            return f"backend {ask.backend_id} is down; attach it first"
        if SWITCHOVER in ask.arguments and self.command(FAILOVER) is None:
            return "a switchover runs the failover command, and none is configured"
        return None

    def _by_consensus(self, document: Document, waiting: Waiting) -> Answer | None:
        """P23 c: a report of a pgpool-II waits for others."""
        backend = document.backend(waiting.ask.backend_id)
        assert backend is not None, "an ask for an unknown backend has its answer"
        count, enough = self._votes(backend)
        if count < enough:
            return self._in_vain(waiting, f"waits for consensus: {count} of {enough}")
        first = self._first_ask(backend) or waiting
        ask = first.ask
        reason = ask.reason or f"{count} of {enough} needed votes report it"
        self._make_decision(document, ask.kind, ask.backend_id, False, first.sender, reason, ask.arguments)
        return None

    def _in_vain(self, waiting: Waiting, why: str) -> Answer:
        """Not now; and not any more when it has waited for too long."""
        timeout_ms = self.settings.consensus.timeout_ms
        if self.now_ns < waiting.since_ns + timeout_ms * NS_PER_MS:
            return Outcome.BUSY, why
        said = why.replace("waits for consensus: ", "no consensus: ")
        return Outcome.REFUSED, f"{said} within {timeout_ms} ms: quarantined on this pgpool-II alone"

    def _first_ask(self, backend: Backend) -> Waiting | None:
        wanted = (DecisionKind.DOWN, backend.backend_id, backend.decision)
        asks = [item for item in self.waiting.values() if self._member(item) and not item.ask.operator]
        return next((item for item in asks if (item.ask.kind, item.ask.backend_id, item.ask.decision) == wanted), None)

    # --- votes ------------------------------------------------------------------------------------

    def _members(self) -> tuple[int, ...]:
        """Voters that run a pgpool-II."""
        return tuple(node for node in self.voter_ids if not self.witness(node))

    def _member(self, waiting: Waiting) -> bool:
        """P18: whether an ask is of a member, under the record that the document names."""
        return waiting.sender in self._members() and self.is_voter(waiting.sender, waiting.record_id)

    def _fresh(self) -> dict[int, PoolView]:
        """What members have said lately, under the record that the document names (P18)."""
        return {
            node: view
            for node in self._members()
            if (view := self._newest_view(node)) is not None
            and view.fresh(self.now_ns)
            and self.is_voter(node, view.record_id)
        }

    def _newest_view(self, node: int) -> PoolView | None:
        """One's own is as old as the last word of the own shell, which says when it does not know any more."""
        view = self.pools.get(node)
        if node != self.me or view is None:
            return view
        return PoolView(view.record_id, view.boot, view.number, view.backends, view.problem, self.now_ns)

    def _tables(self) -> dict[int, tuple[SeenBackend, ...]]:
        return {node: view.backends for node, view in self._fresh().items()}

    def _votes(self, backend: Backend) -> tuple[int, int]:
        """P23 c: the votes for down, and how many are needed."""
        members, rule = self._members(), self.settings.consensus
        asks = {key: item for key, item in self.waiting.items() if self.is_voter(item.sender, item.record_id)}
        count = votes(backend.backend_id, backend.decision, asks, self._fresh(), members, rule)
        return count, needed(len(members), rule)

    def _doubted(self, document: Document) -> tuple[int, ...]:
        """Backends that somebody reports: two may be lost at once, and the second is no new main node."""
        up = [backend for backend in document.backends if backend.status is UP]
        return tuple(backend.backend_id for backend in up if self._votes(backend)[0] > 0)

    def _decide_by_views(self, document: Document) -> bool:
        """P23 c: what a majority of pgpool-IIs holds in quarantine is down."""
        for backend in document.backends:
            if backend.status is not UP:
                continue
            count, enough = self._votes(backend)
            if 0 < count >= enough:
                by = next((node for node in self._members() if node in self._fresh()), self.me)
                reason = f"{count} of {enough} needed votes hold it in quarantine"
                self._make_decision(document, DecisionKind.DOWN, backend.backend_id, False, by, reason, ())
                return True
        return False

    # --- the one place where it is decided --------------------------------------------------------

    def _make_decision(
        self,
        document: Document,
        kind: DecisionKind,
        backend_id: int,
        operator: bool,
        by: int,
        reason: str,
        asked: tuple[str, ...],
    ) -> None:
        """P23 d: state, decision and intent are one change."""
        switchover = SWITCHOVER in asked
        asked = tuple(item for item in asked if item != SWITCHOVER)
        decision = Decision(document.decided + 1, kind, backend_id, operator, by, short(reason))
        wanted = decided(document, decision)
        event = event_of(decision.number)
        if kind is DecisionKind.PROMOTE and not switchover:
            wanted = with_primary(wanted, backend_id, decision.number, self.command(FOLLOW_PRIMARY) is not None)
        else:
            name = FAILBACK if kind is DecisionKind.UP else FAILOVER
            doubted = self._doubted(document) if kind is DecisionKind.DOWN else ()
            wanted = self.with_command(wanted, name, event, arguments_for(wanted, decision, asked, doubted))
        self.propose(wanted)

    # --- the table --------------------------------------------------------------------------------

    def _everybody(self, views: dict[int, tuple[SeenBackend, ...]]) -> bool:
        """Whether every member that is not known to be dead has told what it sees."""
        dead = {peer.node_id for peer in self.views.peers if peer.health is Health.DEAD}
        return bool(views) and all(node in views for node in self._members() if node not in dead)

    def _tend_table(self, document: Document) -> bool:
        """Build the table when it is missing; add what is new and drop what nobody lists any more."""
        views, members = self._tables(), self._members()
        if not document.backends:
            return self._first_table(document, views)
        complete = self._everybody(views) and len(views) >= majority(len(members))
        gone = unlisted(document, views) if complete else ()
        for backend_id in tuple(self.unlisted_since_ns):
            if backend_id not in gone:
                del self.unlisted_since_ns[backend_id]
        for backend_id in gone:
            self.unlisted_since_ns.setdefault(backend_id, self.now_ns)
        dropped = [key for key, since_ns in self.unlisted_since_ns.items() if self.now_ns >= since_ns + TABLE_NS]
        pending = any(item.state == PENDING for item in document.intents)
        wanted = document if pending else tended_table(document, views, len(members), dropped)
        if wanted is document:
            return False
        listed = ", ".join(f"{item.backend_id} ({item.host}:{item.port})" for item in wanted.backends)
        self.note(f"changes the table of backends, as its pgpool-IIs list them now: {listed or 'none'}")
        self.propose(wanted)
        return True

    def _look_for_watchers(self) -> None:
        """Since when no member has said anything of its pgpool-II, not even that it does not answer."""
        views = [view for node in self._members() if (view := self._newest_view(node)) is not None]
        if any(self.now_ns < view.taken_ns + ALIVE_NS for view in views):
            self.unwatched_since_ns = None
        elif self.unwatched_since_ns is None:
            self.unwatched_since_ns = self.now_ns

    def _unwatched(self, document: Document) -> bool:
        """Whether a table is missing that nobody is going to bring."""
        since_ns = self.unwatched_since_ns
        return not document.backends and since_ns is not None and self.now_ns >= since_ns + TABLE_NS

    def _first_table(self, document: Document, views: dict[int, tuple[SeenBackend, ...]]) -> bool:
        if not views:
            self.table_since_ns = None
            return False
        if self.table_since_ns is None:
            self.table_since_ns = self.now_ns
        late = self.now_ns >= self.table_since_ns + TABLE_NS and len(views) >= majority(len(self._members()))
        table = first_table(views, document.decided + 1)
        if not table or not (late or self._everybody(views)):
            return False
        told = ", ".join(f"{item.backend_id} ({item.host}:{item.port}) {item.status.value}" for item in table)
        self.note(f"takes the table of backends from {counted(len(views), 'pgpool-II')}: {told}")
        self.propose(replace(document, backends=table, decided=document.decided + 1))
        return True

    def _tend_roles(self, document: Document) -> None:
        """Take over a primary that the pgpool-IIs found by themselves, when nothing runs and they stay with it."""
        wanted = corrected_roles(document, self._tables(), len(self._members()))
        if wanted.backends == document.backends or any(item.state == PENDING for item in document.intents):
            self.roles_since = None
        elif self.roles_since is None or self.roles_since[0] != wanted.backends:
            self.roles_since = (wanted.backends, self.now_ns)
        elif self.now_ns >= self.roles_since[1] + ROLES_NS:
            self.roles_since = None
            roles = ", ".join(f"{item.backend_id} {item.role.value}" for item in wanted.backends)
            self.note(f"takes the roles over that the pgpool-IIs see: {roles}")
            self.propose(wanted)

    def deciding_wake_ns(self) -> list[int]:
        """When an ask has waited for too long, or a table or role is to be taken over."""
        due = self.asking_wake_ns()
        if self.state is not State.LEADER:
            return due
        timeout_ns = self.settings.consensus.timeout_ms * NS_PER_MS
        due += [item.since_ns + timeout_ns for item in self.waiting.values()]
        due += [since_ns + TABLE_NS for since_ns in self.unlisted_since_ns.values()]
        due += [at + TABLE_NS for at in (self.table_since_ns, self.unwatched_since_ns) if at is not None]
        return due if self.roles_since is None else [*due, self.roles_since[1] + ROLES_NS]
