"""A path of the search told for people: one line a step, what the core said to it indented below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.exhaustive.model import SIZE
from tests.exhaustive.node import Mail
from tests.exhaustive.space import KIND_BITS, KIND_MASK, NODES, Broken, Kind, Space, State

from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Granted, PreVote, Refused, Renew, Vote
from pgvigil.watchdog.core.record import Document


def story(space: Space, path: Sequence[int]) -> Iterator[str]:
    """Walk the path again from the first state of the space, and tell it."""
    state, passed_ns = space.first, 0
    yield f"start: {space.model.start.value}; {_roles(space, state)}"
    for step in path:
        kind, what = Kind(step & KIND_MASK), step >> KIND_BITS
        passed_ns += what if kind is Kind.TIME else 0
        yield f"{passed_ns / NS_PER_MS:7.2f} ms  {_told(space, kind, what)}"
        yield from (f"{'':12}{note}" for note in _notes(space, state, step))
        after = _after(space, state, step)
        if isinstance(after, str):
            yield f"{passed_ns / NS_PER_MS:7.2f} ms  BROKEN: {after}"
            return
        state = after
    yield f"end: {_roles(space, state)}"


def _after(space: Space, state: State, step: int) -> State | str:
    """Where a step leads, or what it breaks."""
    try:
        return dict(space.steps(state))[step]
    except Broken as broken:
        return broken.text


def _notes(space: Space, state: State, step: int) -> tuple[str, ...]:
    place = space.place_of(step)
    if place is None:
        return ()
    return space.outcome(place, state[NODES + place], step, space.patient(state)[place]).notes


def _roles(space: Space, state: State) -> str:
    cores = [space.nodes[place][state[NODES + place]].core for place in range(SIZE)]
    return ", ".join(f"n{place + 1} {'down' if core is None else core.state.value}" for place, core in enumerate(cores))


def _told(space: Space, kind: Kind, what: int) -> str:
    if kind in (Kind.TAKE, Kind.TAKE_AND_KEEP):
        mail = space.mail.values[what]
        again = ", and a copy of it stays on its way" if kind is Kind.TAKE_AND_KEEP else ""
        return f"n{mail.to} takes {_letter(mail)} from n{mail.sender}{again}"
    if kind is Kind.TIME:
        return f"{what / NS_PER_MS:g} ms pass"
    if kind is Kind.OPERATE:
        node, event = space.model.operations[what]
        return f"n{node} is told {event}"
    said = {
        Kind.WRITE: "has its next write on disk",
        Kind.VIP_DOWN: "has taken the address off",
        Kind.TIMER: "wakes up",
        Kind.START: "starts",
        Kind.CRASH: "is killed",
    }
    return f"n{what + 1} {said[kind]}"


def _letter(mail: Mail) -> str:
    """A message in short: its kind and what decides."""
    message = mail.message
    name = type(message).__name__
    if isinstance(message, PreVote | Vote):
        return f"{name}(term {message.term}, document {message.stamp})"
    if isinstance(message, Granted | Refused):
        return f"{name}({'vote' if message.real else 'pre-vote'}, term {message.term})"
    if isinstance(message, Renew):
        return f"Renew(term {message.term}, boot {message.boot}, number {message.sequence}, document {message.stamp})"
    shown = [getattr(message, name) for name in message.__slots__]
    return (
        f"{name}({', '.join(f'document {item.stamp}' if isinstance(item, Document) else str(item) for item in shown)})"
    )
