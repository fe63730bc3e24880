"""Failovers of a real PostgreSQL cluster: the first play of the table, with pgbench, and pgpool-II's regression tests
of quorum and consensus, 011 to 015 and 018 (docs/scenarios.md). `make scenarios` plays all of the table.

Nobody is asked to be quick here: a test run shares its machine. How often something was promoted, and whether all
pgpool-IIs agree in the end, has no slack.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.demo.failover.ground import Ground
from pgvigil.watchdog.demo.failover.plays import PLAYS, lead_elsewhere, without
from pgvigil.watchdog.demo.failover.pools import Picture, backend_id, connect, picture
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.run import title, wait_until
from pgvigil.watchdog.demo.services import POSTGRES_PORT, require_services
from pgvigil.watchdog.pcp import requests

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LIMIT_S = 60.0
PCP_LIMIT_MS = 10_000
LOGIN_LIMIT_S = 3.0
ROW_BYTES = "72-130"
"""An IP packet with the answer to a question for one value; those of a login are shorter, and longer."""


@pytest.fixture(scope="module")
def running() -> Iterator[Ground]:
    require_services()
    with Lab() as lab:
        ground = Ground(lab)
        ground.set_up()
        ground.start()
        yield ground


@pytest.fixture
def ground(running: Ground) -> Ground:
    """Everything in order, whatever the test before did."""
    running.mend()
    return running


class Roles:
    """Who is who: the leader, a standby beside it, and the two other hosts, the primary's last."""

    def __init__(self, ground: Ground) -> None:
        self.primary = ground.primary()
        self.leader = lead_elsewhere(ground, self.primary)
        (self.other,) = (node for node in ground.lab.nodes if node not in (self.leader, self.primary))
        self.since_ns = boottime_ns()


def all_without(ground: Ground, gone: Host, primary: Host) -> Picture:
    up = frozenset(backend_id(node) for node in ground.lab.nodes if node is not gone)
    return Picture(up, backend_id(primary))


def wait_seen_down(ground: Ground, on: Host, backend: Host) -> None:
    """Wait until one pgpool-II does not use a backend any more."""

    def down() -> bool:
        shown = picture(ground.pools[on])
        return shown is not None and backend_id(backend) not in shown.up

    wait_until(down, LIMIT_S, f"the pgpool-II of {on.name} to leave backend {backend_id(backend)} out", 0.2)


def commands_run(ground: Ground, since_ns: int) -> int:
    """How many failover commands ran, once one has ended: a pgpool-II calls a backend down before its command ends."""

    def ended() -> bool:
        return any(line.what == "end" and line.command == "failover" for line in ground.ledger.lines(since_ns))

    wait_until(ended, LIMIT_S, "a failover command to end", 0.1)
    return len(ground.ledger.starts(since_ns, "failover"))


def wait_refused(ground: Ground, on: Host, words: str) -> None:
    """Wait until pgpool-II's log holds what its failover_command was told."""
    log = on.folder / "pgpool.log"
    wait_until(lambda: words in log.read_text(errors="replace"), LIMIT_S, f"{words!r} in {log}", 0.2)


# the table


def test_a_killed_primary_is_replaced_once_all_agree_and_pgbench_goes_on(ground: Ground) -> None:
    for outcome in PLAYS["kill-primary"](ground):
        assert outcome.holds, f"{outcome}\n{ground.log_tails()}"


# a host that vanishes


def readers(ground: Ground, node: Host, backend: Host) -> set[int]:
    """The PCP workers of a host's pgpool-II that hold a connection to a backend."""
    filters = ("state", "established", "dst", f"{backend.address}:{POSTGRES_PORT}")
    held = ground.lab.run(node, ("ss", "-tnpH", *filters)).checked().out
    workers = [pid for pid in ground.lab.pids(node) if title(pid).startswith("pgpool: PCP: processing")]
    return {pid for pid in workers if f"pid={pid}," in held}


def stuck_readers(ground: Ground, node: Host, backend: Host) -> set[int]:
    """Those that wait for longer than a login may take, which has a time limit."""
    before = readers(ground, node, backend)
    time.sleep(LOGIN_LIMIT_S)
    return before & readers(ground, node, backend)


def freed(node: Host, backend: Host, since: int = 0) -> list[str]:
    """What a host's log says, from a byte on, of connections to a backend that were ended."""
    text = (node.folder / "pgvigil.log").read_bytes()[since:].decode(errors="replace")
    where = f"to backend {backend_id(backend)} ({backend.address}:{POSTGRES_PORT}): that host has been silent for "
    return [line for line in text.splitlines() if "freed its pgpool-II from" in line and where in line]


