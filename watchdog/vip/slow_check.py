"""When the holder of the virtual IP looks at everything, whether or not an event told it to.

Once a second, and with a wake-up that comes anyway where there is one. It only knows the time; what is looked at and
mended is the holder's business.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_S, boottime_ns

CHECK_NS = 1 * NS_PER_S


class SlowCheck:
    """A participant of the loop of watchdog main that is in no hurry."""

    slack_ns = CHECK_NS // 4

    def __init__(self, check: Callable[[int], None]) -> None:
        """`check` is called with the instant of the call (CLOCK_BOOTTIME, ns)."""
        self._check = check
        self._due_ns = boottime_ns() + CHECK_NS

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        self._due_ns = now_ns + CHECK_NS
        self._check(now_ns)
