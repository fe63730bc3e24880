"""The kernel of one machine: the gate with its time-out, the address, and the rule that arms the gate.

The kernel goes on while every process is stopped or dead; only a machine that is paused or off has no kernel. The
gate is the product's own `Gate`, with its rule P20 as it is: only the netlink write and the closing are replaced,
because there is no netfilter here.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.clock import Clock
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.vip.gate import Gate

Later = Callable[[int, Callable[[], None]], None]


class Kernel:
    """Gate and address of one machine, in true time."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self.boot_number = 1
        self.running = True
        self.gate_until_ns = 0
        self.address = False
        self._paused_with_ns = 0
        self.on_open: Callable[[], None] = lambda: None

    def gate_open(self) -> bool:
        """Whether traffic of the VIP passes at this instant."""
        return self.running and self.gate_until_ns > self._world.now_ns

    def open_gate(self, timeout_ms: int) -> None:
        """The element with this time-out, counted by this machine's clock."""
        was_open = self.gate_open()
        self.gate_until_ns = self._clock.true(self._clock.read() + timeout_ms * NS_PER_MS)
        if not was_open or self.gate_open():
            self.on_open()

    def close_gate(self) -> None:
        """No element."""
        self.gate_until_ns = 0

    def pause(self) -> None:
        """The machine stands still: its timers with it."""
        self._paused_with_ns = max(0, self.gate_until_ns - self._world.now_ns)
        self.running = False

    def resume(self) -> None:
        """Timers go on with what was left of them."""
        self.running = True
        if self._paused_with_ns:
            self.gate_until_ns = self._world.now_ns + self._paused_with_ns

    def power_off(self) -> None:
        """Nothing of it is left; the next boot is another one."""
        self.boot_number += 1
        self.gate_until_ns = 0
        self._paused_with_ns = 0
        self.address = False
        self.running = True


class SimGate(Gate):
    """The product's gate on a simulated kernel; `boundary` may stop or kill the process between any two calls."""

    def __init__(self, kernel: Kernel, clock: Clock, boundary: Callable[[str], None]) -> None:
        self._kernel = kernel
        self._boundary = boundary
        self._clock = clock.read
        self._addresses = ()
        self.until_ns = 0

    def _open(self, timeout_ms: int) -> None:
        self._boundary("arm")
        self._kernel.open_gate(timeout_ms)
        self._boundary("armed")

    def close(self) -> None:
        self.until_ns = 0
        self._kernel.close_gate()


class SimVip:
    """What watchdog main orders of the VIP: the holder's part that matters for who answers, and when."""

    def __init__(
        self, world: World, kernel: Kernel, clock: Clock, boundary: Callable[[str], None], later: Later
    ) -> None:
        """`later(delay_ns, action)` runs an action of this process after a while, unless it is dead by then."""
        self._world = world
        self._kernel = kernel
        self._clock = clock
        self._boundary = boundary
        self._later = later
        self._gate = SimGate(kernel, clock, boundary)
        self.wanted_up = False
        self.lease_end_ns = 0
        self.stuck = False
        self.removal_ns = NS_PER_MS
        self._serial = 0

    def keep(self) -> None:
        """Leave everything to the kernel's time limits."""
        self._boundary("keep")

    def hold(self, lease_end_ns: int) -> None:
        """Carry the VIP until the end of the lease."""
        self._boundary("hold")
        self.wanted_up, self.lease_end_ns = True, lease_end_ns
        self._serial += 1
        if self._gate.arm(lease_end_ns) and self._clock.read() < lease_end_ns:  # P21
            self._kernel.address = True

    def close_gate(self) -> None:
        """Nothing passes from now on."""
        self._boundary("close")
        self.lease_end_ns = 0
        self._gate.close()

    def drop(self, on_down: Callable[[], None]) -> None:
        """Close the gate, take the address off, then call back."""
        self._boundary("drop")
        self.wanted_up = False
        self.close_gate()
        self._serial += 1
        self._take_off(self._serial, on_down)

    def _take_off(self, serial: int, on_down: Callable[[], None]) -> None:
        if not self._kernel.address or (not self.stuck and not self.removal_ns):
            self._gone(serial, on_down)  # netlink answers at once
        elif self.stuck:
            self._later(50 * NS_PER_MS, lambda: self._take_off(serial, on_down))
        else:
            self._later(self.removal_ns, lambda: self._gone(serial, on_down))

    def _gone(self, serial: int, on_down: Callable[[], None]) -> None:
        if serial == self._serial and not self.wanted_up:
            self._kernel.address = False
            on_down()
