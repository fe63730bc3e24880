"""The frames that cross a process boundary inside a node.

Pure data, one dataclass per kind. Kinds are append-only: a number is never given twice, and a changed
meaning gets a new kind. Every frame repeats state instead of reporting a change (level-triggered), so a
receiver that missed a hundred of them is right again after the next one. Times are CLOCK_BOOTTIME in ns.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError, PeerError

SCHEMA = 1
OUTCOME_UNKNOWN = "unknown:"


class Health(enum.Enum):
    """What is believed of something; UNKNOWN is said rather than something stale."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    DEAD = "dead"


class Role(enum.Enum):
    """What a node says it is, in heartbeats and in status."""

    UNKNOWN = "unknown"
    STANDBY = "standby"
    CANDIDATE = "candidate"
    LEADER = "leader"
    WITNESS = "witness"


class StopMode(enum.Enum):
    """pgpool-II's three ways to stop."""

    SMART = "smart"
    FAST = "fast"
    IMMEDIATE = "immediate"


# --- supervisor <-> child, over a socketpair ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has bound and opened all it needs and does its duty from now on."""

    detail: str


@dataclass(frozen=True, slots=True)
class Alive:
    """Sign of life of the child's loop. `holding` is true while the node may hold the virtual IP."""

    holding: bool
    summary: str


@dataclass(frozen=True, slots=True)
class StopOrder:
    """The supervisor tells a child to end; only watchdog main tells the modes apart."""

    mode: StopMode


@dataclass(frozen=True, slots=True)
class HandOverOrder:
    """SIGUSR2: hand leadership over and stay as standby."""


@dataclass(frozen=True, slots=True)
class ReopenLogsOrder:
    """SIGUSR1: reopen log files; watchdog main also writes the full status to the log."""


@dataclass(frozen=True, slots=True)
class ChildrenReport:
    """The supervisor's table of processes, for `pgvigil status`."""

    processes: tuple[ProcessInfo, ...]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of this node. `state` is one of starting, running, stopping, backing off, failed."""

    name: str
    pid: int
    state: str
    restarts: int
    started_at_ns: int
    last_exit: str


@dataclass(frozen=True, slots=True)
class ReloadDone:
    """The supervisor's answer to a reload, for the log of watchdog main and `pgvigil reload`."""

    accepted: bool
    message: str


# --- heartbeat receiver -> heartbeat sender, and -> lifecheck ----------------------------------------


