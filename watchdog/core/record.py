"""What a node must never forget: the durable record and the cluster document in it (PROTOCOL 1, 7).

Pure values. `watchdog.store` writes them, the engine changes them by making new ones. A voter is known by its
node id *and* by the id of its record, because a voter that lost its record has also lost its word: it comes back
as a new voter, never as the old one (P18).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

RECORD_FORMAT = 4
NOBODY = 0
KEPT_REMOVALS = 32


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """Age of a document: term first, then version (P16)."""

    term: int
    version: int

    def __str__(self) -> str:
        return f"{self.term}.{self.version}"


@dataclass(frozen=True, slots=True)
class Voter:
    """A voter. `record_id` is 0 until the node has been bound to its first record."""

    node_id: int
    record_id: int


class Cause(enum.Enum):
    """Why a node was removed. Those after LEFT are the cluster's own doing, and undone when the node comes back."""

    OPERATOR = "operator"
    LEFT = "left"
    SHUTDOWN = "shutdown"
    LOST = "lost"
    NO_SHOW = "no-show"


SENTENCES = {
    Cause.OPERATOR: "an operator removed it",
    Cause.LEFT: "it left on the word of its operator",
    Cause.SHUTDOWN: "it was removed when it was stopped",
    Cause.LOST: "it was removed because it had been lost for too long",
    Cause.NO_SHOW: "it was removed because it had never joined",
}


@dataclass(frozen=True, slots=True)
class Removed:
    """A node that was a voter, with the record under which it was one (0: none yet)."""

    node_id: int
    record_id: int
    cause: Cause

    @property
    def returns(self) -> bool:
        """Whether it is added again by itself when it comes back with the same record."""
        return self.cause in (Cause.SHUTDOWN, Cause.LOST, Cause.NO_SHOW)


@dataclass(frozen=True, slots=True)
class Intent:
    """A command that one incarnation of a leader means to run, or has run (P17).

    `token` is the fencing token within the term. `state` is pending, running, done, failed or unknown. `arguments` are
    pgpool-II's placeholders with their values ("d=0"), `detail` is what came of it, in one line.
    """

    name: str
    event: str
    policy: str
    term: int
    boot: int
    token: int
    state: str
    arguments: tuple[str, ...] = ()
    detail: str = ""


class BackendStatus(enum.Enum):
    """What all pgpool-IIs shall do with a backend."""

    UP = "up"
    DOWN = "down"


class BackendRole(enum.Enum):
    """PRIMARY and STANDBY with streaming replication, MAIN and REPLICA without."""

    PRIMARY = "primary"
    STANDBY = "standby"
    MAIN = "main"
    REPLICA = "replica"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Backend:
    """One PostgreSQL server as the cluster has agreed on it; `decision` is the number of what changed it last."""

    backend_id: int
    host: str
    port: int
    status: BackendStatus
    role: BackendRole
    reason: str
    decision: int


class DecisionKind(enum.Enum):
    """What can be decided of a backend. FOLLOW is only asked for: it belongs to the decision that made a primary."""

    DOWN = "down"
    UP = "up"
    PROMOTE = "promote"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True)
class Decision:
    """One numbered change of the backends. `by` is the node that asked first; `operator`: without consensus."""

    number: int
    kind: DecisionKind
    backend_id: int
    operator: bool
    by: int
    reason: str


class QuorumRule(enum.Enum):
    """How many voters may carry the VIP (P22); everything else needs a majority under both."""

    MAJORITY = "majority"
    HALF = "half"


@dataclass(frozen=True, slots=True)
class Document:
    """The small replicated state. `lease_ms` is L, the length that every promise and lease has (P19).

    `removed` remembers why nodes are voters no more, the newest last: for status, and for those that may come back.
    Formats 1 and 2 of the record knew no `quorum` and no `tie_breaker`: they mean a majority. Format 3 had no backends.
    `backends` is what was agreed on, `decided` the number of the newest decision, `decisions` the newest of them.
    """

    stamp: Stamp
    epoch: int
    voters: tuple[Voter, ...]
    lease_ms: int
    paused: bool
    intents: tuple[Intent, ...]
    removed: tuple[Removed, ...] = ()
    quorum: QuorumRule = QuorumRule.MAJORITY
    tie_breaker: str = ""
    backends: tuple[Backend, ...] = ()
    decided: int = 0
    decisions: tuple[Decision, ...] = ()

    @property
    def terms_of_half(self) -> tuple[tuple[Voter, ...], int, str]:
        """P22 b: what stands still while the rule is half."""
        return self.voters, self.lease_ms, self.tie_breaker

    def backend(self, backend_id: int) -> Backend | None:
        """The backend of that id, if there is one."""
        return next((backend for backend in self.backends if backend.backend_id == backend_id), None)

    def voter(self, node_id: int) -> Voter | None:
        """The voter of that id, if there is one."""
        return next((voter for voter in self.voters if voter.node_id == node_id), None)

    def removal(self, node_id: int) -> Removed | None:
        """Why a node is a voter no more, if it was one."""
        return next((item for item in self.removed if item.node_id == node_id), None)

    def with_voter(self, node_id: int, record_id: int) -> Document:
        """One voter more, or another record for the one of that id (P18)."""
        others = tuple(voter for voter in self.voters if voter.node_id != node_id)
        voters = tuple(sorted((*others, Voter(node_id, record_id)), key=lambda voter: voter.node_id))
        removed = tuple(item for item in self.removed if item.node_id != node_id)
        return replace(self, voters=voters, removed=removed, epoch=self.epoch + 1)

    def without_voter(self, node_id: int, cause: Cause) -> Document:
        """One voter less, and why (P18); for a node that is none already, another reason."""
        known = self.voter(node_id) or self.removal(node_id)
        gone = () if known is None else (Removed(node_id, known.record_id, cause),)
        voters = tuple(voter for voter in self.voters if voter.node_id != node_id)
        removed = tuple(item for item in self.removed if item.node_id != node_id)
        return replace(self, voters=voters, removed=(*removed, *gone)[-KEPT_REMOVALS:], epoch=self.epoch + 1)

    def stamped(self, stamp: Stamp) -> Document:
        """The same content under another stamp."""
        return replace(self, stamp=stamp)


BLANK_STAMP = Stamp(0, 0)


@dataclass(frozen=True, slots=True)
class Record:
    """The durable record of one node.

    `record_id` is drawn once, when the record is made. `kernel_boot_id` tells whether the machine was restarted
    since the last write. `clean_stop` says that the last stop left no promise behind (P14).
    """

    format: int
    cluster: str
    node_id: int
    record_id: int
    boot: int
    term: int
    voted_for: int
    won_term: int
    released_term: int
    promised_ms: int
    clean_stop: bool
    kernel_boot_id: str
    document: Document | None

    @property
    def stamp(self) -> Stamp:
        """The stamp of the stored document; older than any other if there is none."""
        return BLANK_STAMP if self.document is None else self.document.stamp


def blank_record(cluster: str, node_id: int, record_id: int) -> Record:
    """The record of a node that has never been part of a cluster."""
    return Record(RECORD_FORMAT, cluster, node_id, record_id, 0, 0, NOBODY, 0, 0, 0, False, "", None)
