"""The heartbeat method: a node is alive while any path to it is heard within the dead time, or others hear it.

A silent path is not a silent node, and judging starts at once: a node that was never heard is dead one dead time after
the start. The detector doubts itself first. Time in which our own loop stood still is not counted against anybody, and
silence counts only by the word of the path's receiver that it was awake and had nothing left to read. Then
it asks the others: a peer that third nodes hear directly is not dead but out of our reach, for a bounded time.
It is told the time and what was heard, and decides; it refuses to know sockets and clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgvigil.ipc.frames import Beat, Health, PathEvidence, PathQuality
from pgvigil.lifecheck.core.path import Path, PathChange, Patience
from pgvigil.lifecheck.core.verdict import Opinion

NS_PER_MS = 1_000_000
HEARSAY_DEADTIMES = 3
"""For so long after our own silence others may vouch for a peer: it is no use for us if we never hear it again."""


@dataclass(frozen=True, slots=True)
class _Death:
    """What was known at the instant of a verdict."""

    opinion: Opinion
    confirmed_by: tuple[int, ...]


class HeartbeatMethod:
    """All peers on all paths; times are CLOCK_BOOTTIME in ns. `labels` are the peers' names by node id."""

    def __init__(
        self,
        labels: Mapping[int, str],
        interfaces: tuple[str, ...],
        patience: Patience,
        interval_ns: int,
        started_at_ns: int,
    ) -> None:
        self._labels = labels
        self._patience = patience
        self._paths = {
            node_id: [Path(name, patience, interval_ns, started_at_ns) for name in interfaces] for node_id in labels
        }
        self._dead: dict[int, _Death] = {}
        self._vouched: set[int] = set()
        """Nodes that are alive by the word of others alone, which has an end."""

    # --- what happens -----------------------------------------------------------------------------

    def heard(self, node_id: int, path: int, at_ns: int, beat: Beat, now_ns: int) -> bool:
        """Take a fresh heartbeat that arrived at `at_ns`; False if node or path are not ours to judge."""
        paths = self._paths.get(node_id)
        if paths is None or path >= len(paths):
            return False
        if paths[path].take(min(at_ns, now_ns), beat) and now_ns < paths[path].deadline_ns:
            self._dead.pop(node_id, None)
        return True

    def measured(self, path: int, quality: PathQuality) -> None:
        """How well a peer is heard there; to be told before what was heard."""
        paths = self._paths.get(quality.node_id)
        if paths is not None and path < len(paths):
            paths[path].quality = quality

    def quiet(self, path: int, at_ns: int, now_ns: int) -> None:
        """The receiver of a path was awake at `at_ns`, and nothing was left to read."""
        for paths in self._paths.values():
            if path < len(paths):
                paths[path].quiet_at_ns = max(paths[path].quiet_at_ns, min(at_ns, now_ns))

    def late(self, lateness_ns: int) -> None:
        """Move the deadlines of all nodes that are not dead yet."""
        for node_id, paths in self._paths.items():
            if node_id not in self._dead:
                for path in paths:
                    path.deadline_ns += lateness_ns

    # --- what follows -----------------------------------------------------------------------------

    def health(self, node_id: int, now_ns: int) -> Health | None:
        """The view of a node; that it is dead is remembered with the evidence of that instant."""
        paths = self._paths.get(node_id)
        if not paths:
            return None
        self._vouched.discard(node_id)
        if node_id in self._dead:
            return Health.DEAD
        if any(now_ns < path.deadline_ns for path in paths):
            return Health.ALIVE if any(path.heard_at_ns for path in paths) else Health.UNKNOWN
        if not all(path.silent_at(now_ns) for path in paths):
            return Health.UNKNOWN
        hearers = self._hearers(node_id, now_ns)
        if hearers and now_ns < self._vouched_until_ns(node_id):
            self._vouched.add(node_id)
            return Health.ALIVE
        although = f", although {self._named(hearers)} {_verb(hearers, 'hear')} it" if hearers else ""
        opinion = Opinion(Health.DEAD, _silence(paths, now_ns) + although)
        self._dead[node_id] = _Death(opinion, self._deaf(node_id, now_ns))
        return Health.DEAD

    def opinion(self, node_id: int, now_ns: int) -> Opinion | None:
        """`health` with its evidence."""
        health = self.health(node_id, now_ns)
        if health is None:
            return None
        if health is Health.DEAD:
            return self._dead[node_id].opinion
        paths = self._paths[node_id]
        standing_still = [path for path in paths if now_ns >= path.deadline_ns and not path.silent_at(now_ns)]
        if any(now_ns < path.deadline_ns for path in paths):
            if health is Health.UNKNOWN:
                return Opinion(health, f"not heard yet, for {(now_ns - paths[0].silent_since_ns) // NS_PER_MS} ms")
            return Opinion(health, _heard(paths, now_ns))
        if standing_still:
            names = " and ".join(path.interface for path in standing_still)
            return Opinion(health, f"cannot be judged: the heartbeat receiver of {names} does not report")
        hearers = self._hearers(node_id, now_ns)
        return Opinion(
            health, f"{_silence(paths, now_ns)} here, but {self._named(hearers)} {_verb(hearers, 'hear')} it"
        )

    def confirmed_by(self, node_id: int) -> tuple[int, ...]:
        """Who did not hear a dead node either when it was given up."""
        death = self._dead.get(node_id)
        return () if death is None else death.confirmed_by

    def path_changes(self, node_id: int, now_ns: int) -> tuple[PathChange, ...]:
        """Paths that have fallen silent, or are heard again, since this was last asked."""
        changes = [path.change(node_id, now_ns) for path in self._paths.get(node_id, ())]
        return tuple(change for change in changes if change is not None)

    def waits(self, node_id: int) -> bool:
        """Whether a word of others can change the view of this node: it is silent, and not dead."""
        return node_id not in self._dead and any(path.overdue for path in self._paths.get(node_id, ()))

    def wake(self) -> int | None:
        """When the next path falls silent unless it is heard, or nobody can vouch for its node any more.

        While a receiver does not report there is no such instant: only its word can change the view, however late.
        """
        instants: list[int] = []
        for node_id, paths in self._paths.items():
            ahead = [path.deadline_ns for path in paths if not path.overdue]
            if not ahead and node_id in self._vouched:
                ahead = [self._vouched_until_ns(node_id)]
            instants += ahead
        return min(instants, default=None)

    def paths(self, node_id: int) -> tuple[PathEvidence, ...]:
        """When and how well the node was heard on each path."""
        return tuple(path.evidence() for path in self._paths.get(node_id, ()))

    def beat(self, node_id: int) -> tuple[Beat | None, int]:
        """What the node last said of itself, and when that was heard; of several paths the words said last."""
        best: tuple[int, int, Beat] | None = None
        for path in self._paths.get(node_id, ()):
            if path.beat is not None:
                said_at_ns = path.heard_at_ns - path.beat.content_age_ms * NS_PER_MS
                if best is None or (said_at_ns, path.heard_at_ns) > best[:2]:
                    best = (said_at_ns, path.heard_at_ns, path.beat)
        return (None, 0) if best is None else (best[2], best[1])

    # --- others -----------------------------------------------------------------------------------

    def _hearers(self, node_id: int, now_ns: int) -> tuple[int, ...]:
        """Third nodes whose newest word, on a path that is not silent itself, is that they hear this one directly."""
        return tuple(third for third, words in self._words(node_id, now_ns) if node_id in words)

    def _deaf(self, node_id: int, now_ns: int) -> tuple[int, ...]:
        """Third nodes that we hear, and that do not hear this one."""
        return tuple(third for third, words in self._words(node_id, now_ns) if node_id not in words)

    def _words(self, node_id: int, now_ns: int) -> list[tuple[int, set[int]]]:
        said = []
        for third, paths in self._paths.items():
            current = [path.beat for path in paths if path.beat is not None and now_ns < path.deadline_ns]
            if third != node_id and current:
                said.append((third, {heard for beat in current for heard in beat.hears}))
        return said

    def _vouched_until_ns(self, node_id: int) -> int:
        """How long others are believed; ends a few dead times after our own silence began to count."""
        own_ns = max(path.deadline_ns for path in self._paths[node_id])
        return own_ns + HEARSAY_DEADTIMES * self._patience.ceiling_ns

    def _named(self, node_ids: tuple[int, ...]) -> str:
        return " and ".join(self._labels[node_id] for node_id in node_ids)


def _verb(subjects: tuple[int, ...], verb: str) -> str:
    return verb if len(subjects) > 1 else f"{verb}s"


def _silence(paths: list[Path], now_ns: int) -> str:
    parts = [path.silence(now_ns) for path in paths]
    if all(path.heard_at_ns == 0 for path in paths):
        return f"never heard {' and '.join(parts)}"
    return f"silent {' and '.join(parts)}"


def _heard(paths: list[Path], now_ns: int) -> str:
    heard = [path.interface for path in paths if path.heard_at_ns > 0 and now_ns < path.deadline_ns]
    silent = [path.silence(now_ns) for path in paths if now_ns >= path.deadline_ns]
    sentence = f"heard on {' and '.join(heard) or 'no path for longer than it should be'}"
    return sentence if not silent else f"{sentence}; silent {' and '.join(silent)}"
