"""PCP with the real thing: our client against pgpool-II, and pgpool-II's own tools against our picture of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pcp import fake
from tests.unit.pcp.fake import Fake, serving

from pgvigil.ipc.errors import CommandError, ConfigError, PeerError
from pgvigil.watchdog.cli.pcp_render import local_time
from pgvigil.watchdog.demo.cluster import PGVIGIL
from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Lab
from pgvigil.watchdog.demo.run import title, wait_until
from pgvigil.watchdog.demo.services import (
    PCP_PASSWORD,
    PCP_PORT,
    PCP_USER,
    PGPOOL_PORT,
    POSTGRES_PORT,
    Pgpool,
    Postgres,
    require_services,
)
from pgvigil.watchdog.drift.pgpool import of_pgpool
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Address, Client, PcpRefused
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import BackendStatus, NodeInfo, Role, WatchdogInfo

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

LIMIT_MS = 20_000
LIMIT_S = 30.0

# Two names for one PostgreSQL: enough for pgpool-II to attach, detach and promote.
TWO_BACKENDS = {
    "backend_flag0": "ALLOW_TO_FAILOVER",
    "backend_hostname1": DATABASE_ADDRESS,
    "backend_port1": POSTGRES_PORT,
    "backend_weight1": 1,
    "backend_flag1": "ALLOW_TO_FAILOVER",
    "health_check_period": 1,
    "health_check_user": "postgres",
    "health_check_database": "postgres",
    "sr_check_user": "postgres",
    "sr_check_database": "postgres",
}
# pgpool-II's own watchdog wants another node in its configuration; there is none behind this one.
OWN_WATCHDOG = {
    "use_watchdog": "on",
    "hostname0": "127.0.0.1",
    "wd_port0": 9700,
    "pgpool_port0": PGPOOL_PORT,
    "hostname1": "127.0.0.1",
    "wd_port1": 9701,
    "pgpool_port1": PGPOOL_PORT + 1,
    "wd_lifecheck_method": "external",
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    require_services()
    with Lab(nodes=2) as lab:
        Postgres(lab).start()
        yield lab


@pytest.fixture(scope="module")
def pgpool(hosts: Lab) -> Pgpool:
    pool = Pgpool(hosts, hosts.node(1), TWO_BACKENDS)
    pool.start()
    return pool


def connect(pool: Pgpool) -> Client:
    """Over the unix socket: its path is the same in every network namespace."""
    return Client(Address(str(pool.folder), PCP_PORT), PCP_USER, PCP_PASSWORD, LIMIT_MS)


def ask(pool: Pgpool, request: Request[Any]) -> Any:
    """Ask once, or order once."""
    with connect(pool) as pcp:
        return pcp.ask(request, LIMIT_MS)


def question(pool: Pgpool, request: Request[Any]) -> Any:
    """Ask until it answers: pgpool-II starts its PCP process again a second after every change, and forgets callers."""
    answers: list[Any] = []

    def answered() -> bool:
        try:
            with connect(pool) as pcp:
                answers.append(pcp.ask(request, 2000))
        except (PeerError, CommandError) as error:
            if isinstance(error, PcpRefused):
                raise
            return False
        return True

    wait_until(answered, LIMIT_S, f"pgpool-II to answer {request.name}", 0.1)
    return answers[0]


def pcp_process(pool: Pgpool) -> list[int]:
    """The pid of the process that forks the workers of PCP."""
    return [pid for pid in pool.pids() if title(pid).startswith("pgpool: PCP: wait")]


def order(pool: Pgpool, carry_out: Callable[[Client], object]) -> None:
    """One order, and the new PCP process that follows when it has been carried out."""
    before = pcp_process(pool)
    with connect(pool) as pcp:
        carry_out(pcp)
    wait_until(lambda: pcp_process(pool) not in (before, []), LIMIT_S, "pgpool-II to start its PCP process again", 0.1)


def nodes(pool: Pgpool) -> tuple[NodeInfo, ...]:
    found: tuple[NodeInfo, ...] = question(pool, requests.node_info())
    return found


def wait_for(pool: Pgpool, what: str, *statuses: BackendStatus) -> tuple[NodeInfo, ...]:
    usable = {BackendStatus.WAITING: BackendStatus.UP}
    wanted = [usable.get(status, status) for status in statuses]
    wait_until(lambda: [usable.get(node.status, node.status) for node in nodes(pool)] == wanted, LIMIT_S, what, 0.1)
    return nodes(pool)


def test_every_question(pgpool: Pgpool) -> None:
    assert ask(pgpool, requests.node_count()) == 2
    first, second = wait_for(pgpool, "both backends to be usable", BackendStatus.UP, BackendStatus.UP)
    assert (first.node_id, first.host, first.port, first.weight) == (0, DATABASE_ADDRESS, POSTGRES_PORT, 0.5)
    assert {first.role, second.role} == {Role.PRIMARY, Role.STANDBY} and first.pg_status == "up"
    assert question(pgpool, requests.node_info(1)) == (second,)
    wait_until(lambda: question(pgpool, requests.health_stats(0)).success > 0, LIMIT_S, "a health check", 0.2)
    with connect(pgpool) as pcp:
        assert [stats.host for stats in pcp.all_health_stats(LIMIT_MS)] == [DATABASE_ADDRESS] * 2
    pids = question(pgpool, requests.process_count())
    assert len(pids) == 8 and set(pids) <= set(pgpool.pids())
    slots = question(pgpool, requests.process_info())
    assert {slot.pid for slot in slots} == set(pids) and {slot.backend_id for slot in slots} == {0, 1}
    assert {slot.pid for slot in question(pgpool, requests.process_info(pids[3]))} == {pids[3]}
    status = question(pgpool, requests.pool_status())
    compared = of_pgpool(status)
    assert compared["pgpool.conf.backends"] == "0 1" and compared["pgpool.conf.health_check_period"] == "1"
    assert len(compared) > 80 and "pgpool.conf.port" not in compared
    parameters = {one.name: one.value for one in status}
    assert parameters["port"] == str(PGPOOL_PORT) and parameters["backend_hostname1"] == DATABASE_ADDRESS
    question(pgpool, requests.no_operation())
    with connect(pgpool) as pcp:
        pcp.ask(requests.set_messages("debug1"), LIMIT_MS)
        assert pcp.ask(requests.node_count(), LIMIT_MS) == 2
        assert pcp.notices and pcp.notices[-1].severity == "DEBUG"


def test_refusals_keep_what_pgpool_said(pgpool: Pgpool) -> None:
    primary = next(node.node_id for node in nodes(pgpool) if node.role is Role.PRIMARY)
    for request, words in (
        (requests.node_info(7), "invalid node ID : 7"),
        (requests.health_stats(2), "stats data for node ID 2 does not exist"),
        (requests.detach(7), "node id : 7"),
        (requests.watchdog_info(), "use_watchdog is off there"),
        (requests.log_rotate(), "needs pgpool-II 4.6 or newer"),
        (requests.invalidate_cache(), "needs pgpool-II 4.6 or newer"),
        (requests.promote(primary), "already primary"),
        (requests.set_messages("loud"), "loud"),
    ):
        with pytest.raises(PcpRefused, match=words) as raised:
            ask(pgpool, request)
        assert raised.value.report.severity in ("ERROR", "FATAL")
    for user, password in ((PCP_USER, "guess"), ("nobody", PCP_PASSWORD)):
        with pytest.raises(ConfigError, match="refused the login: FATAL"):
            Client(Address(str(pgpool.folder), PCP_PORT), user, password, LIMIT_MS)


def test_attach_detach_and_promote(pgpool: Pgpool) -> None:
    found = wait_for(pgpool, "both backends to be usable", BackendStatus.UP, BackendStatus.UP)
    standby = next(node.node_id for node in found if node.role is Role.STANDBY)
    down = [BackendStatus.UP, BackendStatus.UP]
    down[standby] = BackendStatus.DOWN
    for graceful in (False, True):
        order(pgpool, lambda pcp, graceful=graceful: pcp.ask(requests.detach(standby, graceful), LIMIT_MS))  # type: ignore[misc]
        wait_for(pgpool, "the standby to be down", *down)
        with connect(pgpool) as pcp, pytest.raises(CommandError, match=f"backend {standby} is down"):
            pcp.promote(standby, graceful=True, limit_ms=LIMIT_MS)
        order(pgpool, lambda pcp: pcp.ask(requests.attach(standby), LIMIT_MS))
        wait_for(pgpool, "the standby to be back", BackendStatus.UP, BackendStatus.UP)
    order(pgpool, lambda pcp: pcp.promote(standby, limit_ms=LIMIT_MS))
    promoted = wait_for(pgpool, "the other one to be down", *reversed(down))
    assert promoted[standby].role is Role.PRIMARY
    order(pgpool, lambda pcp: pcp.ask(requests.attach(1 - standby), LIMIT_MS))
    wait_for(pgpool, "the other one to be back", BackendStatus.UP, BackendStatus.UP)


def test_the_command_over_tcp_says_what_pgpools_own_tool_says(hosts: Lab, pgpool: Pgpool, tmp_path: Path) -> None:
    wait_for(pgpool, "both backends to be usable", BackendStatus.UP, BackendStatus.UP)
    pass_file = tmp_path / "pcppass"
    pass_file.write_text(f"{pgpool.node.address}:{PCP_PORT}:{PCP_USER}:{PCP_PASSWORD}\n", encoding="ascii")
    pass_file.chmod(0o600)
    variable = ("env", f"PCPPASSFILE={pass_file}")
    place = ("--host", pgpool.node.address, "--port", str(PCP_PORT), "--user", PCP_USER)
    ours = hosts.run(hosts.client, (*variable, *PGVIGIL, "pcp", "node-info", *place, "--json"), LIMIT_S).checked()
    theirs = hosts.run(
        hosts.client,
        (*variable, "pcp_node_info", "-a", "-w", "-h", pgpool.node.address, "-p", str(PCP_PORT), "-U", PCP_USER),
        LIMIT_S,
    ).checked()
    answer = json.loads(ours.out)
    assert (answer["outcome"], answer["pgpool"]) == ("done", f"{pgpool.node.address}:{PCP_PORT}")
    for node, line in zip(answer["answer"], theirs.out.splitlines(), strict=True):
        words = line.split()
        assert words[:2] == [node["host"], str(node["port"])]
        assert words[3] == f"{node['weight']:.6f}"
        assert words[4:6] == [node["status"], node["pg_status"]]
        assert words[6:8] == [node["role"], node["pg_role"]]
        assert line.endswith(local_time(node["changed_at_s"]))


def test_its_own_watchdog_and_its_end(hosts: Lab) -> None:
    """What only a pgpool-II can be asked that nobody else needs."""
    # Its socket would lie in /tmp, where every lab of this machine would find it.
    pool = Pgpool(hosts, hosts.node(2), OWN_WATCHDOG | {"wd_ipc_socket_dir": hosts.node(2).folder})
    pool.start(wait=False)

    def leads() -> bool:
        try:
            found: WatchdogInfo = question(pool, requests.watchdog_info())
        except PcpRefused:
            return False  # its own watchdog is not that far
        return found.nodes[0].state_name == "LEADER"

    wait_until(leads, LIMIT_S, "pgpool-II's own watchdog to lead", 0.2)
    found = question(pool, requests.watchdog_info())
    assert (found.remote_nodes, found.alive_remote_nodes, len(found.nodes)) == (1, 0, 2)
    assert [node.watchdog_port for node in found.nodes] == [9700, 9701]
    assert (found.nodes[0].pgpool_port, found.nodes[0].membership_name) == (PGPOOL_PORT, "MEMBER")
    assert (found.leader_name, found.escalated, found.needed_for_quorum) == (found.nodes[0].name, False, 2)
    assert question(pool, requests.watchdog_info(0)).nodes == found.nodes[:1]
    ask(pool, requests.reload())
    assert question(pool, requests.node_count()) == 1
    with pytest.raises(PcpRefused, match="primary server cannot be recovered"):
        ask(pool, requests.recovery(0))
    ask(pool, requests.stop("fast"))
    wait_until(lambda: not pool.pids(), LIMIT_S, "pgpool-II to stop", 0.1)


# --- pgpool-II's own tools against our picture of it ------------------------------------------------------------------


def tool(folder: Path, name: str, *arguments: str) -> str:
    pass_file = folder / "pcppass"
    pass_file.write_text(f"*:*:{fake.USER}:{fake.PASSWORD}\n", encoding="ascii")
    pass_file.chmod(0o600)
    argv = (f"pcp_{name}", "-h", str(folder), "-p", "9898", "-U", fake.USER, "-w", *arguments)
    environment = {**os.environ, "PCPPASSFILE": str(pass_file)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "request_", "shown"),
    [
        ("node_count", (), requests.node_count(), "2\n"),
        ("node_info", ("-a",), requests.node_info(), "quarantine down standby standby"),
        ("node_info", ("1",), requests.node_info(1), "/var/run/postgresql 5433"),
        ("health_check_stats", ("0",), requests.health_stats(0), "10.0.0.1 5432 up primary"),
        ("proc_count", (), requests.process_count(), "4711 4712 0"),
        ("proc_info", ("-a",), requests.process_info(), "shop ann"),
        ("pool_status", (), requests.pool_status(), "log_line_prefix"),
        ("watchdog_info", (), requests.watchdog_info(), "10.0.0.1 9999 9000 4 LEADER"),
        ("attach_node", ("1",), requests.attach(1), ""),
        ("detach_node", ("1",), requests.detach(1), ""),
        ("detach_node", ("-g", "1"), requests.detach(1, graceful=True), ""),
        ("promote_node", ("1",), requests.promote(1), ""),
        ("promote_node", ("-s", "1"), requests.promote(1, switchover=True), ""),
        ("promote_node", ("-g", "1"), requests.promote(1, graceful=True), ""),
        ("recovery_node", ("1",), requests.recovery(1), ""),
        ("reload_config", (), requests.reload(), ""),
        ("reload_config", ("-s", "cluster"), requests.reload(cluster=True), ""),
        ("stop_pgpool", ("-m", "fast"), requests.stop("fast"), ""),
    ],
)  # fmt: skip
def test_pgpools_own_tools_send_what_we_send_and_read_what_our_fake_says(
    name: str, arguments: tuple[str, ...], request_: Request[Any], shown: str, tmp_path: Path
) -> None:
    require_services()
    server = Fake("4.3")
    with serving(lambda: server.answer, tmp_path):
        assert shown in tool(tmp_path, name, *arguments)
    sent = [one for one in server.asked if one[0] not in "MRX"]
    assert sent == [(request_.letter, request_.body)]
