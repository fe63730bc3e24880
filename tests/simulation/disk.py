"""The disk of one node: it keeps what was fsync'd, may lose what was not, and may take its time.

Records are kept as the bytes of the product's own format. A write in flight when its process or machine dies has
either happened as a whole or not at all (temporary file, fsync, rename, fsync of the folder), and nobody was told.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tests.simulation.wiring import Inlet
from tests.simulation.world import World

from pgvigil.ipc.errors import CommandError, InvariantError
from pgvigil.watchdog.core.record import Record
from pgvigil.watchdog.store import MAX_PENDING, pack, unpack

OnDurable = Callable[[Record | None, Record], None]


class Disk:
    """One record file."""

    def __init__(self, world: World, source: random.Random, on_durable: OnDurable) -> None:
        self._world = world
        self._source = source
        self._on_durable = on_durable
        self.delay_us = (100, 2000)
        self.stalled_until_ns = 0
        self.data: bytes | None = None
        self.record: Record | None = None
        self.on_heal: Callable[[], None] | None = None

    def heal(self) -> None:
        """The stall is over, for the write in flight, too."""
        self.stalled_until_ns = 0
        if self.on_heal is not None:
            self.on_heal()

    def load(self) -> Record | None:
        """What a starting process reads."""
        return None if self.data is None else unpack(self.data)

    def keep(self, record: Record) -> None:
        """A record is durable now."""
        old, self.record = self.record, record
        self.data = pack(record)
        self._on_durable(old, record)

    def lose(self) -> None:
        """The state folder is gone."""
        self.data = self.record = None

    def due_ns(self) -> int:
        """When a write that begins now is durable."""
        least_us, most_us = self.delay_us
        delay_ns = int(least_us + (most_us - least_us) * self._source.random()) * 1000
        return max(self._world.now_ns, self.stalled_until_ns) + delay_ns

    def survives(self) -> bool:
        """Whether a write in flight at a crash has happened."""
        return self._source.random() < 0.5


class SimWriter:
    """As `store.Writer`: one write after the other, tickets when they are durable."""

    def __init__(self, world: World, disk: Disk, news: Inlet[int], boundary: Callable[[str], None]) -> None:
        self._world = world
        self._disk = disk
        self._news = news
        self._boundary = boundary
        self._waiting: deque[tuple[int, Record]] = deque()
        self._submitted = 0
        self._busy = False
        self._planned = 0
        self._dead = False
        self._begun_at_ns = 0
        self._writes: list[tuple[int, int]] = []
        disk.on_heal = self._healed
        self.failure: CommandError | None = None

    def submit(self, record: Record) -> int:
        """A ticket that `completed` names once the record is durable."""
        self._boundary("persist")
        if len(self._waiting) >= MAX_PENDING:
            raise InvariantError(f"{MAX_PENDING} records wait for the disk, expected fewer")
        self._submitted += 1
        self._waiting.append((self._submitted, record))
        self._begin()
        return self._submitted

    def completed(self) -> list[int]:
        """Tickets that became durable since the last call."""
        tickets = []
        while (ticket := self._news.take()) is not None:
            tickets.append(ticket)
        return tickets

    def writing_ns(self, since_ns: int) -> int:
        """For how long since then a write was on its way: what the disk holds back whatever comes after it."""
        total_ns = self._world.now_ns - max(self._begun_at_ns, since_ns) if self._busy else 0
        for begun_at_ns, ended_at_ns in reversed(self._writes):
            if ended_at_ns <= since_ns:
                break
            total_ns += ended_at_ns - max(begun_at_ns, since_ns)
        return total_ns

    def crash(self) -> None:
        """Process or machine died; the write in flight has happened or not."""
        self._dead = True
        if self._busy and self._disk.survives():
            self._disk.keep(self._waiting[0][1])

    def _begin(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            self._begun_at_ns = self._world.now_ns
            self._plan(self._disk.due_ns())

    def _plan(self, at_ns: int) -> None:
        self._planned += 1
        number = self._planned
        self._world.at(at_ns, lambda: self._done(number))

    def _healed(self) -> None:
        if self._busy and not self._dead:
            self._plan(self._disk.due_ns())

    def _done(self, number: int) -> None:
        if self._dead or number != self._planned:
            return
        if self._world.now_ns < self._disk.stalled_until_ns:
            self._plan(self._disk.stalled_until_ns)
            return
        ticket, record = self._waiting.popleft()
        self._busy = False
        self._writes.append((self._begun_at_ns, self._world.now_ns))
        self._disk.keep(record)
        self.on_told(ticket)
        self._begin()

    def on_told(self, ticket: int) -> None:
        """Tell the process."""
        self._news.put(ticket)
