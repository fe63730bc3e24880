"""The rows of the failover table, each as a function that breaks something and measures what becomes of it.

A play finds everything settled, the client writing, and pgbench at work. It leaves the mending to `Ground.mend`. What
it waits for in vain is no error of the lab but its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.failover.ground import SETTLE_LIMIT_S, Ground
from pgvigil.watchdog.demo.failover.outcome import BEFORE_NS, Outcome, Promotions, bench_in, judge, writes_in
from pgvigil.watchdog.demo.failover.pools import Picture, backend_id
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.run import wait_until

COMMAND_PAUSE_S = 2.0
RECENT_NS = 3 * NS_PER_S
"""A run of pgbench that was begun so lately, and had no error, says that it is at work."""


@dataclass(frozen=True, slots=True)
class Window:
    """One measured part of a play, from just before its fault."""

    scenario: str
    start_ns: int
    primary: Host
    timeline: int


def begin(ground: Ground, scenario: str, primary: Host) -> Window:
    """Open a window, once pgbench is at work again: what placed the roles may have ended its sessions."""
    ground.wait_pgbench(boottime_ns() - RECENT_NS)
    return Window(scenario, boottime_ns(), primary, ground.timeline(primary))


def finish(ground: Ground, window: Window, promotions: int, wanted: Callable[[], Picture]) -> Outcome:
    """Wait until all pgpool-IIs see what is wanted, let pgbench do a whole run then, and judge the window."""
    wrong: list[str] = []
    nodes = [node for node in ground.lab.nodes if ground.lab.is_on(node)]
    picture: Picture | None = None
    try:
        picture = wanted()
        ground.wait_pictures(picture, nodes)
        ground.wait_written(boottime_ns())
    except CommandError as error:
        wrong.append(str(error))
    agreed_ns = boottime_ns()
    try:
        ground.wait_pgbench(agreed_ns)
    except CommandError as error:
        wrong.append(str(error))
    end_ns = boottime_ns()
    agree = len(ground.agreeing(picture)) if picture else 0
    seen = count_promotions(ground, window)
    writes = writes_in(ground.writes(window.start_ns), window.start_ns, end_ns)
    bench = bench_in(ground.pgbench_runs(window.start_ns - BEFORE_NS), window.start_ns, agreed_ns)
    return judge(window.scenario, promotions, seen, writes, bench, agree, len(nodes), wrong)


def count_promotions(ground: Ground, window: Window) -> Promotions:
    """The old primary of a window may still be writable, cut off from the others: it was not promoted."""
    writable = ground.writable()
    promoted = [node for node in writable if node is not window.primary]
    newest = max((ground.timeline(node) for node in writable), default=window.timeline)
    return Promotions(len(ground.ledger.promotions(window.start_ns)), newest - window.timeline, len(promoted))


def without(ground: Ground, old: Host) -> Picture:
    """The backends as all must see them when the old primary is out: the one that was promoted leads."""
    new: list[Host] = []

    def promoted() -> bool:
        new[:] = [node for node in ground.writable() if node is not old]
        return len(new) == 1

    wait_until(promoted, SETTLE_LIMIT_S, f"one of the standbys of {old.name} to be promoted", 0.2)
    others = frozenset(backend_id(node) for node in ground.lab.nodes if node is not old)
    return Picture(others, backend_id(new[0]))


# placing the roles


def lead_on(ground: Ground, node: Host) -> None:
    """Have a host's pgvigil lead."""
    leader = ground.cluster.leader()
    if leader is not node:
        ground.cluster.switchover(leader, node).checked()
        wait_until(lambda: ground.cluster.wait_settled() is node, 30, f"{node.name} to lead", 0.2)


def lead_elsewhere(ground: Ground, node: Host) -> Host:
    """Have the pgvigil of another host lead; returns that host."""
    leader = ground.cluster.leader()
    if leader is node:
        leader = ground.lab.others(node)[0]
        lead_on(ground, leader)
    return leader


# the plays


