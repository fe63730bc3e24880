"""What is wrong on a path: counted for ever, said in the log once a minute, told to lifecheck once a second.

Everything here is repeated while it lasts and taken back when it is over, so that a lifecheck that was restarted
knows it again. It keeps one line per class of reason: a flood of rubbish fills no disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import PathTrouble

SAY_INTERVAL_NS = 60 * NS_PER_S
TELL_INTERVAL_NS = NS_PER_S
REPEAT_INTERVAL_NS = 5 * NS_PER_S
LASTS_NS = 30 * NS_PER_S
FIRST_RETRY_NS = 200 * NS_PER_MS
LONGEST_RETRY_NS = 5 * NS_PER_S


class Retry:
    """When to try again something that failed, and why it failed: 0.2 s, doubled up to 5 s."""

    def __init__(self) -> None:
        self.due_ns = 0
        self.reason = "not tried yet"
        self._pause_ns = 0

    def failed(self, reason: str, now_ns: int) -> None:
        """Wait longer than the last time."""
        self.reason = reason
        self._pause_ns = min(LONGEST_RETRY_NS, self._pause_ns * 2 or FIRST_RETRY_NS)
        self.due_ns = now_ns + self._pause_ns

    def succeeded(self) -> bool:
        """True if it had failed before."""
        had_failed = self._pause_ns > 0
        self.reason = ""
        self._pause_ns = 0
        self.due_ns = 0
        return had_failed


@dataclass(slots=True)
class _Trouble:
    """One kind of trouble with one node."""

    count: int = 0
    reason: str = ""
    newest_at_ns: int = 0
    active: bool = False
    changed: bool = False
    told_at_ns: int = 0


@dataclass(slots=True)
class _Line:
    """How often a line of the log was held back."""

    unsaid: int = 0
    silent_until_ns: int = 0


class Troubles:
    """The troubles of one path, per node; what cannot be blamed on a peer is filed under our own id."""

    def __init__(self, path: int, own_id: int, say: Callable[[str], None]) -> None:
        self._path = path
        self._own_id = own_id
        self._say = say
        self._by_node: dict[int, _Trouble] = {}
        self._lines: dict[str, _Line] = {}
        self.total = 0

    def add(self, node_id: int | None, reason_class: str | None, reason: str, now_ns: int) -> None:
        """Count one; the sentence goes to the log if its class has been silent for a minute (None: never)."""
        trouble = self._by_node.setdefault(self._own_id if node_id is None else node_id, _Trouble())
        trouble.count += 1
        trouble.reason = reason
        trouble.newest_at_ns = now_ns
        trouble.active = trouble.changed = True
        self.total += 1
        if reason_class is not None:
            self._say_once_a_minute(reason_class, reason, now_ns)

    def _say_once_a_minute(self, reason_class: str, reason: str, now_ns: int) -> None:
        line = self._lines.setdefault(reason_class, _Line())
        line.unsaid += 1
        if now_ns >= line.silent_until_ns:
            times = f" ({line.unsaid} times since the last line)" if line.unsaid > 1 else ""
            self._say(reason + times)
            line.unsaid = 0
            line.silent_until_ns = now_ns + SAY_INTERVAL_NS

    def resolve(self, node_id: int) -> None:
        """It is over."""
        trouble = self._by_node.get(node_id)
        if trouble is not None and trouble.active:
            trouble.active = False
            trouble.changed = True

    def due(self, now_ns: int) -> list[PathTrouble]:
        """What lifecheck should be told now; an empty reason takes a trouble back."""
        return [self._tell(node_id, trouble, now_ns) for node_id, trouble in self._by_node.items()
                if self._is_due(trouble, now_ns)]  # fmt: skip

    def _is_due(self, trouble: _Trouble, now_ns: int) -> bool:
        if trouble.active and now_ns - trouble.newest_at_ns >= LASTS_NS:
            trouble.active = False
            trouble.changed = True
        since_ns = now_ns - trouble.told_at_ns
        if trouble.changed:
            return since_ns >= TELL_INTERVAL_NS
        return trouble.active and since_ns >= REPEAT_INTERVAL_NS

    def _tell(self, node_id: int, trouble: _Trouble, now_ns: int) -> PathTrouble:
        trouble.changed = False
        trouble.told_at_ns = now_ns
        return PathTrouble(self._path, node_id, trouble.count, trouble.reason if trouble.active else "")
