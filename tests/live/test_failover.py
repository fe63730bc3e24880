"""`pgvigil failover` from pgpool-II to the user's command and back: real nodes, and pgpool-IIs that only speak PCP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.live import nodes
from tests.live.clusters import Cluster, Member, kill
from tests.live.conftest import MakeCluster, free_ports
from tests.live.nodes import wait_for
from tests.unit.pcp.fake import PASSWORD, USER, serving
from tests.unit.pools.loops import FakePool, node

from pgvigil.watchdog.cli import codes

pytestmark = pytest.mark.live

WORDS = ("0", "127.0.0.1", " {0}", "/srv/a", " 1", "127.0.0.1", "0", "0", "{1}", "", "127.0.0.1", "{0}")
RUN = "( echo words %d %h %D %m %P; env | grep ^PGVIGIL_ ) >> {log}; echo done; [ %d = 0 ]"
MakeGround = Callable[[int], "Ground"]


class Ground:
    """Three nodes, a pgpool-II each, and two backends that nobody can reach."""

    def __init__(self, cluster: Cluster, pools: list[FakePool], ports: list[int], log: Path) -> None:
        self.cluster, self.pools, self.ports, self.log = cluster, pools, ports, log

    def calls(self, *members: Member) -> list[Any]:
        """What pgpool-II on these nodes gets for reporting backend 0, at the same time."""
        with ThreadPoolExecutor(len(members)) as pool:
            return list(pool.map(lambda one: one.run("failover", *self.words(), limit_s=130), members))

    def agree(self, *wanted: str) -> None:
        """Wait until every node knows this status of every backend."""
        for member in self.cluster.members:
            wait_for(f"{wanted} on {member.label}", _Knows(member, list(wanted)), 30)

    def words(self) -> list[str]:
        """What pgpool-II fills in when backend 0, the primary, has failed."""
        return [word.format(*self.ports) for word in WORDS]

    def runs(self) -> list[dict[str, str]]:
        """The environment of every run of the command so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("words ")[1:]]


@pytest.fixture
def make_ground(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[MakeGround]:
    """`make_ground(consensus_timeout_s)`, once; everything runs and the table is agreed on."""
    with ExitStack() as stack:

        def make(consensus_timeout_s: int) -> Ground:
            log, ports = tmp_path / "ran", free_ports(2)
            run = RUN.format(log=log)
            failover = f"[failover]\nconsensus_timeout_s = {consensus_timeout_s}\n"
            cluster = make_cluster(3, extra=f"{failover}[commands]\nfailover = {{ run = '{run}' }}\n")
            pools, where = [], []
            for member in cluster.members:
                folder = member.folder / "pcp"
                folder.mkdir()
                backends = [node("127.0.0.1", ports[0], role="2", pg_role="primary"), node("127.0.0.1", ports[1])]
                pools.append(FakePool(folder, backends))
                where.append(stack.enter_context(serving(pools[-1].connection)))
            stack.callback(cluster.end)  # before what it talks to
            for member in cluster.members:
                _watch(member, cluster, where)
            cluster.start()
            cluster.settle()
            ground = Ground(cluster, pools, ports, log)
            ground.agree("up", "up")
            return ground

        yield make


def _watch(member: Member, cluster: Cluster, where: list[tuple[str, int]]) -> None:
    password = member.folder / "pcp_password"
    password.touch(0o600)
    password.write_text(PASSWORD + "\n")
    text = member.text
    for other, (host, port) in zip(cluster.members, where, strict=True):
        named = f'host = "{other.label}"\n'
        text = text.replace(named, f'{named}pgpool_host = "{host}"\npcp_port = {port}\n')
    member.text = text.replace("[pgpool]\n", f'[pgpool]\npcp_user = "{USER}"\npcp_password_file = "{password}"\n')
    member.write_config(member.text)


def listed(member: Member) -> dict[str, Any]:
    """What a node says was agreed."""
    value: dict[str, Any] = json.loads(member.run("backend", "list", "--json").output or "{}")
    return value


class _Knows:
    """Whether a node has this list, for waiting."""

    def __init__(self, member: Member, wanted: list[str]) -> None:
        self.member, self.wanted = member, wanted

    def __call__(self) -> bool:
        return statuses(self.member) == self.wanted


def statuses(member: Member) -> list[str]:
    return [one["status"] for one in listed(member).get("backends", [])]


def test_a_failure_is_decided_by_a_majority_and_the_command_runs_once(make_ground: MakeGround) -> None:
    ground = make_ground(2)
    one, two, three = ground.cluster.members

    (alone,) = ground.calls(one)
    assert alone.code == codes.FAILED, alone
    assert "waits for consensus: 1 of 2" in alone.errors and "no consensus: 1 of 2 within 2000 ms" in alone.errors
    assert ground.runs() == [] and statuses(two) == ["up", "up"]

    for outcome in ground.calls(one, two):
        assert outcome.code == codes.OK, (outcome, ground.cluster.logs())
        assert "failover ended well" in outcome.errors
    (run,) = ground.runs()
    assert run["PGVIGIL_COMMAND"] == "failover" and run["PGVIGIL_EVENT"].startswith("decision ")
    started = [member.node_id for member in ground.cluster.members if "starts failover for" in member.log_text()]
    assert [run["PGVIGIL_NODE_ID"]] == list(map(str, started))
    assert (run["PGVIGIL_BACKEND_ID"], run["PGVIGIL_NEW_MAIN_ID"], run["PGVIGIL_OLD_PRIMARY_ID"]) == ("0", "1", "0")
    assert ground.log.read_text().startswith("words 0 127.0.0.1 /srv/a 1 0\n")
    ground.agree("down", "up")
    wait_for("every pgpool-II to be told", lambda: all(("D", "0") in pool.orders for pool in ground.pools), 30)

    (again,) = ground.calls(three)
    assert again.code == codes.OK and len(ground.runs()) == 1, again

    detach = three.run("backend", "detach", "1", "--reason", "new disk")
    assert detach.code == codes.FAILED and "failover failed: ended with status 1" in detach.errors, detach
    assert ground.runs()[1]["PGVIGIL_REASON"].endswith(": new disk")
    ground.agree("down", "down")
    decision = listed(two)["decisions"][-1]
    assert (decision["operator"], decision["by"]) == (True, 3)
    assert [(item["name"], item["state"]) for item in decision["commands"]] == [("failover", "failed")]


def test_a_call_outlives_the_watchdog_main_that_it_was_made_to(make_ground: MakeGround) -> None:
    ground = make_ground(60)
    asker, other = ground.cluster.standbys()
    # As pgpool-II has it while it calls; the watchdog main that comes after this one asks for that.
    ground.pools[ground.cluster.members.index(asker)].nodes[0]["status"] = "3"
    call = subprocess.Popen(
        asker.command("failover", *ground.words()), stderr=subprocess.PIPE, text=True, cwd=nodes.REPOSITORY
    )
    assert call.stderr is not None
    assert any("waits for consensus: 1 of 2" in line for line in call.stderr)
    killed = asker.pid_of("watchdog main")
    kill(killed)
    assert any("waits for consensus: 1 of 2" in line for line in call.stderr)  # of the one that came after it
    assert asker.pid_of("watchdog main") != killed
    (outcome,) = ground.calls(other)
    assert outcome.code == codes.OK, outcome
    text = call.stderr.read()
    assert call.wait(60) == codes.OK and "failover ended well" in text, text
    call.stderr.close()
    assert len(ground.runs()) == 1
