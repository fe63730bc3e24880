"""What the document alone answers to an ask (P23 b, d): so a leader that knows nothing else answers as the last one.

An ask names the number of the backend's decision as its node knew it. The first decision after that one is the answer,
if it is of the kind that was asked for; whatever else happened since makes the ask old news. Nothing is decided here.
"""

from __future__ import annotations

from pgvigil.watchdog.core.backends import (
    DONE,
    FAILBACK,
    FAILED,
    FAILOVER,
    FOLLOW_PRIMARY,
    PENDING,
    PRIMARY,
    event_of,
    followers,
    intent_of,
    number_of,
    up_primary_of,
    value_of,
)
from pgvigil.watchdog.core.messages import AskBackend, Outcome
from pgvigil.watchdog.core.record import Backend, BackendStatus, Decision, DecisionKind, Document, Intent

Answer = tuple[Outcome, str]


def running(document: Document) -> Intent | None:
    """The command of a decision that has to end before anything else is decided; followers hold nothing up."""
    pending = [item for item in document.intents if item.state == PENDING and item.name in (FAILOVER, FAILBACK)]
    return pending[0] if pending else None


def commanding(document: Document) -> bool:
    """Whether the outcome of a decision's command would be lost with this leader."""
    names = (FAILOVER, FAILBACK, FOLLOW_PRIMARY)
    return any(item.state == PENDING and item.name in names for item in document.intents)


def answer_of(document: Document, ask: AskBackend) -> Answer | None:
    """The answer that stands in the document; None if there is none yet, so that the leader may decide."""
    if ask.kind is DecisionKind.FOLLOW:
        return _follow(document, ask.backend_id)
    if not document.backends:
        return Outcome.BUSY, "no pgpool-II has told the leader its backends yet (is [pgpool] pcp_user set?)"
    backend = document.backend(ask.backend_id)
    if backend is None:
        known = ", ".join(str(item.backend_id) for item in document.backends)
        return Outcome.REFUSED, f"refused: no backend {ask.backend_id}, expected one of {known}"
    if ask.decision > document.decided:
        return (
            Outcome.REFUSED,
            f"refused: decision {ask.decision} has never been made, the newest is {document.decided}",
        )
    if ask.kind is DecisionKind.UP and backend in followers(document) and up_primary_of(document) is not None:
        return Outcome.BUSY, f"waits for follow_primary of decision {backend.decision}"
    since = _since(document, backend, ask)
    if since is not None and since.kind is ask.kind:
        return outcome(document, since)
    if _met(backend, ask.kind) and (since is None or ask.decision == backend.decision):
        return Outcome.DONE, f"{_named(backend)} is {_state(backend)} already"
    if ask.decision != backend.decision:
        text = f"{_named(backend)} is {_state(backend)} since decision {backend.decision}"
        return Outcome.REFUSED, f"refused: outdated, {text}; this was asked before"
    return None


def _since(document: Document, backend: Backend, ask: AskBackend) -> Decision | None:
    """The decision on this backend that came next after what the asker knew, or the one that it knew if that is met."""
    mine = [item for item in document.decisions if item.backend_id == backend.backend_id]
    if ask.decision < backend.decision:
        return next((item for item in mine if item.number > ask.decision), None)
    if not _met(backend, ask.kind):
        return None
    return next((item for item in mine if item.number == backend.decision), None)


def _met(backend: Backend, kind: DecisionKind) -> bool:
    if kind is DecisionKind.DOWN:
        return backend.status is BackendStatus.DOWN
    up = backend.status is BackendStatus.UP
    return up and (kind is DecisionKind.UP or backend.role is PRIMARY)


def _state(backend: Backend) -> str:
    why = f" ({backend.reason})" if backend.reason else ""
    return f"{backend.status.value}, {backend.role.value}{why}"


def _named(backend: Backend) -> str:
    return f"backend {backend.backend_id} ({backend.host}:{backend.port})"


def outcome(document: Document, decision: Decision) -> Answer:
    """What came of a decision: its command's end, if one is configured."""
    intent = intent_of(document, event_of(decision.number))
    return _ended(intent, f"decision {decision.number}", f"backend {decision.backend_id}: {decision.kind.value}")


def _ended(intent: Intent | None, name: str, what: str) -> Answer:
    if intent is None:
        return Outcome.DONE, f"{name}, {what}"
    detail = f": {intent.detail}" if intent.detail else ""
    if intent.state == PENDING:
        return Outcome.BUSY, f"waits for {intent.name} of {name}"
    if intent.state == DONE:
        return Outcome.DONE, f"{name}, {what}; {intent.name} ended well{detail}"
    if intent.state == FAILED:
        return Outcome.REFUSED, f"{name} was made ({what}), but {intent.name} failed{detail}"
    return Outcome.UNKNOWN, f"unknown: {name} was made ({what}), but how {intent.name} ended is not known{detail}"


def _follow(document: Document, backend_id: int) -> Answer:
    """follow_primary never decides: its answer is what came of the newest decision that made a primary."""
    for decision in reversed(document.decisions):
        if not _may_make_primary(document, decision):
            continue
        if (intent := intent_of(document, event_of(decision.number), FAILOVER)) and intent.state == PENDING:
            return Outcome.BUSY, f"waits for failover of decision {decision.number}"
        if any(item.backend_id == backend_id for item in followers(document) if item.decision == decision.number):
            return Outcome.BUSY, f"waits for follow_primary of decision {decision.number}"
        followed = intent_of(document, event_of(decision.number, backend_id), FOLLOW_PRIMARY)
        return _ended(followed, f"decision {decision.number}", f"backend {backend_id} follows")
    return Outcome.DONE, f"backend {backend_id} has nobody to follow: no decision has made a primary"


def _may_make_primary(document: Document, decision: Decision) -> bool:
    if decision.kind is DecisionKind.PROMOTE:
        return True
    intent = intent_of(document, event_of(decision.number), FAILOVER)
    if decision.kind is not DecisionKind.DOWN or intent is None or number_of(intent.event) != decision.number:
        return False
    return value_of(intent.arguments, "P") == value_of(intent.arguments, "d")
