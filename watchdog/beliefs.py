"""What watchdog main believes of the world, from lifecheck's verdicts, and for how long.

Verdicts repeat; what has not been repeated for `STALE_NS` is unknown, never the last known thing. The views that
go to the core are made new only when something in them changed, because every step costs time.
"""

from __future__ import annotations

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Health, NodeVerdict, TieBreakerSeen, Verdicts
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
        self.tie_breaker: TieBreakerSeen | None = None

    def take_tie_breaker(self, seen: TieBreakerSeen, now_ns: int) -> bool:
        """What lifecheck says of the tie-breaker; False for older news, or such of the future.

        How old an answer may be is the core's rule: it counts from the asking, and no repetition makes it younger.
        """
        known_ns = 0 if self.tie_breaker is None else self.tie_breaker.judged_at_ns
        if not known_ns <= seen.judged_at_ns <= now_ns or seen.asked_at_ns > seen.judged_at_ns:
            return False
        self.tie_breaker = seen
        return True

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

    def stale_at_ns(self) -> int:
        """When the verdicts stop to count."""
        return self.heard_at_ns + STALE_NS

    def views(self, now_ns: int) -> Views:
        """For the core; unknown where nothing fresh is known."""
        verdicts = self.verdicts
        if verdicts is None:
            return self._views(Health.UNKNOWN, "lifecheck has not reported yet", now_ns)
        if now_ns >= self.stale_at_ns():
            silent_ms = (now_ns - self.heard_at_ns) // NS_PER_MS // 1000 * 1000
            return self._views(Health.UNKNOWN, f"lifecheck has been silent for over {silent_ms} ms", now_ns)
        return self._views(verdicts.pgpool, verdicts.pgpool_evidence, now_ns)

    def _views(self, pgpool: Health, evidence: str, now_ns: int) -> Views:
        seen = self.tie_breaker
        told = ("", 0, 0) if seen is None else (seen.address, seen.asked_at_ns, seen.since_ns)
        return Views(pgpool, evidence, self._peers(now_ns), *told)

    def _peers(self, now_ns: int) -> tuple[PeerView, ...]:
        return tuple(self._peer(node_id, now_ns) for node_id in self._node_ids)

    def _peer(self, node_id: int, now_ns: int) -> PeerView:
        verdict = self.verdict(node_id, now_ns)
        if verdict is None or verdict.beat is None:
            health = Health.UNKNOWN if verdict is None else verdict.health
            return PeerView(node_id, health, False, 1, self._started_at_ns.get(node_id, now_ns // NS_PER_S * NS_PER_S))
        beat = verdict.beat
        return PeerView(node_id, verdict.health, beat.electable, beat.priority, self._start_of(verdict))

    def _start_of(self, verdict: NodeVerdict) -> int:
        """A peer's start on our clock; small changes are jitter of the network and keep the old value."""
        assert verdict.beat is not None
        seen_ns = max(0, verdict.beat_at_ns - verdict.beat.up_for_ms * NS_PER_MS)
        kept_ns = self._started_at_ns.get(verdict.node_id)
        if kept_ns is None or abs(seen_ns - kept_ns) > START_JITTER_NS:
            self._started_at_ns[verdict.node_id] = seen_ns
        return self._started_at_ns[verdict.node_id]
