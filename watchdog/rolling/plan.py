"""A rolling run as one value: its rules, its backends in batches, and how far each of them is.

Pure: no clock, no file, no process. The plan is fixed at its start, so that everybody can read beforehand what will
happen; only the phases change. What to do next is decided in `decide`, from this value and from what is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.rolling.cluster import Backend, Seen

HALF = "half"
MARK = "rolling "
"""What the reason of every order of ours begins with, before the id of the run."""


class Phase(StrEnum):
    """Where one backend is. Written down before the deed, so each phase says what may have happened already."""

    WAITING = "waiting"
    DETACHING = "detaching"
    DETACHED = "detached"
    RUNNING = "running"
    RAN = "ran"
    FAILED = "failed"
    ATTACHING = "attaching"
    DONE = "done"
    SKIPPED = "skipped"


OUT = frozenset({Phase.DETACHING, Phase.DETACHED, Phase.RUNNING, Phase.RAN, Phase.FAILED, Phase.ATTACHING})
"""Phases in which this run may have detached the backend and has not attached it again."""
SETTLED = frozenset({Phase.DONE, Phase.SKIPPED})


class OnFailure(StrEnum):
    """What happens to a batch in which a command failed. The run stops in every case."""

    HOLD = "hold"
    LEAVE = "leave"
    ATTACH = "attach"


class State(StrEnum):
    """How the run as a whole is."""

    UNFINISHED = "unfinished"
    FINISHED = "finished"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator asked for; fixed for the whole run."""

    command: str
    batch: str
    """"half", or how many backends at once."""
    keep: int = 1
    include_primary: bool = False
    on_failure: OnFailure = OnFailure.HOLD
    jobs: int = 0
    """Commands at once; 0: all of the batch."""
    limit_ms: int = 3_600_000
    """For one command."""
    settle_ms: int = 60_000
    """Until every pgpool-II agrees with an order, and for waiting until a batch may begin."""


@dataclass(frozen=True, slots=True)
class Member:
    """One backend of the run. `batch` counts from 1; 0: it has no part in it, `note` says why."""

    backend_id: int
    host: str
    port: int
    role: str
    batch: int
    phase: Phase = Phase.WAITING
    note: str = ""
    error: str = ""
    """Why its command failed, in this session of the run."""
    succeeded: bool = False
    """Its command has run to a good end; only then being attached ends its part."""
    attempts: int = 0
    process: str = ""
    """Its running command, as `command.identity` names it."""
    took_ms: int = 0

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    run_id: str
    rules: Rules
    members: tuple[Member, ...]
    state: State = State.UNFINISHED
    sentence: str = ""
    """How it ended or why it stopped."""

    @property
    def reason(self) -> str:
        """What the cluster is told with every order; also how a run recognizes its own deeds."""
        return f"{MARK}{self.run_id}"

    @property
    def batches(self) -> int:
        return max((member.batch for member in self.members), default=0)

    @property
    def batch(self) -> int:
        """The batch that is at work or comes next; past the last one: `batches`."""
        return min((m.batch for m in self.working if m.phase not in SETTLED), default=self.batches)

    @property
    def working(self) -> tuple[Member, ...]:
        """The members that have a part in the run."""
        return tuple(member for member in self.members if member.batch)

    @property
    def out(self) -> tuple[Member, ...]:
        """What this run may have detached and has not attached again."""
        return self.in_phase(*OUT)

    @property
    def done(self) -> int:
        return len(self.in_phase(Phase.DONE))

    def in_phase(self, *phases: Phase) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.phase in phases)

    def member(self, backend_id: int) -> Member:
        return next(member for member in self.members if member.backend_id == backend_id)

    def put(self, *changed: Member) -> Plan:
        """The plan with these members in the place of the old ones."""
        new = {member.backend_id: member for member in changed}
        return replace(self, members=tuple(new.get(member.backend_id, member) for member in self.members))

    def enter(self, members: Iterable[Member], phase: Phase) -> Plan:
        """The plan with these members in another phase."""
        return self.put(*(replace(member, phase=phase) for member in members))


