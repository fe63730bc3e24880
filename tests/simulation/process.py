"""One simulated process: the real loop, and what the world can do to it.

It runs until its loop sleeps. It can be killed, stopped and continued at any instant, and between any two of its
actions: each action is announced by `boundary`, where a trap of the fault schedule may spring. A process that is
stopped there keeps its place on our stack with everything that it has read, as SIGSTOP would have it, while the
world goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.clock import Clock
from tests.simulation.wiring import Inlet, Parked, SimPoller, SimTimer
from tests.simulation.world import World

from pgvigil.ipc.loop import Loop

Trap = Callable[[str], None]


class Killed(Exception):
    """The process is dead; nothing of it runs on."""


class Process:
    """A loop with its poller and timer."""

    def __init__(self, world: World, clock: Clock, slow_ns: int) -> None:
        """`slow_ns` is how long the process is busy after each time it was woken."""
        self.world = world
        self.clock = clock
        self.poller = SimPoller()
        self.timer = SimTimer(world, clock, self.poller, self.wake)
        self.loop = Loop(self.poller, self.timer, clock.read)
        self.chores: Inlet[Callable[[], None]] = Inlet(self.poller, self.wake)
        self.dead = False
        self.stopped = False
        self.machine_paused = False
        self.trap: Trap | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._slow_ns = slow_ns
        self.thawed_at_ns = 0
        self._busy_until_ns = 0
        self._active = False
        self.loop.watch(self.chores, self._do_chores)

    @property
    def frozen(self) -> bool:
        """Whether it stands still for now."""
        return not self.dead and (self.stopped or self.machine_paused)

    def wake(self) -> None:
        """Something is readable or due: run until the loop sleeps."""
        if self._active or self.dead or self.stopped or self.machine_paused:
            return
        if self.world.now_ns < self._busy_until_ns:
            self.world.at(self._busy_until_ns, self._catch_up)
            return
        self._active = True
        try:
            self.loop.run()
        except Parked:
            pass
        except Killed:
            return
        else:
            self.dead = True
            self.on_end()
        finally:
            self._active = False
            self._busy_until_ns = self.world.now_ns + self._slow_ns

    def _catch_up(self) -> None:
        if self.poller.ready:
            self.wake()

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True

    def proceed(self) -> None:
        """SIGCONT, or the machine goes on."""
        if not self.frozen and not self.dead:
            self.thawed_at_ns = self.world.now_ns
            self.timer.recheck()
            if self.poller.ready:
                self.wake()

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do something in the loop of this process after a while of true time."""
        self.world.after(delay_ns, lambda: self._later(action))

    def _later(self, action: Callable[[], None]) -> None:
        if not self.dead:
            self.chores.put(action)

    def _do_chores(self) -> None:
        while (action := self.chores.take()) is not None:
            action()

    def boundary(self, name: str) -> None:
        """Between two actions: a trap may stop or kill the process right here."""
        if self.trap is not None:
            self.trap(name)
            self.stand_still()

    def stand_still(self) -> None:
        """If stopped here, let the world go on without this process; if killed here, leave."""
        while self.frozen:
            self.world.run(lambda: not self.frozen)
            if self.world.over:
                raise Killed
            self.thawed_at_ns = self.world.now_ns
        if self.dead:
            raise Killed
