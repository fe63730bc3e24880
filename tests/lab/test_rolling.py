"""Refreshing a reporting cluster half by half while clients read from it, through real pgpool-IIs.

While one half is out and being loaded, clients read from the other half alone, and that one is all old or all new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.reporting import LIMIT_S, MEANWHILE, PORTS, Answer, Load, Site

from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.run import Finished, wait_until
from pgvigil.watchdog.demo.services import PCP_PASSWORD, PCP_USER, require_services
from pgvigil.watchdog.rolling.cluster import seen_of

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

EFM = Path(__file__).parents[2] / "conf" / "efm" / "pgvigil-efm"
PLACEHOLDERS = "%d %h %p %D %m %H %M %P %r %R %N %S"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """All of it, with every pgpool-II in the agreed state."""
    require_services()
    with Lab(nodes=2) as lab:
        cluster = Cluster(lab)
        site = Site(lab, {node: calls(cluster, node) for node in lab.nodes})
        cluster.changes = {"pgpool": {"pcp_user": PCP_USER, "pcp_password_file": str(password_file(lab))}}
        cluster.configure()
        site.start()
        cluster.start(lab.nodes)
        wait_until(lambda: agreed(site), LIMIT_S, "all pgpool-IIs to agree on four backends", 0.2)
        yield site


def calls(cluster: Cluster, node: Host) -> dict[str, object]:
    """What pgpool-II runs when a backend changes."""
    names = {"failover_command": "failover", "failback_command": "failback"}
    return {name: " ".join((*cluster.command(node, verb), PLACEHOLDERS)) for name, verb in names.items()}


def password_file(lab: Lab) -> Path:
    path = lab.root / "pcp_password"
    path.touch(mode=0o600)
    path.write_text(PCP_PASSWORD + "\n", encoding="ascii")
    return path


def agreed(site: Site) -> bool:
    node = site.lab.node(1)
    answer = site.lab.run(node, Cluster(site.lab).command(node, "backend", "list", "--json"), LIMIT_S)
    if answer.code != 0:
        return False
    backends = seen_of(json.loads(answer.out))
    return len(backends) == len(PORTS) and all(one.is_up and len(one.pools) == len(site.pools) for one in backends)


def command(site: Site, *words: str) -> tuple[str, ...]:
    return Cluster(site.lab).command(site.lab.node(1), "rolling", *words)


def rolling(site: Site, *words: str) -> Finished:
    return site.lab.run(site.lab.node(1), command(site, *words), LIMIT_S)


def during(answers: list[Answer], loads: list[Load]) -> list[Answer]:
    """The answers to questions that were asked and answered while these loads ran."""
    begun_ns, ended_ns = min(load.begun_ns for load in loads), max(load.ended_ns for load in loads)
    return [one for one in answers if begun_ns <= one.begun_ns and one.ended_ns <= ended_ns and not one.error]


def test_no_client_sees_a_half_loaded_report_even_if_the_run_is_killed(site: Site) -> None:
    """kill -9 while the first half loads: that half stays out, and the run goes on where it was."""
    site.wait_balanced("1,1")
    log = site.lab.node(1).folder / "run.log"
    child = site.lab.start(site.lab.node(1), command(site, "--batch", "half", "--run", site.refresh(2)), log.name)
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
    site.wait_balanced("2,2")
    answers = site.answers()
    for half, versions, others in (({0, 1}, "1,1", PORTS[2:]), ({2, 3}, "2,2", PORTS[:2])):
        loads = [load for load in site.loads() if load.backend_id in half]
        assert {load.backend_id for load in loads} == half
        seen = during(answers, loads)
        assert len(seen) >= MEANWHILE
        assert {one.versions for one in seen} == {versions} and {one.server for one in seen} <= set(others)
    assert {one.versions for one in answers if not one.error} == {"1,1", "2,2"}


def test_the_operations_for_efm_reach_every_pgpool(site: Site) -> None:
    node = site.lab.node(1)
    variable = f"PGVIGIL={' '.join(Cluster(site.lab).command(node))}"

    def efm(*words: str) -> Finished:
        return site.lab.run(node, ("env", variable, str(EFM), *words), LIMIT_S)

    def is_up(port: int) -> bool:
        answer = site.lab.run(node, Cluster(site.lab).command(node, "backend", "list", "--json"), LIMIT_S).checked()
        return next(one for one in seen_of(json.loads(answer.out)) if one.port == port).is_up

    assert efm("check_primary", DATABASE_ADDRESS, "5435").code == 0
    assert efm("check_primary", DATABASE_ADDRESS).code == 255
    efm("detach", DATABASE_ADDRESS, "5435").checked()
    assert not is_up(5435)
    efm("attach", DATABASE_ADDRESS, "5435").checked()
    wait_until(lambda: is_up(5435), LIMIT_S, "every pgpool-II to use it again", 0.2)
    assert json.loads(efm("watchdog", "--json").checked().out)["leader_id"] in (1, 2)
