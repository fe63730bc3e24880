"""How well one peer is heard on one path: loss, jitter, lateness, round trip; pure, a few additions per heartbeat.

The receiver sees every heartbeat, lifecheck only some of them (`heartbeat.bundle`), so the numbers are made here.
Loss comes from the sender's counter, not from pauses: a host that is slow loses nothing. What came too late to be
believed counts as lost. The module refuses to judge; what to make of the numbers is the detector's business.
"""

from __future__ import annotations

from math import sqrt

from pgvigil.ipc.frames import PathQuality

SHOWN = 100
RECENT = 32
MEMORY = 1024
"""Heartbeats that are remembered: a path that has lost none of so many is trusted more than a new one."""
PPM = 1_000_000
LATENESS_GAIN = 1 / 64
LATEST = 5
"""In intervals. No dead time could wait for a host that was suspended, so one such pause shall not spoil the figure."""
JITTER_GAIN = 1 / 16  # RFC 3550, section 6.4.1
ROUND_TRIP_GAIN = 1 / 8  # RFC 6298, section 2
LONGEST_ROUND_TRIP_NS = 60_000_000_000


class Quality:
    """One peer on one path; times are CLOCK_BOOTTIME in ns, `sequence` is the sender's and `now_ns` ours."""

    __slots__ = (
        "_counter",
        "_interval_ns",
        "_jitter_ns",
        "_known",
        "_last_ns",
        "_late_square",
        "_round_trip_ns",
        "_seen",
        "sequence",
    )

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._counter = 0
        self._seen = 0  # one bit for each of the last heartbeats, the newest lowest
        self._known = 0
        self._last_ns = 0
        self._late_square = 0.0
        self._jitter_ns: float | None = None
        self._round_trip_ns: float | None = None
        self.sequence = 0

    def take(self, now_ns: int, sequence: int, counter: int) -> None:
        """A heartbeat that was believed.

        A counter that does not rise is that of a sender that has started anew: the path is still the same, and nobody
        knows of anything that was lost.
        """
        step = counter - self._counter
        if self._counter and step > 0:
            self._take_pause(now_ns - self._last_ns, sequence - self.sequence, step)
        else:
            step = 1
        self._seen = (self._seen << min(step, MEMORY) | 1) & ((1 << MEMORY) - 1)
        self._known = min(self._known + step, MEMORY)
        self._counter, self._last_ns, self.sequence = counter, now_ns, sequence

    def _take_pause(self, pause_ns: int, sent_apart_ns: int, step: int) -> None:
        late = min(max(0, pause_ns - step * self._interval_ns), LATEST * self._interval_ns)
        self._late_square += (late * late - self._late_square) * LATENESS_GAIN
        apart = abs(pause_ns - sent_apart_ns)
        if self._jitter_ns is None:
            self._jitter_ns = 0.0
        self._jitter_ns += (apart - self._jitter_ns) * JITTER_GAIN

    def take_echo(self, now_ns: int, echoed: int, held_ns: int) -> None:
        """The peer has answered our heartbeat `echoed`, `held_ns` after it had come; what cannot be is left alone."""
        round_trip_ns = now_ns - echoed - held_ns
        if not 0 <= round_trip_ns <= LONGEST_ROUND_TRIP_NS:
            return
        if self._round_trip_ns is None:
            self._round_trip_ns = float(round_trip_ns)
        self._round_trip_ns += (round_trip_ns - self._round_trip_ns) * ROUND_TRIP_GAIN

    def lost(self, last: int) -> tuple[int, int]:
        """How many of the last heartbeats were lost, and of how many this is known."""
        known = min(last, self._known)
        return known - (self._seen & ((1 << known) - 1)).bit_count(), known

    def loss_ppm(self) -> int:
        """The share to expect lost: that of a long memory, or that of a short one if it is worse.

        Half a loss is added to the long memory (Krichevsky and Trofimov), so that nothing ever counts as impossible.
        """
        lost, known = self.lost(MEMORY)
        recently_lost, recent = self.lost(RECENT)
        long_term = (lost + 0.5) / (known + 1)
        return int(PPM * max(long_term, recently_lost / max(recent, RECENT)))

    def summary(self, node_id: int) -> PathQuality:
        """For lifecheck."""
        lost, known = self.lost(SHOWN)
        jitter_us = None if self._jitter_ns is None else int(self._jitter_ns) // 1000
        round_trip_us = None if self._round_trip_ns is None else int(self._round_trip_ns) // 1000
        lateness_us = int(sqrt(self._late_square)) // 1000
        lost_permille = 1000 * lost // max(1, known)
        return PathQuality(node_id, lost_permille, self.loss_ppm(), lateness_us, jitter_us, round_trip_us)
