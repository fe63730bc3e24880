"""What the sender may say of its node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgvigil.heartbeat.sender import boot_number, current_beat, differs
from pgvigil.ipc.frames import Beat, BeatContent, Health, Role

MS = 1_000_000
BEAT = Beat(Role.LEADER, 7, True, Health.ALIVE, 5, 99, (2, 3), 99)


def test_before_watchdog_main_has_spoken_nothing_is_claimed() -> None:
    beat = current_beat(None, 1000 * MS, 1500 * MS)
    assert (beat.role, beat.electable, beat.pgpool) == (Role.UNKNOWN, False, Health.UNKNOWN)
    assert beat.content_age_ms == 500


def test_ages_are_computed_at_sending() -> None:
    beat = current_beat(BeatContent(1000 * MS, 400 * MS, BEAT), 0, 2999 * MS)
    assert beat == replace(BEAT, up_for_ms=2599, content_age_ms=1999)


def test_after_two_seconds_of_silence_role_and_electability_are_taken_back() -> None:
    beat = current_beat(BeatContent(1000 * MS, 400 * MS, BEAT), 0, 3000 * MS)
    assert (beat.role, beat.electable, beat.term, beat.hears) == (Role.UNKNOWN, False, 7, (2, 3))
    assert beat.content_age_ms == 2000


def test_words_from_the_future_are_new() -> None:
    beat = current_beat(BeatContent(2000 * MS, 3000 * MS, BEAT), 0, 1000 * MS)
    assert (beat.content_age_ms, beat.up_for_ms) == (0, 0)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (BEAT, False),
        (replace(BEAT, up_for_ms=100, content_age_ms=0, hears=(), priority=6), False),
        (replace(BEAT, role=Role.STANDBY), True),
        (replace(BEAT, term=8), True),
        (replace(BEAT, electable=False), True),
        (replace(BEAT, pgpool=Health.DEAD), True),
    ],
)
def test_only_what_others_act_on_is_sent_at_once(new: Beat, expected: bool) -> None:
    assert differs(BEAT, new) is expected
    assert differs(None, new)


def test_a_boot_id_becomes_a_number_of_63_bits() -> None:
    number = boot_number("ffffffff-ffff-ffff-ffff-fffffffffffe")
    assert number == 2**63 - 2
    assert boot_number("00000000-0000-0000-0000-000000000001") == 1
