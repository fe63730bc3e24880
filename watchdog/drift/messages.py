"""What nodes say to each other about their settings: bodies of the side messages of topic "drift"; pure.

The first byte is the kind, the rest is the dataclass. What is read is bounded and printable, or it is a `PeerError`:
it ends up in logs and on terminals. All messages may be lost, late or doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgvigil.ipc import codec
from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.watchdog.drift.compare import Difference
from pgvigil.watchdog.drift.facts import DIGEST_BYTES, Facts

TOPIC = "drift"
MAX_KEY_BYTES = 80
MAX_VALUE_BYTES = 256
PART_BYTES = 24 * 1024
PART_FACTS = 200
MAX_PARTS = 64
MAX_TOLD = 64
"""Differences that a node tells the others; how many there are it tells besides."""


@dataclass(frozen=True, slots=True)
class State:
    """A node's settings as digests, and in what they differ from the settings of the node `leader` (0: not compared).

    `scheme` says which settings `fatal` is made of. `yours` is what the receiver is known to have said, empty for
    nothing: so it sees that its own word was lost. `told` is as much as fits, `differing` counts all.
    """

    scheme: int
    all: bytes
    fatal: bytes
    yours: bytes
    leader: int
    differing: int
    told: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A node asks for the settings of which `wanted` is the digest."""

    wanted: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """One setting and its text."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Values:
    """Part `part` (from 0) of `parts` of the settings of which `all` is the digest."""

    all: bytes
    part: int
    parts: int
    facts: tuple[Fact, ...]


Said = State | Ask | Values

# Append-only: a number is never used again.
_KINDS: dict[int, type[Said]] = {1: State, 2: Ask, 3: Values}
_NUMBERS: dict[type[Said], int] = {kind: number for number, kind in _KINDS.items()}


def encode(said: Said) -> bytes:
    """The body of one message."""
    return bytes((_NUMBERS[type(said)],)) + codec.encode(said)


def decode(body: bytes) -> Said:
    """The message in a body, or `PeerError`."""
    kind = _KINDS.get(body[0]) if body else None
    if kind is None:
        raise PeerError(f"a message of {len(body)} bytes of an unknown kind, expected one of 1 to {max(_KINDS)}")
    said: Said = codec.decode(kind, body[1:])
    _check(said)
    return said


def _check(said: Said) -> None:
    if isinstance(said, State):
        _sizes(said.all, said.fatal, said.yours or said.all)
        if len(said.told) > MAX_TOLD:
            raise PeerError(f"{len(said.told)} differences, expected at most {MAX_TOLD}")
        if len(said.told) > said.differing:
            raise PeerError(
                f"{counted(len(said.told), 'difference')} told of {said.differing}, expected no more than there are"
            )
        for one in said.told:
            _texts(one.key, one.here, one.leader)
    elif isinstance(said, Ask):
        _sizes(said.wanted)
    else:
        _sizes(said.all)
        if not said.part < said.parts <= MAX_PARTS:
            raise PeerError(f"part {said.part} of {said.parts}, expected less than all of at most {MAX_PARTS}")
        for fact in said.facts:
            _texts(fact.key, fact.text)


def _sizes(*digests: bytes) -> None:
    for digest in digests:
        if len(digest) != DIGEST_BYTES:
            raise PeerError(f"a digest of {len(digest)} bytes, expected {DIGEST_BYTES}")


def _texts(key: str, *values: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES or any(len(value.encode()) > MAX_VALUE_BYTES for value in values):
        raise PeerError(f"a setting longer than {MAX_KEY_BYTES} and {MAX_VALUE_BYTES} bytes: {key[:40]!r}")
    if not all(text.isprintable() for text in (key, *values)):
        raise PeerError(f"a setting with letters that cannot be shown: {key[:40]!r}")


def told(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """As many differences as fit into one message."""
    taken: list[Difference] = []
    room = PART_BYTES
    for one in found:
        room -= len(one.key.encode()) + len(one.here.encode()) + len(one.leader.encode()) + 8
        if room < 0 or len(taken) == MAX_TOLD:
            break
        taken.append(one)
    return tuple(taken)


def parts(all_: bytes, facts: Facts) -> tuple[Values, ...]:
    """All settings, in as many messages as they need."""
    made = tuple(_portions(Fact(key, text) for key, text in facts.items()))
    if len(made) > MAX_PARTS:
        raise InvariantError(f"{len(facts)} settings need {len(made)} messages, at most {MAX_PARTS} may be sent")
    return tuple(Values(all_, number, len(made), portion) for number, portion in enumerate(made))


def _portions(facts: Iterable[Fact]) -> Iterator[tuple[Fact, ...]]:
    portion: list[Fact] = []
    size = 0
    for fact in facts:
        needed = len(fact.key.encode()) + len(fact.text.encode()) + 8
        if portion and (size + needed > PART_BYTES or len(portion) == PART_FACTS):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(fact)
        size += needed
    yield tuple(portion)
