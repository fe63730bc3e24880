"""Plays one case: a settled ground, a fault at its moment, the way back, and the history to the checker.

It decides nothing about the outcome. Waiting in vain for the service is no error here: the history shows it.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.case import Blow, Case, Role, Timing
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.matrix.history import Wrong, judge
from pgvigil.watchdog.demo.matrix.moments import await_election, await_hand_over
from pgvigil.watchdog.demo.matrix.row import Row, row_of, row_of_error

BACK_LIMIT_S = 20.0
"""How long to wait for an answer after the fault was undone: far above every limit, so that a miss is measured."""
TRIES = 3
"""Runs of a case whose measurement the prober itself spoiled."""


def play(ground: Ground, case: Case) -> Row:
    """One row. An error of the lab becomes a row that failed; it never ends the matrix."""
    row = _play_once(ground, case)
    for _ in range(TRIES - 1):
        if set(row.wrong) - {Wrong.SLOW.name} != {Wrong.LATE.name}:
            break
        row = _play_once(ground, case)
    return row


def _play_once(ground: Ground, case: Case) -> Row:
    try:
        return _played(ground, case)
    except Exception as error:  # whatever it is, the next case gets its chance on a fresh ground
        text = str(error) if isinstance(error, PgvigilError) else "".join(traceback.format_exception(error))
        return row_of_error(case, text, os.getloadavg()[0])


def _played(ground: Ground, case: Case) -> Row:
    leader = ground.settle()
    blows = prepare(ground, case, leader)
    start_ns = ground.stage.begin()
    try:
        blow = _strike(ground, case, leader, blows)
        time.sleep(case.hold_s)
    finally:
        _undo(blows)
    try:
        ground.stage.wait_owner(ground.lab.nodes, BACK_LIMIT_S)
    except CommandError:
        pass  # nobody answers: the history says so
    end_ns = ground.stage.calm()
    note = blow.note()
    settled = _settles(ground)
    rest_ns = boottime_ns()
    history = ground.history(start_ns, end_ns, rest_ns, settled)
    return row_of(case, judge(history, case.limit.ms), note, (rest_ns - end_ns) / NS_PER_S, os.getloadavg()[0])


def prepare(ground: Ground, case: Case, leader: Host) -> dict[Host | None, Blow]:
    """The fault for everybody whom it may hit; None stands for all of them at once."""
    others = ground.lab.others(leader)
    targets: Sequence[Host] = {
        Role.LEADER: (leader,),
        Role.STANDBY: others[:1],
        Role.SUCCESSOR: others[:1],
        Role.CANDIDATE: others,
        Role.VOTER: others,
        Role.ALL: (),
    }[case.role]
    if case.role is Role.ALL:
        return {None: case.prepare(ground, ground.lab.nodes)}
    return {host: case.prepare(ground, [host]) for host in targets}


def _strike(ground: Ground, case: Case, leader: Host, blows: dict[Host | None, Blow]) -> Blow:
    """Wait for the moment and hit whom the role says; returns the fault that was made."""
    others = ground.lab.others(leader)
    target = next(iter(blows))
    if case.ahead_s:
        blows[target].strike()
        time.sleep(case.ahead_s)
    if case.timing is Timing.HAND_OVER:
        await_hand_over(ground, leader, others[0])
    elif case.timing is Timing.ELECTION:
        candidate = await_election(ground, leader)
        voter = others[1] if candidate is others[0] else others[0]
        target = {Role.CANDIDATE: candidate, Role.VOTER: voter, Role.ALL: None}[case.role]
    if not case.ahead_s:
        blows[target].strike()
    struck = blows.pop(target)
    blows.clear()
    blows[target] = struck
    return struck


def _undo(blows: dict[Host | None, Blow]) -> None:
    for blow in blows.values():
        blow.undo()


def _settles(ground: Ground) -> bool:
    try:
        ground.settle()
    except CommandError:
        return False
    return True
