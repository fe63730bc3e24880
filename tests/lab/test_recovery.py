"""Online recovery with real pgpool-II in native replication: no write is lost, nobody is refused, all of it opens."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest
from tests.lab.recovery_pair import SECOND, Pair, inside

from pgvigil.watchdog.cli.recovery import Desk
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import (
    DATABASE_TARGET,
    PCP_PASSWORD,
    PCP_PORT,
    PCP_USER,
    PGPOOL_PORT,
    Pgpool,
    query,
    require_services,
)
from pgvigil.watchdog.pcp.client import Address
from pgvigil.watchdog.pcp.records import BackendStatus
from pgvigil.watchdog.recovery.drive import USABLE
from pgvigil.watchdog.recovery.plan import Wish
from pgvigil.watchdog.recovery.pool import Pool

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LIMIT_S = 60.0


def pcp(pool: Pgpool) -> Pool:
    """Over the unix socket: its path is the same in every network namespace."""
    return Pool(pool.node.name, Address(str(pool.folder), PCP_PORT), PCP_USER, PCP_PASSWORD)


class Writer:
    """Writes through one pgpool-II, each time with a new connection, and remembers what was acknowledged."""

    def __init__(self, lab: Lab, node: Host, name: str) -> None:
        self.written: list[str] = []
        self.errors: list[str] = []
        self._lab, self._node, self._name = lab, node, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with inside(self._lab.client):
            while not self._ended.is_set():
                value = f"{self._name}-{len(self.written)}"
                try:
                    with psycopg.connect(
                        host=self._node.address, port=PGPOOL_PORT, user="postgres", dbname="postgres",
                        connect_timeout=120, autocommit=True,
                    ) as session:  # fmt: skip
                        session.execute("insert into journal values (%s)", (value,))
                    self.written.append(value)
                except psycopg.Error as error:
                    self.errors.append(f"{value}: {error}")
                    return
                self._ended.wait(0.1)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(150)
        assert not self._thread.is_alive()


class Site:
    """Three pgpool-IIs over two PostgreSQLs, and pgvigil beside each."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.pair = Pair(lab)
        self.pools = [Pgpool(lab, node, self.pair.pgpool_options(lab.database.folder / "data")) for node in lab.nodes]
        self.cluster = Cluster(lab)

    def start(self) -> None:
        self.pair.start()
        for sql in ("create table journal (line text)", "create role watcher login"):
            query(self.lab, self.lab.client, DATABASE_TARGET, sql).checked()
        for pool in self.pools:
            pool.start(wait=False)
        for pool in self.pools:
            pool.wait_ready()
        password = self.lab.root / "pcp_password"
        password.touch(mode=0o600)
        password.write_text(PCP_PASSWORD + "\n", encoding="ascii")
        pcp_access = {"pcp_user": PCP_USER, "pcp_password_file": str(password)}
        self.cluster.changes = {
            "pgpool": pcp_access,
            "lifecheck": {"query_user": "watcher", "query_database": "postgres"},
        }
        self.cluster.configure()
        self.cluster.start(self.lab.nodes)
        for pool in self.pools:
            wait_until(lambda p=pool: self.status(p) is BackendStatus.DOWN, LIMIT_S, "the second to be down", 0.2)  # type: ignore[misc]
        wait_until(lambda: self.agreed() == "down", LIMIT_S, "the cluster to agree that it is down", 0.5)

    def agreed(self) -> str:
        """What the cluster makes of the second PostgreSQL."""
        known = self.cluster.pgvigil(self.lab.node(1), "backend", "list", "--json")
        if known.code != 0:
            return "unknown"
        return next((one["status"] for one in json.loads(known.out)["backends"] if one["id"] == 1), "unknown")

    def status(self, pool: Pgpool) -> BackendStatus:
        return pcp(pool).backend(1).status


@pytest.fixture
def site() -> Iterator[Site]:
    require_services()
    with Lab() as lab:
        site = Site(lab)
        site.start()
        yield site


def test_no_write_through_any_pgpool_is_missing_on_the_recovered_backend(site: Site) -> None:
    lab = site.lab
    writers = [Writer(lab, node, node.name) for node in lab.nodes[1:]]
    wait_until(lambda: all(len(writer.written) > 3 for writer in writers), LIMIT_S, "the writers to write")
    with inside(lab.client):
        idler = psycopg.connect(host=lab.node(3).address, port=PGPOOL_PORT, user="postgres", dbname="postgres")
    leave = threading.Timer(8.0, idler.close)  # the second stage has to wait for this one
    leave.start()
    done = site.cluster.pgvigil(lab.node(1), "recovery", "1", limit_s=150)
    before = [len(writer.written) for writer in writers]
    wait_until(
        lambda: all(one.errors or len(one.written) > count + 3 for one, count in zip(writers, before, strict=True)),
        LIMIT_S,
        "the writers to go on",
    )
    for writer in writers:
        writer.stop()
    leave.join()
    assert done.code == 0, done
    assert [writer.errors for writer in writers] == [[], []]
    assert [site.status(pool) in USABLE for pool in site.pools] == [True] * 3 and site.agreed() == "up"
    assert "the second stage begins" in done.out and "2 other pgpool-IIs hold back new clients" in done.out
    lines = journal(lab, SECOND)
    assert lines == journal(lab, DATABASE_TARGET) and set(lines) == {line for one in writers for line in one.written}
    assert [lab.run(node, ("nft", "list", "table", "inet", "pgvigil_hold")).code != 0 for node in lab.nodes] == [
        True
    ] * 3


def test_killed_altogether_clients_get_through_when_the_time_is_over(lab: Lab) -> None:
    cluster = Cluster(lab)
    cluster.configure()
    cluster.start(lab.nodes)
    waiting = lab.nodes[1:]
    listeners = []
    for node in waiting:
        with inside(node):
            listeners.append(socket.create_server((node.address, PGPOOL_PORT)))
    with Desk(str(lab.node(1).folder / "run")) as desk:
        for wish, state in ((Wish.READY, "ready"), (Wish.HOLD, "holds")):
            wait_until(lambda w=wish, s=state: all(one.state == s for one in desk.wish(w).values()), LIMIT_S, state)  # type: ignore[misc]
        for node in waiting:
            with inside(lab.client), pytest.raises(TimeoutError):
                socket.create_connection((node.address, PGPOOL_PORT), 2.0)
        for node in lab.nodes:
            cluster.kill_all(node)
    for node in waiting:
        assert "@held" in lab.run(node, ("nft", "list", "table", "inet", "pgvigil_hold")).checked().out
        with inside(lab.client):
            socket.create_connection((node.address, PGPOOL_PORT), LIMIT_S).close()
    for listener in listeners:
        listener.close()


def journal(lab: Lab, target: str) -> list[str]:
    return query(lab, lab.client, target, "select line from journal order by 1").checked().out.split()
