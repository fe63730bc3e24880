"""The matrix itself: every case, made from short tables.

Names are `fault/role/timing`. The order within a ground is that of the tables; `select` picks by pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from pgvigil.watchdog.demo.choosing import choose
from pgvigil.watchdog.demo.matrix import faults_hand as hand
from pgvigil.watchdog.demo.matrix import faults_machine as machine
from pgvigil.watchdog.demo.matrix import faults_network as network
from pgvigil.watchdog.demo.matrix import faults_process as process
from pgvigil.watchdog.demo.matrix import limits
from pgvigil.watchdog.demo.matrix.case import Case, Fault, Limit, Role, Timing
from pgvigil.watchdog.demo.matrix.ground import Setting

KINDS = tuple(process.TITLES)
PAIRS = tuple(combinations(KINDS, 2))
STEADY_ROLES = (Role.LEADER, Role.STANDBY)
HANG_S = 6.0
"""Longer than `hang_timeout_ms`: the supervisor kills what was stopped."""
CUT_S = 3.0
LONG_S = 6.0
"""Also longer than SLOWER_DISK: the election must be won while the disks are slow."""
AHEAD_S = 1.0
"""So long before its moment a load begins: its programs need a while to start."""


def _kill_limit(kinds: Sequence[str]) -> Limit:
    if kinds == ("main",):
        return limits.UNNOTICED
    return limits.LOST if "main" in kinds else limits.PLANNED


def _stop_limit(kinds: Sequence[str]) -> Limit:
    if kinds == ("supervisor",):
        return limits.UNNOTICED
    return limits.LOST if "main" in kinds else limits.PLANNED


def _steady(name: str, fault: Fault, at_leader: Limit, hold_s: float = 2.0) -> list[Case]:
    """A fault of the leader, and the same of a standby, which nobody must notice."""
    both = zip(STEADY_ROLES, (at_leader, limits.UNNOTICED), strict=True)
    return [Case(name, role, Timing.STEADY, limit, fault, hold_s) for role, limit in both]


def _processes() -> list[Case]:
    found: list[Case] = []
    for kinds in [*((kind,) for kind in KINDS), *PAIRS]:
        name = "+".join(kinds)
        found += _steady(f"kill-{name}", process.kill(*kinds), _kill_limit(kinds))
        found += _steady(f"stop-{name}", process.stop(*kinds), _stop_limit(kinds))
    for kind in KINDS[1:]:
        found += _steady(f"hang-{kind}", process.stop(kind), _stop_limit((kind,)), HANG_S)
    found += _steady("kill-all", process.kill_whole, limits.LOST)
    found += _steady("stop-all", process.stop_whole, limits.LOST, HANG_S)
    for pause_ms in (5, 50):
        fault = process.kill_while_reloading(pause_ms / 1000)
        found += _steady(f"reload-kill-supervisor-{pause_ms}ms", fault, limits.LOST)
    return found


def _network() -> list[Case]:
    found = [
        *_steady("cable-out", network.cable_one_way(outgoing=True), limits.LOST, CUT_S),
        *_steady("cable-in", network.cable_one_way(outgoing=False), limits.DEAF, CUT_S),
        *_steady("unplug", network.unplug(), limits.LOST, CUT_S),
        *_steady("peers-out", network.peers(True, False), limits.LOST, CUT_S),
        *_steady("peers-in", network.peers(False, True), limits.LOST, CUT_S),
        *_steady("peers-both", network.peers(True, True), limits.LOST, CUT_S),
        *_steady("flap-300ms", network.flap(), limits.FLAPPING, LONG_S),
        *_steady("loss30-cable", network.loss(30, between_nodes=False), limits.LOSSY, LONG_S),
    ]
    loss = network.loss(30, between_nodes=True)
    return [*found, Case("loss30-nodes", Role.ALL, Timing.STEADY, limits.LOSSY, loss, LONG_S)]


def _hand_over() -> list[Case]:
    """Faults in the middle of a hand-over, at the node that gives and at the node that takes."""
    table: list[tuple[str, Fault, Limit]] = [
        *((f"kill-{kind}", process.kill(kind), limits.LOST) for kind in KINDS),
        ("stop-main", process.stop("main"), limits.LOST),
        ("stop-supervisor", process.stop("supervisor"), limits.LOST),
        ("kill-all", process.kill_whole, limits.LOST),
        ("cable-out", network.cable_one_way(outgoing=True), limits.LOST),
        ("cable-in", network.cable_one_way(outgoing=False), limits.DEAF),
        ("peers-both", network.peers(True, True), limits.LOST),
        ("unplug", network.unplug(), limits.LOST),
        ("delete-tables", hand.delete_tables, limits.LOST),
    ]
    roles = (Role.LEADER, Role.SUCCESSOR)
    found = [Case(name, role, Timing.HAND_OVER, limit, fault, CUT_S) for name, fault, limit in table for role in roles]
    found.append(
        Case("loss30-nodes", Role.ALL, Timing.HAND_OVER, limits.LOSSY, network.loss(30, True), LONG_S),
    )
    return [*found, Case("busy-2", Role.ALL, Timing.HAND_OVER, limits.LOST, machine.busy(2), CUT_S, ahead_s=AHEAD_S)]


def _election() -> list[Case]:
    """Faults in the middle of an election after the leader was killed whole: both other nodes are needed."""
    table: list[tuple[str, Fault, Limit]] = [
        ("kill-main", process.kill("main"), limits.RESTARTED),
        ("kill-supervisor", process.kill("supervisor"), limits.REVIVED),
        ("kill-lifecheck", process.kill("lifecheck"), limits.RESTARTED),
        ("kill-receiver", process.kill("receiver"), limits.RESTARTED),
        ("stop-main", process.stop("main"), limits.AWAY),
        ("peers-both", network.peers(True, True), limits.AWAY),
        ("cable-in", network.cable_one_way(outgoing=False), limits.AWAY),
    ]
    roles = (Role.CANDIDATE, Role.VOTER)
    found = [Case(name, role, Timing.ELECTION, limit, fault) for name, fault, limit in table for role in roles]
    loss = Case("loss30-nodes", Role.ALL, Timing.ELECTION, limits.AWAY, network.loss(30, True), LONG_S)
    return [
        *found,
        loss,
        Case("busy-2", Role.ALL, Timing.ELECTION, limits.LOST, machine.busy(2), CUT_S, ahead_s=AHEAD_S),
    ]


def _machine() -> list[Case]:
    found = [
        Case("busy-2", Role.ALL, Timing.STEADY, limits.UNNOTICED, machine.busy(2), LONG_S),
        Case("busy-8", Role.ALL, Timing.STEADY, limits.SWAMPED, machine.busy(8), LONG_S),
    ]
    return [*found, *_steady("short-of-memory", machine.short_of_memory, limits.STARVED, LONG_S)]


def _by_hand() -> list[Case]:
    return [
        *_steady("delete-tables", hand.delete_tables, limits.PLANNED),
        *_steady("flush-ruleset", hand.flush_ruleset, limits.PLANNED),
        Case("remove-vip", Role.LEADER, Timing.STEADY, limits.REPAIRED, hand.remove_vip),
        Case("add-vip", Role.STANDBY, Timing.STEADY, limits.UNNOTICED, hand.add_vip),
        *_steady("delete-pid-file", hand.delete_pid_file, limits.UNNOTICED),
        *_steady("delete-run-dir", hand.delete_run_dir, limits.PLANNED),
    ]


def _two_paths() -> list[Case]:
    table: list[tuple[str, Fault]] = [
        ("path0-both", network.peers(True, True, path=0)),
        ("path0-out", network.peers(True, False, path=0)),
        ("path0-in", network.peers(False, True, path=0)),
        ("path1-unplug", network.unplug(path=1)),
        ("path1-flap-300ms", network.flap(path=1)),
    ]
    steady = [
        Case(name, role, Timing.STEADY, limits.UNNOTICED, fault, CUT_S, setting=Setting.TWO_PATHS)
        for name, fault in table
        for role in STEADY_ROLES
    ]
    roles = (Role.LEADER, Role.SUCCESSOR)
    moving = [
        Case(name, role, Timing.HAND_OVER, limits.PLANNED, fault, CUT_S, setting=Setting.TWO_PATHS)
        for name, fault in (table[0], table[3])
        for role in roles
    ]
    return [*steady, *moving]


def _tooled() -> list[Case]:
    """What needs the library or the small disks."""
    slow, slower, full = machine.slow_disk(30), machine.slow_disk(100), machine.full_disk
    table: list[tuple[str, Fault, Role, Timing, Limit]] = [
        ("slow-disk-30ms", slow, Role.ALL, Timing.HAND_OVER, limits.SLOW_DISK),
        ("slow-disk-30ms", slow, Role.ALL, Timing.ELECTION, limits.SLOW_DISK_LOST),
        ("slow-disk-100ms", slower, Role.LEADER, Timing.STEADY, limits.UNNOTICED),
        ("slow-disk-100ms", slower, Role.STANDBY, Timing.STEADY, limits.UNNOTICED),
        ("slow-disk-100ms", slower, Role.ALL, Timing.STEADY, limits.UNNOTICED),
        ("slow-disk-100ms", slower, Role.ALL, Timing.HAND_OVER, limits.SLOWER_DISK),
        ("slow-disk-100ms", slower, Role.ALL, Timing.ELECTION, limits.SLOWER_DISK),
        ("full-disk", full, Role.LEADER, Timing.STEADY, limits.UNNOTICED),
        ("full-disk", full, Role.STANDBY, Timing.STEADY, limits.UNNOTICED),
        ("full-disk", full, Role.LEADER, Timing.HAND_OVER, limits.LOST),
        ("full-disk", full, Role.SUCCESSOR, Timing.HAND_OVER, limits.LOST),
        ("full-disk", full, Role.CANDIDATE, Timing.ELECTION, limits.NO_DISK),
        ("full-disk", full, Role.VOTER, Timing.ELECTION, limits.NO_DISK),
    ]
    for name, offset_s in (("clock-plus-1h", 3600), ("clock-minus-1h", -3600)):
        step = machine.step_clock(offset_s)
        table += [(name, step, role, Timing.STEADY, limits.UNNOTICED) for role in (*STEADY_ROLES, Role.ALL)]
        table.append((name, step, Role.LEADER, Timing.HAND_OVER, limits.PLANNED))
        table.append((name, step, Role.CANDIDATE, Timing.ELECTION, limits.LOST))
    return [
        Case(
            name,
            role,
            timing,
            limit,
            fault,
            LONG_S if limit is limits.SLOWER_DISK else CUT_S,
            AHEAD_S if fault in (slow, slower) else 0.0,
            Setting.TOOLED,
        )
        for name, fault, role, timing, limit in table
    ]


_TABLES: tuple[Callable[[], list[Case]], ...] = (
    _by_hand,
    _network,
    _machine,
    _hand_over,
    _election,
    _processes,
    _two_paths,
    _tooled,
)


def all_cases() -> list[Case]:
    """The whole matrix; cases of one setting follow one another."""
    return [case for table in _TABLES for case in table()]


def select(pattern: str) -> list[Case]:
    """Those of the table that are asked for."""
    return choose(all_cases(), pattern)
