"""One seed from beginning to end.

Phase one: faults of the schedule, every checker after every step. Phase two: a majority is healed, and a leader
with the VIP is demanded within L + (n-1) * stagger + one round + a margin. The margin holds what protocol section
9 names beside a plain election: processes that are just ending (a smart stop lasts up to L + 1 s), the restart
wait after it, a leader that was elected one-way (one more L), verdicts of the storm (dead time, 3 s until silent
verdicts go stale) and split votes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.checkers import Checkers
from tests.simulation.checks.law import majority
from tests.simulation.checks.violation import Violation
from tests.simulation.faults import Fault, schedule
from tests.simulation.host import Host
from tests.simulation.injector import LEASE_FACTORS, Injector
from tests.simulation.network import Network
from tests.simulation.options import Options
from tests.simulation.pools import Call, Commands, Pool
from tests.simulation.story import Story
from tests.simulation.upstream import Upstream
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.errors import CommandError, InvariantError
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.record import Document, QuorumRule

NS_PER_HOUR = 3600 * NS_PER_S
PEACE_LEASES = 6
TABLE_NS = 30 * NS_PER_S  # five seconds until a table is built without everybody, and commands of a second and a half
SLOW_DISKS_LEASES = 4  # with slow disks: rounds that end too early until their limit has doubled often enough
MOST_STEPS = 20_000_000
OURS = (Violation, InvariantError, CommandError, AssertionError, ArithmeticError, LookupError)


@dataclass
class Result:
    """What came of a run; `checker` is empty if nothing was violated."""

    options: Options
    faults: tuple[Fault, ...]
    checker: str = ""
    text: str = ""
    lines: list[str] = field(default_factory=list)
    digest: str = ""
    hours: float = 0.0
    recovery_leases: float = -1.0
    counts: Counter[str] = field(default_factory=Counter)

    def report(self, last: int = 200) -> str:
        """Seed and options first, then the schedule, then the end of the story."""
        head = f"seed {self.options.seed}: {self.text}\noptions: {self.options.describe()}"
        faults = "\n".join(f"  fault: {fault}" for fault in self.faults)
        brief = " BRIEF=1" if self.options.brief else ""
        again = f"again: make simulate SEED={self.options.seed} PROFILE={self.options.profile}{brief}"
        return "\n".join([head, again, f"{len(self.faults)} faults:", faults, *self.lines[-last:], self.text])


class Run:
    """A cluster with everything that happens to it."""

    def __init__(self, options: Options, faults: Sequence[Fault] | None = None) -> None:
        """`faults` replaces the drawn schedule (the shrinker's use)."""
        self.options = options
        self.faults = schedule(options) if faults is None else tuple(faults)
        self.world = World(options.seed)
        self.story = Story(self.world)
        self.network = Network(self.world, options)
        self.hosts = {
            node.node_id: Host(self.world, options, node, self.network, self.story) for node in options.nodes()
        }
        self.most_lease_ns = min(60_000, max(options.lease_ms * max(LEASE_FACTORS) // 100, 300)) * NS_PER_MS
        self.checkers = Checkers(self.world, list(self.hosts.values()), self.most_lease_ns, options.consensus)
        least_lease_ms = max(options.lease_ms * min(LEASE_FACTORS) // 100, 3 * options.renew_ms, 300)
        self.upstream = Upstream(self.world, options, self.network, least_lease_ms * NS_PER_MS)
        self.checkers.upstream(self.upstream)
        self.checkers.on_open = self._opened
        for host in self.hosts.values():
            host.watcher, host.upstream = self.checkers, self.upstream
            host.peers = {other.id: other for other in self.hosts.values() if other is not host}
        self.injector = Injector(self.world, options, self.hosts, self.network, self.story)
        self._add_pools()
        self._healed: set[int] = set()
        self._by_half = False
        self._healed_at_ns = 0
        self._recovered_at_ns: int | None = None
        self._last_open_ns = 0
        self._source = self.world.source("run")

    def _add_pools(self) -> None:
        """Every member has a pgpool-II with the same servers behind it."""
        servers = self.injector.servers
        self.injector.on_ask = self.checkers.decisions.asks
        for host in self.hosts.values() if self.options.backends else ():
            source = self.world.source(f"pool {host.id}")
            host.users_commands = Commands(servers, source)
            if not host.node.witness:
                host.pool = Pool(self.world, host, servers, source)
                host.pool.on_order = self.checkers.decisions.acts
                host.pool.on_ask = self.checkers.decisions.asks
                host.pool.on_late = self.unanswered

    @staticmethod
    def unanswered(pool: Pool, call: Call) -> None:
        """A call is over its limit by more than a disk excuses."""
        raise Violation(
            "liveness", f"the call of pgpool-II at n{pool.node} for backend {call.backend_id} got no answer"
        )

    # --- from beginning to end --------------------------------------------------------------------

    def run(self) -> Result:
        """Both phases; a violation ends the run and is part of the result."""
        result = Result(self.options, self.faults)
        try:
            self._begin()
            self.world.run(lambda: self.world.steps > MOST_STEPS)
            if not self.world.over:
                raise Violation("liveness", f"{MOST_STEPS} steps did not bring the run to its end")
        except OURS as error:
            result.checker = error.checker if isinstance(error, Violation) else type(error).__name__
            result.text = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
            self.story.say("", f"VIOLATION {result.text}")
        result.lines = self.story.lines()
        result.digest = self.story.digest()
        self._count(result)
        return result

    def _count(self, result: Result) -> None:
        result.hours = self.world.now_ns / NS_PER_HOUR
        if self._recovered_at_ns is not None:
            result.recovery_leases = (self._recovered_at_ns - self._healed_at_ns) / self.options.lease_ns
        result.counts.update(self.injector.counts)
        result.counts["faults"] = sum(self.injector.counts.values())
        result.counts["messages"] = self.network.carried
        result.counts["events"] = self.world.steps
        result.counts["elections"] = self.checkers.ballots.elections
        result.counts["recoveries by half"] = int(self._by_half and self._recovered_at_ns is not None)
        result.counts["commits"] = self.checkers.records.commits
        result.counts["decisions"] = self.checkers.decisions.count
        result.counts["starts"] = sum(host.starts for host in self.hosts.values())
        result.counts["excused overlaps"] = self.checkers.holders.excused_overlaps

    def _begin(self) -> None:
        calm_ns = 6 * self.options.lease_ns if self.options.calm_start else 0
        self._watch_links()
        for host in self.hosts.values():
            self.world.at(int(self._source.random() * self.options.lease_ns // 2), host.start)
        self.world.at(calm_ns, lambda: self.injector.plan(self._shifted(calm_ns)))
        self.world.at(calm_ns + self.options.storm_ns, self._heal)

    def _watch_links(self) -> None:
        """The tie-breakers notice whatever the faults do to links, within a small part of a lease."""
        if self.options.profile == "half":
            self.upstream.watch()
            self.world.after(self.options.lease_ns // 50, self._watch_links)

    def _shifted(self, by_ns: int) -> tuple[Fault, ...]:
        return tuple(
            Fault(fault.at_ns + by_ns, fault.kind, fault.node, fault.other, fault.span_ns, fault.number, fault.detail)
            for fault in self.faults
        )

    # --- phase two --------------------------------------------------------------------------------

    @property
    def allowed_ns(self) -> int:
        """How long the healed majority may take."""
        renew_ns = self.options.renew_ms * NS_PER_MS
        plain_ns = self.most_lease_ns + (self.options.size - 1) * renew_ns // 2 + renew_ns
        deadtime_ns = self.options.deadtime_ms * NS_PER_MS
        half_ns = 8 * self.most_lease_ns if self._by_half else 0  # P22: silence of 2 L, a series of 3 L, links 2 L
        slow_ns = SLOW_DISKS_LEASES * self.most_lease_ns if self.options.slow_disks else 0
        return plain_ns + 3 * self.most_lease_ns + deadtime_ns + 8 * renew_ns + 4 * NS_PER_S + slow_ns + half_ns

    def _heal(self) -> None:
        self.injector.end()
        self.injector.servers.heal()
        self.network.mend_all()
        self.network.weather.spread_us = min(self.network.weather.spread_us, self.options.renew_ms * 1000 // 16)
        chosen = self._choose_half() or self._choose()
        if chosen is None:
            self.story.say("", "no majority can be healed: nothing is demanded")
            self.world.finish()
            return
        self.upstream.calm(min(chosen))
        for node in () if not self._by_half else self.hosts:
            if node not in chosen:
                self.hosts[node].power_off()
        for one in () if self._by_half else self.hosts:
            for other in self.hosts:
                if one != other and not (one in chosen and other in chosen) and not self._heard(one, other, chosen):
                    self.network.cut((one, other))
        self._healed, self._healed_at_ns = chosen, self.world.now_ns
        self.story.say("", f"the faults end; healed are {sorted(chosen)}")
        for host in self.hosts.values():
            host.unpause()
            for process in host.processes():
                host.proceed(process)  # those outside too: who stands still inside an action keeps others from going on
        for node in sorted(chosen):
            self._heal_host(self.hosts[node])
        self._keep_running()
        self.world.after(self.allowed_ns, self._demand)

    def _heard(self, one: int, other: int, chosen: set[int]) -> bool:
        """Half of the nodes outside still reach the majority, and hear nothing (P6, protocol section 9)."""
        speaks = self.options.profile == "deaf" or (one + self.options.seed) % 2 == 0
        return speaks and one not in chosen and other in chosen

    def _heal_host(self, host: Host) -> None:
        host.disk.heal()
        if host.main is not None:
            host.main.process.trap = None
        self.injector.set_pgpool(host, Health.ALIVE)
        self.injector.set_fence(host, events.FenceState(True, ""))
        self.injector.set_stuck(host, False)
        host.power_on()
        host.start()

    def _keep_running(self) -> None:
        """The supervisor: what has ended is started again."""
        for node in sorted(self._healed):
            self.hosts[node].start()
        self.world.after(self.options.lease_ns // 10, self._keep_running)

    def _choose_half(self) -> set[int] | None:
        """P22: half of the voters, if every document anywhere says half and the same; the others stay off."""
        known = [host.main.core.document for host in self.hosts.values() if host.main is not None]
        known += [None if host.disk.record is None else host.disk.record.document for host in self.hosts.values()]
        documents = [document for document in known if document is not None]
        source = self.world.source("half healed")
        if len(documents) < len(known) or self.options.profile != "half" or source.random() < 0.3:
            return None
        voters = len(documents[0].voters)
        same = {(document.quorum, document.terms_of_half) for document in documents}
        bound = self.injector.bound_voters(documents[0])
        if len(same) > 1 or documents[0].quorum is not QuorumRule.HALF or voters % 2 or len(bound) < voters:
            return None
        chosen = set(source.sample(bound, voters // 2))
        self._by_half = any(not self.hosts[node].node.witness for node in chosen)
        return chosen if self._by_half else None

    def _choose(self) -> set[int] | None:
        """A majority by every document that is on any disk, with a node that may lead; None if there is none left."""
        documents = [
            host.disk.record.document
            for host in self.hosts.values()
            if host.disk.record is not None and host.disk.record.document is not None
        ]
        order = list(self.hosts)
        self._source.shuffle(order)
        if self.options.profile == "deaf":
            order.sort(key=self._leads)  # who believes to lead stays outside if it can
        young = not documents or any(document.stamp.term == 0 for document in documents)
        if self.options.heal_all or young or len(documents) < len(self.hosts):
            return set(order) if self._enough(set(order), documents) else None
        for count in range(1, len(order) + 1):
            if self._enough(set(order[:count]), documents):
                return set(order[:count])
        return None

    def _leads(self, node: int) -> bool:
        main = self.hosts[node].main
        return main is not None and main.core.leading

    def _enough(self, chosen: set[int], documents: list[Document]) -> bool:
        for document in documents:
            bound = [node for node in self.injector.bound_voters(document) if node in chosen]
            able = [node for node in bound if not self.hosts[node].node.witness]
            open_seats = [voter for voter in document.voters if voter.record_id == 0]
            if not able or len(bound) + (len(open_seats) if document.stamp.term == 0 else 0) < majority(
                len(document.voters)
            ):
                return False
        return True

    def _opened(self, host: Host) -> None:
        self._last_open_ns = max(self._last_open_ns, host.kernel.gate_until_ns)
        if self._healed_at_ns and self._recovered_at_ns is None and host.id in self._healed:
            self._recovered_at_ns = self.world.now_ns

    def _demand(self) -> None:
        if self._recovered_at_ns is None:
            waited_ms = self.allowed_ns // NS_PER_MS
            raise Violation("liveness", f"nobody has the VIP {waited_ms} ms after a majority was healed")
        self.world.after(PEACE_LEASES * self.options.lease_ns, self._peace)

    def _peace(self) -> None:
        if self._last_open_ns < self.world.now_ns - self.options.lease_ns:
            raise Violation("liveness", "the VIP was lost again in peace")
        if self.options.backends:
            self._one_table(self.world.now_ns + TABLE_NS + 4 * self.options.lease_ns)
        else:
            self.world.finish()

    def _one_table(self, until_ns: int) -> None:
        """All healed nodes come to the same agreed table, and all pgpool-IIs to what it says."""
        unlike = self.checkers.decisions.unlike({node: self.hosts[node] for node in sorted(self._healed)})
        if not unlike:
            self.world.finish()
        elif self.world.now_ns >= until_ns:
            raise Violation("liveness", f"no one table {TABLE_NS // NS_PER_S} s after a majority was healed: {unlike}")
        else:
            self.world.after(NS_PER_S // 10, lambda: self._one_table(until_ns))
