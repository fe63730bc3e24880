"""What the watchdogs of two nodes say to each other (PROTOCOL 2).

Pure data. Every message may be lost, late, doubled or replayed; each carries what is needed to see that.
A `round_id` is (boot, number) of the asking node. Kinds are append-only. Times never travel.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.watchdog.core.record import BLANK_STAMP, BackendRole, Cause, DecisionKind, Document, Stamp


@dataclass(frozen=True, slots=True)
class Renew:
    """The leader renews its lease; `document` only if the receiver seems to lack it (P1).

    `committed` is the newest stamp that the leader knows to be committed: followers act on no other document.
    """

    term: int
    boot: int
    sequence: int
    lease_ms: int
    stamp: Stamp
    document: Document | None
    committed: Stamp = BLANK_STAMP


@dataclass(frozen=True, slots=True)
class Ack:
    """A voter has promised itself for `lease_ms` since it took this renewal; `stored` is durable (P2)."""

    term: int
    boot: int
    sequence: int
    stored: Stamp


@dataclass(frozen=True, slots=True)
class RenewRefused:
    """A renewal came from an older term (P2), or to a node that has released or lost it."""

    term: int
    boot: int
    known_term: int


@dataclass(frozen=True, slots=True)
class Release:
    """A leader has closed its gate and dropped the VIP: promises to it may be forgotten (P8).

    `successor` is the node that shall stand first, 0 for nobody in particular.
    """

    term: int
    boot: int
    sequence: int
    successor: int


@dataclass(frozen=True, slots=True)
class RoundId:
    """One round of questions of one incarnation of a node."""

    boot: int
    number: int


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in `term`? The answer promises and changes nothing (P11)."""

    round_id: RoundId
    term: int
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote for me in `term` (P11). `round_ms` is how long the candidate waits for votes, 0 for the usual R (P13)."""

    round_id: RoundId
    term: int
    stamp: Stamp
    round_ms: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """Yes to a PreVote (`real` false) or to a Vote (`real` true)."""

    round_id: RoundId
    term: int
    real: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """No, with the refuser's own term, the reason, and the newer document if that is the reason (P11)."""

    round_id: RoundId
    term: int
    real: bool
    known_term: int
    reason: str
    document: Document | None


@dataclass(frozen=True, slots=True)
class Hello:
    """A node that follows nobody yet says what it has: needed to found a cluster (P18).

    `blank` means without a document; `founder` is the node that it expects to found the cluster.
    """

    blank: bool
    founder: int
    stamp: Stamp
    answer: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The founder hands its first document to the voters that said they are blank (P18)."""

    document: Document


@dataclass(frozen=True, slots=True)
class AskHandOver:
    """A node passes an operator's wish for another leader on to the leader; `to` 0 means anybody."""

    request_id: int
    to: int


@dataclass(frozen=True, slots=True)
class TellHandOver:
    """The leader's answer to `AskHandOver`."""

    request_id: int
    final: bool
    accepted: bool
    text: str


class Outcome(enum.Enum):
    """What became of a wish. BUSY: not now, ask again. UNKNOWN: it may surface later (P16)."""

    DONE = "done"
    REFUSED = "refused"
    BUSY = "busy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AskVoters:
    """A node asks the leader to add or remove one voter (P18); the asker repeats it until it is answered.

    `boot` is the asker's, so that no answer reaches its next life. `epoch` is that of the document in which the
    operator saw the voters: a late copy finds another one and changes nothing.
    """

    boot: int
    request_id: int
    add: int
    remove: int
    epoch: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class TellVoters:
    """The leader's answer to `AskVoters`."""

    boot: int
    request_id: int
    outcome: Outcome
    text: str


class SeenStatus(enum.Enum):
    """A backend's status in one pgpool-II. WAITING: up, and no client has used it yet."""

    UNUSED = "unused"
    WAITING = "waiting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class SeenBackend:
    """A backend as one pgpool-II has it.

    `failed`: it is down there, PostgreSQL does not answer that node either, and the cluster has agreed on up by its
    `decision`: a standing vote for down, until one of it changes.
    """

    backend_id: int
    host: str
    port: int
    status: SeenStatus
    role: BackendRole
    failed: bool
    decision: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node's pgpool-II makes of the backends; repeated, the newest `number` of a `boot` counts.

    `problem`: why it is not known, and then `backends` are the last ones known, or none.
    """

    boot: int
    number: int
    backends: tuple[SeenBackend, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class AskBackend:
    """A node asks the leader for a decision and repeats it until it is answered.

    `decision` is the backend's as the asker knew it: a late copy finds another one and changes nothing. `arguments` are
    pgpool-II's placeholders ("d=0"). `operator`: on the word of a person, so no consensus is needed.
    """

    boot: int
    request_id: int
    kind: DecisionKind
    backend_id: int
    operator: bool
    decision: int
    reason: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TellBackend:
    """The leader's answer to `AskBackend`; BUSY: not yet, `text` says what it waits for."""

    boot: int
    request_id: int
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Aside:
    """Something between two shells that the core never sees; `number` counts within a `boot`."""

    topic: str
    boot: int
    number: int
    body: bytes


Message = (
    Renew | Ack | RenewRefused | Release | PreVote | Vote | Granted | Refused
    | Hello | Found | AskHandOver | TellHandOver | AskVoters | TellVoters
    | Seen | AskBackend | TellBackend | Aside
)  # fmt: skip

# Append-only: a number is never used again.
KINDS: dict[int, type[Message]] = {
    1: Renew,
    2: Ack,
    3: RenewRefused,
    4: Release,
    5: PreVote,
    6: Vote,
    7: Granted,
    8: Refused,
    9: Hello,
    10: Found,
    11: AskHandOver,
    12: TellHandOver,
    13: AskVoters,
    14: TellVoters,
    15: Seen,
    16: AskBackend,
    17: TellBackend,
    18: Aside,
}
NUMBERS: dict[type[Message], int] = {kind: number for number, kind in KINDS.items()}
