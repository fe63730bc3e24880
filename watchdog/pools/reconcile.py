"""What a node does about the difference between what the cluster agreed on and what its own pgpool-II has.

Pure: facts and memory in, a plan out. Nothing is ordered without an agreed document, nothing twice within a grace time
(pgpool-II answers an order when it has taken it, not when it is done), and one order at a time. A change that the node
saw happen and did not order was made by hand: it is asked for once and left alone meanwhile. After a restart of
pgpool-II nothing counts as made by hand: what is agreed is imposed. Backends whose address differs are never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pgvigil.watchdog.core.lease import NS_PER_S
from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.record import Backend, BackendRole, BackendStatus, DecisionKind, Document
from pgvigil.watchdog.pools.plan import Ask, ByHand, Facts, Known, Memory, Order, Ordered, OrderKind, Plan
from pgvigil.watchdog.pools.view import PoolBackend, View

GRACE_NS = 5 * NS_PER_S
"""The least time between two orders for one backend."""
MAX_PAUSE_NS = 60 * NS_PER_S
SETTLE_NS = NS_PER_S
"""A view this much younger than the last order shows what came of it; pgpool-II starts PCP anew meanwhile."""
FRESH_NS = 5 * NS_PER_S
PROBE_AGAIN_NS = 2 * NS_PER_S
PROBE_FRESH_NS = 3 * NS_PER_S
SILENT_NS = 10 * NS_PER_S
AWAITED_NS = 600 * NS_PER_S
"""pgpool-II may look for a primary for 300 s (search_primary_node_timeout) before it comes to an order."""
ECHO_NS = 60 * NS_PER_S
"""An order that was repeated may be carried out twice: the second time still so long after the first."""
CALL_NS = 10 * NS_PER_S
"""So long after the effect of an order pgpool-II may call its command for it."""
CALLED_NS = 5 * NS_PER_S
"""So long after a backend went down pgpool-II has surely begun to call its failover_command, if it has one."""
ASK_AGAIN_NS = 3 * NS_PER_S
MAX_ASKS = 3
UNSEEN_NS = 10 * NS_PER_S
ALONE_NS = 5 * NS_PER_S
WRONG_PRIMARY_NS = 5 * NS_PER_S
"""The leader itself takes over, after 3 s, a primary that most pgpool-IIs have found."""
UNDER_WAY = ("pending", "running")

Pair = tuple[Backend, PoolBackend]


def reconcile(memory: Memory, facts: Facts) -> Plan:
    """The next step; call it again after every change and each second."""
    view = _current(facts)
    memory = _same_life(memory, facts)
    agreed = facts.agreed
    if agreed is None or not agreed.backends:
        return _alone(memory, facts, view)
    memory = replace(memory, agreed_ns=facts.now_ns, known=_known(memory, facts, agreed))
    if view is None:
        return _unseen(memory, facts)
    return _Step(memory, facts, agreed, view).plan()


def refused(memory: Memory, backend_id: int) -> Memory:
    """pgpool-II did not take the newest order for a backend: nothing will come of it, but maybe of one before it."""
    ordered = memory.ordered.get(backend_id)
    if ordered is None or ordered.tries > 1:
        return memory
    return replace(memory, ordered={**memory.ordered, backend_id: replace(ordered, awaited=False)})


def carries_out(memory: Memory, kind: OrderKind, backend_id: int, now_ns: int) -> bool:
    """Whether what pgpool-II does to a backend just now may be what it was ordered to do."""
    ordered = memory.ordered.get(backend_id)
    if ordered is None:
        return False
    if kind is OrderKind.ATTACH:
        return now_ns < ordered.attach_due_ns
    waits = ordered.awaited and now_ns < ordered.at_ns + AWAITED_NS
    return ordered.kind is kind and (waits or now_ns < ordered.done_ns + CALL_NS)


def _current(facts: Facts) -> View | None:
    """The view, unless it is of a pgpool-II that runs no more."""
    return facts.view if facts.view is not None and facts.view.incarnation == facts.incarnation else None


def _same_life(memory: Memory, facts: Facts) -> Memory:
    """What is remembered of an earlier pgpool-II says nothing about this one."""
    if memory.since_ns and memory.incarnation == facts.incarnation:
        return memory
    return Memory(
        facts.incarnation,
        facts.now_ns,
        known={key: replace(one, matched=False) for key, one in memory.known.items()},
        agreed_ns=memory.agreed_ns,
        obstacle=memory.obstacle,
    )


def _known(memory: Memory, facts: Facts, agreed: Document) -> dict[int, Known]:
    found = {}
    for backend in agreed.backends:
        known = memory.known.get(backend.backend_id)
        same = known is not None and known.decision == backend.decision
        found[backend.backend_id] = known if known is not None and same else Known(backend.decision, facts.now_ns)
    return found


def _alone(memory: Memory, facts: Facts, view: View | None) -> Plan:
    """Nothing is agreed, as far as this node may know: it changes nothing, and remembers what it saw last."""
    obstacle = memory.obstacle if facts.now_ns < memory.agreed_ns + ALONE_NS else ""
    seen = () if view is None else tuple(_seen(one, False, 0) for one in view.backends)
    return Plan(replace(memory, obstacle=obstacle, wrong_primary_since_ns=None), seen=seen, obstacle=obstacle)


def _unseen(memory: Memory, facts: Facts) -> Plan:
    """What is agreed is known, but not what pgpool-II has: for a while that is a reason not to lead."""
    waits = not memory.settled and facts.now_ns < memory.since_ns + UNSEEN_NS
    obstacle = "its pgpool-II has not said yet which backends are up there" if waits else ""
    return Plan(replace(memory, obstacle=obstacle), obstacle=obstacle)


def _seen(one: PoolBackend, failed: bool, decision: int) -> SeenBackend:
    return SeenBackend(one.backend_id, one.host, one.port, one.status, one.role, failed, decision)


def _fits(backend: Backend, one: PoolBackend) -> bool:
    return one.usable if backend.status is BackendStatus.UP else one.down


class _Step:
    """One reconciliation: agreed and view are both known."""

    def __init__(self, memory: Memory, facts: Facts, agreed: Document, view: View) -> None:
        self.memory, self.facts, self.agreed, self.view = memory, facts, agreed, view
        self.now_ns = facts.now_ns
        self.troubles: list[str] = []
        self.notes: list[str] = []
        self.pairs = tuple(self._compared())
        self.known = {key: self._matched(key, one) for key, one in memory.known.items()}
        self.ordered = {key: self._awaited(key, one) for key, one in memory.ordered.items()}
        self.by_hand = dict(memory.by_hand)
        known = memory.down_since_ns
        self.down_since_ns = {
            one.backend_id: known.get(one.backend_id, self.now_ns) for one in view.backends if one.down
        }

    def plan(self) -> Plan:
        """Changes by hand first, because they keep orders from undoing them."""
        self._notice_changes()
        asks = tuple(self._asks())
        wrong_since_ns = self._wrong_primary_since_ns()
        order = self._order(wrong_since_ns)
        obstacle = self._obstacle()
        memory = replace(
            self.memory,
            view=self.view,
            settled=self.memory.settled or not obstacle,
            known=self.known,
            ordered=self.ordered,
            by_hand=self.by_hand,
            down_since_ns=self.down_since_ns,
            wrong_primary_since_ns=wrong_since_ns,
            last_order_ns=self.now_ns if order is not None else self.memory.last_order_ns,
            obstacle=obstacle,
        )
        seen = tuple(self._seen(one) for one in self.view.backends)
        return Plan(memory, order, asks, tuple(self._probes()), seen, obstacle, tuple(self.troubles), tuple(self.notes))

    # --- comparing --------------------------------------------------------------------------------

    def _compared(self) -> Iterator[Pair]:
        """The backends that both know, by id and address: an order goes by the id alone."""
        for backend in self.agreed.backends:
            one = self.view.backend(backend.backend_id)
            if one is None or one.status is SeenStatus.UNUSED:
                self.troubles.append(f"backend {backend.backend_id} ({backend.host}:{backend.port}) is unknown there")
            elif (one.host, one.port) != (backend.host, backend.port):
                self.troubles.append(
                    f"backend {backend.backend_id} is {one.host}:{one.port} there, "
                    f"agreed {backend.host}:{backend.port}: it is left alone"
                )
            else:
                yield backend, one

    def _matched(self, backend_id: int, known: Known) -> Known:
        """Only a view from after the decision shows that pgpool-II fits it."""
        pair = self._pair(backend_id)
        if pair is None or known.matched or self.view.at_ns < known.since_ns:
            return known
        return replace(known, matched=_fits(*pair))

    def _awaited(self, backend_id: int, ordered: Ordered) -> Ordered:
        one = self.view.backend(backend_id)
        if one is None or not ordered.awaited or self.view.at_ns <= ordered.at_ns:
            return ordered
        done = {
            OrderKind.ATTACH: one.usable,
            OrderKind.DETACH: one.down,
            OrderKind.PROMOTE: one.role is BackendRole.PRIMARY and one.usable,
        }[ordered.kind]
        if not done:
            return ordered
        due_ns = self.now_ns + ECHO_NS if ordered.kind is OrderKind.ATTACH else ordered.attach_due_ns
        return replace(ordered, awaited=False, done_ns=self.now_ns, attach_due_ns=due_ns)

    def _pair(self, backend_id: int) -> Pair | None:
        return next((pair for pair in self.pairs if pair[0].backend_id == backend_id), None)

    def _silent(self, backend_id: int) -> bool:
        """Whether PostgreSQL does not answer this node either; what it did before the newest decision says nothing."""
        probed, known = self.facts.probes.get(backend_id), self.known.get(backend_id)
        if probed is None or known is None or probed.at_ns < known.since_ns:
            return False
        return probed.answers is False and self.now_ns < probed.at_ns + SILENT_NS

    def _answers(self, backend_id: int) -> bool:
        probed = self.facts.probes.get(backend_id)
        return probed is not None and probed.answers is True and self.now_ns < probed.at_ns + PROBE_FRESH_NS

    # --- changes by hand --------------------------------------------------------------------------

    def _notice_changes(self) -> None:
        before = self.memory.view
        if before is None or before.at_ns >= self.view.at_ns or self.view.incarnation is None:
            return
        for backend, one in self.pairs:
            if self._attached_by_hand(before, backend, one):
                self.by_hand[backend.backend_id] = ByHand(DecisionKind.UP, backend.decision)
                self.notes.append(f"backend {backend.backend_id} was attached at its pgpool-II, not by pgvigil")
        promoted = self._promoted_by_hand(before)
        if promoted is not None:
            self.by_hand[promoted.backend_id] = ByHand(DecisionKind.PROMOTE, promoted.decision)
            self.notes.append(f"backend {promoted.backend_id} was promoted at its pgpool-II, not by pgvigil")

    def _attached_by_hand(self, before: View, backend: Backend, one: PoolBackend) -> bool:
        """An attach makes it wait for a client. Up at once: a child of pgpool-II that has been connecting since before
        the failover got through at last, after a partition for example, and wrote that down. Nobody wanted it.
        """
        earlier, known = before.backend(one.backend_id), self.memory.known.get(one.backend_id)
        changed = earlier is not None and earlier.down and one.status is SeenStatus.WAITING
        stood = known is not None and known.matched and known.decision == backend.decision
        return changed and stood and backend.status is BackendStatus.DOWN and not self._attach_due(one.backend_id)

    def _promoted_by_hand(self, before: View) -> Backend | None:
        """A promotion puts the primary before it down, without a command; pgpool-II's own failovers run one."""
        pair, agreed = self._primary_pair(), self._agreed_primary()
        if (
            pair is None
            or agreed is None
            or pair[0].backend_id == agreed.backend_id
            or pair[0].status is BackendStatus.DOWN
        ):
            return None
        old, earlier = self.view.backend(agreed.backend_id), before.backend(agreed.backend_id)
        known = self.memory.known.get(agreed.backend_id)
        was = earlier is not None and earlier.usable and earlier.role is BackendRole.PRIMARY
        failing = {agreed.backend_id, pair[0].backend_id} & self.facts.failing
        ordered = self._awaits(agreed.backend_id, OrderKind.DETACH) or self._awaits(
            pair[0].backend_id, OrderKind.PROMOTE
        )
        quiet = not failing and not ordered and not self._under_way()
        stood = known is not None and known.matched and known.decision == agreed.decision
        if was and stood and quiet and old is not None and old.down and pair[1].server_role == "primary":
            return pair[0]
        return None

    def _asks(self) -> Iterator[Ask]:
        for backend_id, change in sorted(self.by_hand.items()):
            pair = self._pair(backend_id)
            if pair is None or pair[0].decision != change.decision or not self._still(change, pair):
                del self.by_hand[backend_id]
            elif backend_id in self.facts.asking or backend_id in self.facts.busy or self.now_ns < change.next_ns:
                continue
            elif change.tries >= MAX_ASKS:
                del self.by_hand[backend_id]
                self.notes.append(f"the change of backend {backend_id} made by hand was not agreed on: it is undone")
            elif change.kind is DecisionKind.UP or self._old_primary_answers():
                tries = change.tries + 1
                self.by_hand[backend_id] = replace(change, tries=tries, next_ns=self.now_ns + ASK_AGAIN_NS)
                how = "attached" if change.kind is DecisionKind.UP else "promoted"
                yield Ask(change.kind, backend_id, f"{how} by hand")

    def _still(self, change: ByHand, pair: Pair) -> bool:
        backend, one = pair
        if change.kind is DecisionKind.UP:
            return one.usable and backend.status is BackendStatus.DOWN
        agreed = self._agreed_primary()
        still = one.usable and one.role is BackendRole.PRIMARY and backend.role is not BackendRole.PRIMARY
        # A primary that does not answer has failed: that takes votes, not a word.
        return still and agreed is not None and not self._silent(agreed.backend_id)

    def _old_primary_answers(self) -> bool:
        agreed = self._agreed_primary()
        return agreed is not None and self._answers(agreed.backend_id)

    def _protected(self) -> set[int]:
        """What was changed by hand and waits for its decision."""
        found = set(self.by_hand)
        agreed = self._agreed_primary()
        if agreed is not None and any(one.kind is DecisionKind.PROMOTE for one in self.by_hand.values()):
            found.add(agreed.backend_id)
        return found

    # --- orders -----------------------------------------------------------------------------------

    def _order(self, wrong_since_ns: int | None) -> Order | None:
        """The first order that may be given now."""
        if self.facts.ordering or self.now_ns >= self.view.at_ns + FRESH_NS:
            return None
        if self.memory.last_order_ns and self.view.at_ns < self.memory.last_order_ns + SETTLE_NS:
            return None
        protected = self._protected()
        for backend, one in self.pairs:
            if one.backend_id in protected or one.backend_id in self.facts.busy or not self._may_order(one.backend_id):
                continue
            order = self._status_order(backend, one)
            if order is not None:
                return self._give(order)
        order = self._role_order(wrong_since_ns, protected)
        return None if order is None else self._give(order)

    def _status_order(self, backend: Backend, one: PoolBackend) -> Order | None:
        why = f"agreed {backend.status.value} by decision {backend.decision}"
        if backend.reason:
            why += f" ({backend.reason})"
        if backend.status is BackendStatus.DOWN and one.usable:
            return Order(OrderKind.DETACH, one.backend_id, why)
        called = self.now_ns >= self.down_since_ns.get(one.backend_id, self.now_ns) + CALLED_NS
        if backend.status is BackendStatus.UP and one.down and called and self._answers(one.backend_id):
            return Order(OrderKind.ATTACH, one.backend_id, f"{why}, and PostgreSQL answers")
        return None

    def _role_order(self, wrong_since_ns: int | None, protected: set[int]) -> Order | None:
        agreed, seen = self._agreed_primary(), self._primary_pair()
        if wrong_since_ns is None or agreed is None or seen is None or self.now_ns < wrong_since_ns + WRONG_PRIMARY_NS:
            return None
        touched = {agreed.backend_id, seen[1].backend_id}
        if touched & (protected | self.facts.busy) or not all(self._may_order(one) for one in touched):
            return None
        return Order(
            OrderKind.PROMOTE, agreed.backend_id, f"agreed primary, which backend {seen[1].backend_id} is there"
        )

    def _give(self, order: Order) -> Order:
        before = self.ordered.get(order.backend_id)
        tries = before.tries + 1 if before is not None and self._in_vain(order.backend_id, before) else 1
        due_ns = 0 if before is None else before.attach_due_ns
        if order.kind is OrderKind.ATTACH:
            due_ns = self.now_ns + AWAITED_NS
        self.ordered[order.backend_id] = Ordered(order.kind, self.now_ns, tries, attach_due_ns=due_ns)
        return order

    def _in_vain(self, backend_id: int, ordered: Ordered) -> bool:
        """Whether the newest order was for what is still wanted: what came of an older decision slows nothing down."""
        known = self.known.get(backend_id)
        outdated = known is not None and ordered.at_ns < known.since_ns
        return not outdated and self.now_ns < ordered.at_ns + 2 * MAX_PAUSE_NS

    def _may_order(self, backend_id: int) -> bool:
        ordered = self.ordered.get(backend_id)
        if ordered is None:
            return True
        tries = ordered.tries if self._in_vain(backend_id, ordered) else 1
        pause_ns = min(GRACE_NS << min(tries - 1, 10), MAX_PAUSE_NS)
        return self.now_ns >= ordered.at_ns + pause_ns

    def _attach_due(self, backend_id: int) -> bool:
        # Judged by what was known before this view: the view itself may be what fulfils the order.
        ordered = self.memory.ordered.get(backend_id)
        return ordered is not None and self.now_ns < ordered.attach_due_ns

    def _awaits(self, backend_id: int, kind: OrderKind) -> bool:
        ordered = self.memory.ordered.get(backend_id)
        waits = ordered is not None and ordered.awaited and self.now_ns < ordered.at_ns + AWAITED_NS
        return waits and ordered is not None and ordered.kind is kind

    # --- roles ------------------------------------------------------------------------------------

    def _agreed_primary(self) -> Backend | None:
        """The primary that all agreed on, if it is up."""
        found = [one for one in self.agreed.backends if one.role is BackendRole.PRIMARY]
        return next((one for one in found if one.status is BackendStatus.UP), None)

    def _primary_pair(self) -> Pair | None:
        """The primary of this pgpool-II, if all know it."""
        return next((pair for pair in self.pairs if pair[1].role is BackendRole.PRIMARY and pair[1].usable), None)

    def _under_way(self) -> bool:
        """Whether the command of a decision may be changing the roles just now."""
        return any(intent.state in UNDER_WAY for intent in self.agreed.intents)

    def _wrong_primary_since_ns(self) -> int | None:
        """Since when the wrong backend has been primary there, although PostgreSQL itself agrees with all."""
        agreed, seen = self._agreed_primary(), self._primary_pair()
        pair = None if agreed is None else self._pair(agreed.backend_id)
        if seen is None or pair is None or seen[0].backend_id == pair[0].backend_id or self._under_way():
            return None
        if not pair[1].usable or pair[1].server_role != "primary":
            return None
        if seen[1].server_role == "primary":
            self.troubles.append(
                f"backends {seen[0].backend_id} and {pair[0].backend_id} both say that they are primary"
            )
            return None
        since_ns = self.memory.wrong_primary_since_ns
        return self.now_ns if since_ns is None else since_ns

    # --- what is said -----------------------------------------------------------------------------

    def _probes(self) -> Iterator[PoolBackend]:
        """Backends that are down here and agreed up: does PostgreSQL answer this node?"""
        for backend, one in self.pairs:
            probed = self.facts.probes.get(one.backend_id)
            due = probed is None or self.now_ns >= probed.at_ns + PROBE_AGAIN_NS
            if backend.status is BackendStatus.UP and one.down and due:
                yield one

    def _seen(self, one: PoolBackend) -> SeenBackend:
        pair = self._pair(one.backend_id)
        if pair is None:
            return _seen(one, False, 0)
        backend = pair[0]
        failed = backend.status is BackendStatus.UP and one.down and self._silent(one.backend_id)
        return _seen(one, failed, backend.decision)

    def _obstacle(self) -> str:
        """Why this pgpool-II is not yet as all agreed; empty for ever once it has been."""
        if self.memory.settled:
            return ""
        for backend, one in self.pairs:
            # Nothing more can be done about a backend that does not answer here: this node votes against it.
            if not _fits(backend, one) and not (one.down and self._silent(one.backend_id)):
                word = "up" if one.usable else "down"
                state = f"backend {one.backend_id} is {word} there, agreed {backend.status.value}"
                return f"its pgpool-II is not yet in the agreed state: {state}"
        return ""
