"""The agreed backends as plain data, beside what each pgpool-II makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.record import Backend, Decision, Document, Intent


@dataclass(frozen=True, slots=True)
class View:
    """What one pgpool-II says of the backends, how old that is, and why there is nothing newer."""

    label: str
    backends: tuple[SeenBackend, ...]
    age_ms: int | None
    problem: str = ""


def listing(document: Document | None, agreed: bool, views: Mapping[int, View]) -> dict[str, object]:
    """`pgvigil backend list --json`. `agreed`: the document is the newest that the cluster has committed."""
    backends = () if document is None else document.backends
    decisions = () if document is None else document.decisions
    intents = () if document is None else document.intents
    return {
        "backends": [_backend(one, views) for one in backends],
        "decided": 0 if document is None else document.decided,
        "agreed": agreed,
        "decisions": [_decision(one, intents) for one in decisions],
        "pools": [
            {"node": node, "label": view.label, "age_ms": view.age_ms, "problem": view.problem}
            for node, view in views.items()
        ],
    }


def _backend(backend: Backend, views: Mapping[int, View]) -> dict[str, object]:
    pools = [_pool(node, view, backend) for node, view in views.items()]
    return {
        "id": backend.backend_id,
        "host": backend.host,
        "port": backend.port,
        "status": backend.status.value,
        "role": backend.role.value,
        "reason": backend.reason,
        "decision": backend.decision,
        "pools": [pool for pool in pools if pool is not None],
    }


def _pool(node: int, view: View, backend: Backend) -> dict[str, object] | None:
    seen = next((one for one in view.backends if one.backend_id == backend.backend_id), None)
    if seen is None:
        return None
    return {
        "node": node,
        "label": view.label,
        "status": seen.status.value,
        "role": seen.role.value,
        "quarantined": seen.failed and seen.status is SeenStatus.DOWN,
        "failed": seen.failed,
        "age_ms": view.age_ms,
    }


def _decision(decision: Decision, intents: Sequence[Intent]) -> dict[str, object]:
    events = f"decision {decision.number}"
    return {
        "number": decision.number,
        "kind": decision.kind.value,
        "backend": decision.backend_id,
        "operator": decision.operator,
        "by": decision.by,
        "reason": decision.reason,
        "commands": [
            {"name": intent.name, "event": intent.event, "state": intent.state, "detail": intent.detail}
            for intent in intents
            if intent.event == events or intent.event.startswith(f"{events} ")
        ],
    }
