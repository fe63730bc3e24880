"""The adaptive dead time: between floor and ceiling, longer with loss and lateness, and right about lost heartbeats."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.frames import PathQuality
from pgvigil.lifecheck.core.accrual import MAX_REMEMBERED, PHI, Accrual, phi

MS = 1_000_000
INTERVAL = 200 * MS
SHARE = st.integers(0, 1_000_000)
LATE = st.integers(0, 2_000_000)


def quality(loss_ppm: int = 500, lateness_us: int = 300) -> PathQuality:
    return PathQuality(2, 0, loss_ppm, lateness_us, None, None)


def deadtime_ms(loss_ppm: int = 500, lateness_us: int = 300, floor_ms: int = 600, ceiling_ms: int = 5000) -> int:
    return Accrual(INTERVAL, floor_ms * MS, ceiling_ms * MS).deadtime_ns(quality(loss_ppm, lateness_us)) // MS


def test_three_missing_heartbeats_are_enough_on_a_path_that_never_lost_one() -> None:
    assert 600 <= deadtime_ms() <= 630
    assert deadtime_ms(floor_ms=700) == 700


def test_loss_and_lateness_make_it_patient_up_to_the_ceiling() -> None:
    by_loss = [deadtime_ms(loss) for loss in (500, 5_000, 50_000, 200_000, 300_000)]
    assert by_loss == sorted(by_loss) and by_loss[-1] > 3000
    assert deadtime_ms(300_000, ceiling_ms=1000) == 1000
    assert deadtime_ms(lateness_us=100_000) > deadtime_ms(lateness_us=40_000) > deadtime_ms(lateness_us=1_000)


@given(SHARE, LATE, st.integers(600, 2000), st.integers(0, 4000))
def test_floor_and_ceiling_have_the_last_word(loss_ppm: int, late_us: int, floor_ms: int, room_ms: int) -> None:
    assert floor_ms <= deadtime_ms(loss_ppm, late_us, floor_ms, floor_ms + room_ms) <= floor_ms + room_ms


@given(SHARE, st.floats(0.05, 5), st.floats(0, 20), st.floats(0, 5))
def test_suspicion_only_grows(loss_ppm: int, deviation: float, silence: float, more: float) -> None:
    loss = max(loss_ppm, 1) / 1_000_000
    assert -1e-9 <= phi(silence, loss, deviation) <= phi(silence + more, loss, deviation) + 1e-9


@pytest.mark.parametrize("loss", [0.05, 0.2, 0.3])
def test_suspicion_is_the_probability_that_it_claims_to_be(loss: float) -> None:
    """Of heartbeats that come in time or not at all, k in a row are lost with the probability loss to the k."""
    dice = random.Random(5)
    run, longer, pauses = 0, 0, 0
    for _ in range(200_000):
        if dice.random() < loss:
            run += 1
            continue
        pauses, longer, run = pauses + 1, longer + (run >= 3), 0
    assert longer / pauses == pytest.approx(10 ** -phi(3.5, loss, 0.05), rel=0.25)


def test_what_is_remembered_has_a_limit_and_changes_nothing() -> None:
    accrual = Accrual(INTERVAL, 600 * MS, 5000 * MS)
    asked = [quality(loss_ppm) for loss_ppm in range(500, 1_000_000, 5000)]
    first = [accrual.deadtime_ns(one) for one in asked]
    assert [accrual.deadtime_ns(one) for one in asked] == first
    assert len(accrual._remembered) <= MAX_REMEMBERED
    assert PHI == 8.0
