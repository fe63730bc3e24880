"""`quorum = "half"`: half of an even number of voters may carry the VIP while a tie-breaker answers (P22).

Two halves share no voter, so votes alone cannot keep two leaders apart here; an address upstream stands in for the
missing vote. Half carries the VIP and nothing more: it founds nothing, commits nothing and runs no command, so a half
and a majority always share a voter that has whatever was committed. The rule and its tie-breaker stand in the document,
never in the file, and while they stand there neither they nor L nor the voters change (`leading`, P22 b).

Why two halves do not lead at once: B stands when it has heard nothing of the other half for 2 L, and both answers that
A's lease and B's election rest on are younger than L and end a series of 3 L. So for L before that the tie-breaker has
answered both without a failed question, although B did not hear A: what assumption T excludes.
"""

from __future__ import annotations

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core.following import Following
from pgvigil.watchdog.core.lease import NS_PER_MS, HalfRule, lease_end_ns
from pgvigil.watchdog.core.quorum import is_half
from pgvigil.watchdog.core.record import QuorumRule

SERIES_LEASES = 3
SILENCE_LEASES = 2
TERM_STRIDE = 128
LEAST_INTERVAL_NS = 100 * NS_PER_MS


class Half(Following):
    """When half is enough."""

    @property
    def half(self) -> bool:
        """P22 a: the rule of the stored document, whatever the file says."""
        return self.document is not None and self.document.quorum is QuorumRule.HALF

    @property
    def leads_by_half(self) -> bool:
        """P22 g: whether the lease rests on half of the voters, which changes nothing and runs nothing."""
        return self.lease is not None and self.lease.by_half

    def question(self) -> tuple[str, int, int]:
        """P22 a: whom lifecheck is to ask ("": nobody), how often, how far apart answers are no series (ns)."""
        document = self.document
        wanted = document is not None and (self.half or self.settings.quorum is QuorumRule.HALF)
        address = document.tie_breaker if document is not None and wanted else ""
        return address, max(self.renew_ns, LEAST_INTERVAL_NS), self.lease_ns // 2

    def tie_breaker_answers_at(self, now_ns: int) -> bool:
        """P22 c, d: whether the newest answer of the document's tie-breaker is young, and ends a series that is old."""
        views, document = self.views, self.document
        if document is None or not document.tie_breaker or views.tie_breaker != document.tie_breaker:
            return False
        if views.tie_breaker_ns - views.tie_breaker_since_ns < SERIES_LEASES * self.lease_ns:
            return False
        return now_ns < lease_end_ns(views.tie_breaker_ns, document.lease_ms)

    def note_arrival(self, sender: int) -> None:
        """P22 d: whoever says anything at all is not silent."""
        self.heard_ns[sender] = self.now_ns

    def note_silence(self) -> None:
        """P22 d: since when lifecheck has believed each peer dead."""
        for peer in self.views.peers:
            if peer.health is Health.DEAD:
                self.dead_since_ns.setdefault(peer.node_id, self.now_ns)
            else:
                self.dead_since_ns.pop(peer.node_id, None)

    def _silent_voters(self) -> tuple[int, ...]:
        """P22 d: voters believed dead, and not heard at all, for 2 L; nobody while this node doubts itself."""
        if self.now_ns < self.doubt_until_ns:
            return ()
        least_ns = SILENCE_LEASES * self.lease_ns
        return tuple(
            node
            for node in self.voter_ids
            if node in self.dead_since_ns
            and self.now_ns >= max(self.dead_since_ns[node], self.heard_ns.get(node, 0)) + least_ns
        )

    @property
    def _leaderless(self) -> bool:
        """P22 d: no other node's renewal was heard for 2 L; a start counts as one, for it may have been missed."""
        return self.now_ns >= self.claim_heard_ns + SILENCE_LEASES * self.lease_ns

    def half_rule(self) -> HalfRule | None:
        """P22 c: for the lease. Others have one renewal's time to answer; a lease that does not run yet begins anew."""
        if not self.half or not self.tie_breaker_answers_at(self.now_ns):
            return None
        lease_ms = self.lease_ns // NS_PER_MS
        if self.lease_held():
            return HalfRule(self.views.tie_breaker_ns, self.renew_ns, lease_ms, None)
        if not self._leaderless:
            return None
        return HalfRule(self.views.tie_breaker_ns, self.renew_ns, lease_ms, self._silent_voters())

    def half_elects(self) -> bool:
        """P22 d: for a round at its limit: half agrees, nobody refuses, and everybody else is silent and dead."""
        asked = self.round
        if asked is None or not self.half or not self._leaderless or not self.tie_breaker_answers_at(self.now_ns):
            return False
        gone = self._silent_voters()
        own_term = asked.term % TERM_STRIDE == self.me  # the document may have become half within the round
        agreed = own_term and is_half(self.voter_ids, asked.yes) and not asked.no
        return agreed and all(node in asked.yes or node in gone for node in self.voter_ids)

    def next_term(self) -> int:
        """P12: above every term ever heard of; P22: where half can elect, one that no other node ever stands for."""
        least = max(self.known_term, self.record.term) + 1
        return least + (self.me - least) % TERM_STRIDE if self.half else least
