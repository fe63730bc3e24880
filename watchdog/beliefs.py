"""What watchdog main believes of the world, from lifecheck's verdicts, and for how long.

Verdicts repeat; what has not been repeated for `STALE_NS` is unknown, never the last known thing. The views that
go to the core are made new only when something in them changed, because every step costs time.
"""

from __future__ import annotations

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Health, NodeVerdict, Verdicts
from pgvigil.watchdog.core.events import PeerView, Views

STALE_NS = 3 * NS_PER_S
START_JITTER_NS = 200 * NS_PER_MS


class Beliefs:
    """The newest verdicts, and the views made of them."""

    def __init__(self, node_ids: tuple[int, ...]) -> None:
        self._node_ids = node_ids
        self._started_at_ns: dict[int, int] = {}
        self.verdicts: Verdicts | None = None
        self.heard_at_ns = 0

    def take(self, verdicts: Verdicts, now_ns: int) -> bool:
        """New words of lifecheck; False for what it has said before newer ones, or cannot have said yet.

        They count from the instant of the judgement: a repeated frame must not keep an old verdict alive.
        """
        if not self.heard_at_ns <= verdicts.judged_at_ns <= now_ns:
            return False
        self.verdicts = verdicts
        self.heard_at_ns = verdicts.judged_at_ns
        return True

    def verdict(self, node_id: int, now_ns: int) -> NodeVerdict | None:
        """The verdict on a peer, unless lifecheck has been silent for too long."""
        if self.verdicts is None or now_ns >= self.stale_at_ns():
            return None
        return next((verdict for verdict in self.verdicts.peers if verdict.node_id == node_id), None)

    def wavering(self, now_ns: int) -> bool:
        """Whether this node may be unfit before long; no leader should hand over to it now."""
        return self.verdicts is not None and now_ns < self.stale_at_ns() and self.verdicts.wavering

    def cannot_query(self, now_ns: int) -> tuple[int, ...]:
        """The nodes whose pgpool-II this node cannot query."""
        if self.verdicts is None or now_ns >= self.stale_at_ns():
            return ()
        return tuple(verdict.node_id for verdict in self.verdicts.peers if verdict.query is Health.DEAD)

    def stale_at_ns(self) -> int:
        """When the verdicts stop to count."""
        return self.heard_at_ns + STALE_NS

    def views(self, now_ns: int) -> Views:
        """For the core; unknown where nothing fresh is known."""
        verdicts = self.verdicts
        if verdicts is None:
            return Views(Health.UNKNOWN, "lifecheck has not reported yet", self._peers(now_ns))
        if now_ns >= self.stale_at_ns():
            silent_ms = (now_ns - self.heard_at_ns) // NS_PER_MS // 1000 * 1000
            return Views(Health.UNKNOWN, f"lifecheck has been silent for over {silent_ms} ms", self._peers(now_ns))
        return Views(verdicts.pgpool, verdicts.pgpool_evidence, self._peers(now_ns), verdicts.unfit, verdicts.vip_cut)

    def _peers(self, now_ns: int) -> tuple[PeerView, ...]:
        return tuple(self._peer(node_id, now_ns) for node_id in self._node_ids)

    def _peer(self, node_id: int, now_ns: int) -> PeerView:
        verdict = self.verdict(node_id, now_ns)
        if verdict is None or verdict.beat is None:
            health = Health.UNKNOWN if verdict is None else verdict.health
            return PeerView(node_id, health, False, 1, self._started_at_ns.get(node_id, now_ns // NS_PER_S * NS_PER_S))
        beat = verdict.beat
        # One that only others hear is not dead, but nobody waits for it, or hands over to it, on words that are old.
        electable = beat.electable and not all(path.silent for path in verdict.paths)
        return PeerView(node_id, verdict.health, electable, beat.priority, self._start_of(verdict))

    def _start_of(self, verdict: NodeVerdict) -> int:
        """A peer's start on our clock; small changes are jitter of the network and keep the old value."""
        assert verdict.beat is not None
        seen_ns = max(0, verdict.beat_at_ns - verdict.beat.up_for_ms * NS_PER_MS)
        kept_ns = self._started_at_ns.get(verdict.node_id)
        if kept_ns is None or abs(seen_ns - kept_ns) > START_JITTER_NS:
            self._started_at_ns[verdict.node_id] = seen_ns
        return self._started_at_ns[verdict.node_id]
