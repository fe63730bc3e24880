"""What a rolling run does next, given the plan, what is seen of the cluster, and whether somebody wants it to stop.

Pure, and asked again after every step: a run that was killed goes on by asking the same question about the plan that
was written down. Nothing here trusts what an earlier step meant to do; only phases and what is seen count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from pgvigil.ipc.counted import counted
from pgvigil.watchdog.rolling.cluster import Backend, Seen
from pgvigil.watchdog.rolling.plan import MARK, Member, OnFailure, Phase, Plan, named


class Stopping(IntEnum):
    """What the operator wants; only ever grows."""

    NO = 0
    AFTER_BATCH = 1
    """Let commands that run end, undo what has not begun, attach, and stop."""
    NOW = 2
    """The same, but end the commands."""


@dataclass(frozen=True, slots=True)
class Detach:
    """Take these out, and wait until every pgpool-II agrees."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Run the command for each of these."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Attach:
    """Bring these back, and wait until every pgpool-II agrees. `why` is set if their turn is undone: the run stops."""

    members: tuple[Member, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """The member changes without a deed; its phase and note say why. `halt`: and the run stops there."""

    member: Member
    halt: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before something changes; after `settle_ms` of it the run stops with this reason."""

    reason: str


class Why(Enum):
    """Why a run stops before its end."""

    FAILED = "failed"
    INTERRUPTED = "interrupted"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop here; the run can be resumed."""

    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do."""


Step = Detach | Run | Attach | Settle | Wait | Stop | Finish


def next_step(plan: Plan, seen: Seen, stopping: Stopping = Stopping.NO) -> Step:
    """The one next thing to do."""
    if plan.out:
        return _within(plan, seen, stopping)
    return _between(plan, seen, stopping)


def abandon_step(plan: Plan, seen: Seen) -> Step:
    """The one next thing to do for a run that is given up: everything that is out comes back."""
    lost = _lost(plan, seen)
    if lost is not None:
        return replace(lost, halt=False)
    return Attach(plan.out) if plan.out else Finish()


def attached(seen: Seen) -> int:
    """How many backends every client can use."""
    return sum(backend.is_up for backend in seen)


def _between(plan: Plan, seen: Seen, stopping: Stopping) -> Step:
    """No batch is at work."""
    waiting = plan.in_phase(Phase.WAITING)
    failed = [member for member in waiting if member.error]
    if failed:
        return _failed(failed, "attached again nevertheless")
    if not waiting:
        return Finish()
    if stopping:
        return Stop(Why.INTERRUPTED, f"stopped as asked before batch {plan.batch} of {plan.batches}")
    batch = [member for member in waiting if member.batch == plan.batch]
    for member in batch:
        note = _why_skip(plan, member, seen)
        if note:
            return Settle(replace(member, phase=Phase.SKIPPED, note=note))
    return _begin(plan, batch, seen)


def _begin(plan: Plan, batch: list[Member], seen: Seen) -> Step:
    other = next((one for one in seen if _is_foreign(plan, one)), None)
    if other is not None:
        return Wait(f"another run works here: {other.describe()}")
    unsettled = [backend for member in batch if (backend := _find(member, seen)) and not backend.is_up]
    if unsettled:
        return Wait("; ".join(backend.describe() for backend in unsettled))
    left = attached(seen) - len(batch)
    if left < plan.rules.keep:
        missing = "; ".join(backend.describe() for backend in seen if not backend.is_up)
        return Wait(f"without {named(batch)} only {left} would be attached, --keep {plan.rules.keep} ({missing})")
    return Detach(tuple(batch))


def _within(plan: Plan, seen: Seen, stopping: Stopping) -> Step:
    """A batch is at work, or was when an earlier session ended."""
    lost = _lost(plan, seen)
    if lost is not None:
        return lost
    if coming := plan.in_phase(Phase.ATTACHING):
        return Attach(coming)
    untouched = plan.in_phase(Phase.DETACHING, Phase.DETACHED)
    if untouched and stopping:
        return Attach(untouched, "stopped as asked")
    if going := plan.in_phase(Phase.DETACHING):
        return _go_on_detaching(plan, going, seen)
    if ready := plan.in_phase(Phase.DETACHED):
        return _run_or_undo(plan, ready, seen)
    return _after_commands(plan, stopping)


def _go_on_detaching(plan: Plan, going: tuple[Member, ...], seen: Seen) -> Step:
    for member in going:
        backend = _find(member, seen)
        if backend is not None and backend.status == "up" and backend.role == "primary" and member.role != "primary":
            return Settle(replace(member, phase=Phase.WAITING))  # `_between` judges it
    up = [backend for member in going if (backend := _find(member, seen)) and backend.status == "up"]
    others = [backend for backend in seen if backend.is_up and backend.backend_id not in {one.backend_id for one in up}]
    if up and len(others) < plan.rules.keep:
        are = f"{counted(len(others), 'other')} {'is' if len(others) == 1 else 'are'}"
        return Attach(going, f"{are} attached, --keep {plan.rules.keep}")
    return Detach(going)


def _run_or_undo(plan: Plan, ready: tuple[Member, ...], seen: Seen) -> Step:
    """Everything looked detached a moment ago; somebody else may have changed that, or lost another backend."""
    back = [backend for member in ready if (backend := _find(member, seen)) and backend.status == "up"]
    if back:
        return Stop(Why.BLOCKED, f"attached by somebody else, nothing was run there: {named(back)}")
    left = attached(seen)
    if left < plan.rules.keep:
        return Attach(ready, f"only {left} are attached, --keep {plan.rules.keep}")
    return Run(ready)


def _after_commands(plan: Plan, stopping: Stopping) -> Step:
    """Every command of the batch has ended."""
    ran, failed = plan.in_phase(Phase.RAN), plan.in_phase(Phase.FAILED)
    if not failed:
        return Attach(ran)
    policy = plan.rules.on_failure
    if policy is OnFailure.ATTACH:
        return Attach((*ran, *failed))
    if ran and (policy is OnFailure.LEAVE or stopping is Stopping.NOW):
        return Attach(ran)
    return _failed(failed, f"{named(plan.out)} stay detached", interrupted=stopping is Stopping.NOW)


def _failed(failed: list[Member] | tuple[Member, ...], what: str, interrupted: bool = False) -> Stop:
    errors = "; ".join(f"{member.name}: {member.error}" for member in failed)
    return Stop(Why.INTERRUPTED if interrupted else Why.FAILED, f"{errors}; {what}")


def _lost(plan: Plan, seen: Seen) -> Settle | None:
    """A backend that is out but no longer by this run's doing: it is not ours to attach again."""
    for member in plan.out:
        gone = _gone(member, seen)
        if gone:
            return Settle(replace(member, phase=Phase.SKIPPED, note=gone))
        backend = _find(member, seen)
        if backend is not None and backend.status == "down" and plan.reason not in backend.reason:
            done = "done and attached, then" if member.succeeded and member.phase is Phase.ATTACHING else "out, but"
            note = f"{done} taken down by somebody else: {backend.describe()}"
            return Settle(replace(member, phase=Phase.SKIPPED, note=note), halt=True)
    return None


def _find(member: Member, seen: Seen) -> Backend | None:
    return next((backend for backend in seen if backend.backend_id == member.backend_id), None)


def _gone(member: Member, seen: Seen) -> str:
    """Whether this number means another server now: then it is not ours to order about."""
    backend = _find(member, seen)
    if backend is None:
        return "the cluster knows no backend of this id any more"
    if (backend.host, backend.port) != (member.host, member.port):
        return f"backend {member.backend_id} is {backend.name} now"
    return ""


def _why_skip(plan: Plan, member: Member, seen: Seen) -> str:
    """Why a backend that waited for its turn loses it; "" if it does not."""
    gone = _gone(member, seen)
    if gone:
        return gone
    backend = _find(member, seen)
    if backend is None:
        return ""
    if backend.role == "primary" and not (plan.rules.include_primary and member.role == "primary"):
        return "it became the primary meanwhile"
    return f"went down meanwhile: {backend.describe()}" if backend.status == "down" else ""


def _is_foreign(plan: Plan, backend: Backend) -> bool:
    return backend.status == "down" and backend.reason.startswith(MARK) and plan.reason not in backend.reason


def newcomers(plan: Plan, seen: Seen) -> tuple[Backend, ...]:
    """Backends that came after the plan was made; they have no part in it."""
    known = {member.backend_id for member in plan.members}
    return tuple(backend for backend in seen if backend.backend_id not in known)
