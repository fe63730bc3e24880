"""Who may answer for the VIP: never two gates open, never two leases valid, a minority does nothing.

A gate is what the kernel does, a lease what a process believes; both in true time. Two gates may overlap by the
millisecond that rule P20 lets pass (a process that was stopped right before it armed arms late, and sees it at
once). The one excuse is the stated limit of docs/safety.md: a whole machine that was paused. It counts from the
end of the pause and only for what was left of the gate's time-out, or for one L where the machine's clock did not
count the pause; overlaps inside it are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.checks.law import majority
from tests.simulation.checks.violation import Violation
from tests.simulation.host import Host
from tests.simulation.upstream import Truth
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.lease import Lease
from pgvigil.watchdog.core.record import QuorumRule

ROUNDING_NS = 10
GATE_TOLERANCE_NS = 1 * NS_PER_MS  # P20: what a re-read of the clock lets pass


class Holders:
    """Gates, leases and minorities of one cluster."""

    def __init__(self, world: World, hosts: Sequence[Host], max_lease_ns: int) -> None:
        self._world = world
        self._hosts = hosts
        self._max_lease_ns = max_lease_ns
        self._lease_seen: dict[int, tuple[Lease | None, int | None]] = {}
        self._lease_end_ns: dict[int, int] = {}
        self._lives: dict[int, int] = {}
        self._voters: dict[int, int] = {}
        self._excused_until_ns: dict[int, int] = {}
        self._own_term: dict[int, tuple[int, int]] = {}
        self.excused_overlaps = 0
        self.series: Callable[[int, str], tuple[Truth, ...]] = lambda node, address: ()
        self.latest_lease_end_ns: Callable[[int], int | None] = lambda node_id: None

    # --- gates ------------------------------------------------------------------------------------

    def opened(self, host: Host) -> None:
        """The kernel of this machine has just been told to let traffic pass."""
        for other in self._hosts:
            if other is not host and other.kernel.gate_open():
                self._world.after(GATE_TOLERANCE_NS, self._still_open(host, other))
        self._world.after(GATE_TOLERANCE_NS, lambda: self._look_again(host))

    def _look_again(self, host: Host) -> None:
        """After the second reading of the clock (P20): is the gate open, and may it be for so long?"""
        if host.kernel.gate_open():
            self._check_outlives(host)
            self._check_minority(host)

    def _check_outlives(self, host: Host) -> None:
        """P20: soon after it was armed, a gate that is open does not outlive the last lease that its host may have."""
        latest_ns = self.latest_lease_end_ns(host.id)
        lone = self._voters.get(host.id) == 1  # it needs nobody, so its renewals back nothing
        if latest_ns is None or lone or host.lost_time or self.excused(host) or not host.kernel.gate_open():
            return
        late_ns = host.kernel.gate_until_ns - latest_ns
        if late_ns > GATE_TOLERANCE_NS + ROUNDING_NS:
            late_ms = late_ns / NS_PER_MS
            raise Violation("outlives", f"the gate of {host.node.label} stays open {late_ms:.3f} ms after its lease")

    def _still_open(self, one: Host, other: Host) -> Callable[[], None]:
        def look() -> None:
            if one.kernel.gate_open() and other.kernel.gate_open():
                self._overlap("gates", one, other, "two gates are open")

        return look

    def resumed(self, host: Host) -> None:
        """A paused machine goes on: from now on the excuse runs."""
        now_ns = self._world.now_ns
        if host.options.counts_pause:
            excused_ns = max(0, host.kernel.gate_until_ns - now_ns)
        else:
            excused_ns = self._max_lease_ns * 102 // 100
            end_ns = self._lease_end_ns.get(host.id, 0)
            if end_ns > host.paused_at_ns:
                self._lease_end_ns[host.id] = now_ns + end_ns - host.paused_at_ns
        if excused_ns:
            self._excused_until_ns[host.id] = now_ns + excused_ns
        if host.kernel.gate_open():
            self.opened(host)

    def _overlap(self, checker: str, one: Host, other: Host, text: str) -> None:
        now_ns = self._world.now_ns
        if any(self._excused_until_ns.get(host.id, -1) >= now_ns for host in (one, other)):
            self.excused_overlaps += 1
            return
        raise Violation(checker, f"{text}: {other.node.label} and {one.node.label}")

    # --- leases -----------------------------------------------------------------------------------

    def stepped(self, host: Host, core: Watchdog) -> None:
        """A core has taken a step: has its lease changed, has it raised its term?"""
        lease = core.lease
        self._voters[host.id] = len(core.voter_ids)
        until_ns = None if lease is None else lease.until_ns
        if self._lease_seen.get(host.id) != (lease, until_ns) or self._lives.get(host.id) != host.starts:
            self._lives[host.id] = host.starts
            self._lease_seen[host.id] = (lease, until_ns)
            self._lease_end_ns[host.id] = 0 if until_ns is None else host.clock.true(until_ns)
            self._check_leases(host)
        self._check_own_term(host, core)

    def _check_leases(self, host: Host) -> None:
        if self._lease_end_ns[host.id] <= self._world.now_ns:
            return
        for other in self._hosts:
            if other is not host and self.holds_lease(other):
                self._overlap("leases", host, other, "two leases are valid")

    def holds_lease(self, host: Host) -> bool:
        """Whether a living process of this machine believes in a lease that still runs."""
        if host.main is None or host.paused or self._lives.get(host.id) != host.starts:
            return False
        return self._lease_end_ns.get(host.id, 0) > self._world.now_ns

    def excused(self, host: Host) -> bool:
        """Whether the stated limit of a paused machine covers this machine now."""
        return self._excused_until_ns.get(host.id, -1) >= self._world.now_ns

    # --- minorities -------------------------------------------------------------------------------

    def _check_minority(self, host: Host) -> None:
        """A gate stays open for one lease at most after the majority was last in reach."""
        core = None if host.main is None else host.main.core
        since_ns = None if core is None else self._minority_since(host, core)
        if since_ns is None or self.excused(host):
            return
        latest_ns = since_ns + self._max_lease_ns + GATE_TOLERANCE_NS
        if host.kernel.gate_until_ns > latest_ns:
            late_ms = (host.kernel.gate_until_ns - latest_ns) // NS_PER_MS
            raise Violation("minority", f"{host.node.label} opens its gate {late_ms} ms too long without a majority")

    def _check_own_term(self, host: Host, core: Watchdog) -> None:
        record = core.record
        known = self._own_term.get(host.id)
        if known is not None and known[1] == record.term:
            return
        self._own_term[host.id] = (host.starts, record.term)
        if record.voted_for != host.id or known is None or known[0] != host.starts:
            return
        since_ns = self._minority_since(host, core)
        now_ns = self._world.now_ns
        grace_ns = 3 * core.settings.round_ns + 10 * host.options.slow_us * 1000
        thawed_at_ns = now_ns if host.main is None else host.main.process.thawed_at_ns
        if since_ns is None or now_ns - since_ns < grace_ns or now_ns - thawed_at_ns < grace_ns:
            return
        raise Violation("minority", f"{host.node.label} raises the term to {record.term} without a majority in reach")

    def _minority_since(self, host: Host, core: Watchdog) -> int | None:
        """Since when links both ways lead to less than a majority of the voters; None if they do not.

        P22: under half, with half in reach, since the last answer of the tie-breaker.
        """
        voters = core.voter_ids
        if not voters:
            return None
        cuts = host.network.mail_cut
        since = []
        for voter in voters:
            if voter != host.id:
                ways = [cuts[link] for link in ((host.id, voter), (voter, host.id)) if link in cuts]
                if ways:
                    since.append(min(ways))
        missing_at_most = len(voters) - majority(len(voters))
        found = sorted(since)[missing_at_most] if len(since) > missing_at_most else None
        document = core.document
        if found is None or document is None or document.quorum is not QuorumRule.HALF:
            return found
        half_missing = len(voters) // 2
        gone_ns = sorted(since)[half_missing] if len(since) > half_missing else self._world.now_ns
        answered_ns = max((series.newest_ns for series in self.series(host.id, document.tie_breaker)), default=0)
        return max(found, min(gone_ns, answered_ns))
