"""Everything on its place: lab, PostgreSQL, pgpool-IIs, pgvigils, probes and samplers.

Demo, acceptance runner, bench and tests begin here. A `Stage` sets up, mends what a fault broke, and measures a
window of time; what a fault is and how much it may cost is written in `scenes`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.lab import OBSERVER_ADDRESS, VIP, Host, Lab
from pgvigil.watchdog.demo.probe import TIMEOUT_NS
from pgvigil.watchdog.demo.records import (
    RECORD_BYTES,
    Outage,
    Record,
    TwoAnswering,
    outage,
    read_records,
    two_answering,
)
from pgvigil.watchdog.demo.responder import PORT as RESPONDER_PORT
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import PGPOOL_PORT, Pgpool, Postgres, Responder

PROBE_MS = 2
POOL_PROBE_MS = 10
"""pgpool-II forks and authenticates: 10 ms costs it 1 % of a core here, 2 ms 5 %."""
ARP_MS = 5
REACH_MS = 10
EDGE_MS = 200
"""Time of quiet before a fault that belongs to its window."""
CALM_MS = 1500
"""Time after the last answer came back that still belongs to the window: a second outage counts too."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the probes and samplers saw in one window."""

    light: Outage
    """At the responder, asked every 2 ms."""
    pool: Outage
    """At pgpool-II's port, asked every 10 ms."""
    arp: TwoAnswering
    """Who answers ARP, asked every 5 ms."""
    reach: TwoAnswering
    """Who answers packets sent to each node's hardware address, every 10 ms."""
    tcp: TwoAnswering
    """Who answered the light probe."""
    arp_answers: int

    @property
    def views(self) -> dict[str, TwoAnswering]:
        return {"ARP": self.arp, "packets": self.reach, "TCP": self.tcp}

    @property
    def two_ms(self) -> float:
        return max(view.overlap_ms for view in self.views.values())

    @property
    def never_two(self) -> bool:
        return all(view.never for view in self.views.values())


