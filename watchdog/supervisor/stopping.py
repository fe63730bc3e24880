"""The order of a stop: watchdog main first, then the others, each with a deadline.

Watchdog main must hand leadership over while heartbeats still flow. Orders are repeated, because a full link
loses them. A second signal can only make the stop faster. What does not end in time is killed, and if
watchdog main did not end cleanly, the virtual IP is released in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pgvigil.ipc import frames, log
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import StopMode
from pgvigil.watchdog.supervisor.child import Child

MAIN_LIMIT_NS = {StopMode.SMART: 10 * NS_PER_S, StopMode.FAST: 3 * NS_PER_S, StopMode.IMMEDIATE: 0}
OTHERS_LIMIT_NS = 1 * NS_PER_S
REPEAT_NS = 200 * NS_PER_MS
HASTE = (StopMode.SMART, StopMode.FAST, StopMode.IMMEDIATE)

_log = logging.getLogger(log.LOGGER)


class Stopping:
    """A stop under way. `write_will(reason)` releases the virtual IP, `done` is called when nothing is left."""

    def __init__(
        self,
        children: Mapping[str, Child],
        write_will: Callable[[str], None],
        will_is_running: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self._children = children  # the living table, not a copy
        self._write_will = write_will
        self._will_is_running = will_is_running
        self._done = done
        self._mode: StopMode | None = None
        self._main_is_ending = True
        self._deadline_ns = 0
        self._repeat_ns = 0

    def begin(self, mode: StopMode, main_is_owed: bool) -> None:
        """Start, or escalate: a repeated or faster order takes the next faster mode.

        `main_is_owed`: watchdog main died before and what it held was not released yet.
        """
        if self._mode is not None:
            faster = HASTE[min(HASTE.index(self._mode) + 1, len(HASTE) - 1)]
            mode = max(mode, faster, key=HASTE.index)
            if mode is self._mode:
                return
            _log.warning("stopping faster: %s", mode.value)
        self._mode = mode
        if mode is StopMode.IMMEDIATE:
            self._kill_all()
        if self._main_alive():
            self._deadline_ns = boottime_ns() + MAIN_LIMIT_NS[mode]
            self._repeat_ns = 0
            return
        if main_is_owed:
            self._write_will("watchdog main was not running when pgvigil was stopped")
        if self._main_is_ending:
            self._end_others()

    def _main_alive(self) -> bool:
        return any(child.spec.vital and child.alive for child in self._children.values())

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.state = "stopping"
            child.kill()

    def _end_others(self) -> None:
        self._main_is_ending = False
        self._deadline_ns = boottime_ns() + OTHERS_LIMIT_NS
        self._repeat_ns = 0
        self.check()

    def wake(self) -> int:
        """The next repetition or the deadline."""
        return min(self._deadline_ns, self._repeat_ns)

    def tick(self, now_ns: int) -> None:
        """Repeat orders, kill what is late."""
        assert self._mode is not None
        if now_ns >= self._deadline_ns:
            self._deadline_ns = now_ns + OTHERS_LIMIT_NS
            self._kill_late()
        if now_ns >= self._repeat_ns:
            self._repeat_ns = now_ns + REPEAT_NS
            for child in self._due():
                child.state = "stopping"
                child.order(frames.StopOrder(self._mode))
        self.check()

    def _due(self) -> list[Child]:
        return [
            child for child in self._children.values() if child.alive and (child.spec.vital or not self._main_is_ending)
        ]

    def _kill_late(self) -> None:
        for child in self._due():
            if self._mode is not StopMode.IMMEDIATE:
                _log.error("%s (pid %d) did not end in time and is killed", child.spec.name, child.pid)
            child.kill()

    def on_exit(self, child: Child, status: int) -> None:
        """A child has ended while stopping."""
        if child.spec.vital:
            if status != 0:
                self._write_will(f"watchdog main ended uncleanly ({child.last_exit})")
            self._end_others()
        self.check()

    def check(self) -> None:
        """Finish when nothing is left."""
        if not any(child.alive for child in self._children.values()) and not self._will_is_running():
            self._done()
