"""What changes from one report of lifecheck to the next, in sentences for the list of events.

Reports repeat the whole state, so any of them may be missed and the next one still tells what has changed since. What
was so when watchdog main started is no event, unless somebody is dead. The module decides nothing and keeps no list.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Health, NodeVerdict, PathTrouble, Verdicts
from pgvigil.lifecheck.core import sentence
from pgvigil.lifecheck.core.path import PathChange

TROUBLE_PAUSE_NS = 600 * NS_PER_S
"""The same trouble is no new event for so long: rubbish from the network shall not displace what matters."""
MAX_TROUBLES = 64
MAX_TEXT = 300
"""Of an event or a trouble: the whole status has to fit into one reply, and JSON writes odd letters sixfold."""


class Chronicle:
    """`labels` are the names of the peers by node id."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._labels = labels
        self._known: dict[int, NodeVerdict] = {}
        self._troubles: dict[tuple[int, int], int] = {}

    def take(self, verdicts: Verdicts) -> list[str]:
        """The events that a report brings, in the order of the peers."""
        told: list[str] = []
        for verdict in verdicts.peers:
            before = self._known.get(verdict.node_id)
            self._known[verdict.node_id] = verdict
            told += self._of_node(before, verdict, verdicts.judged_at_ns)
        told += [trouble.reason for trouble in verdicts.troubles if self._is_new(trouble, verdicts.judged_at_ns)]
        return [plain(text) for text in told]

    def _of_node(self, before: NodeVerdict | None, verdict: NodeVerdict, now_ns: int) -> list[str]:
        if before is None:
            return [sentence.of_verdict(verdict, self._labels)] if verdict.health is Health.DEAD else []
        told = [] if verdict.health is before.health else [sentence.of_verdict(verdict, self._labels)]
        if Health.DEAD not in (before.health, verdict.health):
            label = self._labels.get(verdict.node_id, f"node {verdict.node_id}")
            if verdict.query is not before.query and Health.DEAD in (before.query, verdict.query):
                told.append(sentence.of_query(verdict, label))
            told += [sentence.of_path(change, label) for change in _path_changes(before, verdict, now_ns)]
        return told

    def _is_new(self, trouble: PathTrouble, now_ns: int) -> bool:
        key = trouble.path, trouble.node_id
        told_at_ns = self._troubles.get(key)
        if told_at_ns is not None and now_ns - told_at_ns < TROUBLE_PAUSE_NS:
            return False
        if told_at_ns is None and len(self._troubles) >= MAX_TROUBLES:
            return False
        self._troubles[key] = now_ns
        return True


def plain(text: str) -> str:
    """Short, and of printable ASCII only."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:MAX_TEXT])


def _path_changes(before: NodeVerdict, verdict: NodeVerdict, now_ns: int) -> list[PathChange]:
    changes = []
    for old, new in zip(before.paths, verdict.paths, strict=False):
        if old.interface == new.interface and old.silent is not new.silent:
            lasted_ns = now_ns - new.silent_since_ns if new.silent else new.last_heard_at_ns - old.silent_since_ns
            changes.append(PathChange(verdict.node_id, new.interface, new.silent, max(0, lasted_ns) // NS_PER_MS))
    return changes
