"""Makes the scheduled faults happen to a cluster, and ends them when their time is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.checks.law import majority
from tests.simulation.faults import Fault
from tests.simulation.host import Host
from tests.simulation.network import Network
from tests.simulation.options import Options
from tests.simulation.pools import Servers
from tests.simulation.process import Process
from tests.simulation.story import Story
from tests.simulation.upstream import ADDRESSES
from tests.simulation.watchdog import Main
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.record import DecisionKind, Document
from pgvigil.watchdog.core.states import State

ASK_NS = 10_000 * NS_PER_MS
LEASE_FACTORS = (100, 70, 150)  # percent of L that a reload may propose


class Injector:
    """One method for each kind of fault."""

    def __init__(self, world: World, options: Options, hosts: dict[int, Host], network: Network, story: Story) -> None:
        self._world = world
        self._options = options
        self._hosts = hosts
        self._network = network
        self._story = story
        self._peace = False
        self.counts: Counter[str] = Counter()
        self.servers = Servers(options.backends)
        self._asked = 1 << 17
        self.on_ask: Callable[[DecisionKind, int], None] = lambda kind, backend_id: None
        self._kinds: dict[str, Callable[[Host, Fault], str | None]] = {
            "kill": self._kill,
            "kill helper": self._kill_helper,
            "crash": self._crash,
            "stop": self._stop,
            "stop, then kill": self._stop_then_kill,
            "stop helper": self._stop_helper,
            "pause": self._pause,
            "stall": self._stall,
            "trap": self._trap,
            "cut": self._cut,
            "isolate": self._isolate,
            "deafen": self._deafen,
            "split": self._split,
            "flap": self._flap,
            "lossy": self._lossy,
            "replay": self._replay,
            "pgpool": self._pgpool,
            "fence": self._fence,
            "stick": self._stick,
            "lose": self._lose,
            "switch": self._switch,
            "leave": self._leave,
            "reload": self._reload,
            "refile": self._refile,
            "bootstrap": self._bootstrap,
            "remove": self._remove,
            "add": self._add,
            "backend": self._backend,
            "backend cut": self._backend_cut,
            "operator": self._operator,
            "promote": self._promote,
        }

    def plan(self, faults: tuple[Fault, ...]) -> None:
        """Put them all into the queue of the world."""
        for fault in faults:
            self._world.at(fault.at_ns, self._striker(fault))

    def end(self) -> None:
        """No fault begins any more."""
        self._peace = True

    def _striker(self, fault: Fault) -> Callable[[], None]:
        return lambda: self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        if self._peace:
            return
        anybody = self._hosts[1 + fault.number % len(self._hosts)]
        host = self._hosts[fault.node] if fault.node else self.leader() or anybody
        said = self._kinds[fault.kind](host, fault)
        if said is not None:
            self.counts[fault.kind] += 1
            self._story.say(host.node.label, f"  ({said})")

    def leader(self) -> Host | None:
        """Whoever leads now, by its own word."""
        for host in self._hosts.values():
            if host.main is not None and host.main.core.state is State.LEADER:
                return host
        return None

    def _later(self, fault: Fault, action: Callable[[], None]) -> None:
        self._world.after(fault.span_ns, lambda: None if self._peace else action())

    # --- processes --------------------------------------------------------------------------------

    def _kill(self, host: Host, fault: Fault) -> str | None:
        if host.main is None:
            return None
        host.kill_main()
        self._later(fault, host.start_main)
        return f"watchdog main killed, back after {fault.span_ns / 1e6:.1f} ms"

    def _kill_helper(self, host: Host, fault: Fault) -> str | None:
        if host.helper is None:
            return None
        host.kill_helper()
        self._later(fault, host.start_helper)
        return "lifecheck and heartbeats killed"

    def _stop(self, host: Host, fault: Fault) -> str | None:
        main = host.main
        if main is None or main.process.stopped:
            return None
        self._freeze(host, main.process, fault)
        if fault.number & 1 and host.helper is not None:
            self._freeze(host, host.helper.process, fault)
        return f"stopped for {fault.span_ns / 1e6:.1f} ms"

    def _stop_then_kill(self, host: Host, fault: Fault) -> str | None:
        """Continued for a moment, long enough to finish what it was at, then killed."""
        main = host.main
        if main is None or main.process.stopped:
            return None
        self._freeze(host, main.process, replace(fault, span_ns=min(fault.span_ns, self._options.lease_ns // 2)))

        def kill() -> None:
            if host.main is main:
                self._kill(host, replace(fault, span_ns=2 * self._options.lease_ns))

        self._later(replace(fault, span_ns=min(fault.span_ns, self._options.lease_ns // 2) + 3_000_000), kill)
        return "stopped, and killed 3 ms after it goes on"

    def _stop_helper(self, host: Host, fault: Fault) -> str | None:
        if host.helper is None or host.helper.process.stopped:
            return None
        self._freeze(host, host.helper.process, fault)
        return "lifecheck and heartbeats stopped"

    def _freeze(self, host: Host, process: Process, fault: Fault) -> None:
        host.stop(process)
        self._later(fault, lambda: host.proceed(process))

    def _trap(self, host: Host, fault: Fault) -> str | None:
        main = host.main
        if main is None or main.process.trap is not None or main.process.stopped:
            return None  # a second hit between two readings of the clock is the stated limit of P20
        ends, _, action = fault.detail.partition(" at ")
        left = fault.number

        def spring(name: str) -> None:
            nonlocal left
            if self._peace or (action and name != action):
                return
            left -= 1
            if left > 0:
                return
            main.process.trap = None
            said = self._kinds[ends](host, replace(fault, number=0))
            if said is not None:
                self.counts[f"trap: {ends}"] += 1
                self._story.say(host.node.label, f"  (right before '{name}': {said})")

        main.process.trap = spring
        return f"trap: {fault.detail or 'any action'}, {fault.number}"

    # --- machines ---------------------------------------------------------------------------------

    def _crash(self, host: Host, fault: Fault) -> str | None:
        if not host.on:
            return None
        host.power_off()
        self._later(fault, host.power_on)
        return f"machine lost, back after {fault.span_ns / 1e6:.1f} ms"

    def _pause(self, host: Host, fault: Fault) -> str | None:
        if not host.on or host.paused:
            return None
        host.pause()
        self._later(fault, host.unpause)
        return f"machine paused for {fault.span_ns / 1e6:.1f} ms"

    def _stall(self, host: Host, fault: Fault) -> str | None:
        host.disk.stalled_until_ns = self._world.now_ns + fault.span_ns
        return f"disk stalls for {fault.span_ns / 1e6:.1f} ms"

    def _lose(self, host: Host, fault: Fault) -> str | None:
        if not self.may_lose(host) or host.disk.record is None:
            return None
        host.lost_records.add(host.disk.record.record_id)
        host.kill_main()
        host.disk.lose()
        self._later(fault, host.start_main)
        return "record lost"

    def newest_document(self) -> Document | None:
        """The newest document on any disk."""
        records = [host.disk.record for host in self._hosts.values() if host.disk.record is not None]
        documents = [record.document for record in records if record.document is not None]
        return max(documents, key=lambda document: document.stamp, default=None)

    def bound_voters(self, document: Document) -> list[int]:
        """Voters whose disk still has the record that the document names."""
        return [
            voter.node_id
            for voter in document.voters
            if (record := self._hosts[voter.node_id].disk.record) is not None and record.record_id == voter.record_id
        ]

    def may_lose(self, host: Host) -> bool:
        """More lost records than a minority are the end of a cluster, by nature."""
        records = [other.disk.record for other in self._hosts.values()]
        for record in records:
            if record is None or record.document is None:
                return False
            left = [node for node in self.bound_voters(record.document) if node != host.id]
            able = [node for node in left if not self._hosts[node].node.witness]
            if len(left) < majority(len(record.document.voters)) or not able:
                return False
        return True

    # --- network ----------------------------------------------------------------------------------

    def _cut_links(self, links: list[tuple[int, int]], fault: Fault) -> None:
        mail, beats = fault.number % 8 != 1, fault.number % 8 != 2
        for link in links:
            self._network.cut(link, mail, beats)
        self._later(fault, lambda: self._mend(links))

    def _mend(self, links: list[tuple[int, int]]) -> None:
        for link in links:
            self._network.mend(link)

    @staticmethod
    def _ways(one: int, other: int, number: int) -> list[tuple[int, int]]:
        return [[(one, other)], [(other, one)], [(one, other), (other, one)]][number % 3]

    def _cut(self, host: Host, fault: Fault) -> str | None:
        if fault.other == host.id:
            return None
        links = self._ways(host.id, fault.other, fault.number >> 4)
        self._cut_links(links, fault)
        return f"cut {links} for {fault.span_ns / 1e6:.1f} ms"

    def _isolate(self, host: Host, fault: Fault) -> str | None:
        others = [node for node in self._hosts if node != host.id]
        links = [link for node in others for link in self._ways(host.id, node, fault.number >> 4)]
        self._cut_links(links, fault)
        return f"isolated {('out', 'in', 'both ways')[(fault.number >> 4) % 3]} for {fault.span_ns / 1e6:.1f} ms"

    def _deafen(self, host: Host, fault: Fault) -> str | None:
        """It is heard by all and hears nobody."""
        self._cut_links([(node, host.id) for node in self._hosts if node != host.id], replace(fault, number=0))
        return f"hears nobody for {fault.span_ns / 1e6:.1f} ms"

    def _split(self, host: Host, fault: Fault) -> str | None:
        inside = {node for node in self._hosts if fault.number >> node & 1} | {host.id}
        outside = [node for node in self._hosts if node not in inside]
        links = [link for one in sorted(inside) for node in outside for link in ((one, node), (node, one))]
        self._cut_links(links, replace(fault, number=0))
        return f"split off {sorted(inside)} for {fault.span_ns / 1e6:.1f} ms"

    def _flap(self, host: Host, fault: Fault) -> str | None:
        if fault.other == host.id:
            return None
        period_ns = max(self._options.lease_ns * (1 + fault.number % 8) // 10, 1)
        links = self._ways(host.id, fault.other, fault.number >> 4)
        rounds = 1 + fault.number % 12
        for index in range(rounds):
            begin = replace(fault, span_ns=2 * index * period_ns)
            self._later(begin, lambda: self._cut_links(links, replace(fault, span_ns=period_ns, number=0)))
        return f"flaps {links} {rounds} times every {2 * period_ns / 1e6:.1f} ms"

    def _lossy(self, host: Host, fault: Fault) -> str | None:
        share = (10 + fault.number % 80) / 100
        links = [link for node in self._hosts if node != host.id for link in ((host.id, node), (node, host.id))]
        for link in links:
            self._network.lossy[link] = share
        self._later(fault, lambda: self._mend(links))
        return f"loses {share:.0%} for {fault.span_ns / 1e6:.1f} ms"

    def _replay(self, host: Host, fault: Fault) -> str | None:
        self._network.replay(1 + fault.number % 40)
        return f"{1 + fault.number % 40} old messages arrive again"

    # --- pgpool-II and VIP ------------------------------------------------------------------------

    def _pgpool(self, host: Host, fault: Fault) -> str | None:
        self.set_pgpool(host, Health.DEAD if fault.number & 3 else Health.UNKNOWN)
        self._later(fault, lambda: self.set_pgpool(host, Health.ALIVE))
        return f"pgpool-II is {host.pgpool_health.value}"

    @staticmethod
    def set_pgpool(host: Host, health: Health) -> None:
        """The local probe sees this from now on."""
        host.pgpool_health = health
        if host.helper is not None:
            host.helper.look_at_pgpool()

    def _fence(self, host: Host, fault: Fault) -> str | None:
        self.set_fence(host, events.FenceState(False, "the simulator took the gate away"))
        self._later(fault, lambda: self.set_fence(host, events.FenceState(True, "")))
        return "cannot hold the VIP"

    @staticmethod
    def set_fence(host: Host, fence: events.FenceState) -> None:
        """What the kernel permits from now on."""
        host.fence = fence
        if host.main is not None:
            host.main.orders.put(fence)

    def _stick(self, host: Host, fault: Fault) -> str | None:
        self.set_stuck(host, True)
        self._later(fault, lambda: self.set_stuck(host, False))
        return "the address cannot be taken off"

    @staticmethod
    def set_stuck(host: Host, stuck: bool) -> None:
        """Whether the address can be taken off."""
        host.stuck = stuck
        if host.main is not None:
            host.main.vip.stuck = stuck

    # --- backends ---------------------------------------------------------------------------------

    def _backend(self, host: Host, fault: Fault) -> str | None:
        """A server is dead for a while, on average long enough for a decision."""
        servers, backend_id = self.servers, fault.number % self.servers.count
        if not servers.alive[backend_id]:
            return None
        servers.alive[backend_id] = False
        span_ns = max(fault.span_ns, (fault.number % 7) * 500_000_000)
        self._later(replace(fault, span_ns=span_ns), lambda: servers.alive.__setitem__(backend_id, True))
        return f"backend {backend_id} is dead for {span_ns / 1e6:.1f} ms"

    def _backend_cut(self, host: Host, fault: Fault) -> str | None:
        """One node, or a few, do not reach a server."""
        servers, backend_id = self.servers, fault.number % self.servers.count
        cut = {(host.id, backend_id)} | {
            (node, backend_id) for node in self._hosts if fault.number >> (4 + node) & 3 == 3
        }
        servers.cut |= cut
        span_ns = max(fault.span_ns, (fault.number % 5) * 500_000_000)
        self._later(replace(fault, span_ns=span_ns), lambda: servers.cut.difference_update(cut))
        return f"{sorted(cut)} do not reach each other for {span_ns / 1e6:.1f} ms"

    def _operator(self, host: Host, fault: Fault) -> str | None:
        kind = DecisionKind.DOWN if fault.number & 1 else DecisionKind.UP
        return self._ask(host, kind, (fault.number >> 1) % self.servers.count, ())

    def _promote(self, host: Host, fault: Fault) -> str | None:
        backend_id = (fault.number >> 1) % self.servers.count
        switchover = ("switchover",) if fault.number & 1 else ()
        said = self._ask(host, DecisionKind.PROMOTE, backend_id, switchover)
        if said is not None and not switchover:
            self.servers.primary = backend_id  # the operator has promoted it in PostgreSQL
        return said

    def _ask(self, host: Host, kind: DecisionKind, backend_id: int, arguments: tuple[str, ...]) -> str | None:
        if host.main is None:
            return None
        self._asked += 1
        self.on_ask(kind, backend_id)
        until_ns = host.clock.read() + ASK_NS
        event = events.AskDecision(self._asked, kind, backend_id, True, "by hand", arguments, until_ns)
        return self._order(host, event, f"an operator asks: backend {backend_id} {kind.value}")

    # --- operators --------------------------------------------------------------------------------

    def _order(self, host: Host, event: events.Event, said: str) -> str | None:
        if host.main is None:
            return None
        host.main.orders.put(event)
        return said

    def _switch(self, host: Host, fault: Fault) -> str | None:
        to = fault.other if fault.number & 1 else 0
        wish = events.SwitchOver(fault.number, to)
        return self._order(host, wish, f"an operator wants another leader: {to or 'any'}")

    def _leave(self, host: Host, fault: Fault) -> str | None:
        if host.main is not None:
            self._later(fault, self._come_back(host, host.main))
        mode = StopMode(fault.detail)
        return self._order(host, events.Stop(mode), f"an operator stops it, {mode.value}")

    def _come_back(self, host: Host, leaving: Main) -> Callable[[], None]:
        """Started again as soon as it has ended, as a supervisor does on a reload."""

        def look() -> None:
            if self._peace:
                return
            if host.main is leaving:
                self._world.after(self._options.lease_ns // 20, look)
            else:
                host.start_main()

        return look

    def _reload(self, host: Host, fault: Fault) -> str | None:
        lease_ms = self._other_lease_ms(fault.number)
        for other in self._hosts.values():
            other.settings = self._options.settings(other.id, lease_ms)
        return self._leave(host, replace(fault, detail="smart"))

    def _other_lease_ms(self, number: int) -> int:
        percent = LEASE_FACTORS[number % 3]
        if self._options.slow_disks:
            percent = max(percent, 100)  # two writes must fit into a lease
        return min(max(self._options.lease_ms * percent // 100, 3 * self._options.renew_ms, 300), 60_000)

    def _refile(self, host: Host, fault: Fault) -> str | None:
        """Another file on some of the nodes, and one of them is restarted: a rolling reload that may stop half-way."""
        lease_ms = self._other_lease_ms(fault.number >> 2)
        quorum = "half" if fault.number & 3 else "majority"
        address = ADDRESSES[(fault.number >> 8) % len(ADDRESSES)]
        for other in self._hosts.values():
            if other is host or fault.number >> (8 + other.id) & 1:
                other.settings = self._options.settings(other.id, lease_ms, quorum, address)
        return self._leave(host, replace(fault, detail="smart"))

    def _bootstrap(self, host: Host, fault: Fault) -> str | None:
        return self._order(host, events.Bootstrap(fault.number), "an operator ends the waiting")

    def _remove(self, host: Host, fault: Fault) -> str | None:
        target = self.leader() or host
        event = events.ChangeVoters(fault.number, 0, fault.other)
        return self._order(target, event, f"an operator removes n{fault.other}")

    def _add(self, host: Host, fault: Fault) -> str | None:
        target = self.leader() or host
        event = events.ChangeVoters(fault.number, fault.other, 0)
        return self._order(target, event, f"an operator adds n{fault.other}")
