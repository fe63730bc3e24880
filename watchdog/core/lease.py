"""Promise and lease: the two clocks that keep two leaders apart (PROTOCOL 3).

A voter's promise runs from *receipt* for L, the leader's lease from *sending* for L * (1 - rho). So every promise
of a majority outlives the lease that it backs, whatever the clocks' rates within rho, and no later majority can be
found while the lease runs. Both are proved alone, in this file, and know nothing of roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgvigil.watchdog.core.quorum import Tally, is_half, tally

NS_PER_MS = 1_000_000
NS_PER_S = 1000 * NS_PER_MS
RHO_PERMILLE = 10
REMEMBERED_RENEWALS = 32


def lease_end_ns(sent_at_ns: int, lease_ms: int) -> int:
    """P4: the lease counts from sending, and ends earlier than L by the bound on clock rates."""
    return sent_at_ns + lease_ms * NS_PER_MS * (1000 - RHO_PERMILLE) // 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """A voter's word to help nobody but `leader` until `until_ns`; (boot, sequence) is the newest renewal taken."""

    leader: int
    term: int
    boot: int
    sequence: int
    until_ns: int

    def live(self, now_ns: int) -> bool:
        """Whether the word still binds."""
        return now_ns < self.until_ns


def promise_on_renewal(
    old: Promise | None, leader: int, term: int, boot: int, sequence: int, until_ns: int
) -> Promise | None:
    """P2, P6: the promise after a renewal of an accepted term, or None if the renewal is older than one taken before.

    A renewal of a higher term replaces the promise. Within a term, a repeated renewal prolongs nothing. A promise to
    the same leader is never shortened, not even when L has become smaller: the lease that the longer one backs still
    runs, and a leader that had itself elected again carries it into its next term (P12).
    """
    if old is None or old.leader != leader:
        return Promise(leader, term, boot, sequence, until_ns)
    if old.term != term:
        return Promise(leader, term, boot, sequence, max(old.until_ns, until_ns))
    if (boot, sequence) < (old.boot, old.sequence):
        return None
    if (boot, sequence) == (old.boot, old.sequence):
        return old
    return Promise(leader, term, boot, sequence, max(old.until_ns, until_ns))


@dataclass(frozen=True, slots=True)
class HalfRule:
    """P22 c: half of the voters is enough for renewals that the others had `patience_ns` to answer.

    `tie_breaker_ns`: when the tie-breaker was asked for its newest answer; it bounds the lease as a voter's would.
    `lease_ms`: L of the document, for a renewal that was sent before L became smaller would give half a longer lease.
    `silent`: the only voters that may be missing; None while the lease runs on, which asks nothing of them.
    """

    tie_breaker_ns: int
    patience_ns: int
    lease_ms: int
    silent: tuple[int, ...] | None


@dataclass(slots=True)
class Renewal:
    """One renewal on its way: who has acknowledged it. The leader is its own first voter."""

    sequence: int
    sent_at_ns: int
    lease_ms: int
    acknowledged: set[int] = field(default_factory=set)


class Lease:
    """The leader's right to act in one term and one incarnation."""

    def __init__(self, leader: int, term: int, boot: int, since_ns: int, until_ns: int | None = None) -> None:
        """`until_ns` carries the end of a lease that still runs into the next term of the same leader (P12)."""
        self.leader = leader
        self.term = term
        self.boot = boot
        self.since_ns = since_ns
        self.sequence = 0
        self.backed = False
        self.by_half = False
        self.until_ns = until_ns
        self.next_renewal_ns = since_ns
        self._renewals: list[Renewal] = []

    def held(self, now_ns: int) -> bool:
        """Whether the lease runs."""
        return self.until_ns is not None and now_ns < self.until_ns

    def renew(self, now_ns: int, lease_ms: int) -> Renewal:
        """P1, P6: the renewal to send now; until the first majority it is always the first one, as first sent."""
        if not self.backed and self._renewals:
            return self._renewals[0]
        self.sequence += 1
        renewal = Renewal(self.sequence, now_ns, lease_ms, {self.leader})
        self._renewals.append(renewal)
        del self._renewals[:-REMEMBERED_RENEWALS]
        return renewal

    def acknowledge(self, voter: int, sequence: int) -> None:
        """Note an acknowledgement of exactly this renewal."""
        for renewal in self._renewals:
            if renewal.sequence == sequence:
                renewal.acknowledged.add(voter)

    def settle(self, voters: Sequence[int], now_ns: int, half: HalfRule | None = None) -> bool:
        """P4: prolong the lease to the newest renewal that a majority has acknowledged; True if it was prolonged."""
        end_ns: int | None = None
        for renewal in reversed(self._renewals):
            if tally(voters, renewal.acknowledged, ()) is Tally.WON:
                end_ns = lease_end_ns(renewal.sent_at_ns, renewal.lease_ms)
                break
        by_half_ns = None if half is None else self._half_end_ns(voters, now_ns, half)
        by_half = by_half_ns is not None and (end_ns is None or by_half_ns > end_ns)
        end_ns = by_half_ns if by_half else end_ns
        if end_ns is None:
            return False
        self.backed = True
        if end_ns <= now_ns or (self.until_ns is not None and end_ns <= self.until_ns):
            return False
        self.until_ns, self.by_half = end_ns, by_half
        return True

    def _half_end_ns(self, voters: Sequence[int], now_ns: int, half: HalfRule) -> int | None:
        """P22 c: the end of a lease by half: of the renewal or of the tie-breaker's answer, whichever is earlier."""
        for renewal in reversed(self._renewals):
            missing = [voter for voter in voters if voter not in renewal.acknowledged]
            allowed = half.silent is None or all(voter in half.silent for voter in missing)
            patient = renewal.sent_at_ns + half.patience_ns <= now_ns
            if patient and allowed and is_half(voters, renewal.acknowledged):
                asked_ns = min(renewal.sent_at_ns, half.tie_breaker_ns)
                return lease_end_ns(asked_ns, min(renewal.lease_ms, half.lease_ms))
        return None
