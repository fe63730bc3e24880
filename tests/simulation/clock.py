"""The clock of one machine: CLOCK_BOOTTIME with a rate and an origin of its own.

There is no wall clock, because no decision may read one: whatever it does cannot matter. Readings never go back
while the machine runs. On a machine whose clock does not count a pause of its hypervisor, the clock stands still
meanwhile.
"""

from __future__ import annotations

from tests.simulation.world import World

MILLION = 1_000_000


class Clock:
    """`rate_ppm` is how much it runs fast, `origin_ns` the true instant at which it showed zero."""

    def __init__(self, world: World, rate_ppm: int, origin_ns: int) -> None:
        self._world = world
        self.rate_ppm = rate_ppm
        self._speed = MILLION + rate_ppm
        self._origin_ns = origin_ns

    def read(self) -> int:
        """What it shows now."""
        return (self._world.now_ns - self._origin_ns) * self._speed // MILLION

    def shows(self, true_ns: int) -> int:
        """What it shows at a true instant."""
        return (true_ns - self._origin_ns) * self._speed // MILLION

    def true(self, local_ns: int) -> int:
        """The first true instant at which it shows `local_ns`."""
        return self._origin_ns + -(-local_ns * MILLION // self._speed)

    def stand_still(self, for_ns: int) -> None:
        """It did not count so much true time."""
        self._origin_ns += for_ns

    def restart(self) -> None:
        """The machine starts: it shows zero."""
        self._origin_ns = self._world.now_ns
