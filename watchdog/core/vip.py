"""The virtual IP, desired against observed: which actions make the host be as it should.

A function of two values, called after every wake-up. It knows no kernel and no command; it never asks for anything
that would let the address answer without a lease. The order of the actions is part of the answer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Wanted(enum.Enum):
    """What the election wants of this host."""

    DOWN = "down"
    KEEP = "keep"
    UP = "up"


class GateState(enum.Enum):
    """What the kernel's gate does."""

    MISSING = "missing"
    CLOSED = "closed"
    OPEN = "open"


class Probe(enum.Enum):
    """Whether somebody else was asked for the address."""

    UNASKED = "unasked"
    ASKING = "asking"
    FREE = "free"
    TAKEN = "taken"


class Action(enum.Enum):
    """What to do next."""

    CLOSE_GATE = "close the gate"
    RESTORE_GATE = "put the gate back"
    REMOVE_MISPLACED = "remove the address from where it does not belong"
    REMOVE = "remove the address"
    ASK = "ask whether somebody has the address"
    RAISE = "add the address"
    ARM = "arm the gate"
    EXTEND = "renew the lifetime of the address"
    ANNOUNCE = "announce the address"


@dataclass(frozen=True, slots=True)
class Desired:
    """`gate_required`: never up without a gate."""

    wanted: Wanted
    lease_end_ns: int
    gate_required: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """`present`, `missing`: some address is (not) there. `busy`: a command is at it."""

    now_ns: int
    gate: GateState
    armed_for_ns: int
    present: bool
    missing: bool
    misplaced: bool
    lifetime_ends_ns: int | None
    announced: bool
    probe: Probe
    busy: bool


LIFETIME_MARGIN_NS = 500_000_000


def decide(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """The actions, in order; none if all is as it should be."""
    if desired.wanted is Wanted.DOWN:
        return _down(observed)
    if desired.wanted is Wanted.KEEP:
        return (Action.RESTORE_GATE,) if observed.gate is GateState.MISSING else ()
    if observed.now_ns >= desired.lease_end_ns:
        return (Action.CLOSE_GATE,) if observed.gate is GateState.OPEN else ()
    return _up(desired, observed)


def _down(observed: Observed) -> tuple[Action, ...]:
    actions = []
    if observed.gate is GateState.MISSING:
        actions.append(Action.RESTORE_GATE)
    if observed.gate is GateState.OPEN:
        actions.append(Action.CLOSE_GATE)
    if observed.present and not observed.busy:
        actions.append(Action.REMOVE)
    if observed.misplaced:
        actions.append(Action.REMOVE_MISPLACED)
    return tuple(actions)


def _up(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    if observed.gate is GateState.MISSING and desired.gate_required:
        return (Action.RESTORE_GATE, Action.REMOVE) if observed.present else (Action.RESTORE_GATE,)
    actions = [Action.REMOVE_MISPLACED] if observed.misplaced else []
    if observed.gate is GateState.MISSING:
        actions.append(Action.RESTORE_GATE)
    raising = observed.missing and not observed.busy
    if raising and observed.probe is Probe.UNASKED:
        return (*actions, Action.ASK)
    if observed.missing and observed.probe in (Probe.ASKING, Probe.TAKEN):
        return tuple(actions)
    if raising:
        actions.append(Action.RAISE)
    if observed.gate is not GateState.MISSING and observed.armed_for_ns != desired.lease_end_ns:
        actions.append(Action.ARM)
    ends_ns = observed.lifetime_ends_ns
    if not raising and ends_ns is not None and ends_ns < desired.lease_end_ns + LIFETIME_MARGIN_NS:
        actions.append(Action.EXTEND)
    silent = observed.missing or observed.busy or observed.gate is GateState.CLOSED
    if not silent and not observed.announced:
        actions.append(Action.ANNOUNCE)
    return tuple(actions)
