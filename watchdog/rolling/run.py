"""Carries a rolling run out: asks `decide` for the next step, writes it down, does it, looks, and asks again.

Every wait ends with `settle_ms`. An order whose outcome is unknown is not an error: what is seen afterwards counts, and
an order is repeated only while it is seen not to be carried out. Nothing is undone behind the operator's back: a run
that stops says what is detached and how to go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import CommandError, InvariantError, PeerError
from pgvigil.watchdog.rolling import command, decide
from pgvigil.watchdog.rolling.cluster import Backend, Cluster, OrderRefused, Seen
from pgvigil.watchdog.rolling.decide import Attach, Detach, Finish, Run, Settle, Step, Stop, Stopping, Wait, Why
from pgvigil.watchdog.rolling.journal import Journal
from pgvigil.watchdog.rolling.plan import Member, Phase, Plan, State, named

LOOK_S = 0.25
REPEAT_NS = 5_000 * NS_PER_MS
"""After so long an order that is seen not to be carried out is given again."""


class Outcome(StrEnum):
    """How a session ended."""

    FINISHED = "finished"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    BLOCKED = "blocked"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Ending:
    outcome: Outcome
    sentence: str


class Show(Protocol):
    """Whoever tells the operator."""

    def note(self, plan: Plan, text: str) -> None:
        """Something happened."""

    def tick(self, plan: Plan) -> None:
        """Nothing happened for a moment."""


class Blocked(CommandError):
    """The cluster does not come to what was ordered, or nobody can say."""


class Rolling:
    """One session of a run: a new one, a resumed one, or one that is given up."""

    def __init__(
        self, plan: Plan, cluster: Cluster, journal: Journal, show: Show, stopping: Callable[[], Stopping]
    ) -> None:
        self.plan = plan
        self._cluster = cluster
        self._journal = journal
        self._show = show
        self._stopping = stopping
        self._commands = command.Commands(stopping, lambda: show.tick(self.plan))
        self._newcomers: tuple[Backend, ...] = ()

    def go(self) -> Ending:
        """Until the run is finished or has to stop; `CommandError` if the journal cannot be written."""
        return self._session(lambda seen: decide.next_step(self.plan, seen, self._stopping()), self._finished)

    def abandon(self) -> Ending:
        """Attach what the run detached, and end it for good."""
        return self._session(lambda seen: decide.abandon_step(self.plan, seen), self._abandoned)

    def _session(self, ask: Callable[[Seen], Step], finished: Callable[[], Ending]) -> Ending:
        self._take_up()
        waiting_ns = 0
        try:
            while True:
                seen = self._look()
                self._greet(seen)
                step = ask(seen)
                if isinstance(step, Wait):
                    waiting_ns = waiting_ns or boottime_ns()
                    self._wait(step, waiting_ns)
                    continue
                waiting_ns = 0
                if isinstance(step, Finish):
                    return finished()
                if isinstance(step, Stop):
                    return self._stop(step.why, step.reason)
                halt = self._do(step)
                if halt:
                    return self._stop(Why.BLOCKED, halt)
        except Blocked as error:
            return self._stop(Why.BLOCKED, str(error))

    def _take_up(self) -> None:
        """Make sure that the journal can be written before anything is done; say what an earlier session left."""
        plan = self.plan
        if plan.out or any(member.attempts for member in plan.members):
            out = [f"; {member.name}: {member.note or 'it may be detached'}" for member in plan.out]
            done = f"{plan.done} of {counted(len(plan.working), 'backend')} done"
            self._note(f"run {plan.run_id} is taken up, {done}{''.join(out)}", plan)
        else:
            self._save(plan)

    def _do(self, step: Detach | Run | Attach | Settle) -> str:
        """Carry a step out; why the run has to stop after it, or ""."""
        if isinstance(step, Detach):
            self._detach(step.members)
        elif isinstance(step, Run):
            self._run(step.members)
        elif isinstance(step, Attach):
            self._attach(step)
            return "" if self._stopping() else step.why
        else:
            self._note(f"{step.member.name}: {step.member.note or 'is looked at again'}", self.plan.put(step.member))
            return f"{step.member.name}: {step.member.note}" if step.halt else ""
        return ""

    # orders

    def _detach(self, members: tuple[Member, ...]) -> None:
        text = f"batch {members[0].batch} of {self.plan.batches}: detaching {named(members)}"
        self._note(text, self.plan.enter(members, Phase.DETACHING))
        if self._settle(members, self._cluster.detach, lambda backend: backend.is_down, "up"):
            self._note(f"{named(members)} detached everywhere", self.plan.enter(members, Phase.DETACHED))

    def _attach(self, step: Attach) -> None:
        why = f" ({step.why})" if step.why else ""
        self._note(f"attaching {named(step.members)}{why}", self.plan.enter(step.members, Phase.ATTACHING))
        if self._settle(step.members, self._cluster.attach, lambda backend: backend.is_up, "down", in_any_case=True):
            back = (replace(one, phase=Phase.DONE if one.succeeded else Phase.WAITING) for one in step.members)
            self._note(f"{named(step.members)} attached everywhere", self.plan.put(*back))

    def _settle(
        self,
        members: Iterable[Member],
        order: Callable[[int, str], None],
        settled: Callable[[Backend], bool],
        before: str,
        in_any_case: bool = False,
    ) -> bool:
        """Order until it is seen everywhere. False if the plan has to be looked at first; `Blocked` at the limit."""
        deadline_ns = boottime_ns() + self.plan.rules.settle_ms * NS_PER_MS
        ordered_ns = dict.fromkeys((member.backend_id for member in members), 0)
        unknown = ""
        while True:
            seen = {one.backend_id: one for one in self._look() if one.backend_id in ordered_ns}
            if len(seen) < len(ordered_ns) or any(self._lost(one) for one in seen.values()):
                return False
            if all(settled(one) for one in seen.values()):
                return True
            if self._stopping() and not in_any_case:
                return False
            for backend in seen.values():
                if backend.status == before and boottime_ns() - ordered_ns[backend.backend_id] > REPEAT_NS:
                    ordered_ns[backend.backend_id] = boottime_ns()
                    unknown = self._order(order, backend)
            if boottime_ns() > deadline_ns:
                open_ = "; ".join(one.describe() for one in seen.values() if not settled(one))
                limit = f"{self.plan.rules.settle_ms / 1000:g} s"
                raise Blocked(f"after {limit}: {open_}" + (f"; {unknown}" if unknown else ""))
            self._pause()

    def _lost(self, backend: Backend) -> bool:
        """Down, but not by this run."""
        return backend.status == "down" and self.plan.reason not in backend.reason

    def _order(self, order: Callable[[int, str], None], backend: Backend) -> str:
        """Give it once; what is unknown about it. `Blocked` if it is refused."""
        try:
            order(backend.backend_id, self.plan.reason)
        except OrderRefused as error:
            raise Blocked(f"{backend.name}: {error}") from None
        except (CommandError, PeerError) as error:
            return f"the last order said: {error}"
        return ""

    # commands

    def _run(self, members: tuple[Member, ...]) -> None:
        jobs = [self._job(member) for member in members]
        at_once = self.plan.rules.jobs or len(jobs)
        self._commands.run(jobs, at_once, self._started, self._ended)

    def _job(self, member: Member) -> command.Job:
        rules = self.plan.rules
        values = {
            "BACKEND_ID": str(member.backend_id),
            "BACKEND_HOST": member.host,
            "BACKEND_PORT": str(member.port),
            "BACKEND_ROLE": member.role,
            "ROLLING_RUN": self.plan.run_id,
            "ROLLING_BATCH": str(member.batch),
            "ROLLING_BATCHES": str(self.plan.batches),
            "ROLLING_ATTEMPT": str(member.attempts + 1),
        }
        environment = {**os.environ, **{f"PGVIGIL_{key}": value for key, value in values.items()}}
        text = command.filled(rules.command, member.host, member.port, member.backend_id)
        output = self._journal.output(self.plan, member.backend_id)
        return command.Job(member.backend_id, text, environment, output, rules.limit_ms)

    def _started(self, backend_id: int, process: str) -> None:
        old = self.plan.member(backend_id)
        member = replace(old, phase=Phase.RUNNING, process=process, attempts=old.attempts + 1, note="", took_ms=0)
        again = f" (attempt {member.attempts})" if old.attempts else ""
        self._note(f"{member.name}: the command runs{again}", self.plan.put(member))

    def _ended(self, ended: command.Ended) -> None:
        old = self.plan.member(ended.backend_id)
        phase = Phase.FAILED if ended.error else Phase.RAN
        # The process of one that does not die stays in the journal: nobody may start another one beside it.
        process = old.process if command.still_runs(old.process) else ""
        member = replace(
            old, phase=phase, error=ended.error, succeeded=not ended.error, process=process, took_ms=ended.took_ms
        )
        text = f"{member.name}: {ended.error or 'the command is done'} after {ended.took_ms / 1000:.1f} s"
        if ended.error:
            path = self._journal.output(self.plan, ended.backend_id)
            text += f"; its output, {path}, ends with:\n{command.tail(path)}"
        self._note(text, self.plan.put(member))

    # looking and waiting

    def _look(self) -> Seen:
        """What is seen now; asked again while nobody can say, `Blocked` at the limit."""
        deadline_ns = boottime_ns() + self.plan.rules.settle_ms * NS_PER_MS
        while True:
            try:
                return self._cluster.list()
            except (CommandError, PeerError) as error:
                if boottime_ns() > deadline_ns or self._stopping() is Stopping.NOW:
                    raise Blocked(f"nobody can say how the backends are: {error}") from None
            self._pause()

    def _wait(self, step: Wait, since_ns: int) -> None:
        if self._stopping():
            return
        if boottime_ns() - since_ns > self.plan.rules.settle_ms * NS_PER_MS:
            raise Blocked(f"waited {self.plan.rules.settle_ms / 1000:g} s: {step.reason}")
        if self.plan.sentence != step.reason:
            self._note(f"waiting: {step.reason}", replace(self.plan, sentence=step.reason))
        self._pause()

    def _pause(self) -> None:
        self._show.tick(self.plan)
        time.sleep(LOOK_S)

    def _greet(self, seen: Seen) -> None:
        """Say it once when backends appear that were not there when the plan was made."""
        new = decide.newcomers(self.plan, seen)
        if new and new != self._newcomers:
            known = {backend.backend_id for backend in self._newcomers}
            fresh = [backend for backend in new if backend.backend_id not in known]
            self._newcomers = new
            if fresh:
                self._note(f"{named(fresh)} came after the plan was made and has no part in this run", self.plan)

    # telling

    def _note(self, text: str, plan: Plan) -> None:
        """Write down first, then tell."""
        self._save(plan)
        self._show.note(plan, text)

    def _save(self, plan: Plan) -> None:
        self.plan = plan
        self._journal.save(plan)

    def _stop(self, why: Why, reason: str) -> Ending:
        self._save(replace(self.plan, sentence=reason))
        return Ending(Outcome(why.value), reason)

    def _finished(self) -> Ending:
        open_ = [member for member in self.plan.working if member.phase is not Phase.DONE]
        text = f"{self.plan.done} of {counted(len(self.plan.working), 'backend')} done"
        if open_:
            text += "; " + "; ".join(f"{member.name}: {member.note}" for member in open_)
        self._save(replace(self.plan, state=State.FINISHED, sentence=text))
        return Ending(Outcome.INCOMPLETE if open_ else Outcome.FINISHED, text)

    def _abandoned(self) -> Ending:
        if self.plan.out:
            raise InvariantError(f"{named(self.plan.out)} are still detached by a run that is being abandoned")
        done = f"{self.plan.done} of {counted(len(self.plan.working), 'backend')} done"
        text = f"given up with {done}; what it detached is attached"
        self._save(replace(self.plan, state=State.ABANDONED, sentence=text))
        return Ending(Outcome.ABANDONED, text)
