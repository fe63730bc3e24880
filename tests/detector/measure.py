"""False alarms and detection times of one detector in one weather, from the model."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from tests.detector.model import Detector, Model, seconds

from pgvigil.ipc.clock import NS_PER_MS

WARM_UP_S = 220  # until the long memory of a path is full
BETWEEN_CRASHES_S = 90
ONSET_S = 30
NEVER_S = 30


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; times in ms."""

    hours: float
    alarms: int
    detected_ms: tuple[int, ...]
    onsets: int
    alarmed_onsets: int

    @property
    def alarms_per_hour(self) -> float:
        return self.alarms / self.hours


@dataclass(frozen=True, slots=True)
class Weather:
    """Share of lost datagrams, and the mean length of a burst."""

    loss: float
    burst: float = 1

    def __str__(self) -> str:
        bursts = "" if self.burst <= 1 else f", bursts of {self.burst:g}"
        return f"{self.loss:.0%}{bursts}"


def measure(detector: Detector, weather: Weather, third: bool, hours: float, onsets: int, seed: int) -> Figures:
    """A long run with a crash in a copy of it now and then, and sudden changes of weather in copies of a clear one."""
    model = Model(detector, seed, weather.loss, weather.burst, third)
    model.run_until(seconds(WARM_UP_S))
    model.watcher.deaths.clear()
    end_ns = model.now_ns + seconds(3600 * hours)
    detected: list[int] = []
    while model.now_ns < end_ns:
        detected += _detection_ms(copy.deepcopy(model), len(detected))
        model.run_until(model.now_ns + seconds(BETWEEN_CRASHES_S))
    alarmed = _alarmed_onsets(detector, weather, third, onsets, seed)
    return Figures(hours, len(model.watcher.deaths), tuple(sorted(detected)), onsets, alarmed)


def _detection_ms(model: Model, seed: int) -> list[int]:
    """How long after the crash the peer is dead for the watcher; nothing if it was taken for dead before."""
    crashed_ns = model.crash(seed)
    if model.watcher.dead:
        return []
    model.watcher.deaths.clear()
    model.run_until(crashed_ns + seconds(NEVER_S))
    if not model.watcher.deaths:
        raise AssertionError(f"the peer was not found dead within {NEVER_S} s")
    return [(model.watcher.deaths[0] - crashed_ns) // NS_PER_MS]


def _alarmed_onsets(detector: Detector, weather: Weather, third: bool, onsets: int, seed: int) -> int:
    clear = Model(detector, seed, 0, 1, third)
    clear.run_until(seconds(WARM_UP_S))
    alarmed = 0
    for number in range(onsets):
        model = copy.deepcopy(clear)
        model.reseed(seed + number)
        model.weather(weather.loss, weather.burst)
        model.run_until(model.now_ns + seconds(ONSET_S))
        alarmed += bool(model.watcher.deaths)
    return alarmed
