"""The one clock that decisions use.

CLOCK_BOOTTIME goes on while the machine sleeps and never steps with the wall clock, so a lease measured
with it cannot outlive a suspend unnoticed. Pure parts are told the time; only shells call this.
"""

from __future__ import annotations

import time

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def boottime_ns() -> int:
    """Nanoseconds since the machine started, suspended time included (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def kernel_boot_id() -> str:
    """The random id of this start of the kernel (random(4)); changes with every start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
