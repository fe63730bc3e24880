"""Where failovers are played: three hosts, each with PostgreSQL, pgpool-II and pgvigil, and a client with pgbench.

The client also writes by a program of our own, which measures. A `Ground` sets all of it up, breaks it, looks at it,
and mends it through pgvigil's own commands. What is played, and what must come of it, is written in `plays`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.failover import pgbench, writer
from pgvigil.watchdog.demo.failover.agent import order, socket_path
from pgvigil.watchdog.demo.failover.cluster import QuickCluster
from pgvigil.watchdog.demo.failover.command import PAUSE_FILE, PLACEHOLDERS
from pgvigil.watchdog.demo.failover.ledger import Ledger
from pgvigil.watchdog.demo.failover.pools import Picture, backend_id, options, picture
from pgvigil.watchdog.demo.lab import VIP, Host, Lab
from pgvigil.watchdog.demo.records import RECORD_BYTES, Record, read_records
from pgvigil.watchdog.demo.run import Finished, kill_at_once, title, wait_until
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_USER, PGPOOL_PORT, POSTGRES_PORT, Pgpool, query

WRITE_EVERY_MS = 50
SETTLE_LIMIT_S = 120.0
COMMAND_LIMIT_S = 30
CONSENSUS_LIMIT_S = 4
"""All pgpool-IIs find a failure within this time: they check every second, and try once more a second later."""
NEWEST = 200
"""So many of the newest writes are looked at for what happens now."""
HBA = "host all all 10.77.0.0/24 trust\nhost replication all 10.77.0.0/24 trust\n"


class Ground:
    """Everything of the failover lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = QuickCluster(lab)
        self.ledger = Ledger(lab.root / "ledger")
        self.pools = {node: Pgpool(lab, node, options(lab, self.cluster, node)) for node in lab.nodes}
        self.changes: dict[str, dict[str, Any]] = {}
        """What pgvigil's files say besides, by section."""
        self._tape = lab.client.folder / "writes.records"
        self._runs = lab.client.folder / "pgbench.runs"

    # setting up

    def set_up(self) -> None:
        """PostgreSQL on all hosts, n1 primary; a pgpool-II on each; pgvigil's files. pgvigil is not started."""
        first, *others = self.lab.nodes
        for node in self.lab.nodes:
            self._start_agent(node)
        self.order(first, "create", hba=HBA)
        self.sql(first, writer.CREATE).checked()
        self.lab.run(first, pgbench.creation(first.address, POSTGRES_PORT), pgbench.CREATE_LIMIT_S).checked()
        in_parallel([lambda node=node: self.follow(node, first) for node in others])  # type: ignore[misc]
        self._configure()
        for node in self.lab.nodes:
            self.pools[node].start(wait=False)
        for node in self.lab.nodes:
            self.pools[node].wait_ready()

    def start(self) -> None:
        """pgvigil on all hosts, and the client's writes, by our own program and by pgbench."""
        self.cluster.start(self.lab.nodes)
        start, client, service = self.lab.start_module, self.lab.client, (VIP, str(PGPOOL_PORT))
        start(client, "failover.writer", (*service, str(WRITE_EVERY_MS), str(self._tape)), "writer.log")
        start(client, "failover.pgbench", (*service, str(self._runs)), "pgbench.log")
        self.wait_settled()

    def _start_agent(self, node: Host) -> None:
        folder = self.postgres_folder(node)
        arguments = (node.name, node.address, str(folder), str(self.ledger.path))
        self.lab.start_module(node, "failover.agent", arguments, "agent.log")
        wait_until(lambda: self._answers(node), 10, f"the agent of {node.name}, see {node.folder}/agent.log", 0.05)

    def _answers(self, node: Host) -> bool:
        try:
            self.order(node, "ping")
        except CommandError:
            return False
        return True

    def _configure(self) -> None:
        password = self.lab.root / "pcp_password"
        password.touch(mode=0o600)
        password.write_text(PCP_PASSWORD + "\n", encoding="ascii")
        program = (sys.executable, "-m", "pgvigil.watchdog.demo.failover.command")
        self.cluster.changes = {
            "pgpool": {"pcp_user": PCP_USER, "pcp_password_file": str(password)},
            "failover": {"consensus_timeout_s": CONSENSUS_LIMIT_S},
            "commands": {
                name: {
                    "run": " ".join((*program, name, str(self.ledger.path), PLACEHOLDERS)),
                    "timeout_s": COMMAND_LIMIT_S,
                    "policy": "retry",
                }
                for name in ("failover", "failback", "follow_primary")
            },
        }
        for section, values in self.changes.items():
            self.cluster.changes.setdefault(section, {}).update(values)
        self.cluster.configure()

    def reconfigure(self, changes: dict[str, dict[str, Any]]) -> None:
        """Change what pgvigil's files say, and reload it on every host that runs it."""
        for section, values in changes.items():
            self.cluster.changes.setdefault(section, {}).update(values)
        self.cluster.configure()
        for node in self.cluster.running():
            self.cluster.pgvigil(node, "reload").checked()

    def restart_pools(self, changes: dict[str, object]) -> None:
        """Change every pgpool.conf, and start pgpool-II again."""
        for pool in self.pools.values():
            pool.options.update(changes)
            pool.kill9()
            pool.wait_port_free()
            pool.start(wait=False)
        for pool in self.pools.values():
            pool.wait_ready()

    # PostgreSQL

    @staticmethod
    def postgres_folder(node: Host) -> Path:
        return node.folder / "postgres"

    def order(self, node: Host, name: str, **arguments: str) -> str:
        """Have a host's agent do something, as somebody at its console would."""
        return order(socket_path(self.postgres_folder(node)), name, arguments)

    def follow(self, node: Host, primary: Host) -> str:
        """Make a host's PostgreSQL a standby of another's; returns how."""
        return self.order(node, "follow", primary=primary.address)

    def sql(self, node: Host, statement: str) -> Finished:
        """One statement for the PostgreSQL of a host, asked on that host."""
        return query(self.lab, node, f"host={node.address} port=5432", statement)

    def writable(self) -> list[Host]:
        """The hosts whose PostgreSQL runs and is no standby."""
        hosts = [node for node in self.lab.nodes if self.lab.is_on(node)]
        answers = {node: self.sql(node, "select pg_is_in_recovery()") for node in hosts}
        return [node for node, answer in answers.items() if answer.code == 0 and answer.out.strip() == "f"]

    def timeline(self, node: Host) -> int:
        """The timeline that a primary writes; each promotion begins a new one."""
        answer = self.sql(node, "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
        return int(answer.checked().out)

    def kill_postgres(self, node: Host) -> None:
        """kill -9 of all of a host's PostgreSQL at once."""
        pids = [pid for pid in self.lab.pids(node) if _is_postgres(title(pid))]
        if not pids:
            raise CommandError(f"no PostgreSQL runs on {node.name}, expected one to kill")
        kill_at_once(pids)

    # looking

    def pictures(self) -> dict[Host, Picture | None]:
        """What the pgpool-II of every host that is on makes of the backends."""
        seen: dict[Host, Picture | None] = {node: None for node in self.lab.nodes if self.lab.is_on(node)}

        def look(node: Host) -> None:
            seen[node] = picture(self.pools[node])

        in_parallel([lambda node=node: look(node) for node in seen])  # type: ignore[misc]
        return seen

    def agreeing(self, wanted: Picture) -> list[Host]:
        return [node for node, seen in self.pictures().items() if seen == wanted]

    def wait_pictures(self, wanted: Picture, nodes: Iterable[Host], limit_s: float = SETTLE_LIMIT_S) -> None:
        """Wait until the pgpool-IIs of these hosts see the backends as wanted."""
        expected = set(nodes)
        try:
            wait_until(lambda: expected <= set(self.agreeing(wanted)), limit_s, f"pgpool-IIs to see: {wanted}", 0.5)
        except CommandError as error:
            seen = {node.name: str(shown) for node, shown in self.pictures().items()}
            raise CommandError(f"{error}; seen: {seen}") from None

    def whole(self, primary: Host) -> Picture:
        """All backends up, this one primary."""
        return Picture(frozenset(map(backend_id, self.lab.nodes)), backend_id(primary))

    def primary(self) -> Host:
        """The one host whose PostgreSQL is writable; `CommandError` when there is none or more than one."""
        found = self.writable()
        if len(found) != 1:
            raise CommandError(f"writable: {[node.name for node in found]}, expected exactly one")
        return found[0]

    def wait_settled(self) -> tuple[Host, Host]:
        """Wait until nothing is left to be done; returns (leader, primary)."""
        leader = self.cluster.wait_settled()
        primary = self.primary()
        self.wait_pictures(self.whole(primary), self.lab.nodes)
        self._wait_streaming(primary)
        self.wait_written(boottime_ns())
        return leader, primary

    def _wait_streaming(self, primary: Host) -> None:
        count = "select count(*) from pg_stat_replication where state = 'streaming'"
        wanted = str(len(self.lab.nodes) - 1)
        wait_until(lambda: self.sql(primary, count).out.strip() == wanted, 20, "the standbys to stream", 0.1)

    def wait_written(self, since_ns: int, limit_s: float = 40.0) -> None:
        """Wait until a write that was begun after an instant has been acknowledged."""

        def written() -> bool:
            return any(record.answered_at_ns and record.asked_at_ns > since_ns for record in self._newest())

        wait_until(written, limit_s, "a write through the virtual IP", 0.05)

    def _newest(self) -> list[Record]:
        size = self._tape.stat().st_size if self._tape.exists() else 0
        return read_records(self._tape, max(0, size - NEWEST * RECORD_BYTES))

    def newest_writer(self) -> int:
        """The last byte of the address of the backend that took a write within the last second; 0 if none did."""
        since_ns = boottime_ns() - NS_PER_S
        good = [record for record in self._newest() if record.answered_at_ns > since_ns]
        return max(good, key=lambda record: record.answered_at_ns).who if good else 0

    def writes(self, since_ns: int) -> list[Record]:
        """All writes that were begun after an instant."""
        return [record for record in read_records(self._tape) if record.asked_at_ns >= since_ns]

    def wait_pgbench(self, since_ns: int, limit_s: float = 40.0) -> None:
        """Wait until pgbench has done a run without errors that was begun after an instant."""

        def done() -> bool:
            return any(one.is_good and one.began_at_ns >= since_ns for one in pgbench.newest_runs(self._runs))

        try:
            wait_until(done, limit_s, "a run of pgbench without errors", 0.05)
        except CommandError as error:
            raise CommandError(f"{error}; newest: {self.newest_run()}") from None

    def newest_run(self) -> pgbench.Run | None:
        """What pgbench did last."""
        return next(reversed(pgbench.newest_runs(self._runs)), None)

    def pgbench_runs(self, since_ns: int) -> list[pgbench.Run]:
        """All runs of pgbench that ended after an instant."""
        return pgbench.read_runs(self._runs, since_ns)

    def leads_among(self, nodes: Iterable[Host]) -> bool:
        """Whether one of these leads and has the virtual IP."""
        views = [self.cluster.status(node) for node in nodes]
        return any(view.role == "leader" and view.vip_up for view in views)

    def wait_no_leader(self, node: Host) -> None:
        """Wait until a host's pgvigil knows of no leader."""
        wait_until(lambda: self.cluster.status(node).leader == 0, 20, f"{node.name} to know of no leader", 0.1)

    # faults

    def blind(self, nodes: Sequence[Host], victim: Host) -> None:
        """Have these hosts' pgpool-IIs miss the PostgreSQL of another host, and nothing else."""
        self.lab.drop([f"{self.lab.between(nodes, [victim])} tcp dport {POSTGRES_PORT} drop"])

    # commands of pgvigil

    def attach(self, node: Host, asked_on: Host) -> None:
        """Bring a backend back, as an operator does."""
        self.cluster.pgvigil(asked_on, "backend", "attach", str(backend_id(node))).checked()

    def pause_failover(self, seconds: float) -> None:
        """Have the real failover command wait before it promotes; 0 for not at all."""
        path = self.lab.root / PAUSE_FILE
        if seconds:
            path.write_text(str(seconds), encoding="ascii")
        else:
            path.unlink(missing_ok=True)

    # mending

    def bring_back(self, node: Host) -> None:
        """Switch a host on and start everything on it but PostgreSQL and pgvigil."""
        self.lab.power_on(node)
        self._start_agent(node)
        self.pools[node].start(wait=False)

    def mend(self) -> tuple[Host, Host]:
        """Undo every fault: hosts, pgvigil, standbys, backends; returns (leader, primary)."""
        self.lab.heal()
        self.pause_failover(0)
        for node in self.lab.nodes:
            if not self.lab.is_on(node):
                self.bring_back(node)
            elif not self.pools[node].pids():
                self.pools[node].start(wait=False)
        self.cluster.start([node for node in self.lab.nodes if not self.lab.pgvigil(node)])
        leader = self.cluster.wait_settled()
        self._mend_backends(leader)
        return self.wait_settled()

    def _mend_backends(self, leader: Host) -> None:
        """Make standbys of what is none, and attach what the cluster holds for down."""
        primary = self._true_primary(leader)
        strays = [node for node in self.lab.nodes if node is not primary and not self._follows(node, primary)]
        in_parallel([lambda node=node: self.follow(node, primary) for node in strays])  # type: ignore[misc]
        for node in self.lab.nodes:
            shown = picture(self.pools[leader])
            if shown is None or backend_id(node) not in shown.up:
                self.attach(node, leader)

    def _true_primary(self, leader: Host) -> Host:
        """The primary that the leader's pgpool-II uses: an old one may still run."""

        def known() -> bool:
            shown = picture(self.pools[leader])
            return shown is not None and shown.primary is not None

        wait_until(known, 30, f"the pgpool-II of {leader.name} to know a primary", 0.2)
        shown = picture(self.pools[leader])
        if shown is None or shown.primary is None:
            raise CommandError(f"the pgpool-II of {leader.name} knew a primary and lost it")
        return self.lab.nodes[shown.primary]

    def _follows(self, node: Host, primary: Host) -> bool:
        """Whether a host's PostgreSQL streams from that primary."""
        sender = "select sender_host from pg_stat_wal_receiver where status = 'streaming'"
        answer = self.sql(node, sender)
        return answer.code == 0 and answer.out.strip() == primary.address

    def log_tails(self, lines: int = 25) -> str:
        """The ends of all logs, for a report of a failure."""
        parts = []
        for node in self.lab.nodes:
            parts.append(f"--- {node.name}\n{self.cluster.log_tail(node, lines)}")
            log = node.folder / "pgpool.log"
            if log.exists():
                parts.append("\n".join(log.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join([*parts, "--- ledger", *map(str, self.ledger.lines()[-12:])])


def _is_postgres(text: str) -> bool:
    return text.startswith("postgres:") or text.split(" ")[0].endswith("/postgres")


def in_parallel(tasks: Sequence[Callable[[], object]]) -> None:
    """Carry out several waits at once; the first error of them is raised when all are done."""
    errors: list[PgvigilError] = []

    def guarded(task: Callable[[], object]) -> None:
        try:
            task()
        except PgvigilError as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
