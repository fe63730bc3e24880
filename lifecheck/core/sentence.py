"""What is said of a verdict or a path, the same in the log, in the events and in the status.

All evidence stands in one sentence, and in one order: silence, query, who confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgvigil.ipc.frames import Health, NodeVerdict
from pgvigil.lifecheck.core.path import PathChange


def evidence(verdict: NodeVerdict, labels: Mapping[int, str]) -> str:
    """Why a verdict is what it is."""
    parts = [verdict.evidence]
    if verdict.query is Health.DEAD:
        dead = verdict.health is Health.DEAD
        parts.append(verdict.query_evidence if dead else f"but no answer from its pgpool-II: {verdict.query_evidence}")
    if verdict.confirmed_by:
        parts.append(
            f"confirmed by {' and '.join(labels.get(third, f'node {third}') for third in verdict.confirmed_by)}"
        )
    return ", ".join(parts)


def of_verdict(verdict: NodeVerdict, labels: Mapping[int, str]) -> str:
    """A verdict that has changed."""
    label = labels.get(verdict.node_id, f"node {verdict.node_id}")
    return f"node {label} {verdict.health.value}: {evidence(verdict, labels)}"


def of_query(verdict: NodeVerdict, label: str) -> str:
    """A peer's pgpool-II that can be queried no longer, or again; its node is another matter."""
    return f"pgpool-II of {label} {verdict.query.value} as queried from here: {verdict.query_evidence}"


def of_path(change: PathChange, label: str) -> str:
    """A path that has changed; it moves nothing by itself."""
    if change.silent:
        return f"path {change.interface} to {label} dead: silent for {change.lasted_ms} ms; this alone moves nothing"
    return f"path {change.interface} to {label} alive: heard again after {change.lasted_ms} ms"