def primary_killed(ground: Ground) -> list[Outcome]:
    """kill -9 of the primary; then the old primary is made a standby and attached, as an operator does it."""
    old = ground.primary()
    window = begin(ground, "primary killed", old)
    ground.kill_postgres(old)
    killed = finish(ground, window, 1, lambda: without(ground, old))
    if not killed.holds:
        return [killed]
    return [killed, _old_primary_back(ground, old)]


def _old_primary_back(ground: Ground, old: Host) -> Outcome:
    primary = ground.primary()
    window = begin(ground, "old primary back", primary)
    ground.follow(old, primary)
    ground.attach(old, ground.cluster.leader())
    outcome = finish(ground, window, 0, lambda: ground.whole(primary))
    starts = len(ground.ledger.starts(window.start_ns, "failback"))
    return outcome if starts == 1 else _also(outcome, f"failback_command ran {starts} times, expected once")


def _also(outcome: Outcome, wrong: str) -> Outcome:
    return replace(outcome, wrong=(*outcome.wrong, wrong))


def leader_killed_in_failover(ground: Ground) -> list[Outcome]:
    """kill -9 of all of the leader's pgvigil while the real failover command runs; its pgvigil is started again."""
    old = ground.primary()
    leader = lead_elsewhere(ground, old)
    window = begin(ground, "leader killed in failover command", old)
    ground.pause_failover(COMMAND_PAUSE_S)
    ground.kill_postgres(old)
    wait_until(lambda: bool(ground.ledger.starts(window.start_ns, "failover")), 30, "the failover command to start")
    ground.cluster.kill_all(leader)

    def wanted() -> Picture:
        picture = without(ground, old)
        ground.cluster.start([leader])
        return picture

    return [finish(ground, window, 1, wanted)]


def leader_and_primary_cut_off(ground: Ground) -> list[Outcome]:
    """The host of leader and primary is alone; the others promote. Then the network is whole again."""
    old = ground.primary()
    lead_on(ground, old)
    window = begin(ground, "partition: leader and primary alone", old)
    ground.lab.partition([old], ground.lab.others(old))

    def wanted() -> Picture:
        picture = without(ground, old)
        ground.wait_pictures(picture, ground.lab.others(old))
        ground.wait_written(boottime_ns())
        ground.lab.heal()
        return picture

    return [finish(ground, window, 1, wanted)]


def host_of_both_off(ground: Ground) -> list[Outcome]:
    """The host of leader and primary is switched off."""
    old = ground.primary()
    lead_on(ground, old)
    window = begin(ground, "host of primary and leader off", old)
    ground.lab.power_off(old)
    return [finish(ground, window, 1, lambda: without(ground, old))]


def primary_and_leader_killed(ground: Ground) -> list[Outcome]:
    """On two hosts, at one instant: kill -9 of PostgreSQL here and of all of pgvigil there."""
    return [primary_then_leader(ground, 0.0)]


def primary_then_leader(ground: Ground, delay_s: float) -> Outcome:
    """As above, the leader a moment after the primary: before, during or after the failover."""
    old = ground.primary()
    leader = lead_elsewhere(ground, old)
    window = begin(ground, "primary killed, and the leader's pgvigil", old)
    ground.kill_postgres(old)
    time.sleep(delay_s)
    ground.cluster.kill_all(leader)

    def wanted() -> Picture:
        picture = without(ground, old)
        ground.cluster.start([leader])
        return picture

    return finish(ground, window, 1, wanted)


def standby_killed(ground: Ground) -> list[Outcome]:
    """kill -9 of a standby: it is left out, nobody is promoted."""
    primary = ground.primary()
    standby = ground.lab.others(primary)[0]
    window = begin(ground, "standby killed", primary)
    ground.kill_postgres(standby)
    up = frozenset(backend_id(node) for node in ground.lab.nodes if node is not standby)
    return [finish(ground, window, 0, lambda: Picture(up, backend_id(primary)))]


Play = Callable[[Ground], list[Outcome]]

PLAYS: dict[str, Play] = {
    "kill-primary": primary_killed,
    "kill-standby": standby_killed,
    "kill-leader-in-command": leader_killed_in_failover,
    "partition": leader_and_primary_cut_off,
    "host-off": host_of_both_off,
    "kill-primary-and-leader": primary_and_leader_killed,
}
