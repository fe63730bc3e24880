"""Decisions on backends: numbered once, alternating, by consensus, and nobody acts on what is not committed (P23)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.simulation.checks.violation import Violation
from tests.simulation.host import Host
from tests.simulation.pools import Pool
from tests.simulation.world import World

from pgvigil.watchdog.core.backends import FOLLOWED
from pgvigil.watchdog.core.consensus import CoreConsensus, needed
from pgvigil.watchdog.core.record import Decision, DecisionKind, Document, Stamp


class Decisions:
    """What was decided, in the order of commits, and what every node has acted on."""

    def __init__(self, world: World, hosts: Sequence[Host], rule: CoreConsensus) -> None:
        self._world = world
        self._hosts = {host.id: host for host in hosts}
        self._rule = rule
        self._newest: Document | None = None
        self._made: dict[int, Decision] = {}
        self._committed_at_ns: dict[int, int] = {}  # by number: when it was first seen to be committed
        self._acted: dict[int, Stamp] = {}
        self.committed: Callable[[int], Stamp] = lambda term: Stamp(0, 0)
        self._asked: Counter[tuple[DecisionKind, int]] = Counter()
        self._granted: Counter[tuple[DecisionKind, int]] = Counter()
        self.count = 0

    def asks(self, kind: DecisionKind, backend_id: int) -> None:
        """Somebody asks for the first time; repeating is the core's own."""
        self._asked[kind, backend_id] += 1

    def commits(self, document: Document) -> None:
        """A document is committed; those of different terms may be seen out of order."""
        newest = self._newest
        if newest is not None and document.stamp <= newest.stamp:
            return
        self._newest = document
        self._check_numbers(document, newest)
        for decision in document.decisions:
            if self._made.setdefault(decision.number, decision) != decision:
                raise Violation(
                    "decision", f"decision {decision.number} is {self._made[decision.number]} and {decision}"
                )
        if newest is not None and newest.backends:
            self._check_states(document, newest)
        self._committed_at_ns.setdefault(document.decided, self._world.now_ns)

    def _check_numbers(self, document: Document, newest: Document | None) -> None:
        before = 0 if newest is None else newest.decided
        if document.decided < before:
            raise Violation("decision", f"{document.stamp} goes back from decision {before} to {document.decided}")
        numbers = [decision.number for decision in document.decisions]
        if numbers != sorted(set(numbers)) or any(number > document.decided for number in numbers):
            raise Violation("decision", f"{document.stamp} has decisions {numbers}, decided {document.decided}")

    def _check_states(self, document: Document, newest: Document) -> None:
        for backend in document.backends:
            old = newest.backend(backend.backend_id)
            if old is None:
                continue
            if backend.decision < old.decision or (backend.status != old.status and backend.decision == old.decision):
                raise Violation(
                    "decision",
                    f"backend {backend.backend_id} goes from {old.status.value} (decision {old.decision}) to "
                    f"{backend.status.value} (decision {backend.decision})",
                )
        for decision in document.decisions:
            if decision.number > newest.decided:
                self.count += 1
                self._check_asked(decision)
                self._check_decision(decision, document, newest)

    def _check_decision(self, decision: Decision, document: Document, newest: Document) -> None:
        """A lone voter's commits are not all seen: several decisions may come at once."""
        old = newest.backend(decision.backend_id)
        if old is None or document.decided > newest.decided + 1:
            return
        wanted = {DecisionKind.DOWN: "up", DecisionKind.UP: "down"}.get(decision.kind)
        if wanted is not None and old.status.value != wanted:
            raise Violation("decision", f"{decision} although backend {old.backend_id} is {old.status.value} already")
        if decision.kind is DecisionKind.DOWN and not decision.operator:
            alone = len(document.voters) == 1  # a lone voter's commits are seen late
            self._check_consensus(decision, document, 0 if alone else self._committed_at_ns.get(old.decision, 0))

    def _check_asked(self, decision: Decision) -> None:
        """One decision at most for each ask; reports of failures are counted as votes instead."""
        key = (decision.kind, decision.backend_id)
        by_votes = decision.kind is DecisionKind.DOWN and not decision.operator
        if by_votes or decision.reason == FOLLOWED:
            return
        self._granted[key] += 1
        if self._granted[key] > self._asked[key]:
            raise Violation(
                "twice", f"{decision} is number {self._granted[key]} of {self._asked[key]} that were asked for"
            )

    def _check_consensus(self, decision: Decision, document: Document, since_ns: int) -> None:
        """Enough members have had it for failed since what was decided on it before was committed."""
        members = [voter.node_id for voter in document.voters if not self._hosts[voter.node_id].node.witness]
        failing = [node for node in members if self._failing_at_ns(node, decision.backend_id) > since_ns]
        enough = needed(len(members), self._rule)
        if len(failing) < (1 if self._rule.several_from_node else enough):
            raise Violation("consensus", f"{decision} by {failing} of {members}, needed are {enough}")

    def _failing_at_ns(self, node: int, backend_id: int) -> int:
        pool = self._hosts[node].pool
        return -1 if pool is None else pool.failing.get(backend_id, -1)

    def acts(self, pool: Pool, document: Document) -> None:
        """A node changes something at its pgpool-II."""
        stamp, record = document.stamp, self._hosts[pool.node].disk.record
        alone = len(document.voters) == 1 and record is not None and record.stamp >= stamp  # a commit by its own disk
        if stamp > self.committed(stamp.term) and not alone:
            raise Violation("acted", f"n{pool.node} acts on {stamp}, committed is {self.committed(stamp.term)}")
        if stamp < self._acted.get(pool.node, stamp):
            raise Violation("acted", f"n{pool.node} acts on {stamp} after {self._acted[pool.node]}")
        self._acted[pool.node] = stamp

    @staticmethod
    def unlike(hosts: Mapping[int, Host]) -> str:
        """In peace: what keeps these nodes from having one table, carried out everywhere; empty if nothing does."""
        tables = {}
        for node, host in hosts.items():
            agreed = None if host.main is None else host.main.core.agreed_now()
            if agreed is None or not agreed.backends:
                return f"n{node} knows no agreed table"
            tables[node] = agreed.backends
            for backend in agreed.backends:
                if host.pool is not None and host.pool.is_up[backend.backend_id] != (backend.status.value == "up"):
                    return f"backend {backend.backend_id} is not {backend.status.value} at n{node}"
        return "" if len(set(tables.values())) == 1 else f"the tables differ: {tables}"
