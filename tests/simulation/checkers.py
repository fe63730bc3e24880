"""All checkers of one cluster, told of everything that happens on its machines.

They raise `Violation` at the first instant at which a promise is broken; nothing is repaired or counted as half a
failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.checks.ballots import Ballots
from tests.simulation.checks.decisions import Decisions
from tests.simulation.checks.holders import Holders
from tests.simulation.checks.records import Records
from tests.simulation.host import Host
from tests.simulation.upstream import Upstream
from tests.simulation.world import World

from pgvigil.watchdog.core.consensus import CoreConsensus
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.events import Send, StartCommand
from pgvigil.watchdog.core.record import Record


class Checkers:
    """Passes on what happens; `on_open` is told whenever a gate is opened without a violation."""

    def __init__(self, world: World, hosts: Sequence[Host], max_lease_ns: int, rule: CoreConsensus) -> None:
        self.holders = Holders(world, hosts, max_lease_ns)
        self.ballots = Ballots(world)
        self.records = Records(hosts)
        self.decisions = Decisions(world, hosts, rule)
        self.records.on_commit = self.decisions.commits
        self.decisions.committed = self.records.committed_in
        self.holders.latest_lease_end_ns = self.ballots.latest_end_ns
        self.on_open: Callable[[Host], None] = lambda host: None

    def upstream(self, upstream: Upstream) -> None:
        """Where the checkers read what a tie-breaker has really answered (P22)."""
        self.holders.series = self.ballots.series = upstream.series

    def opened(self, host: Host) -> None:
        """A gate was opened or its time prolonged."""
        self.holders.opened(host)
        self.on_open(host)

    def resumed(self, host: Host) -> None:
        """A paused machine goes on."""
        self.holders.resumed(host)

    def stepped(self, host: Host, core: Watchdog) -> None:
        """A core has decided."""
        self.holders.stepped(host, core)
        self.ballots.stepped(host, core)
        self.records.stepped(host, core)

    def sends(self, host: Host, effect: Send) -> None:
        """A message leaves its machine."""
        main = host.main
        assert main is not None, "only a living process sends"
        self.records.sends(host, effect.message)
        self.ballots.sends(host, main.core.record.record_id, effect.to, effect.message)

    def durable(self, host: Host, old: Record | None, new: Record) -> None:
        """A record is on the disk."""
        self.records.durable(host, old, new)
        self.ballots.durable(host, new)

    def commands(self, host: Host, effect: StartCommand) -> None:
        """A user's command starts."""
        held = self.holders.holds_lease(host) or self.holders.excused(host)
        self.records.commands(host, effect, held)
