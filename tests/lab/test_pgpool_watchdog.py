"""pgvigil as the external lifecheck of three real pgpool-IIs: who leads there, and where their virtual IP is.

pgpool-II's own elections take seconds, so nothing here judges speed; that anything happens at all is pgvigil's doing,
because with `wd_lifecheck_method = 'external'` nobody else tells pgpool-II's watchdogs of a death.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.config import log_path, write_config
from pgvigil.watchdog.demo.lab import VIP, Host, Lab
from pgvigil.watchdog.demo.pgpool_cluster import WD_PORT, WatchdogPgpool
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.services import require_services

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

LIMIT_S = 90.0


class Beside:
    """pgpool-II with its own watchdog on every host, and pgvigil beside it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.pgpools = {node.name: WatchdogPgpool(lab, node) for node in lab.nodes}
        self.cluster = Cluster(lab)
        self.cluster.configure()
        for node in lab.nodes:
            pgpool = {
                "watchdog": "external",
                "watchdog_socket_dir": str(self.pgpools[node.name].folder),
                "watchdog_port": WD_PORT,
                "watchdog_authkey_file": self.pgpools[node.name].authkey_file,
            }
            write_config(lab, node, {"vip": {"addresses": []}, "pgpool": pgpool})

    def status(self, node: Host) -> dict[str, Any]:
        """Empty if the node does not answer."""
        try:
            value: dict[str, Any] = json.loads(self.cluster.pgvigil(node, "status", "--json", limit_s=5).out)
        except (CommandError, ValueError):
            return {}
        return value

    def watchdog(self, node: Host) -> dict[str, Any]:
        """What pgvigil on a node says of pgpool-II's watchdog there."""
        return self.status(node).get("pgpool_watchdog") or {}

    def states(self, node: Host) -> dict[int, str]:
        """Of all nodes, by our ids, as pgpool-II's watchdog on a node has them."""
        return {row["id"]: row["state"] for row in self.watchdog(node).get("nodes", ())}

    def vip_holders(self) -> list[str]:
        shown = {node.name: self.lab.run(node, ("ip", "-4", "addr", "show", "eth0")).out for node in self.lab.nodes}
        return [name for name, text in shown.items() if f"inet {VIP}/" in text]

    def settled(self) -> bool:
        """All agree on one leader, which alone has the virtual IP, and on two standbys."""
        seen = [self.states(node) for node in self.lab.nodes]
        leaders = [node_id for node_id, state in seen[0].items() if state == "leader"]
        return (
            len(leaders) == 1
            and sorted(seen[0].values()) == ["leader", "standby", "standby"]
            and all(states == seen[0] for states in seen)
            and self.vip_holders() == [f"n{leaders[0]}"]
        )

    def leader(self) -> Host:
        """Once all agree."""
        self.wait(self.settled, "pgpool-II's watchdogs to agree")
        return next(node for node in self.lab.nodes if self.states(node)[node.number] == "leader")

    def wait_led_by_another(self, old: Host) -> Host:
        """Who leads after `old`, with the virtual IP."""

        def leads(node: Host) -> bool:
            return (
                node is not old and self.states(node).get(node.number) == "leader" and self.vip_holders() == [node.name]
            )

        self.wait(lambda: any(map(leads, self.lab.nodes)), f"another leader than {old.name}")
        return next(filter(leads, self.lab.nodes))

    def main_pid(self, node: Host) -> int:
        return int(self.pgpools[node.name].pid_file.read_bytes().strip(b"\0\n"))

    def heal(self) -> Host:
        """Everything runs and is connected; the leader."""
        for node in self.lab.nodes:
            self.lab.restore(node)
            if not self.cluster.processes(node, "supervisor"):
                self.cluster.start([node])

        def whole() -> bool:
            for pgpool in self.pgpools.values():
                if not _runs(pgpool):  # one that was stopped ends some time after it goes on
                    pgpool.kill9()
                    pgpool.start(wait=False)
            return self.settled()

        self.wait(whole, "pgpool-II's watchdogs to agree")
        return self.leader()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """With all that is known, if it is in vain."""
        try:
            wait_until(condition, LIMIT_S, what, 0.3)
        except CommandError as error:
            seen = {node.name: self.states(node) for node in self.lab.nodes}
            logs = [self.cluster.log_tail(node, 15) for node in self.lab.nodes]
            pgpools = [(node.folder / "pgpool.log").read_text(errors="replace")[-1500:] for node in self.lab.nodes]
            raise CommandError("\n".join([f"{error}: {seen}, {self.vip_holders()}", *logs, *pgpools])) from None

    def told(self, node: Host) -> list[str]:
        """What pgpool-II's watchdog on a node was told so far."""
        lines = log_path(node).read_text(errors="replace").splitlines()
        return [line.partition("told pgpool-II's watchdog: pgvigil: ")[2] for line in lines if "told pgpool-II" in line]


