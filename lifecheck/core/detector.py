"""The heartbeat method: a node is alive while any path to it has been heard within the dead time.

A silent path is not a silent node, and judging starts at once: a node that was never heard is dead one dead time after
the start. The detector doubts itself first: time in which our own loop stood still is not counted against anybody.
It is told the time and what was heard, and decides; it refuses to know sockets and clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc.frames import Beat, Health, PathEvidence
from pgvigil.lifecheck.core.verdict import Opinion

NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Path:
    """One path to one peer."""

    interface: str
    silent_since_ns: int
    deadline_ns: int
    heard_at_ns: int = 0
    beat: Beat | None = None


class HeartbeatMethod:
    """All peers on all paths; times are CLOCK_BOOTTIME in ns, `deadtime_ns` a fixed time-out."""

    def __init__(
        self, node_ids: tuple[int, ...], interfaces: tuple[str, ...], deadtime_ns: int, started_at_ns: int
    ) -> None:
        self._deadtime_ns = deadtime_ns
        self._paths = {
            node_id: [_Path(name, started_at_ns, started_at_ns + deadtime_ns) for name in interfaces]
            for node_id in node_ids
        }
        self._dead: dict[int, Opinion] = {}

    def heard(self, node_id: int, path: int, at_ns: int, beat: Beat, now_ns: int) -> bool:
        """Take a fresh heartbeat that arrived at `at_ns`; False if node or path are not ours to judge."""
        paths = self._paths.get(node_id)
        if paths is None or path >= len(paths):
            return False
        at_ns = min(at_ns, now_ns)
        seen = paths[path]
        if at_ns < seen.heard_at_ns:
            return True
        seen.heard_at_ns = seen.silent_since_ns = at_ns
        seen.deadline_ns = max(seen.deadline_ns, at_ns + self._deadtime_ns)
        seen.beat = beat
        if now_ns < seen.deadline_ns:
            self._dead.pop(node_id, None)
        return True

    def late(self, lateness_ns: int) -> None:
        """Move the deadlines of all nodes that are not dead yet."""
        for node_id, paths in self._paths.items():
            if node_id not in self._dead:
                for path in paths:
                    path.deadline_ns += lateness_ns

    def health(self, node_id: int, now_ns: int) -> Health | None:
        """The view of a node; that it is dead is remembered with the evidence of that instant."""
        paths = self._paths.get(node_id)
        if not paths:
            return None
        if node_id in self._dead:
            return Health.DEAD
        if now_ns >= max(path.deadline_ns for path in paths):
            self._dead[node_id] = Opinion(Health.DEAD, _silence(paths, now_ns))
            return Health.DEAD
        return Health.ALIVE if any(path.heard_at_ns for path in paths) else Health.UNKNOWN

    def opinion(self, node_id: int, now_ns: int) -> Opinion | None:
        """`health` with its evidence."""
        health = self.health(node_id, now_ns)
        if health is None or health is Health.DEAD:
            return self._dead.get(node_id)
        paths = self._paths[node_id]
        if health is Health.UNKNOWN:
            return Opinion(health, f"not heard yet, for {(now_ns - paths[0].silent_since_ns) // NS_PER_MS} ms")
        return Opinion(health, _heard(paths, now_ns))

    def wake(self) -> int | None:
        """When the next node dies unless it is heard."""
        alive = [paths for node_id, paths in self._paths.items() if node_id not in self._dead and paths]
        return min((max(path.deadline_ns for path in paths) for paths in alive), default=None)

    def paths(self, node_id: int) -> tuple[PathEvidence, ...]:
        """When the node was last heard on each path."""
        return tuple(PathEvidence(path.interface, path.heard_at_ns) for path in self._paths.get(node_id, ()))

    def beat(self, node_id: int) -> tuple[Beat | None, int]:
        """What the node last said of itself, and when that was heard; of several paths the words said last."""
        best: tuple[int, int, Beat] | None = None
        for path in self._paths.get(node_id, ()):
            if path.beat is not None:
                said_at_ns = path.heard_at_ns - path.beat.content_age_ms * NS_PER_MS
                if best is None or (said_at_ns, path.heard_at_ns) > best[:2]:
                    best = (said_at_ns, path.heard_at_ns, path.beat)
        return (None, 0) if best is None else (best[2], best[1])


def _silence(paths: list[_Path], now_ns: int) -> str:
    parts = [_silent_path(path, now_ns) for path in paths]
    if all(path.heard_at_ns == 0 for path in paths):
        return f"never heard {' and '.join(parts)}"
    return f"silent {' and '.join(parts)}"


def _heard(paths: list[_Path], now_ns: int) -> str:
    heard = [path.interface for path in paths if path.heard_at_ns > 0 and now_ns < path.deadline_ns]
    silent = [_silent_path(path, now_ns) for path in paths if now_ns >= path.deadline_ns]
    sentence = f"heard on {' and '.join(heard) or 'no path for longer than it should be'}"
    return sentence if not silent else f"{sentence}; silent {' and '.join(silent)}"


def _silent_path(path: _Path, now_ns: int) -> str:
    return f"on {path.interface} for {(now_ns - path.silent_since_ns) // NS_PER_MS} ms"
