"""How long a silence has to be before it means death: suspicion that accrues (Hayashibara et al. 2004).

Suspicion is phi = -log10(the probability that a living peer is silent for so long). The paper takes pauses for
normally distributed, which loss makes wrong: a lost heartbeat is no late one, and with 30 % loss five in a row are lost
every two minutes. So every heartbeat that should have come adds its own surprise: -log10(the chance that it was lost,
or comes later than this). The chance of loss is measured (`heartbeat.quality`), lateness is taken for normal as in the
paper. The module refuses to know a clock or a peer; floor and ceiling have the last word.
"""

from __future__ import annotations

from math import erfc, log10, sqrt

from pgvigil.ipc.frames import PathQuality

PHI = 8.0
"""One wrong verdict in 10 to the 8 silences, if losses are independent of each other; as in Akka and Cassandra."""
LEAST_DEVIATION = 1 / 20
"""In intervals: scheduling and networks are never better than this for long."""
REACH = 6
"""In deviations: what should have come so much later than now surprises nobody by its absence."""
STEPS = 12  # halvings: one of 4096 parts of the way from floor to ceiling
PPM = 1_000_000
MAX_REMEMBERED = 64


def phi(silence: float, loss: float, deviation: float) -> float:
    """The suspicion of a silence; `silence` and `deviation` are in intervals, `loss` is a share of 1."""
    suspicion, due = 0.0, 1
    while due < silence + REACH * deviation:
        later = erfc((silence - due) / (deviation * sqrt(2))) / 2
        suspicion -= log10(loss + (1 - loss) * later)
        due += 1
    return suspicion


class Accrual:
    """The dead time of a path, from how well it was heard; all times in ns."""

    def __init__(self, interval_ns: int, floor_ns: int, ceiling_ns: int) -> None:
        self._interval_ns = interval_ns
        self._floor_ns = floor_ns
        self.ceiling_ns = ceiling_ns
        self._remembered: dict[tuple[int, int], int] = {}

    def deadtime_ns(self, quality: PathQuality) -> int:
        """The shortest silence whose suspicion reaches `PHI`, between floor and ceiling."""
        # Rounded up to the next of a few steps, so that nearly every answer is known already.
        basis = _rounded_up(quality.loss_ppm), _rounded_up(quality.lateness_us)
        known = self._remembered.get(basis)
        if known is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[basis] = self._search(*basis)
        return known

    def _search(self, loss_ppm: int, lateness_us: int) -> int:
        loss = min(max(loss_ppm, 1), PPM) / PPM
        deviation = max(LEAST_DEVIATION, lateness_us * 1000 / self._interval_ns)

        def suspected(silence_ns: int) -> bool:
            return phi(silence_ns / self._interval_ns, loss, deviation) >= PHI

        low_ns, high_ns = self._floor_ns, self.ceiling_ns
        if suspected(low_ns):
            return low_ns
        for _ in range(STEPS):
            middle_ns = (low_ns + high_ns) // 2
            if suspected(middle_ns):
                high_ns = middle_ns
            else:
                low_ns = middle_ns
        return high_ns


def _rounded_up(number: int) -> int:
    """To four binary digits: 1, 2, 3, ... 16, 18, 20, ... 32, 36, 40, ..."""
    unit = 1 << max(0, number.bit_length() - 4)
    return -(-number // unit) * unit