class Stage:
    """The services of a lab and the instruments that watch them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Cluster(lab)
        self.postgres = Postgres(lab)
        self.pools = {node: Pgpool(lab, node) for node in lab.nodes}
        self._tapes = {
            "light": lab.client.folder / "light.records",
            "pool": lab.client.folder / "pool.records",
            "arp": lab.observer.folder / "arp.records",
            "reach": lab.observer.folder / "reach.records",
        }
        self._marks: list[tuple[int, dict[str, int]]] = []
        self._instruments: list[subprocess.Popen[bytes]] = []

    def set_up(self) -> None:
        """PostgreSQL, a pgpool-II per node, and the cluster's configuration; pgvigil is not started."""
        self.postgres.start()
        for node in self.lab.nodes:
            self._start_host_services(node)
        for pool in self.pools.values():
            pool.wait_ready()
        self.cluster.configure()

    def _start_host_services(self, node: Host) -> None:
        Responder(self.lab, node).start()
        self.pools[node].start(wait=False)
        arguments = ("addresses", VIP, str(self.addresses_tape(node)))
        self.lab.start_module(node, "observe", arguments, "addresses.log")

    def start_instruments(self) -> None:
        """Probes in the client's namespace, samplers in the observer's."""
        start, client = self.lab.start_module, self.lab.client
        light = (VIP, str(RESPONDER_PORT), str(PROBE_MS), str(self._tapes["light"]))
        pool = (VIP, str(PGPOOL_PORT), str(POOL_PROBE_MS), str(self._tapes["pool"]), "ssl")
        arp = ("arp", VIP, str(ARP_MS), str(self._tapes["arp"]))
        macs = [node.mac for node in self.lab.nodes]
        reach = (VIP, OBSERVER_ADDRESS, str(REACH_MS), str(self._tapes["reach"]), *macs)
        self._instruments = [
            start(client, "probe", light, "light.log"),
            start(client, "probe", pool, "pool.log"),
            start(self.lab.observer, "observe", arp, "arp.log"),
            start(self.lab.observer, "reach", reach, "reach.log"),
        ]
        asked = self._tapes["light"]
        wait_until(lambda: asked.exists() and asked.stat().st_size > 0, 10, "the probe's first record")

    def addresses_tape(self, node: Host) -> Path:
        """Where the node's address sampler writes."""
        return node.folder / "addresses.records"

    # measuring

    def begin(self) -> int:
        """Open a window; returns its start. What was recorded before it is not read again."""
        sizes = {name: path.stat().st_size if path.exists() else 0 for name, path in self._tapes.items()}
        start_ns = boottime_ns()
        self._marks.append((start_ns, {name: size // RECORD_BYTES * RECORD_BYTES for name, size in sizes.items()}))
        time.sleep(EDGE_MS / 1000)
        return start_ns

    def measure(self, start_ns: int, end_ns: int) -> Measured:
        """Judge a window, once every question of it was answered or given up."""
        self.check_instruments()
        pause_ns = end_ns + TIMEOUT_NS + 100 * NS_PER_MS - boottime_ns()
        time.sleep(max(0, pause_ns) / NS_PER_S)
        light, arp = self.records("light", start_ns), self.records("arp", start_ns)
        return Measured(
            light=outage(light, start_ns, end_ns),
            pool=outage(self.records("pool", start_ns), start_ns, end_ns),
            arp=two_answering(arp, start_ns, end_ns),
            reach=two_answering(self.records("reach", start_ns), start_ns, end_ns),
            tcp=two_answering(light, start_ns, end_ns),
            arp_answers=sum(start_ns <= record.asked_at_ns <= end_ns for record in arp),
        )

    def records(self, tape: str, since_ns: int) -> list[Record]:
        """What one instrument recorded since the newest `begin` before an instant."""
        offsets = [sizes[tape] for instant, sizes in self._marks if instant <= since_ns]
        return read_records(self._tapes[tape], offsets[-1] if offsets else 0)

    def check_instruments(self) -> None:
        """`CommandError` if a probe or sampler is not running any more: what it did not see proves nothing."""
        ended = [child for child in self._instruments if child.poll() is not None]
        if ended:
            raise CommandError(f"{len(ended)} probes or samplers ended by themselves, see {self.lab.root}")

    def owner(self, since_ns: int | None = None) -> int:
        """Number of the node that answered one of the newest questions, 0 when nobody did."""
        path = self._tapes["light"]
        size = path.stat().st_size if path.exists() else 0
        newest_ns = boottime_ns() - 100 * NS_PER_MS if since_ns is None else since_ns
        records = read_records(path, size - 100 * RECORD_BYTES)
        return next((r.who for r in reversed(records) if r.is_good and r.asked_at_ns >= newest_ns), 0)

    def wait_owner(self, allowed: Iterable[Host], limit_s: float) -> Host:
        """Wait until one of these nodes answers at the VIP; returns it."""
        numbers = {node.number for node in allowed}
        wait_until(lambda: self.owner() in numbers, limit_s, f"an answer at the VIP from node {sorted(numbers)}")
        return self.lab.node(self.owner())

    def calm(self) -> int:
        """Let a window run on after the service came back; returns its end."""
        time.sleep(CALM_MS / 1000)
        return boottime_ns()

    # mending

    def mend(self) -> Host:
        """Undo every fault, start what is missing, wait for a settled cluster; returns the leader."""
        self.lab.heal()
        for node in self.lab.nodes:
            self.mend_host(node)
        missing = [node for node in self.lab.nodes if not self.lab.pgvigil(node)]
        self.cluster.start(missing)
        leader = self.cluster.wait_settled()
        self.wait_owner([leader], 10)
        return leader

    def mend_host(self, node: Host) -> None:
        """Everything of a host but pgvigil."""
        if self.lab.is_on(node):
            self.lab.restore(node)
            self.cluster.resume_all(node)
            if not self.pools[node].pids():
                self.pools[node].start()
        else:
            self.bring_back(node)

    def bring_back(self, node: Host) -> None:
        """Switch a host on and start everything on it but pgvigil."""
        self.lab.power_on(node)
        self._start_host_services(node)
        self.pools[node].wait_ready()
