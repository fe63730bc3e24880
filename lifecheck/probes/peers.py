"""The check "peers": what the other nodes say of our pgpool-II in their heartbeats.

It asks nobody; lifecheck tells it the verdicts on the peers whenever those change. It exists with
the method query only, because only then does anybody say anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgvigil.ipc.frames import Health, NodeVerdict, Role
from pgvigil.lifecheck.core.peers import Word, judge_words
from pgvigil.lifecheck.core.verdict import Opinion
from pgvigil.lifecheck.probes.reading import Reading


class PeersProbe:
    """`on_change` is told when the health is another one; `labels` has every node but our own."""

    method = "peers"

    def __init__(
        self,
        node_id: int,
        labels: dict[int, str],
        on_change: Callable[[Reading], None],
        now_ns: int,
        round_ns: int,
    ) -> None:
        """`round_ns`: within it every node has queried every other one again."""
        self._node_id = node_id
        self._labels = labels
        self._on_change = on_change
        self._round_ns = round_ns
        self._verdicts: Sequence[NodeVerdict] = ()
        self._doubted_until_ns: dict[int, int | None] = {}  # None: our newest query did not reach it
        self.reading = Reading(Health.UNKNOWN, now_ns, "no peer has been heard yet")

    def hear(self, verdicts: Sequence[NodeVerdict], failing: Sequence[int], now_ns: int) -> None:
        """The newest verdicts on all peers, with what each said last; `failing`: whom our last query did not reach.

        Our own doubt about an accuser counts from its first failure on: where a port closes between all nodes at once,
        the node whose life points last longest would be condemned by the others for that while. And it counts for a
        round longer: where it opens again, the node that finds out first would be condemned by the others, too.
        """
        self._verdicts = verdicts
        for node, until_ns in self._doubted_until_ns.items():
            if until_ns is None and node not in failing:
                self._doubted_until_ns[node] = now_ns + self._round_ns
        self._doubted_until_ns.update(dict.fromkeys(failing))
        self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        doubted = {node: at for node, at in self._doubted_until_ns.items() if at is None or now_ns < at}
        self._doubted_until_ns = doubted
        ours = Word(self._node_id, tuple(doubted))
        theirs = [word for verdict in self._verdicts if (word := _word(verdict)) is not None]
        opinion = judge_words(self._node_id, [ours, *theirs], self._labels)
        before = self.reading
        healing = any(at is not None and self._accuses(node, theirs) for node, at in doubted.items())
        if opinion.health is Health.DEAD and before.health is not Health.DEAD and healing:
            opinion = Opinion(Health.UNKNOWN, f"{opinion.evidence}; some of them may not have asked again yet")
        changed = opinion.health is not before.health
        self.reading = Reading(opinion.health, now_ns if changed else before.since_ns, opinion.evidence)
        if changed:
            self._on_change(self.reading)

    def _accuses(self, node_id: int, words: Sequence[Word]) -> bool:
        return any(word.node_id == node_id and self._node_id in word.cannot_query for word in words)

    def wake(self) -> int | None:
        """When our doubt about somebody ends."""
        return min((at for at in self._doubted_until_ns.values() if at is not None), default=None)

    def tick(self, now_ns: int) -> None:
        """Judge again without a doubt that has ended."""
        at_ns = self.wake()
        if at_ns is not None and now_ns >= at_ns:
            self._judge(now_ns)

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
