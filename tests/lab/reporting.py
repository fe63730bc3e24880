"""A reporting site: four PostgreSQLs with the same report, each loaded by itself, behind two pgpool-IIs that balance.

As a program it is the client that reads the report all the time (`read`), or the site's own refresh of one server
(`refresh`). A report has two parts that are loaded one after the other: whoever reads a server in between sees a mix.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import psycopg

from pgvigil.ipc.clock import boottime_ns
from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.run import run, wait_until
from pgvigil.watchdog.demo.services import PGPOOL_PORT, Pgpool, postgres_binary, query

PORTS = (5432, 5433, 5434, 5435)
LIMIT_S = 60.0
MEANWHILE = 10
"""So many reports are read by clients between the two parts of a load."""
READ_EVERY_S = 0.03
_USER = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--")
_OWN = ("unshare", "--ipc", "--", "setpriv", "--pdeathsig", "KILL")
_SETTINGS = {
    "listen_addresses": "*",
    "fsync": "off",
    "max_connections": "40",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    "autovacuum": "off",
}
REPORT = "select string_agg(version::text, ',' order by part), min(server) from report"
BALANCED = {
    "backend_clustering_mode": "native_replication",
    "load_balance_mode": "on",
    "num_init_children": 4,
    "connection_cache": "off",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One report that a client got, or the reason why not."""

    begun_ns: int
    ended_ns: int
    versions: str
    server: int
    error: str


@dataclass(frozen=True, slots=True)
class Load:
    """One refresh of one server."""

    backend_id: int
    begun_ns: int
    ended_ns: int