def _runs(pgpool: WatchdogPgpool) -> bool:
    return pgpool.pid_file.exists() and int(pgpool.pid_file.read_bytes().strip(b"\0\n")) in pgpool.pids()


@pytest.fixture(scope="module")
def settled_beside() -> Iterator[Beside]:
    require_services()
    with Lab() as lab:
        made = Beside(lab)
        for pgpool in made.pgpools.values():
            pgpool.start(wait=False)
        made.cluster.start(lab.nodes)
        yield made


@pytest.fixture
def beside(settled_beside: Beside) -> Beside:
    """Whole: what the test before has done is undone."""
    settled_beside.heal()
    return settled_beside


def test_status_shows_pgpools_nodes_as_ours_and_pgvigil_holds_no_virtual_ip(beside: Beside) -> None:
    leader = beside.leader()
    for node in beside.lab.nodes:
        status = beside.status(node)
        seen = status["pgpool_watchdog"]
        assert seen["leader"] == f"{leader.address}:9999" and seen["quorum"] == "exists" and seen["delegate_ip"] == VIP
        assert seen["trouble"] is None and seen["escalated"] is (node is leader)
        assert {(row["pgpool_node_id"], row["id"]) for row in seen["nodes"]} == {(0, 1), (1, 2), (2, 3)}
        assert status["vip"]["addresses"] == []
        (check,) = (row for row in status["nodes"][node.number - 1]["checks"] if row["method"] == "pgpool_watchdog")
        assert check["health"] == "alive"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_leader_whose_main_process_is_gone_is_followed_by_another(beside: Beside, number: signal.Signals) -> None:
    leader = beside.leader()
    before = len(beside.told(leader))
    pid = beside.main_pid(leader)
    os.kill(pid, number)
    try:
        beside.wait_led_by_another(leader)
    finally:
        if number is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    (sentence,) = beside.told(leader)[before:]
    assert sentence.startswith(f"this pgpool-II is dead: pgpool-II (pid {pid})")


def test_a_leader_that_is_cut_off_is_followed_by_another_and_comes_back_as_standby(beside: Beside) -> None:
    leader = beside.leader()
    others = beside.lab.others(leader)
    marks = {node.name: len(beside.told(node)) for node in others}
    beside.lab.cut(leader)
    fresh = beside.wait_led_by_another(leader)
    for node in others:
        assert beside.told(node)[marks[node.name]].startswith(f"{leader.name} is dead: silent on eth0 for ")
    beside.lab.restore(leader)
    assert beside.leader() is fresh
    assert beside.states(fresh)[leader.number] == "standby"


def test_the_end_of_pgvigil_on_the_leaders_host_moves_nothing(beside: Beside) -> None:
    leader = beside.leader()
    others = beside.lab.others(leader)
    before = {node.name: beside.told(node) for node in others}
    beside.cluster.kill_all(leader)

    def noticed(node: Host) -> bool:
        trouble = beside.watchdog(node).get("trouble") or ""
        return f"{leader.name}: silent for pgvigil, but pgpool-II there answers" in trouble

    beside.wait(lambda: all(map(noticed, others)), "the others to notice, and to let it be")
    beside.cluster.start([leader])
    assert beside.leader() is leader
    assert {node.name: beside.told(node) for node in others} == before
