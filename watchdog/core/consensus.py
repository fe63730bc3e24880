"""Who wants what of a backend: asks, standing votes, and how many of them are enough (P23 b, c).

Votes are kept in memory only and die when they are not repeated: a leader that is new has none, and whoever still
means it says so again. A vote names the number of the backend's newest decision as its node knew it, so one that was
cast before that decision can never bring about another one. Only members count: voters that run a pgpool-II, under the
record that the document names, each once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pgvigil.watchdog.core.backends import MAX_BACKENDS
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskBackend, Seen, SeenBackend
from pgvigil.watchdog.core.quorum import majority
from pgvigil.watchdog.core.record import DecisionKind

ALIVE_NS = 3_000 * NS_PER_MS
MAX_ASKS = 64
MAX_ARGUMENTS = 20
MAX_ARGUMENT_BYTES = 1024
MAX_REASON_BYTES = 400
MAX_BACKEND_ID = 1023
MAX_HOST_BYTES = 128  # as in pgpool-II; with more, 64 backends would outgrow a message

AskKey = tuple[int, int, int]  # node, boot, request


@dataclass(frozen=True, slots=True)
class CoreConsensus:
    """How many pgpool-IIs have to report a backend before it is failed over, and how long a report waits for others."""

    required: bool = True
    half_votes: bool = False
    several_from_node: bool = False
    timeout_ms: int = 10_000


@dataclass(slots=True)
class Wanted:
    """A decision that was asked for on this node, until its final answer. `decision` None: the table is not known."""

    request_id: int
    kind: DecisionKind
    backend_id: int
    operator: bool
    decision: int | None
    reason: str
    arguments: tuple[str, ...]
    until_ns: int
    next_ask_ns: int
    asked: bool = False
    why_not: str = ""


@dataclass(slots=True)
class Waiting:
    """An ask at the leader. `since_ns`: when it could first have been decided; `heard_ns`: its newest copy."""

    sender: int
    record_id: int
    ask: AskBackend
    since_ns: int
    heard_ns: int
    told: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a node has said last about its pgpool-II; `taken_ns` is on our clock."""

    record_id: int
    boot: int
    number: int
    backends: tuple[SeenBackend, ...]
    problem: str
    taken_ns: int

    def fresh(self, now_ns: int) -> bool:
        """Whether it still counts."""
        return not self.problem and now_ns < self.taken_ns + ALIVE_NS


def ask_problem(ask: AskBackend) -> str | None:
    """What is wrong with the content of an ask, for a sentence."""
    if not 0 <= ask.backend_id <= MAX_BACKEND_ID:
        return f"backend {ask.backend_id}, expected 0 to {MAX_BACKEND_ID}"
    if ask.decision < 0:
        return f"decision {ask.decision}, expected 0 or more"
    if len(ask.arguments) > MAX_ARGUMENTS:
        return f"{len(ask.arguments)} arguments, at most {MAX_ARGUMENTS} are taken"
    if sum(len(item.encode("utf-8", "replace")) for item in ask.arguments) > MAX_ARGUMENT_BYTES:
        return f"its arguments are longer than {MAX_ARGUMENT_BYTES} bytes together"
    if len(ask.reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        return f"its reason is longer than {MAX_REASON_BYTES} bytes"
    return None


def seen_problem(backends: Sequence[SeenBackend], problem: str) -> str | None:
    """What is wrong with what a node says that it sees."""
    if len(backends) > MAX_BACKENDS:
        return f"{len(backends)} backends, at most {MAX_BACKENDS} are taken"
    if len({item.backend_id for item in backends}) < len(backends):
        return "a backend is listed twice"
    if len(problem.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        return f"its problem is longer than {MAX_REASON_BYTES} bytes"
    for item in backends:
        if not 0 <= item.backend_id <= MAX_BACKEND_ID:
            return f"backend {item.backend_id}, expected 0 to {MAX_BACKEND_ID}"
        if not 0 <= item.port <= 65535 or len(item.host.encode("utf-8", "replace")) > MAX_HOST_BYTES:
            return f"backend {item.backend_id} at {item.host[:40]!r}, port {item.port}, expected a host and a port"
    return None


def newer(old: PoolView | None, record_id: int, message: Seen) -> bool:
    """Whether this is news; late and doubled copies are not."""
    if old is None or old.record_id != record_id:
        return True
    return (message.boot, message.number) > (old.boot, old.number)


def needed(members: int, rule: CoreConsensus) -> int:
    """How many votes decide that a backend is down."""
    if not rule.required:
        return 1
    if rule.half_votes and members % 2 == 0:
        return max(members // 2, 1)
    return majority(members)


def votes(
    backend_id: int,
    decision: int,
    asks: Mapping[AskKey, Waiting],
    views: Mapping[int, PoolView],
    members: Collection[int],
    rule: CoreConsensus,
) -> int:
    """The votes for down, by live asks and fresh views under the backend's newest decision. A node counts once,
    unless the configuration says that each of its asks does; an operator's word is no observation.
    """
    counts: dict[int, int] = {}
    for waiting in asks.values():
        ask = waiting.ask
        same = (ask.kind, ask.backend_id, ask.decision) == (DecisionKind.DOWN, backend_id, decision)
        if same and not ask.operator and waiting.sender in members:
            counts[waiting.sender] = counts.get(waiting.sender, 0) + 1
    for node, view in views.items():
        failed = any(
            item.backend_id == backend_id and item.failed and item.decision == decision for item in view.backends
        )
        if failed and node in members:
            counts[node] = max(counts.get(node, 0), 1)
    return sum(counts.values()) if rule.several_from_node else len(counts)
