"""Plays one case: a settled ground, the fault, the sentence and the move that must follow, the way back, the judgement.

It waits for what is expected and writes down what is said; that it waits in vain is no error here: `verdict` says so.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.lifecheck.case import Case, Length, Move
from pgvigil.watchdog.demo.lifecheck.row import Row, row_of, row_of_error
from pgvigil.watchdog.demo.lifecheck.sentences import Logs, Sentence, status_sentences
from pgvigil.watchdog.demo.lifecheck.verdict import Seen, find, judge
from pgvigil.watchdog.demo.matrix import history
from pgvigil.watchdog.demo.matrix.bout import BACK_LIMIT_S
from pgvigil.watchdog.demo.matrix.case import Role
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.records import Outage, outage

SAID_LIMIT_S = 30.0
"""How long a case waits for its sentence; far above every time of the table."""
LOOK_EVERY_S = 0.05
ASK_EVERY_S = 0.3
"""Pause between two questions for the status: each costs a start of Python."""
TRIES = 2
"""Runs of a case whose measurement the prober itself spoiled."""


def play(ground: Ground, case: Case, length: Length) -> Row:
    """One row. An error of the lab becomes a row that failed; it never ends the table."""
    row = _play_once(ground, case, length)
    for _ in range(TRIES - 1):
        if set(row.wrong) - {history.Wrong.SLOW.name} != {history.Wrong.LATE.name}:
            break
        row = _play_once(ground, case, length)
    return row


def _play_once(ground: Ground, case: Case, length: Length) -> Row:
    try:
        return _played(ground, case, case.lasts_s(length))
    except Exception as error:  # whatever it is, the next case gets its chance on a fresh ground
        text = str(error) if isinstance(error, PgvigilError) else "".join(traceback.format_exception(error))
        return row_of_error(case, text, os.getloadavg()[0])


def _played(ground: Ground, case: Case, hold_s: float) -> Row:
    leader = ground.settle()
    struck = _targets(ground, case.role, leader)
    blow = case.prepare(ground, struck)
    before = _processes(ground)
    talk = _Talk(ground, case, struck)
    start_ns = ground.stage.begin()
    talk.struck_at_s = time.time()
    struck_at_ns = boottime_ns()
    try:
        blow.strike()
        talk.wait_for_it()
        if case.move is Move.MUST:
            _wait_for(ground, ground.lab.others(leader))
        time.sleep(hold_s)
        lasted_s = (boottime_ns() - struck_at_ns) / NS_PER_S
    finally:
        blow.undo()
    _wait_for(ground, ground.lab.nodes)
    end_ns = ground.stage.calm()
    settled = _settles(ground)
    found = history.judge(ground.history(start_ns, end_ns, boottime_ns(), settled), case.limit.ms)
    seen = Seen(
        struck=tuple(host.name for host in struck),
        struck_at_s=talk.struck_at_s,
        leader=leader.name,
        sentences=talk.heard(),
        history=found,
        restarted=_processes(ground) != before,
    )
    return row_of(case, seen, judge(case, seen), _pool(ground, start_ns, end_ns), lasted_s, os.getloadavg()[0])


def _targets(ground: Ground, role: Role, leader: Host) -> Sequence[Host]:
    if role is Role.ALL:
        return ground.lab.nodes
    return (leader,) if role is Role.LEADER else ground.lab.others(leader)[:1]


def _processes(ground: Ground) -> set[int]:
    return {pid for node in ground.lab.nodes for pid in ground.lab.pgvigil(node)}


def _pool(ground: Ground, start_ns: int, end_ns: int) -> Outage:
    """What a client saw of pgpool-II itself, at its port behind the VIP."""
    return outage(ground.stage.records("pool", start_ns), start_ns, end_ns)


def _wait_for(ground: Ground, allowed: Sequence[Host]) -> None:
    try:
        ground.stage.wait_owner(allowed, BACK_LIMIT_S)
    except CommandError:
        pass  # nobody of them answers: the history says so


def _settles(ground: Ground) -> bool:
    try:
        ground.settle()
    except CommandError:
        return False
    return True


class _Talk:
    """Listens to the logs, and asks for the status where a case allows it."""

    def __init__(self, ground: Ground, case: Case, struck: Sequence[Host]) -> None:
        self._ground = ground
        self._case = case
        self._struck = tuple(host.name for host in struck)
        self._logs = Logs(ground.lab.nodes)
        self._shown: list[Sentence] = []
        self.struck_at_s = 0.0

    def heard(self) -> list[Sentence]:
        """Everything said since the fault was made, logs before status."""
        return [sentence for sentence in self._logs.read() if sentence.at_s >= self.struck_at_s - 0.001] + self._shown

    def wait_for_it(self) -> None:
        """Until the expected sentence is said, or for `SAID_LIMIT_S`."""
        says = self._case.says
        if says is None:
            return
        deadline_ns = boottime_ns() + int(SAID_LIMIT_S * NS_PER_S)
        while find(says, self._struck, self.heard()) is None and boottime_ns() < deadline_ns:
            if says.in_status:
                self._ask()
            time.sleep(ASK_EVERY_S if says.in_status else LOOK_EVERY_S)

    def _ask(self) -> None:
        for node in self._ground.lab.nodes:
            raw = self._ground.cluster.status(node).raw
            self._shown += status_sentences(node, raw, time.time())
