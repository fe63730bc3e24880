"""One loop for every process: readable descriptors, deadlines, signals.

A process is a set of *participants*. Each says when it wants to be woken (`wake`) and is called when
that instant has passed (`tick`); descriptors call back when they are readable. `wake` is asked again
after whatever happened, because any callback may have moved a deadline: forgetting that once gave two holders
of a virtual IP for more than a second. Signals are queued by the kernel's wake-up pipe and handled in the
loop, never in a handler. The loop refuses to sleep without a bound and never blocks for more than `MAX_SLEEP_NS`.

Deadlines use a timerfd on CLOCK_BOOTTIME: poll's own time-out has a resolution of a millisecond.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
from collections.abc import Callable
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_S, boottime_ns

CLOCK_BOOTTIME = 7
TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
TFD_TIMER_ABSTIME = 1
MAX_SLEEP_NS = 5 * NS_PER_S
NEVER = 1 << 63
EXPIRED = -1

_libc = ctypes.CDLL(None, use_errno=True)


class Participant(Protocol):
    """Something that lives in a loop and has deadlines.

    With an attribute `slack_ns` it is also ticked up to that much early, when the loop is awake anyway: what is not
    urgent then costs no wake-up of its own.
    """

    def wake(self) -> int | None:
        """Instant (CLOCK_BOOTTIME, ns) of the next `tick`, or None."""

    def tick(self, now_ns: int) -> None:
        """Called once `wake()` has passed."""


class Poller(Protocol):
    """What the loop needs of a poller; `channel.ZmqPoller` is the one for ZeroMQ sockets."""

    def add(self, source: object) -> None: ...
    def remove(self, source: object) -> None: ...
    def poll(self, timeout_ms: int) -> list[object]: ...


class Alarm(Protocol):
    """What the loop needs of a timer: readable at `fd` once the instant it is armed for has passed."""

    @property
    def fd(self) -> int: ...
    def arm(self, at_ns: int | None) -> None: ...
    def expired(self) -> None: ...
    def close(self) -> None: ...


class EpollPoller:
    """Descriptors only; for processes that own no ZeroMQ context."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def add(self, source: object) -> None:
        assert isinstance(source, int)
        self._epoll.register(source, select.EPOLLIN)

    def remove(self, source: object) -> None:
        assert isinstance(source, int)
        self._epoll.unregister(source)

    def poll(self, timeout_ms: int) -> list[object]:
        return [descriptor for descriptor, _ in self._epoll.poll(timeout_ms / 1000)]

    def close(self) -> None:
        self._epoll.close()


class Timer:
    """A timerfd on CLOCK_BOOTTIME (timerfd_create(2)); `os` has it only from Python 3.13 on."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd_create: {os.strerror(code)}")
        self._armed_for: int | None = None

    def arm(self, at_ns: int | None) -> None:
        """Expire at `at_ns`; an instant of the past expires at once, None disarms."""
        if at_ns == self._armed_for:
            return
        at = 0 if at_ns is None else max(at_ns, 1)
        spec = struct.pack("qqqq", 0, 0, at // NS_PER_S, at % NS_PER_S)
        if _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, spec, None) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd_settime: {os.strerror(code)}")
        self._armed_for = at_ns

    def expired(self) -> None:
        """The next `arm` sets it anew, which also takes the expiry from the descriptor (timerfd_create(2))."""
        self._armed_for = EXPIRED

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class Loop:
    """Runs callbacks and participants until `stop`."""

    def __init__(
        self, poller: Poller | None = None, timer: Alarm | None = None, clock: Callable[[], int] = boottime_ns
    ) -> None:
        """The simulator brings a poller, a timer and a clock of its own; what happens in a round stays the same."""
        self._poller: Poller = poller if poller is not None else EpollPoller()
        self._clock = clock
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._participants: list[Participant] = []
        self._timer: Alarm = timer if timer is not None else Timer()
        self._stopping = False
        self._signal_reader = -1
        self._signal_writer = -1
        self.watch(self._timer.fd, self._timer.expired)

    def watch(self, source: object, on_readable: Callable[[], None]) -> None:
        """Call back whenever a descriptor (int) or a socket of the poller's kind is readable."""
        if source not in self._callbacks:
            self._poller.add(source)
        self._callbacks[source] = on_readable

    def unwatch(self, source: object) -> None:
        """Forget a source; unknown sources are ignored."""
        if self._callbacks.pop(source, None) is not None:
            self._poller.remove(source)

    def join(self, participant: Participant) -> None:
        """Let a participant's deadlines count."""
        self._participants.append(participant)

    def leave(self, participant: Participant) -> None:
        """Forget a participant."""
        self._participants.remove(participant)

    def on_signals(self, numbers: tuple[int, ...], handler: Callable[[int], None]) -> None:
        """Queue these signals and hand them to `handler` inside the loop, in order of arrival."""
        if self._signal_reader < 0:
            self._signal_reader, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        wanted = frozenset(numbers)

        def read() -> None:
            try:
                received = os.read(self._signal_reader, 256)
            except BlockingIOError:
                return
            for number in received:
                if number in wanted:
                    handler(number)

        for number in numbers:
            signal.signal(number, _noop)
        self.watch(self._signal_reader, read)

    def stop(self) -> None:
        """Leave `run` after this round."""
        self._stopping = True

    def run(self) -> None:
        """Rounds until `stop`: wait, call back what is readable, tick what is due."""
        self._stopping = False
        nearest_ns = None
        while not self._stopping:
            nearest_ns = self._round(MAX_SLEEP_NS, nearest_ns)

    def run_once(self, limit_ns: int = MAX_SLEEP_NS) -> None:
        """One round that sleeps at most `limit_ns`."""
        self._round(limit_ns, None)

    def _round(self, limit_ns: int, nearest_ns: int | None) -> int | None:
        """One round. `nearest_ns` and the answer: the nearest deadline, if nothing happened since all were asked."""
        if nearest_ns is None:
            nearest_ns = min((at for item in self._participants if (at := item.wake()) is not None), default=NEVER)
        self._timer.arm(min(self._clock() + limit_ns, nearest_ns))
        for source in self._poller.poll((limit_ns // 1_000_000) + 1):
            callback = self._callbacks.get(source)
            if callback is not None:
                callback()
        return self._tick_all()

    def _tick_all(self) -> int | None:
        nearest_ns, ticked = NEVER, False
        for participant in tuple(self._participants):
            now_ns = self._clock()
            at_ns = participant.wake()
            if at_ns is None:
                continue
            if at_ns - getattr(participant, "slack_ns", 0) <= now_ns:
                participant.tick(now_ns)
                ticked = True
            nearest_ns = min(nearest_ns, at_ns)
        return None if ticked else nearest_ns  # a tick may have moved the deadline of one who was asked before

    def close(self) -> None:
        """Give the loop's own descriptors back (tests, and the parent's loop in a fresh child)."""
        if self._signal_reader >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._signal_reader)
            os.close(self._signal_writer)
            self._signal_reader = self._signal_writer = -1
        self._timer.close()
        if isinstance(self._poller, EpollPoller):
            self._poller.close()


def _noop(_number: int, _frame: object) -> None:
    """A Python-level handler must exist for the wake-up descriptor to be written."""
