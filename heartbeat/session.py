"""Who may be believed: protection of heartbeats against replay, without a common clock and without a disk.

Each receiver draws a random *nonce* for each peer and has its sender announce it; the peer echoes it. A datagram that
echoes a nonce was made after that nonce was, and under one nonce sequences only rise. So nothing is ever accepted
twice, nothing made before this receiver started is accepted, and a peer that restarts is known again within one
round trip. The module decides; it neither asks the time nor draws numbers by itself, and it refuses to learn
anything from a datagram that it does not believe, as long as it hears believable ones.

One peer's datagram is *fresh* if
  1. it echoes the nonce of the open challenge, which thereby becomes the session (boot and sequence start here); or
  2. it echoes the nonce of the session, comes from the session's boot and its sequence is larger than the last.

A challenge is open from the start. Another one is opened when a datagram cannot be compared with the session: it
comes from another boot, or its sequence is far below the last one (a machine set back to a snapshot). The open
challenge's nonce is the one announced, and the session stays valid meanwhile, so a replayed datagram costs one
exchange of nonces and nothing else. Why a changed nonce of the *peer* opens no challenge: two sides that answered
each other's challenges with challenges would never end.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from pgvigil.heartbeat.packet import Heartbeat
from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import PeerSession

MAX_NONCE = 2**63 - 1
CHALLENGE_INTERVAL_NS = 1_000_000_000  # replays may make us change our nonce once a second, not more often
SET_BACK_NS = 1_000_000_000  # a sequence this far below the last is no reordering
DEAF_NS = 1_000_000_000  # nothing fresh for so long: take the nonce of any authentic datagram

DrawNonce = Callable[[], int]


class Freshness(enum.Enum):
    """The judgement on one authentic datagram."""

    FRESH = "new, and proved to be"
    REPEATED = "seen before, or older than one seen before"
    UNPROVEN = "does not echo our nonce"


@dataclass(slots=True)
class _Session:
    """What was last taken of one life of the peer."""

    boot: int
    nonce: int
    last_sequence: int
    last_fresh_at_ns: int


class PeerFreshness:
    """What is known of one peer on one path."""

    def __init__(self, node_id: int, draw: DrawNonce) -> None:
        self.node_id = node_id
        self._draw = draw
        self._session: _Session | None = None
        self._challenge: int | None = self._new_nonce()
        self._challenged_at_ns: int | None = None
        self._theirs = 0
        self.news = True
        """What is announced may be another thing than when this was last set to false."""

    def announced(self) -> PeerSession:
        """What the sender of this path has to tell this peer."""
        return PeerSession(self.node_id, self._announced_nonce(), self._theirs)

    def judge(self, heartbeat: Heartbeat, now_ns: int) -> Freshness:
        """Judge an authentic datagram that arrived now (CLOCK_BOOTTIME), and learn from it."""
        if self._is_fresh(heartbeat, now_ns):
            self._learn(heartbeat.nonce)
            return Freshness.FRESH
        session = self._session
        if session is None or now_ns - session.last_fresh_at_ns >= DEAF_NS:
            self._learn(heartbeat.nonce)
        if session is None or heartbeat.echo != session.nonce:
            judgement = Freshness.UNPROVEN
        else:
            judgement = Freshness.REPEATED if heartbeat.boot == session.boot else Freshness.UNPROVEN
        self._challenge_if_incomparable(heartbeat, now_ns)
        return judgement

    def is_next(self, known: Heartbeat, sequence: int, now_ns: int) -> bool:
        """Whether an authentic datagram that is `known` but for its sequence is fresh by rule 2; else `judge` it."""
        return known.nonce == self._theirs and self._goes_on(known, sequence, now_ns)

    def _learn(self, nonce: int) -> None:
        if nonce != self._theirs:
            self._theirs, self.news = nonce, True

    def _is_fresh(self, heartbeat: Heartbeat, now_ns: int) -> bool:
        if self._challenge is not None and heartbeat.echo == self._challenge:
            self._session = _Session(heartbeat.boot, self._challenge, heartbeat.sequence, now_ns)
            self._challenge, self.news = None, True
            return True
        return self._goes_on(heartbeat, heartbeat.sequence, now_ns)

    def _goes_on(self, heartbeat: Heartbeat, sequence: int, now_ns: int) -> bool:
        """Rule 2; what does not go on changes nothing."""
        session = self._session
        if session is None or heartbeat.echo != session.nonce or heartbeat.boot != session.boot:
            return False
        if sequence <= session.last_sequence:
            return False
        session.last_sequence = sequence
        session.last_fresh_at_ns = now_ns
        return True

    def _challenge_if_incomparable(self, heartbeat: Heartbeat, now_ns: int) -> None:
        session = self._session
        if session is None or self._challenge is not None:
            return
        set_back = heartbeat.sequence < session.last_sequence - SET_BACK_NS
        if heartbeat.boot == session.boot and not set_back:
            return
        last_ns = self._challenged_at_ns
        if last_ns is None or now_ns - last_ns >= CHALLENGE_INTERVAL_NS:
            self._challenge, self.news = self._new_nonce(), True
            self._challenged_at_ns = now_ns

    def _announced_nonce(self) -> int:
        if self._challenge is not None:
            return self._challenge
        if self._session is None:
            raise InvariantError("neither a session nor a challenge: expected one of them always")
        return self._session.nonce

    def _new_nonce(self) -> int:
        nonce = self._draw()
        if not 0 < nonce <= MAX_NONCE:
            raise InvariantError(f"a nonce of {nonce}, expected 1 to 2**63 - 1")
        return nonce


class FreshnessTable:
    """All peers of one path."""

    def __init__(self, node_ids: tuple[int, ...], draw: DrawNonce) -> None:
        self._peers = {node_id: PeerFreshness(node_id, draw) for node_id in node_ids}
        self._announced: tuple[PeerSession, ...] | None = None

    def judge(self, heartbeat: Heartbeat, now_ns: int) -> Freshness:
        """As `PeerFreshness.judge`; the sender must be one of the peers."""
        peer = self._peers[heartbeat.sender]
        freshness = peer.judge(heartbeat, now_ns)
        if peer.news:
            peer.news, self._announced = False, None
        return freshness

    def is_next(self, known: Heartbeat, sequence: int, now_ns: int) -> bool:
        """As `PeerFreshness.is_next`; nothing that is announced changes by it."""
        return self._peers[known.sender].is_next(known, sequence, now_ns)

    def announced(self) -> tuple[PeerSession, ...]:
        """The whole table for the sender, in the order of the peers; the same object until something in it changes."""
        if self._announced is None:
            self._announced = tuple(peer.announced() for peer in self._peers.values())
        return self._announced
