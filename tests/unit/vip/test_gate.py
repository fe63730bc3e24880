"""Rule P20 with a clock that jumps where a process can be stopped; no kernel is asked."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.netlink import attributes
from pgvigil.watchdog.vip import nft
from pgvigil.watchdog.vip.gate import TOLERANCE_NS, Gate

START_NS = 10**12
LEASE_NS = 300 * NS_PER_MS


class Clock:
    """Tells the time; `jumps` maps the number of a reading to what passes before it."""

    def __init__(self, jumps: dict[int, int]) -> None:
        self.now_ns = START_NS
        self._jumps = jumps
        self._readings = 0

    def __call__(self) -> int:
        self.now_ns += self._jumps.get(self._readings, 0)
        self._readings += 1
        return self.now_ns


class Recorder(Gate):
    """Instead of the kernel: when what is open would close, by the newest write; 0 if closed."""

    def __init__(self, clock: Clock, write_ns: list[int] | None = None) -> None:
        super().__init__((ipaddress.ip_address("10.0.0.100"),), clock)
        self._at = clock
        self._write_ns = write_ns or []
        self.closes_at_ns = 0
        self.written_ms: list[int] = []

    def _write(self, batch: nft.Batch) -> None:
        self._at.now_ns += self._write_ns.pop(0) if self._write_ns else 0
        kind, _, body = batch.changes[-1]
        if kind & 0xFF == nft.DELSETELEM:
            self.closes_at_ns = 0
            return
        timeout_ms = timeout_of(body)
        self.written_ms.append(timeout_ms)
        self.closes_at_ns = self._at.now_ns + timeout_ms * NS_PER_MS


def timeout_of(body: bytes) -> int:
    """The life of the only element of a NEWSETELEM."""
    (listed,) = (value for kind, value in attributes(body[4:]) if kind == 3)
    ((_, element),) = attributes(listed)
    (life,) = (value for kind, value in attributes(element) if kind == 4)
    number: int = struct.unpack(">Q", life)[0]
    return number


@pytest.fixture
def gates() -> Iterator[list[Recorder]]:
    made: list[Recorder] = []
    yield made
    for gate in made:
        gate.close_sockets()


def test_the_time_out_is_what_is_left(gates: list[Recorder]) -> None:
    gate = Recorder(Clock({0: 100 * NS_PER_MS}))
    gates.append(gate)
    assert gate.arm(START_NS + LEASE_NS)
    assert gate.written_ms == [200]
    assert gate.until_ns == START_NS + LEASE_NS


@pytest.mark.parametrize("stopped_ms", [2, 50, 150, 299, 300, 301, 5000])
def test_a_process_stopped_around_the_call_does_not_stay_open_too_long(gates: list[Recorder], stopped_ms: int) -> None:
    """It fails if the second reading of the clock is taken away."""
    for where in ("before the kernel call", "after the kernel call"):
        jump_ns = stopped_ms * NS_PER_MS
        clock = Clock({1: jump_ns} if where.startswith("after") else {})
        gate = Recorder(clock, [jump_ns] if where.startswith("before") else [])
        gates.append(gate)
        opened = gate.arm(START_NS + LEASE_NS)
        assert gate.closes_at_ns <= START_NS + LEASE_NS + TOLERANCE_NS, where
        assert opened == (stopped_ms < 300 and gate.closes_at_ns > clock.now_ns), where


def test_stopped_before_and_again_after_the_second_attempt(gates: list[Recorder]) -> None:
    gate = Recorder(Clock({3: 40 * NS_PER_MS}), [100 * NS_PER_MS])
    gates.append(gate)
    assert gate.arm(START_NS + LEASE_NS)
    assert len(gate.written_ms) == 3
    assert gate.closes_at_ns <= START_NS + LEASE_NS + TOLERANCE_NS


def test_a_kernel_that_is_always_slow_gets_less_and_not_an_endless_loop(gates: list[Recorder]) -> None:
    gate = Recorder(Clock({}), [5 * NS_PER_MS] * 100)
    gates.append(gate)
    assert gate.arm(START_NS + LEASE_NS)
    assert len(gate.written_ms) == 3
    assert gate.closes_at_ns <= START_NS + LEASE_NS + TOLERANCE_NS


@pytest.mark.parametrize("late_ns", [0, 1, -NS_PER_MS + 1])
def test_nothing_left_closes(gates: list[Recorder], late_ns: int) -> None:
    gate = Recorder(Clock({}))
    gates.append(gate)
    assert not gate.arm(START_NS - late_ns)
    assert gate.written_ms == [] and gate.closes_at_ns == 0 and gate.until_ns == 0