@dataclass(frozen=True, slots=True)
class PeerSession:
    """One peer's nonces on one path: `ours` is what the peer must echo, `theirs` what we must echo."""

    node_id: int
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True)
class Echo:
    """The newest heartbeat of a peer: its `sequence`, and when it arrived. The peer computes the round trip of it."""

    node_id: int
    sequence: int
    heard_at_ns: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """The receiver's table of nonces, for the sender of the same path.

    `hears` are the peers that were heard on this path lately.
    """

    path: int
    peers: tuple[PeerSession, ...]
    hears: tuple[int, ...] = ()
    echoes: tuple[Echo, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """What a node says of itself in every heartbeat.

    `up_for_ms` is how long its watchdog has been up, `electable` its own word that it could lead,
    `hears` the ids of the nodes whose heartbeats reach it on this path (directly: not by what others say),
    `content_age_ms` how old the watchdog's words are, `cannot_query` the ids of the nodes whose pgpool-II it cannot
    query. The sender fills in `hears` and the ages.
    """

    role: Role
    term: int
    electable: bool
    pgpool: Health
    priority: int
    up_for_ms: int
    hears: tuple[int, ...]
    content_age_ms: int
    cannot_query: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """An authentic, fresh heartbeat, with the receiver's stamp."""

    node_id: int
    path: int
    received_at_ns: int
    beat: Beat


@dataclass(frozen=True, slots=True)
class PathQuality:
    """How well a peer is heard on one path; None where nothing is known yet.

    `lost_permille` counts the last hundred heartbeats. `loss_ppm` is the share to expect lost from now on, and
    `lateness_us` how late heartbeats come (root of the mean square). Jitter is that of RFC 3550, section 6.4.1.
    """

    node_id: int
    lost_permille: int
    loss_ppm: int
    lateness_us: int
    jitter_us: int | None
    round_trip_us: int | None


@dataclass(frozen=True, slots=True)
class HeardTogether:
    """Several of them, in the order of their arrival per node: one message instead of many.

    `quiet_at_ns` is the receiver's word that at this instant it was awake and nothing was left to read on `path`:
    silence up to then is the network's or the peer's. 0 says nothing of that.
    """

    beats: tuple[Heard, ...]
    path: int = 0
    quiet_at_ns: int = 0
    qualities: tuple[PathQuality, ...] = ()


@dataclass(frozen=True, slots=True)
class PathTrouble:
    """Something on a path that an operator should know: counted, with the newest reason."""

    path: int
    node_id: int
    rejected: int
    reason: str


# --- lifecheck -> watchdog main ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PathEvidence:
    """When a node was last heard on one path (0: never), and how well; None where nothing is known yet.

    `lost_permille` counts the last hundred heartbeats. `silent_since_ns` is 0 unless that is longer ago than the
    detector allows.
    """

    interface: str
    last_heard_at_ns: int
    lost_permille: int | None = None
    round_trip_us: int | None = None
    jitter_us: int | None = None
    silent_since_ns: int = 0

    @property
    def silent(self) -> bool:
        """Whether the path is taken for dead."""
        return self.silent_since_ns > 0


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """Lifecheck's verdict on one peer, with its evidence and since when it holds.

    `query` is the peer's pgpool-II as this node can query it: its own affair, no part of `health`. `confirmed_by` are
    the nodes that did not hear a dead one either when it was given up.
    """

    node_id: int
    health: Health
    since_ns: int
    evidence: str
    paths: tuple[PathEvidence, ...]
    beat: Beat | None
    beat_at_ns: int
    query: Health = Health.UNKNOWN
    query_evidence: str = ""
    confirmed_by: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """What one method says of this node itself."""

    method: str
    health: Health
    since_ns: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Everything lifecheck knows; repeated at least every 1.4 seconds.

    `unfit` is why this node should not lead although its pgpool-II runs; empty if nothing speaks against it. `vip_cut`:
    the interface of the virtual IP is down, so nobody could reach it here. `wavering`: it may be unfit before long, so
    no leader should hand over to this node now.
    """

    judged_at_ns: int
    pgpool: Health
    pgpool_since_ns: int
    pgpool_evidence: str
    peers: tuple[NodeVerdict, ...]
    troubles: tuple[PathTrouble, ...]
    checks: tuple[Check, ...] = ()
    unfit: str = ""
    vip_cut: bool = False
    wavering: bool = False


# --- watchdog main <-> lifecheck: what is outside of pgvigil ------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutsideReport:
    """What somebody outside has said of a node's pgpool-II, by `pgvigil inform`; it counts until `until_ns`."""

    node_id: int
    health: Health
    reason: str
    reporter: str
    said_at_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class OutsideReports:
    """The newest report on each node. Each side repeats what it has, so that either may be killed."""

    reports: tuple[OutsideReport, ...]


@dataclass(frozen=True, slots=True)
class WatchdogMember:
    """A node as pgpool-II's own watchdog sees it; `node_id` is ours, 0 if the configuration has no such node."""

    pgpool_id: int
    node_id: int
    name: str
    state: str
    priority: int
    told: Health


@dataclass(frozen=True, slots=True)
class PgpoolWatchdog:
    """pgpool-II's own watchdog on this machine, read at `read_at_ns`; `trouble` is why that is long ago or never."""

    read_at_ns: int
    trouble: str
    leader: str
    quorum: str
    escalated: bool
    delegate_ip: str
    members: tuple[WatchdogMember, ...]


# --- watchdog main -> heartbeat senders ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeatContent:
    """What the senders put into the next heartbeats, and when watchdog main said so."""

    said_at_ns: int
    started_at_ns: int
    beat: Beat


# --- command line <-> watchdog main --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """An order or a question of the command line: `verb` and its arguments."""

    request_id: int
    verb: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer. `final` is false for progress; `body` is JSON text for status, else empty.

    A refusal whose message begins with `OUTCOME_UNKNOWN` is none: what was asked may still come about.
    """

    request_id: int
    final: bool
    accepted: bool
    message: str
    body: bytes


Frame = (
    Ready | Alive | StopOrder | HandOverOrder | ReopenLogsOrder | ChildrenReport | ReloadDone
    | Sessions | Heard | HeardTogether | PathTrouble | Verdicts | BeatContent | Request | Reply
    | OutsideReports | PgpoolWatchdog
)  # fmt: skip

# Append-only: a number is never used again.
KINDS: dict[int, type[Frame]] = {
    1: Ready,
    2: Alive,
    3: StopOrder,
    4: HandOverOrder,
    5: ReopenLogsOrder,
    6: ChildrenReport,
    7: ReloadDone,
    8: Sessions,
    9: Heard,
    10: PathTrouble,
    11: Verdicts,
    12: BeatContent,
    13: Request,
    14: Reply,
    15: HeardTogether,
    16: OutsideReports,
    17: PgpoolWatchdog,
}
NUMBERS: dict[type[Frame], int] = {kind: number for number, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds a frame: schema, kind, sending process, its sequence and its clock."""

    schema: int
    kind: int
    sender: str
    sequence: int
    sent_at_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded frame with its envelope."""

    frame: Frame
    sender: str
    sequence: int
    sent_at_ns: int


def pack(frame: Frame, sender: str, sequence: int, sent_at_ns: int) -> bytes:
    """The bytes of a frame in its envelope."""
    number = NUMBERS.get(type(frame))
    if number is None:
        raise InvariantError(f"{type(frame).__name__} is no registered frame")
    return codec.encode(Envelope(SCHEMA, number, sender, sequence, sent_at_ns, codec.encode(frame)))


def unpack(data: bytes) -> Received:
    """A frame from bytes; `PeerError` for anything that is not exactly one valid frame."""
    envelope = codec.decode(Envelope, data)
    if envelope.schema != SCHEMA:
        raise PeerError(f"frame of schema {envelope.schema}, expected {SCHEMA}")
    kind = KINDS.get(envelope.kind)
    if kind is None:
        raise PeerError(f"frame of kind {envelope.kind}, expected one of 1 to {max(KINDS)}")
    frame = codec.decode(kind, envelope.payload)
    return Received(frame, envelope.sender, envelope.sequence, envelope.sent_at_ns)
