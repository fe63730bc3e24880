"""Detection time against false alarms, as tables for people.

python -m tests.detector --hours 20            the model: every detector in every weather
python -m tests.detector --cpu --seconds 60    real processes with all cores busy
"""

from __future__ import annotations

import argparse
import sys

from tests.detector import cpu
from tests.detector.measure import Figures, Weather, measure
from tests.detector.model import INTERVAL_MS, Detector

DETECTORS = (
    Detector("fixed, 1000 ms", 1000, 1000),
    Detector("adaptive, 600 to 1000 ms", 600, 1000),
    Detector("adaptive, 600 to 3000 ms", 600, 3000),
)
WEATHERS = (Weather(0), Weather(0.05), Weather(0.2), Weather(0.3), Weather(0.05, 3))


def show_model(hours: float, onsets: int, seed: int) -> None:
    """All detectors in all weathers, without and with a third node."""
    print(f"Seeded model, {hours:g} hours each, a heartbeat every {INTERVAL_MS} ms, {onsets} onsets, seed {seed}.")
    print("Found dead after: least / median / most of all crashes. Onset: loss that begins all at once.\n")
    print("| detector | loss | third node | found dead after | false alarms an hour | false alarms at the onset |")
    print("|---|---|---|---|---|---|")
    for detector in DETECTORS:
        for weather in WEATHERS:
            for third in (False, True):
                figures = measure(detector, weather, third, hours, onsets, seed)
                print(f"| {detector.name} | {weather} | {'yes' if third else 'no'} | {_cells(figures)} |", flush=True)


def _cells(figures: Figures) -> str:
    per_hour = "0" if not figures.alarms else f"{figures.alarms_per_hour:.2g}"
    return f"{_times(figures.detected_ms)} | {per_hour} | {figures.alarmed_onsets} of {figures.onsets}"


def _times(found_ms: tuple[int, ...]) -> str:
    return f"{found_ms[0]} / {found_ms[len(found_ms) // 2]} / {found_ms[-1]} ms"


def show_cpu(seconds: float, kills: int) -> None:
    """All detectors on busy cores."""
    print(f"Three nodes with real processes on loopback, all cores busy, {seconds:g} s and {kills} deaths each.\n")
    print("| detector | living peers called dead | reports in doubt of our own receiver | found dead after |")
    print("|---|---|---|---|")
    for detector in DETECTORS:
        busy = cpu.measure(detector, seconds, kills)
        print(f"| {detector.name} | {busy.wrong} | {busy.doubts} | {_times(busy.detected_ms)} |", flush=True)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.detector", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0, help="simulated hours of each row")
    parser.add_argument("--onsets", type=int, default=100, help="sudden beginnings of loss of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="measure with real processes instead")
    parser.add_argument("--seconds", type=float, default=60.0, help="with --cpu: how long peers live")
    parser.add_argument("--kills", type=int, default=10, help="with --cpu: how often one dies")
    chosen = parser.parse_args()
    if chosen.cpu:
        show_cpu(chosen.seconds, chosen.kills)
    else:
        show_model(chosen.hours, chosen.onsets, chosen.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
