"""rolling: begin a run over the backends, go on with one, give it up, or look at it.

Holds the lock of the run's file for as long as it works, and turns signals into wishes: a run is never just cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog.cli import codes, node, render, rolling_render, rolling_show
from pgvigil.watchdog.cli.parser import config_path
from pgvigil.watchdog.config.load import examine
from pgvigil.watchdog.config.problems import refusal
from pgvigil.watchdog.rolling import command, journal
from pgvigil.watchdog.rolling.cluster import Cluster
from pgvigil.watchdog.rolling.decide import Stopping
from pgvigil.watchdog.rolling.plan import OnFailure, Plan, Rules, State, draw_up, resumed
from pgvigil.watchdog.rolling.run import Ending, Outcome, Rolling

_CODES = {
    Outcome.FINISHED: codes.OK,
    Outcome.ABANDONED: codes.OK,
    Outcome.INTERRUPTED: codes.INTERRUPTED,
}
_FIXED = ("batch", "keep", "include_primary", "on_failure", "jobs", "limit", "settle", "dry_run")
"""Options of a new run; they stay as they are until it ends."""


def rolling(options: argparse.Namespace) -> int:
    """One session, or one look."""
    _check(options)
    path = _path(options)
    if options.status:
        return _status(options, path)
    run_dir = node.run_dir_of(options)
    if node.supervisor_pid(run_dir) is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    from pgvigil.watchdog.rolling.control import ControlCluster

    cluster = ControlCluster(run_dir)
    if options.dry_run:
        return _show_plan(options, _new_plan(options, cluster))
    lock = journal.Journal(path)
    try:
        return _session(options, lock, cluster)
    finally:
        lock.close()


def _check(options: argparse.Namespace) -> None:
    """`ConfigError` for options that do not go together."""
    modes = [name for name in ("resume", "abandon", "status") if getattr(options, name)]
    if len(modes) > 1:
        raise ConfigError(f"--{modes[0]} and --{modes[1]} exclude each other")
    if not modes:
        if options.batch is None or options.run is None:
            raise ConfigError("a new run needs --batch and --run; expected those, or --resume, --abandon or --status")
        if not options.run.strip() or "\0" in options.run:
            raise ConfigError("--run is empty, expected a command for the shell")
        return
    given = [name for name in _FIXED if getattr(options, name) not in (None, False)]
    if given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} is fixed when a run begins and cannot stand beside --{modes[0]}"
        )
    if options.run is not None and modes != ["resume"]:
        raise ConfigError(f"--{modes[0]} runs nothing, expected no --run")


def _path(options: argparse.Namespace) -> str:
    if options.state:
        return os.path.abspath(str(options.state))
    outcome = examine(config_path(options), options.node_id)
    if outcome.settings is None:
        raise refusal(outcome.mistakes)
    return os.path.join(outcome.settings.process.state_dir, journal.FILE_NAME)


def _new_plan(options: argparse.Namespace, cluster: Cluster) -> Plan:
    rules = Rules(
        command=options.run,
        batch=options.batch,
        keep=options.keep or 1,
        include_primary=options.include_primary,
        on_failure=OnFailure(options.on_failure or OnFailure.HOLD),
        jobs=options.jobs or 0,
        limit_ms=int((options.limit or 3600) * 1000),
        settle_ms=int((options.settle or 60) * 1000),
    )
    return draw_up(os.urandom(4).hex(), rules, cluster.list())


def _show_plan(options: argparse.Namespace, plan: Plan) -> int:
    if options.json:
        print(json.dumps(rolling_render.as_json(plan, outcome="planned")))
    else:
        lines = [*rolling_render.rules(plan), "", *rolling_render.backends(plan, render.wants_colour(sys.stdout))]
        print("\n".join(lines))
    return codes.OK


def _status(options: argparse.Namespace, path: str) -> int:
    """0: no run, or nothing to do about it; 1: it stopped and waits for an operator."""
    plan, works = journal.load(path), journal.holder(path)
    if plan is None:
        print(json.dumps({"run": None}) if options.json else f"no run: there is no {path}")
        return codes.OK
    if options.json:
        print(json.dumps(rolling_render.as_json(plan, process=works or None)))
    else:
        print(rolling_render.page(plan, works, render.wants_colour(sys.stdout)))
    if works or plan.state is not State.UNFINISHED:
        return codes.OK
    print(f"pgvigil rolling: {rolling_render.advice(plan, _option(options))}", file=sys.stderr)
    return codes.FAILED


def _session(options: argparse.Namespace, lock: journal.Journal, cluster: Cluster) -> int:
    plan = _taken_up(options, lock) if options.resume or options.abandon else _begun(options, lock, cluster)
    with rolling_show.telling(options.json) as teller, _wishes(teller) as wishes:
        run = Rolling(plan, cluster, lock, teller, wishes.of)
        wishes.run = run
        ending = run.abandon() if options.abandon else run.go()
    if teller.gone:
        return codes.PIPE_CLOSED
    return _told(options, run.plan, ending)


def _begun(options: argparse.Namespace, lock: journal.Journal, cluster: Cluster) -> Plan:
    old = lock.load()
    if old is not None and old.state is State.UNFINISHED:
        raise ConfigError(f"run {old.run_id} has not ended: {rolling_render.advice(old, _option(options))}")
    plan = _new_plan(options, cluster)
    if old is not None:
        lock.remove_outputs(old)
    return plan


def _taken_up(options: argparse.Namespace, lock: journal.Journal) -> Plan:
    """The plan of the run that stopped; `CommandError` while a command of it still runs."""
    plan = lock.load()
    if plan is None or plan.state is not State.UNFINISHED:
        what = "there is none" if plan is None else f"run {plan.run_id} is {plan.state.value}"
        raise ConfigError(f"no run to {'resume' if options.resume else 'abandon'}: {what} in {lock.path}")
    for member in plan.members:
        pid = command.still_runs(member.process)
        if pid:
            raise CommandError(
                f"the command for {member.name} still runs as process {pid}: wait for it, or end it, then ask again; "
                f"its output is in {lock.output(plan, member.backend_id)}"
            )
    if options.run is not None:
        plan = replace(plan, rules=replace(plan.rules, command=options.run))
    return resumed(plan)


class _Wishes:
    """Signals, counted."""

    def __init__(self, teller: rolling_show.Teller) -> None:
        self._teller = teller
        self._stopping = Stopping.NO
        self._told = Stopping.NO
        self.run: Rolling | None = None

    def of(self) -> Stopping:
        """What the operator wants now; a reader that has gone wants it to stop in order."""
        if self._told is not self._stopping and self.run is not None:
            self._told = self._stopping
            self._teller.wish(self.run.plan, self._stopping)
        return max(self._stopping, Stopping.AFTER_BATCH) if self._teller.gone else self._stopping

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first lets the batch end, a second ends its commands. A lost terminal is never the second."""
        more = Stopping.NOW if self._stopping and number != signal.SIGHUP else Stopping.AFTER_BATCH
        self._stopping = max(self._stopping, more)


@contextmanager
def _wishes(teller: rolling_show.Teller) -> Iterator[_Wishes]:
    wishes = _Wishes(teller)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, wishes.on_signal) for number in numbers]
    try:
        yield wishes
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _told(options: argparse.Namespace, plan: Plan, ending: Ending) -> int:
    code = _CODES.get(ending.outcome, codes.FAILED)
    if options.json:
        print(json.dumps(rolling_render.as_json(plan, outcome=ending.outcome.value)))
    elif code == codes.OK:
        print(ending.sentence)
    else:
        print(f"pgvigil rolling: {ending.sentence}", file=sys.stderr)
        if advice := rolling_render.advice(plan, _option(options)):
            print(f"pgvigil rolling: {advice}", file=sys.stderr)
    return code


def _option(options: argparse.Namespace) -> str:
    return f" --state {shlex.quote(options.state)}" if options.state else ""