def test_a_pgpool_that_reads_from_a_host_that_vanished_is_freed(ground: Ground) -> None:
    """Logins are answered, questions are not: who asks this PostgreSQL then waits for ever."""
    primary = ground.primary()
    lead_elsewhere(ground, primary)
    node, other = ground.lab.others(primary)
    since = (node.folder / "pgvigil.log").stat().st_size
    short = f"tcp sport {POSTGRES_PORT} tcp flags & psh == psh ip length {ROW_BYTES} drop"
    ground.lab.drop([f"{ground.lab.between([primary], [node])} {short}"])
    stuck: set[int] = set()

    def waits() -> bool:
        with suppress(PeerError), connect(ground.pools[node]) as pcp:
            pcp.nodes(500)  # somebody's pcp_node_info: pgvigil itself asks for roles seldom
        stuck.update(stuck_readers(ground, node, primary))
        return bool(stuck)

    wait_until(waits, LIMIT_S, "a PCP worker to wait")
    assert freed(node, primary, since) == [], "a host that lives may still answer"
    ground.lab.partition([primary], [node, other])
    assert stuck & readers(ground, node, primary)
    # Nobody helps: a new primary, the other standby attached to it, and both pgpool-IIs know.
    ground.wait_pictures(without(ground, primary), [node, other], LIMIT_S)
    assert any("PCP worker" in line for line in freed(node, primary, since)), ground.log_tails()


# pgpool-II's regression tests


def test_011_one_pgpool_that_alone_misses_a_backend_takes_nothing_down(ground: Ground) -> None:
    roles = Roles(ground)
    victim = roles.leader
    ground.blind([roles.other], victim)
    wait_seen_down(ground, roles.other, victim)
    wait_refused(ground, roles.other, "no consensus")
    whole = ground.whole(roles.primary)
    ground.wait_pictures(whole, [roles.leader, roles.primary])
    assert ground.ledger.starts(roles.since_ns, "failover") == []
    ground.lab.heal()
    ground.wait_pictures(whole, ground.lab.nodes)
    # It fails for all of them: one command, and all leave it out.
    ground.kill_postgres(victim)
    ground.wait_pictures(all_without(ground, victim, roles.primary), ground.lab.nodes)
    assert commands_run(ground, roles.since_ns) == 1
    assert ground.ledger.promotions(roles.since_ns) == []
    ground.cluster.stop(roles.leader, "fast")
    wait_until(lambda: ground.leads_among(ground.lab.others(roles.leader)), LIMIT_S, "another node to lead", 0.2)


def test_013_a_second_vote_makes_the_consensus(ground: Ground) -> None:
    roles = Roles(ground)
    victim = roles.leader
    ground.blind([roles.other], victim)
    wait_seen_down(ground, roles.other, victim)
    assert ground.ledger.starts(roles.since_ns, "failover") == []
    ground.blind([roles.other, roles.primary], victim)
    ground.wait_pictures(all_without(ground, victim, roles.primary), ground.lab.nodes)
    assert commands_run(ground, roles.since_ns) == 1
    assert ground.ledger.promotions(roles.since_ns) == []


def test_014_a_detach_by_hand_needs_no_quorum_at_the_pgpool_it_was_asked_of(ground: Ground) -> None:
    roles = Roles(ground)
    for node in ground.lab.others(roles.leader):
        ground.cluster.stop(node, "fast")
    ground.wait_no_leader(roles.leader)
    with connect(ground.pools[roles.leader]) as pcp:
        pcp.ask(requests.detach(backend_id(roles.other)), PCP_LIMIT_MS)
    wait_seen_down(ground, roles.leader, roles.other)
    assert ground.ledger.starts(roles.since_ns, "failover") == []
    # The others have not heard of it, and use the backend.
    whole = ground.whole(roles.primary)
    ground.wait_pictures(whole, ground.lab.others(roles.leader))


def test_015_leader_and_backend_fail_together(ground: Ground) -> None:
    for outcome in PLAYS["host-off"](ground):
        assert outcome.holds, f"{outcome}\n{ground.log_tails()}"


def test_018_a_false_primary_is_detached_where_there_is_a_majority_for_it(ground: Ground) -> None:
    roles = Roles(ground)
    false = roles.leader
    ground.restart_pools({"detach_false_primary": "on"})
    try:
        for node in ground.lab.others(roles.leader):
            ground.cluster.stop(node, "fast")
        ground.wait_no_leader(roles.leader)
        # One that was promoted by hand, and that no standby follows.
        ground.order(false, "promote", event="by hand", term="", token="")
        wait_seen_down(ground, roles.other, false)
        assert ground.ledger.starts(roles.since_ns, "failover") == []
        ground.cluster.start(ground.lab.others(roles.leader))
        ground.wait_pictures(all_without(ground, false, roles.primary), ground.lab.nodes)
        assert commands_run(ground, roles.since_ns) == 1
        assert len(ground.ledger.promotions(roles.since_ns)) == 1  # that by hand
    finally:
        ground.restart_pools({"detach_false_primary": "off"})


def test_012_a_single_vote_is_enough_where_no_consensus_is_asked_for_but_not_without_a_quorum(ground: Ground) -> None:
    roles = Roles(ground)
    victim, others = roles.other, ground.lab.others(roles.leader)
    ground.reconfigure({"failover": {"require_consensus": False}})
    try:
        for node in others:
            ground.cluster.stop(node, "fast")
        ground.wait_no_leader(roles.leader)
        ground.blind([roles.leader], victim)
        wait_seen_down(ground, roles.leader, victim)
        assert ground.ledger.starts(roles.since_ns, "failover") == []
        ground.wait_pictures(ground.whole(roles.primary), others)
        ground.cluster.start(others)
        ground.wait_pictures(all_without(ground, victim, roles.primary), ground.lab.nodes)
        assert commands_run(ground, roles.since_ns) == 1
    finally:
        ground.lab.heal()
        ground.reconfigure({"failover": {"require_consensus": True}})