def named(members: Iterable[Member | Backend]) -> str:
    """Their names, for a sentence."""
    return ", ".join(member.name for member in members)


def draw_up(run_id: str, rules: Rules, seen: Seen) -> Plan:
    """The plan for the backends as they are; `ConfigError` with the reason if the rules cannot be kept."""
    if not seen:
        raise ConfigError("the cluster knows no backends yet; is pcp_user of [pgpool] set? See 'pgvigil backend list'")
    _check_nobody_else(seen)
    if rules.include_primary:
        _check_no_failover(seen)
    notes = {backend.backend_id: _why_not(backend, rules) for backend in seen}
    chosen = [backend for backend in seen if not notes[backend.backend_id]]
    if not chosen:
        reasons = "; ".join(f"{backend.name}: {notes[backend.backend_id]}" for backend in seen)
        raise ConfigError(f"no backend to work on: {reasons}")
    size = _size(rules, len(chosen))
    _check_keep(rules, size, sum(backend.is_up for backend in seen))
    batch_of = {backend.backend_id: 1 + number // size for number, backend in enumerate(chosen)}
    members = (_member(backend, batch_of.get(backend.backend_id, 0), notes[backend.backend_id]) for backend in seen)
    return Plan(run_id, rules, tuple(members))


def _member(backend: Backend, batch: int, note: str) -> Member:
    phase = Phase.WAITING if batch else Phase.SKIPPED
    return Member(backend.backend_id, backend.host, backend.port, backend.role, batch, phase, note)


def _why_not(backend: Backend, rules: Rules) -> str:
    """Why a backend has no part; "" if it has."""
    if backend.role == "primary" and not rules.include_primary:
        return "it is the primary"
    return "" if backend.is_up else f"not attached before the run: {backend.describe()}"


def _check_nobody_else(seen: Seen) -> None:
    for backend in seen:
        if backend.status == "down" and backend.reason.startswith(MARK):
            raise ConfigError(
                f"{backend.name} is detached by another run ({backend.reason}): two at once could detach too many. "
                f"Let it end, or end it where it began with 'pgvigil rolling --abandon', or attach the backend yourself"
            )


def _check_no_failover(seen: Seen) -> None:
    """Detaching the primary while another backend could follow it is a failover, whoever detaches it."""
    primary = next((backend for backend in seen if backend.role == "primary"), None)
    heirs = [backend for backend in seen if backend is not primary and backend.status == "up"]
    if primary is not None and heirs:
        raise ConfigError(
            f"--include-primary: detaching {primary.name} is a failover: pgpool-II would take {named(heirs[:1])} for "
            f"the primary, and the failover command would promote it. Do the others first, move the primary with "
            f"'pgvigil backend promote', and run it again for the rest"
        )


def _size(rules: Rules, count: int) -> int:
    return (count + 1) // 2 if rules.batch == HALF else min(int(rules.batch), count)


def _check_keep(rules: Rules, size: int, attached: int) -> None:
    room = attached - rules.keep
    if size <= room:
        return
    what = f"half is {size}" if rules.batch == HALF else f"a batch is {size}"
    advice = f"expected --batch {room} or fewer" if room > 0 else "attach another backend first, or lower --keep"
    raise ConfigError(
        f"{what}; attached now: {attached}, to stay so: {rules.keep} (--keep): {max(room, 0)} may go at once; {advice}"
    )


def resumed(plan: Plan) -> Plan:
    """The plan as a new session takes it up: what is out is checked anew, what failed or was cut short runs again."""
    again = {Phase.DETACHED: Phase.DETACHING, Phase.FAILED: Phase.DETACHING, Phase.RUNNING: Phase.DETACHING}
    members = []
    for member in plan.members:
        cut = member.phase is Phase.RUNNING
        note = "its command was cut short, it runs again" if cut else member.note
        phase = again.get(member.phase, member.phase)
        members.append(replace(member, phase=phase, note=note, error="", process=""))
    return replace(plan, members=tuple(members), sentence="")
