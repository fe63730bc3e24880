"""Which differences are told in the log, and when; pure.

Each one once, and its end once. Settings are changed on one node after the other, so what is not fatal is told only
after it has lasted for `GRACE_NS`, and never if it ends before that. The leader tells of every other node in one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgvigil.ipc.counted import counted
from pgvigil.watchdog.core.events import Level, Note
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.drift.compare import Difference, in_short
from pgvigil.watchdog.drift.messages import State

GRACE_NS = 30_000 * NS_PER_MS
LINES = 20
"""One time, so many differences are told one by one, and the rest as a number."""


class Diary:
    """`labels` names the nodes."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._labels = labels
        self._since_ns: dict[Difference, int] = {}
        self._told: dict[str, Difference] = {}
        self._of_nodes: dict[int, tuple[frozenset[str], int]] = {}
        self._told_nodes: dict[int, frozenset[str]] = {}
        self._compared = False

    def since_ns(self, difference: Difference) -> int | None:
        """When a difference of this node was first seen."""
        return self._since_ns.get(difference)

    def new_leader(self, leads: bool) -> None:
        """Nobody differs from the new leader yet; a difference that was told ends with a word only if it ended."""
        self._of_nodes, self._told_nodes = {}, {}
        if leads:
            self._since_ns, self._told = {}, {}

    def own(self, found: Sequence[Difference], leader: int, now_ns: int) -> list[Note]:
        """What is to be told now of the differences of this node."""
        self._since_ns = {one: self._since_ns.get(one, now_ns) for one in found}
        due = [one for one in found if self._told.get(one.key) != one and self._is_due(one, now_ns)]
        keys = {one.key for one in found}
        ended = [key for key in self._told if key not in keys]
        for key in ended:
            del self._told[key]
        self._told.update({one.key: one for one in due})
        label = self._label(leader)
        notes = [Note(Level.WARNING, _sentence(one, label)) for one in due[:LINES]]
        if leader and not self._compared:
            # Once after a start: whoever has mended a file and reloaded it waits for this word.
            self._compared = True
            if not found:
                notes.append(Note(Level.INFO, f"its settings agree with those of the leader {label}"))
        if len(due) > LINES:
            more = f"{counted(len(due) - LINES, 'more setting')} differ{'s' * (len(due) - LINES == 1)}"
            notes.append(Note(Level.WARNING, f"{more} from those of {label}"))
        if ended:
            notes.append(Note(Level.INFO, f"no longer differs from the leader: {_names(ended)}"))
        return notes

    def _is_due(self, one: Difference, now_ns: int) -> bool:
        return one.fatal or now_ns >= self._since_ns[one] + GRACE_NS

    def others(self, reports: Mapping[int, State], now_ns: int) -> list[Note]:
        """What is to be told now of the differences of the other nodes."""
        notes: list[Note] = []
        for node, state in reports.items():
            keys = frozenset(one.key for one in state.told)
            known = self._of_nodes.get(node)
            since_ns = known[1] if known is not None and known[0] == keys else now_ns
            self._of_nodes[node] = keys, since_ns
            fatal = any(one.fatal for one in state.told)
            if self._told_nodes.get(node) != keys and (fatal or now_ns >= since_ns + GRACE_NS):
                self._told_nodes[node] = keys
                out = ", which keeps it out of the succession" if fatal else ""
                many = counted(state.differing, "setting")
                text = f"{self._label(node)} differs from this leader in {many}{out}: {in_short(state.told)}"
                notes.append(Note(Level.WARNING, text))
        for node in [node for node in self._of_nodes if node not in reports]:
            del self._of_nodes[node]
            if self._told_nodes.pop(node, None) is not None:
                text = f"{self._label(node)} does not report differences from this leader any more"
                notes.append(Note(Level.INFO, text))
        return notes

    def _label(self, node: int) -> str:
        return self._labels.get(node, f"node {node}")


def _sentence(one: Difference, label: str) -> str:
    consequence = "; this node does not lead until they agree" if one.fatal else ""
    return f"differs from the leader {label}: {one}{consequence}"


def _names(keys: Sequence[str]) -> str:
    more = len(keys) - LINES
    return ", ".join(sorted(keys)[:LINES]) + (f" and {more} more" if more > 0 else "")
