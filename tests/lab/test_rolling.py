"""Refreshing a reporting cluster half by half while clients read from it, through real pgpool-IIs.

While one half is out and being loaded, clients read from the other half alone, and that one is all old or all new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.lab.reporting import LIMIT_S, MEANWHILE, PORTS, Answer, Load, Site
from tests.unit.cli.helpers import json_reply, running

from pgvigil.ipc import frames
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.lab import Lab
from pgvigil.watchdog.demo.run import Finished, wait_until
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_PORT, PCP_USER, Pgpool, require_services
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Address, Client

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


class StandIn:
    """Watchdog main as far as rolling needs it: agrees with itself at once, and tells both pgpool-IIs over PCP."""

    def __init__(self, pools: list[Pgpool]) -> None:
        self._pools = pools
        self._reasons: dict[int, str] = {}

    def __call__(self, request: frames.Request) -> list[frames.Reply]:
        if request.verb == "backend-list":
            return json_reply(request, {"agreed": True, "backends": self._list()})
        number, reason = int(request.arguments[0]), request.arguments[1]
        if request.verb == "backend-detach":
            self._reasons[number] = reason
        else:
            self._reasons.pop(number, None)
        return [frames.Reply(request.request_id, True, True, "done", b"")]

    def _list(self) -> list[dict[str, object]]:
        seen = [self._ask(pool) for pool in self._pools]
        self._bring(seen)
        backends = []
        for number, port in enumerate(PORTS):
            views = [
                {"node": pool.node.number, "label": pool.node.name, "status": found[number].split(":")[0] if found else "",
                 "quarantined": False, "failed": False, "age_ms": 0 if found else None}
                for pool, found in zip(self._pools, seen, strict=True)
            ]  # fmt: skip
            backends.append(
                {"id": number, "host": "10.77.0.5", "port": port, "status": "down" if number in self._reasons else "up",
                 "role": "replica", "reason": self._reasons.get(number, ""), "decision": 1, "pools": views}
            )  # fmt: skip
        return backends

    def _bring(self, seen: list[list[str]]) -> None:
        for pool, found in zip(self._pools, seen, strict=True):
            for number, status in enumerate(found):
                if (status == "down") != (number in self._reasons):
                    order = requests.detach(number) if number in self._reasons else requests.attach(number)
                    self._tell(pool, order)
                    break

    def _tell(self, pool: Pgpool, order: object) -> None:
        try:
            with self._connect(pool) as pcp:
                pcp.ask(order, 5000)  # type: ignore[arg-type]
        except (PeerError, CommandError) as error:
            print("order", error)

    def _ask(self, pool: Pgpool) -> list[str]:
        try:
            with self._connect(pool) as pcp:
                return [node.status.name.lower() for node in pcp.nodes(2000)]
        except (PeerError, CommandError) as e:
            print("ask", e)
            return []

    @staticmethod
    def _connect(pool: Pgpool) -> Client:
        return Client(Address(str(pool.folder), PCP_PORT), PCP_USER, PCP_PASSWORD, 2000)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    require_services()
    with Lab(nodes=2) as lab:
        cluster = Cluster(lab)
        site = Site(lab, {node: {} for node in lab.nodes})
        cluster.configure()
        site.start()
        (lab.node(1).folder / "state").mkdir()
        (lab.node(1).folder / "run").mkdir(mode=0o700)
        with running(lab.node(1).folder, StandIn(list(site.pools.values()))):
            yield site


def command(site: Site, *words: str) -> tuple[str, ...]:
    return Cluster(site.lab).command(site.lab.node(1), "rolling", *words)


def rolling(site: Site, *words: str) -> Finished:
    return site.lab.run(site.lab.node(1), command(site, *words), LIMIT_S)


def during(answers: list[Answer], loads: list[Load]) -> list[Answer]:
    """The answers to questions that were asked and answered while these loads ran."""
    begun_ns, ended_ns = min(load.begun_ns for load in loads), max(load.ended_ns for load in loads)
    return [one for one in answers if begun_ns <= one.begun_ns and one.ended_ns <= ended_ns and not one.error]


def next_version(site: Site) -> tuple[int, str, str]:
    """The version to load, and the reports of old and new; the tests come in any order."""
    old = max(int(one.versions[0]) for one in site.answers() if not one.error) if site.loads() else 1
    site.wait_balanced(f"{old},{old}")
    return old + 1, f"{old},{old}", f"{old + 1},{old + 1}"


def test_no_client_sees_a_half_loaded_report(site: Site) -> None:
    version, old, new = next_version(site)
    before = len(site.loads())
    since_ns = boottime_ns()
    told = rolling(site, "--batch", "half", "--run", site.refresh(version), "--json").checked()
    last = json.loads(told.out.splitlines()[-1])
    assert (last["outcome"], last["done"]) == ("finished", 4)
    site.wait_balanced(new)
    loads, answers = site.loads()[before:], [one for one in site.answers() if one.begun_ns > since_ns]
    assert [{load.backend_id for load in half} for half in (loads[:2], loads[2:])] == [{0, 1}, {2, 3}]
    for half, versions, others in ((loads[:2], old, PORTS[2:]), (loads[2:], new, PORTS[:2])):
        seen = during(answers, half)
        assert len(seen) >= MEANWHILE
        assert {one.versions for one in seen} == {versions} and {one.server for one in seen} <= set(others)
    assert {one.versions for one in answers if not one.error} == {old, new}


def test_a_refresh_that_is_killed_half_way_is_continued(site: Site) -> None:
    """kill -9 while the first half loads: it stays out, nobody sees it, and the run goes on where it was."""
    version, old, new = next_version(site)
    before = len(site.loads())
    since_ns = boottime_ns()
    child = site.lab.start(
        site.lab.node(1), command(site, "--batch", "half", "--run", site.refresh(version)), "run.log"
    )
    log = site.lab.node(1).folder / "run.log"
    wait_until(
        lambda: log.read_text().count("the command runs") == 2, LIMIT_S, f"the first half to load, see {log}", 0.02
    )
    child.kill()
    child.wait(LIMIT_S)
    assert rolling(site, "--status").code == 1
    done: list[Finished] = []

    def resumed() -> bool:
        """Refused while a load of the killed run still works."""
        done.append(rolling(site, "--resume"))
        return "still runs as process" not in done[-1].err

    wait_until(resumed, LIMIT_S, "the loads of the killed run to end", 0.5)
    assert done[-1].checked().out.endswith("4 of 4 backends done\n")
    site.wait_balanced(new)
    assert {load.backend_id for load in site.loads()[before:]} == {0, 1, 2, 3}
    assert {one.versions for one in site.answers() if one.begun_ns > since_ns and not one.error} == {old, new}
