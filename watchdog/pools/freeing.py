"""When a pgpool-II is to be freed from connections to a silent host, and which of its connections those are.

A host that vanishes sends no reset. pgpool-II's main process, its PCP and its replication check read from a connection
to its PostgreSQL without a time limit, and one that waits so holds up all the others, failover and attach included. A
process that makes a session tries to connect again and again, and pgpool-II does not end it in its failover: after a
few seconds there is none left for new clients. Such a one is freed once the backend is given up: agreed down, and down
there. Pure: facts in, decision out. Refuses to touch a session that is made, and whatever a host that lives could
still answer.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pgvigil.watchdog.core.lease import NS_PER_MS, NS_PER_S
from pgvigil.watchdog.core.record import BackendStatus
from pgvigil.watchdog.pools.plan import Facts, Memory, Ordered
from pgvigil.watchdog.pools.view import Incarnation, View

OVERDUE_NS = 5 * NS_PER_S
"""So old is a view that should have been renewed for 3 s: pgpool-II is asked every 2 s."""
IN_VAIN_NS = 5 * NS_PER_S
GIVEN_UP_NS = 180 * NS_PER_S
"""So long after a backend was given up somebody may still try to connect to it: the kernel gives up after 130 s."""
SILENT_TIMES = 3
SILENT_NS = 3 * NS_PER_S
AGAIN_NS = 2 * NS_PER_S
ASK_AGAIN_NS = NS_PER_S
LIVES_AGAIN_NS = 5 * NS_PER_S
"""A backend that answered is asked less often: each question makes a PostgreSQL fork."""
PATIENCE_NS = 60 * NS_PER_S
"""A health check has a time limit of its own (health_check_timeout, 20 s): ended early, it would count as a failure.
Online recovery waits for hours over a connection that says nothing, and outlives a network that is away for a while.
"""

PCP_TITLE = "pgpool: PCP: wait for connection request"
REPLICATION_TITLE = "pgpool: worker process"
RECOVERY_TITLE = "pgpool: PCP: processing recovery request"
SESSION_TITLE = "pgpool: accept connection"
HEALTH_TITLE = re.compile(r"pgpool: health check process\(\d+\)")
"""Whole titles: a client's user and database stand in the title of the process that serves it."""


class Duty(enum.Enum):
    """What a process of pgpool-II is there for, as the log calls it."""

    MAIN = "main process"
    PCP = "PCP process"
    PCP_WORKER = "PCP worker"
    RECOVERY = "online recovery"
    REPLICATION = "replication check"
    HEALTH = "health check"
    SESSION = "session in the making"


PATIENT = (Duty.HEALTH, Duty.RECOVERY)


def duty_of(title: str) -> Duty | None:
    """The duty of a child of the main process; None for one that serves clients, or that nobody knows."""
    if title == PCP_TITLE:
        return Duty.PCP
    if title == REPLICATION_TITLE:
        return Duty.REPLICATION
    return Duty.HEALTH if HEALTH_TITLE.fullmatch(title) else None


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """A process of pgpool-II that serves no client, and the inodes of its sockets."""

    pid: int
    duty: Duty
    inodes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a backend listens, as pgpool-II is told."""

    backend_id: int
    host: str
    port: int

    @property
    def is_remote(self) -> bool:
        """Whether it is reached over TCP at all."""
        return bool(self.host) and not self.host.startswith("/")


def given_up(memory: Memory, facts: Facts) -> tuple[int, ...]:
    """The backends that were agreed down lately, and are down at the local pgpool-II."""
    if facts.agreed is None or facts.view is None:
        return ()
    found = []
    for backend in facts.agreed.backends:
        known, seen = memory.known.get(backend.backend_id), facts.view.backend(backend.backend_id)
        down = backend.status is BackendStatus.DOWN and seen is not None and seen.down
        if down and known is not None and facts.now_ns < known.since_ns + GIVEN_UP_NS:
            found.append(backend.backend_id)
    return tuple(found)


class Suspicion:
    """Whether something is wrong with the local pgpool-II, so that it is worth asking its backends' hosts."""

    def __init__(self) -> None:
        self._incarnation: Incarnation | None = None
        self._since_ns = 0

    def holds(
        self,
        now_ns: int,
        incarnation: Incarnation | None,
        view: View | None,
        ordered: Mapping[int, Ordered],
        trouble: bool,
    ) -> bool:
        """By this node's own view of it, the orders it was given, and whether lifecheck calls a node dead or a backend
        was given up lately.
        """
        if incarnation != self._incarnation:
            self._incarnation, self._since_ns = incarnation, now_ns
        if incarnation is None:
            return False
        fits = view is not None and view.incarnation == incarnation
        seen_ns = max(self._since_ns, view.at_ns) if view is not None and fits else self._since_ns
        in_vain = any(one.awaited and now_ns >= one.at_ns + IN_VAIN_NS for one in ordered.values())
        return trouble or in_vain or now_ns >= seen_ns + OVERDUE_NS


