"""What is said of a verdict or a path, the same in the log, in the events and in the status.

All evidence stands in one sentence, and in one order: silence, query, who confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgvigil.ipc.frames import NodeVerdict
from pgvigil.lifecheck.core.path import PathChange


def evidence(verdict: NodeVerdict, labels: Mapping[int, str]) -> str:
    """Why a verdict is what it is; what the query found is part of it already."""
    parts = [verdict.evidence]
    if verdict.confirmed_by:
        parts.append(
            f"confirmed by {' and '.join(labels.get(third, f'node {third}') for third in verdict.confirmed_by)}"
        )
    return ", ".join(parts)


def of_verdict(verdict: NodeVerdict, labels: Mapping[int, str]) -> str:
    """A verdict that has changed."""
    label = labels.get(verdict.node_id, f"node {verdict.node_id}")
    return f"node {label} {verdict.health.value}: {evidence(verdict, labels)}"


def of_path(change: PathChange, label: str) -> str:
    """A path that has changed; it moves nothing by itself."""
    if change.silent:
        return f"path {change.interface} to {label} dead: silent for {change.lasted_ms} ms; this alone moves nothing"
    return f"path {change.interface} to {label} alive: heard again after {change.lasted_ms} ms"