class Servers:
    """The PostgreSQLs, all in the database's namespace, each on a port of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._folder = lab.database.folder

    def start(self) -> None:
        """Version 1 of the report on all of them."""
        user = pwd.getpwnam("postgres")
        os.chown(self._folder, user.pw_uid, user.pw_gid)
        first = self._folder / "data0"
        initdb = (postgres_binary("initdb"), "-D", str(first), "-A", "trust", "-N", "-E", "UTF8", "--wal-segsize=1")
        run((*_USER, *initdb, "--no-instructions"), limit_s=LIMIT_S, cwd=self._folder).checked()
        with open(first / "pg_hba.conf", "a", encoding="ascii") as file:
            file.write("host all all 10.77.0.0/24 trust\n")
        for number in range(1, len(PORTS)):
            copy = ("cp", "-a", str(first), str(self._folder / f"data{number}"))
            run(copy, limit_s=LIMIT_S, cwd=self._folder).checked()
        for number, port in enumerate(PORTS):
            self._launch(number, port)
        for port in PORTS:
            wait_until(lambda port=port: self._answers(port), LIMIT_S, f"PostgreSQL on port {port}", 0.1)  # type: ignore[misc]
            table = (
                f"create table report as select part, 1 as version, {port} as server from generate_series(1, 2) part"
            )
            query(self.lab, self.lab.client, self._target(port), table, LIMIT_S).checked()

    def _launch(self, number: int, port: int) -> None:
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        data, sockets = self._folder / f"data{number}", self._folder
        server = (postgres_binary("postgres"), "-D", str(data), "-p", str(port), "-k", str(sockets), *settings)
        self.lab.start(self.lab.database, (*_OWN, *_USER[1:], *server), f"postgres{number}.log")

    def _answers(self, port: int) -> bool:
        return query(self.lab, self.lab.client, self._target(port)).code == 0

    @staticmethod
    def _target(port: int) -> str:
        return f"host={DATABASE_ADDRESS} port={port}"


def pgpool(lab: Lab, node: Host, changes: dict[str, object]) -> Pgpool:
    """A pgpool-II that balances the readers over all servers."""
    options: dict[str, object] = {**BALANCED, **changes}
    for number, port in enumerate(PORTS):
        options |= {
            f"backend_hostname{number}": DATABASE_ADDRESS,
            f"backend_port{number}": port,
            f"backend_weight{number}": 1,
            f"backend_flag{number}": "ALLOW_TO_FAILOVER",
        }
    return Pgpool(lab, node, options)


class Site:
    """Servers, pgpool-IIs, a client that reads, and the ledger of the refreshes."""

    def __init__(self, lab: Lab, changes: dict[Host, dict[str, object]]) -> None:
        self.lab = lab
        self.servers = Servers(lab)
        self.pools = {node: pgpool(lab, node, changes[node]) for node in lab.nodes}
        self._answers = lab.client.folder / "answers"
        self._ledger = lab.root / "ledger"

    def start(self) -> None:
        self.servers.start()
        for pool in self.pools.values():
            pool.start(wait=False)
        for pool in self.pools.values():
            pool.wait_ready()
        module = (sys.executable, __file__, "read", str(self._answers), *(node.address for node in self.lab.nodes))
        self.lab.start(self.lab.client, module, "reader.log")

    def refresh(self, version: int) -> str:
        """What the operator gives to `pgvigil rolling --run`."""
        words = (sys.executable, __file__, "refresh", self._ledger, self._answers, version, "{host}", "{port}", "{id}")
        return shlex.join(map(str, words)).replace("'{", "{").replace("}'", "}")

    def answers(self) -> list[Answer]:
        """What the client has read so far."""
        return _answers(self._answers)

    def loads(self) -> list[Load]:
        lines = self._ledger.read_text(encoding="utf-8").splitlines() if self._ledger.exists() else []
        return [Load(*json.loads(line)) for line in lines]

    def wait_balanced(self, versions: str, ports: tuple[int, ...] = PORTS) -> None:
        """Until readers get this report from each of these servers."""
        since_ns = boottime_ns()

        def seen() -> bool:
            fresh = [one for one in self.answers() if one.begun_ns > since_ns and not one.error]
            return {one.server for one in fresh if one.versions == versions} == set(ports)

        wait_until(seen, LIMIT_S, f"report {versions} from every one of {ports}, see {self._answers}", 0.1)


def read(path: str, *addresses: str) -> None:
    """Ask the pgpool-IIs in turn, for ever, with a session of its own for each question."""
    with open(path, "w", encoding="utf-8") as file:
        for address in cycle(addresses):
            begun_ns, versions, server, error = boottime_ns(), "", 0, ""
            try:
                with psycopg.connect(_target(address, PGPOOL_PORT), autocommit=True, prepare_threshold=None) as session:
                    versions, server = session.execute(REPORT).fetchone() or ("", 0)
            except psycopg.Error as failed:
                error = str(failed)[:200]
            file.write(json.dumps((begun_ns, boottime_ns(), versions, server, error)) + "\n")
            file.flush()
            time.sleep(READ_EVERY_S)


def _answers(path: Path) -> list[Answer]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Answer(*json.loads(line)) for line in lines if line.endswith("]")]


def refresh(ledger: str, answers: str, version: str, host: str, port: str, backend_id: str) -> None:
    """Load the two parts of the report, one after the other."""
    begun_ns = boottime_ns()
    with psycopg.connect(_target(host, int(port)), autocommit=True) as session:
        session.execute("update report set version = %s where part = 1", (int(version),))
        wait_until(lambda: _read_since(answers, begun_ns) >= MEANWHILE, LIMIT_S, "clients to read meanwhile", 0.1)
        session.execute("update report set version = %s where part = 2", (int(version),))
    line = json.dumps((int(backend_id), begun_ns, boottime_ns())) + "\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def _read_since(path: str, since_ns: int) -> int:
    return sum(one.begun_ns > since_ns and not one.error for one in _answers(Path(path)))


def _target(host: str, port: int) -> str:
    return f"host={host} port={port} user=postgres dbname=postgres connect_timeout=5 sslmode=disable"


if __name__ == "__main__":
    (read if sys.argv[1] == "read" else refresh)(*sys.argv[2:])
