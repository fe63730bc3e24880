"""One question to the search: a small cluster, what may happen to it, and where it starts.

A message may be taken at any later instant or never, so loss, delay and reordering are in every model without a limit.
What is limited is said here: how often a process crashes, a message is taken twice, a process is late for its timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.exhaustive.node import Rate
from tests.unit.core.bench import document, known_record

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreNode, CoreSettings
from pgvigil.watchdog.core.record import Record, blank_record

LEASE_MS = 60
RENEW_MS = 20
SIZE = 3


class Start(Enum):
    """Where a search begins."""

    BLANK = "all nodes are off, no record has a document"
    STANDBY = "all nodes of a founded cluster are off, after a clean stop of all"
    ELECTED = "n1 has just gained its first lease, of term 2, by one answer; the other is on its way"
    LED = "n1 leads term 2, its document is committed, nothing is on its way"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may still go wrong. `operations`: a set of bits, the wishes of operators that are still open."""

    crashes: int = 0
    doubles: int = 0
    lates: int = 0
    operations: int = 0


@dataclass(frozen=True)
class Model:
    """`depth` is the limit of a run in CI; there, `holders` leaders with an open gate must have been seen.

    `kept`: how many messages of one kind are on one link at the same time; the older ones are lost. `peers` is what
    every lifecheck says of the other nodes: UNKNOWN lets a node stand as soon as it is free, ALIVE makes it wait for
    its rank. `terms` are those on the disks at first.
    """

    name: str
    says: str
    start: Start
    depth: int
    holders: int = 2
    crashes: int = 0
    crashing: tuple[int, ...] = (1, 2, 3)
    doubles: int = 0
    lates: int = 0
    kept: int = 1
    operations: tuple[tuple[int, ev.Event], ...] = ()
    witnesses: tuple[int, ...] = ()
    voters: tuple[int, ...] = (1, 2, 3)
    terms: tuple[int, int, int] = (1, 1, 1)
    rates: tuple[Rate, Rate, Rate] = (Rate(), Rate(), Rate())
    peers: Health = Health.UNKNOWN

    @property
    def budget(self) -> Budget:
        """What may go wrong from the start on."""
        return Budget(self.crashes, self.doubles, self.lates, (1 << len(self.operations)) - 1)

    def settings(self, node_id: int) -> CoreSettings:
        """What a node is told once."""
        nodes = tuple(CoreNode(node, f"n{node}", node in self.witnesses, 1) for node in range(1, SIZE + 1))
        return CoreSettings(node_id, nodes, LEASE_MS, RENEW_MS, False)

    def record(self, node_id: int) -> Record:
        """What a disk holds at first: after a clean stop of the whole cluster, so nobody has to wait."""
        if self.start is Start.BLANK:
            return blank_record("c", node_id, 100 + node_id)
        known = document(lease_ms=LEASE_MS, voters=self.voters)
        term = self.terms[node_id - 1]
        return known_record(
            node_id, boot=1, term=term, voted_for=0, promised_ms=LEASE_MS, clean_stop=True, document=known
        )

    def views(self, node_id: int, started_at_ns: int) -> ev.Views:
        """What a lifecheck says; it never changes within a model, unless an operation changes it."""
        peers = tuple(
            ev.PeerView(node, self.peers, node not in self.witnesses, 1, started_at_ns)
            for node in range(1, SIZE + 1)
            if node != node_id
        )
        return ev.Views(Health.ALIVE, "", peers)
