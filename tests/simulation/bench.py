"""Three machines on a bench, for the tests of the checkers: only the test acts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulation.checks.violation import Violation
from tests.simulation.host import Host
from tests.simulation.options import draw
from tests.simulation.run import Run

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core import events, messages
from pgvigil.watchdog.core.lease import Lease
from pgvigil.watchdog.core.messages import Ack, Renew
from pgvigil.watchdog.core.record import (
    Document,
    Record,
    Stamp,
    Voter,
    blank_record,
)

LEASE_MS = 1000


class Bench:
    """Three machines whose disks name each other as voters; nothing runs by itself."""

    def __init__(self) -> None:
        options = replace(draw(1, brief=True), size=3, witnesses=(), rates_ppm=(0, 0, 0), priorities=(1, 1, 1))
        self.run = Run(options, ())
        self.hosts = self.run.hosts
        self.checks = self.run.checkers
        for host in self.hosts.values():
            self.write(host, self.record(host))
            host.start_main()
        for host in self.hosts.values():
            for process in host.processes():
                process.stopped = True  # from now on only the test acts
        self.run.world.forget()

    def record(self, host: Host, **changes: object) -> Record:
        """A voter's record of term 5, won by n1."""
        voters = tuple(Voter(node, node) for node in (1, 2, 3))
        document = Document(Stamp(5, 1), 1, voters, LEASE_MS, False, ())
        record = replace(blank_record("c", host.id, host.id), boot=3, term=5, voted_for=1, promised_ms=LEASE_MS)
        record = replace(record, document=document, won_term=5 if host.id == 1 else 0)
        return replace(record, **changes)  # type: ignore[arg-type]

    def write(self, host: Host, record: Record) -> None:
        host.disk.keep(record)

    def send(self, host: Host, to: int, message: messages.Message) -> None:
        """A message leaves, whatever the core thinks of it."""
        assert host.main is not None
        if isinstance(message, Renew):
            core = host.main.core
            core.lease = core.lease or Lease(host.id, message.term, message.boot, 0)
            core.now_ns, core.effects = host.clock.read(), [events.Send(to, message)]
            self.checks.ballots.stepped(host, core)
            core.effects = []
        self.checks.ballots.sends(host, host.id, to, message)
        self.checks.records.sends(host, message)

    def open_gate(self, host: Host, for_ms: int = 500) -> None:
        host.kernel.open_gate(for_ms)

    def pass_ms(self, ms: int) -> None:
        end_ns = self.run.world.now_ns + ms * NS_PER_MS
        self.run.world.at(end_ns, lambda: None)
        self.run.world.run(lambda: self.run.world.now_ns >= end_ns)

    def back(self, leader: Host) -> None:
        """A renewal of term 5 that n2 acknowledges."""
        self.send(leader, 2, renew())
        self.send(self.hosts[2], leader.id, Ack(5, 3, 1, Stamp(5, 1)))

    def give_lease(self, host: Host, term: int, for_ms: int = 900, boot: int = 3) -> None:
        """A core that believes in a lease."""
        assert host.main is not None
        core = host.main.core
        core.lease = Lease(host.id, term, boot, 0, host.clock.read() + for_ms * NS_PER_MS)
        core.now_ns = host.clock.read()
        self.checks.holders.stepped(host, core)
        self.checks.ballots.stepped(host, core)


def renew(sequence: int = 1, term: int = 5, stamp: Stamp | None = None, lease_ms: int = LEASE_MS) -> Renew:
    return Renew(term, 3, sequence, lease_ms, stamp or Stamp(5, 1), None)


def fires(checker: str) -> pytest.RaisesExc[Violation]:
    return pytest.raises(Violation, match=f"^{checker}: ")