@dataclass(slots=True)
class _Record:
    """What came of asking one host; `since_ns`: when the first question of a row that nobody answered was asked."""

    next_ns: int = 0
    address: str = ""
    since_ns: int = 0
    times: int = 0
    freed_ns: int | None = None


class Silences:
    """For how long the host of each backend has been silent for this node."""

    def __init__(self) -> None:
        self._records: dict[Place, _Record] = {}

    def keep(self, places: Collection[Place]) -> None:
        """Forget what is no backend any more; with none, everything."""
        self._records = {place: record for place, record in self._records.items() if place in places}

    def due(self, place: Place, now_ns: int, slack_ns: int = 0) -> bool:
        """Whether to ask it now."""
        return place.is_remote and now_ns + slack_ns >= self._record(place).next_ns

    def asked(self, place: Place, now_ns: int, address: str = "") -> None:
        """A question is on its way; what another address kept silent about says nothing of this one."""
        if self._record(place).address != address:
            self._records[place] = _Record(address=address)
        self._record(place).next_ns = now_ns + ASK_AGAIN_NS

    def address(self, place: Place) -> str:
        """The one that was asked last."""
        return self._record(place).address

    def answered(self, place: Place, asked_ns: int, silent: bool) -> None:
        """What came of a question: nothing at all (silent), or a sign of life."""
        record = self._record(place)
        if not silent:
            self._records[place] = _Record(asked_ns + LIVES_AGAIN_NS, record.address)
            return
        if not record.times:
            record.since_ns = asked_ns
        record.times += 1

    def silent_ns(self, place: Place, now_ns: int) -> int | None:
        """How long it has been silent, if that is long enough to act, and was not acted on just now."""
        record = self._records.get(place)
        if record is None or record.times < SILENT_TIMES or now_ns < record.since_ns + SILENT_NS:
            return None
        if record.freed_ns is not None and now_ns < record.freed_ns + AGAIN_NS:
            return None
        return now_ns - record.since_ns

    def freed(self, place: Place, now_ns: int) -> None:
        """It was acted on."""
        self._record(place).freed_ns = now_ns

    def _record(self, place: Place) -> _Record:
        return self._records.setdefault(place, _Record())


class Listed(Protocol):
    """What counts of a connection that the kernel lists; `quiet_ms`: since anything came from the other end."""

    @property
    def inode(self) -> int: ...
    @property
    def remote(self) -> str: ...
    @property
    def remote_port(self) -> int: ...
    @property
    def quiet_ms(self) -> int | None: ...
    @property
    def begun(self) -> bool: ...


C = TypeVar("C", bound=Listed)


@dataclass(frozen=True, slots=True)
class Stuck(Generic[C]):
    """A connection to be ended, and who holds it."""

    process: PoolProcess
    connection: C


def stuck(
    processes: Iterable[PoolProcess],
    connections: Iterable[C],
    address: str,
    port: int,
    silent_ns: int,
) -> list[Stuck[C]]:
    """The connections of these processes to a host that has been silent for so long; each once.

    One over which the host has sent anything lately is left alone, whatever a new connection met.
    """
    owners: dict[int, PoolProcess] = {}
    for process in processes:
        if process.duty in PATIENT and silent_ns < PATIENCE_NS:
            continue
        for inode in process.inodes:
            owners.setdefault(inode, process)
    return [
        Stuck(owners[one.inode], one)
        for one in connections
        if one.inode in owners
        and (one.remote, one.remote_port) == (address, port)
        and _is_stuck(owners[one.inode].duty, one)
    ]


def _is_stuck(duty: Duty, connection: Listed) -> bool:
    if connection.begun:
        return duty is Duty.SESSION  # the others have time limits of their own for that
    return connection.quiet_ms is not None and connection.quiet_ms * NS_PER_MS >= SILENT_NS


def sentence(place: Place, duties: Sequence[Duty], silent_ns: int) -> str:
    """For the log."""
    what = "1 connection" if len(duties) == 1 else f"{len(duties)} connections"
    whose = ", ".join(dict.fromkeys(duty.value for duty in duties))
    where = f"backend {place.backend_id} ({place.host}:{place.port})"
    return (
        f"freed its pgpool-II from {what} to {where}: that host has been silent for {silent_ns // NS_PER_S} s ({whose})"
    )
