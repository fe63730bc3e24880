"""A loop that runs until something has happened, and a pgpool-II for it to talk to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.pcp.fake import PASSWORD, USER, Answer, Fake, Fields, frame, raw, serving

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.pools.classify import OTHER_CAUSES
from pgvigil.watchdog.pools.link import Link, Target

LIMIT_S = 30
STATUSES = ("unused", "waiting", "up", "down")
ROLES = ("main", "replica", "primary", "standby")


class Bell:
    """Keeps a loop from sleeping for long."""

    def wake(self) -> int | None:
        return boottime_ns() + 20 * NS_PER_MS

    def tick(self, now_ns: int) -> None: ...


@dataclass
class Ground:
    """Loop, resolver, and the place of a password."""

    folder: Path
    loop: Loop = field(default_factory=Loop)

    def __post_init__(self) -> None:
        self.resolver = Resolver(self.loop, boottime_ns)
        self.loop.join(self.resolver)
        self.loop.join(Bell())
        self.password_file = self.folder / "password"
        self.write_password(PASSWORD)

    def write_password(self, password: str) -> None:
        self.password_file.write_text(password + "\n", encoding="ascii")
        self.password_file.chmod(0o600)

    def target(self, host: str, port: int) -> Target:
        return Target(host, port, USER, str(self.password_file))

    def link(self, host: str, port: int) -> Link:
        return Link(self.loop, self.resolver, self.target(host, port))

    def until(self, happened: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Run the loop until then; fails after the limit."""
        end_ns = boottime_ns() + int(limit_s * 1e9)
        while not happened():
            assert boottime_ns() < end_ns, "waited in vain"
            self.loop.run_once(50 * NS_PER_MS)

    def close(self) -> None:
        self.resolver.close()
        self.loop.close()


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    made = Ground(folder)
    try:
        yield made
    finally:
        made.close()


NODE = {
    "port": "5432", "status": "2", "quarantine": "0", "pg_status": "up", "weight": "0.5", "role": "3",
    "pg_role": "standby", "by_time": "0", "standby_delay": "0", "replication_state": "",
    "replication_sync_state": "", "changed": "1700000000",
}  # fmt: skip


def node(host: str, port: int = 5432, status: str = "2", role: str = "3", pg_role: str = "standby") -> Fields:
    return {**NODE, "host": host, "port": str(port), "status": status, "role": role, "pg_role": pg_role}


@dataclass
class FakePool:
    """A pgpool-II whose backends change with the orders that it takes; its pid file names this very process."""

    folder: Path
    nodes: list[Fields] = field(default_factory=list)
    failed: dict[int, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=lambda: dict.fromkeys(OTHER_CAUSES, "0"))
    orders: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    obeys: bool = True
    deaf: bool = False
    on_look: dict[int, Fields] = field(default_factory=dict)
    """What node info says otherwise of a backend than the counts of its health checks."""
    words: dict[int, str] = field(default_factory=dict)
    """Other words for the status of a backend than those of pgpool-II."""
    empty: set[int] = field(default_factory=set)
    """Backends of which node info has no row."""
    refused: str = ""
    """Letters of questions that are met with silence."""
    slow: set[int] = field(default_factory=set)
    """Backends of which node info is never told: pgpool-II cannot reach them."""

    def __post_init__(self) -> None:
        self.pid_file = self.folder / "pgpool.pid"
        self.pid_file.write_text(str(os.getpid()), encoding="ascii")

    def connection(self) -> Answer:
        """What answers the next connection."""
        fake = Fake("4.3")
        self.connections += 1

        def answer(letter: str, body: bytes) -> bytes | None:
            if self.deaf:
                return None
            said = fake.answer(letter, body)
            self.asked.append(letter)
            if letter in self.refused:
                return b""
            if letter == "L":
                return frame("l", "CommandComplete", str(len(self.nodes)))
            if letter == "I":
                number = int(body.rstrip(b"\0"))
                if number in self.empty:
                    return frame("i", "ArraySize", "0") + frame("i", "CommandComplete")
                return b"" if number in self.slow else self._rows(number)
            if letter == "H":
                return self._health(int(body.rstrip(b"\0")))
            if letter == "B":
                return self._settings()
            if letter in "CDJ":
                self._order(letter, body.split(b"\0")[0].decode().strip())
            return said

        return answer

    def _rows(self, number: int) -> bytes:
        nodes: Sequence[Fields] = [fields | self.on_look.get(key, {}) for key, fields in enumerate(self.nodes)]
        nodes = nodes if number < 0 else nodes[number : number + 1]
        order = "host port status quarantine pg_status weight role pg_role standby_delay replication_state"
        names = f"{order} replication_sync_state changed".split()
        rows = b"".join(frame("i", "NodeInfo", *(one[name] for name in names)) for one in nodes)
        return frame("i", "ArraySize", str(len(nodes))) + rows + frame("i", "CommandComplete")

    def _health(self, number: int) -> bytes:
        counts = ("10", "10", str(self.failed.get(number, 0)), "0", "0", "0.0", "0", "1", "1", "1.0")
        one = self.nodes[number]
        role, status = ROLES[int(one["role"])], self.status_word(number)
        texts = (str(number), one["host"], one["port"], status, role, "", *counts, "", "", "", "")
        return frame("h", "CommandComplete", *texts)

    def status_word(self, number: int) -> str:
        one = self.nodes[number]
        return self.words.get(number, "quarantine" if one["quarantine"] == "1" else STATUSES[int(one["status"])])

    def _settings(self) -> bytes:
        statuses = {f"backend_status{number}": self.status_word(number) for number in range(len(self.nodes))}
        settings = statuses | self.settings
        rows = b"".join(frame("b", "ProcessConfig", name, value, "") for name, value in settings.items())
        size = raw("b", b"ArraySize\0" + len(settings).to_bytes(4, "big"))
        return size + rows + frame("b", "CommandComplete")

    def _order(self, letter: str, number: str) -> None:
        self.orders.append((letter, number))
        if self.obeys:
            self.nodes[int(number)]["status"] = "3" if letter == "D" else "1"


@contextmanager
def fake_pool(folder: Path, *nodes: Fields) -> Iterator[tuple[FakePool, str, int]]:
    """The fake, and where it listens: the folder of its unix socket and the port."""
    pool = FakePool(folder, list(nodes))
    with serving(pool.connection, folder) as (host, port):
        yield pool, host, port
