"""The check "peers": what the other nodes say of our pgpool-II in their heartbeats.

It asks nobody and has no deadline; lifecheck tells it the verdicts on the peers whenever those change. It exists with
the method query only, because only then does anybody say anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgvigil.ipc.frames import Health, NodeVerdict, Role
from pgvigil.lifecheck.core.peers import Word, judge_words
from pgvigil.lifecheck.probes.reading import Reading


class PeersProbe:
    """`on_change` is told when the health is another one; `labels` has every node but our own."""

    method = "peers"

    def __init__(self, node_id: int, labels: dict[int, str], on_change: Callable[[Reading], None], now_ns: int) -> None:
        self._node_id = node_id
        self._labels = labels
        self._on_change = on_change
        self.reading = Reading(Health.UNKNOWN, now_ns, "no peer has been heard yet")

    def hear(self, verdicts: Sequence[NodeVerdict], failing: Sequence[int], now_ns: int) -> None:
        """The newest verdicts on all peers, with what each said last; `failing`: whom our last query did not reach.

        Our own doubt about an accuser counts from its first failure on: where a port closes between all nodes at once,
        the node whose life points last longest would be condemned by the others for that while.
        """
        ours = Word(self._node_id, tuple(failing))
        theirs = [word for verdict in verdicts if (word := _word(verdict)) is not None]
        opinion = judge_words(self._node_id, [ours, *theirs], self._labels)
        before = self.reading
        changed = opinion.health is not before.health
        self.reading = Reading(opinion.health, now_ns if changed else before.since_ns, opinion.evidence)
        if changed:
            self._on_change(self.reading)

    def wake(self) -> int | None:
        return None

    def tick(self, now_ns: int) -> None:
        """Time alone changes nothing."""

    def late(self, lateness_ns: int) -> None:
        """It has no deadline that could be missed."""

    def close(self) -> None:
        """It has no descriptor."""


def _word(verdict: NodeVerdict) -> Word | None:
    """Of a peer that is alive and whose watchdog speaks."""
    beat = verdict.beat
    if beat is None or verdict.health is not Health.ALIVE or beat.role is Role.UNKNOWN:
        return None
    return Word(verdict.node_id, beat.cannot_query)
