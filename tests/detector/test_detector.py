"""The model of the detector is worth its tables: what it says of extreme cases is known beforehand."""

from __future__ import annotations

from tests.detector.measure import Weather, measure
from tests.detector.model import Detector

FIXED = Detector("fixed", 1000, 1000)
ADAPTIVE = Detector("adaptive", 600, 3000)


def test_a_dead_peer_is_found_within_the_dead_time_and_sooner_on_a_path_that_loses_nothing() -> None:
    fixed = measure(FIXED, Weather(0), True, 0.5, 0, 1).detected_ms
    adaptive = measure(ADAPTIVE, Weather(0), True, 0.5, 0, 1).detected_ms
    assert fixed[0] >= 790 and fixed[-1] <= 1010  # the last heartbeat was sent up to one interval before
    assert adaptive[0] >= 400 and adaptive[-1] <= 650


def test_loss_makes_a_fixed_dead_time_wrong_and_an_adaptive_one_patient() -> None:
    fixed = measure(FIXED, Weather(0.3), False, 0.5, 0, 1)
    # Four heartbeats in a row are lost with the probability 0.3 to the 4, 18000 are sent an hour.
    assert 60 <= fixed.alarms_per_hour <= 140
    adaptive = measure(ADAPTIVE, Weather(0.3), False, 0.5, 0, 1)
    assert adaptive.alarms == 0 and adaptive.detected_ms[-1] <= 3010


def test_a_third_node_prevents_most_false_alarms_and_delays_no_true_one_by_much() -> None:
    alone, together = (measure(FIXED, Weather(0.3), third, 1, 0, 1) for third in (False, True))
    assert together.alarms * 5 < alone.alarms
    assert together.detected_ms[-1] <= 1600
