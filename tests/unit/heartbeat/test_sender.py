"""What the sender may say of its node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgvigil.heartbeat.sender import Words, boot_number, differs
from pgvigil.ipc.frames import Beat, BeatContent, Health, Role

MS = 1_000_000
BEAT = Beat(Role.LEADER, 7, True, Health.ALIVE, 5, 99, (2, 3), 99)


def words(content: BeatContent) -> Words:
    made = Words(0)
    assert made.hear((2, 3)) and not made.hear((2, 3))
    assert made.take(content)
    return made


def test_before_watchdog_main_has_spoken_nothing_is_claimed() -> None:
    beat, up_for_ms, age_ms = Words(1000 * MS).now(1500 * MS)
    assert (beat.role, beat.electable, beat.pgpool) == (Role.UNKNOWN, False, Health.UNKNOWN)
    assert (up_for_ms, age_ms) == (0, 500)


def test_ages_are_computed_at_sending() -> None:
    assert words(BeatContent(1000 * MS, 400 * MS, BEAT)).now(2999 * MS) == (BEAT, 2599, 1999)


def test_after_two_seconds_of_silence_role_and_electability_are_taken_back() -> None:
    beat, _, age_ms = words(BeatContent(1000 * MS, 400 * MS, BEAT)).now(3000 * MS)
    assert (beat.role, beat.electable, beat.term, beat.hears) == (Role.UNKNOWN, False, 7, (2, 3))
    assert age_ms == 2000


def test_words_from_the_future_are_new() -> None:
    assert words(BeatContent(2000 * MS, 3000 * MS, BEAT)).now(1000 * MS)[1:] == (0, 0)


def test_words_that_are_repeated_are_the_same_object_and_new_again() -> None:
    said = words(BeatContent(1000 * MS, 400 * MS, BEAT))
    before, silent = said.now(1000 * MS)[0], said.now(9000 * MS)[0]
    assert not said.take(BeatContent(8000 * MS, 400 * MS, replace(BEAT)))
    assert said.now(9000 * MS) == (before, 8600, 1000) and said.now(9000 * MS)[0] is before
    assert said.now(19_000 * MS)[0] is silent
    assert not said.take(BeatContent(9000 * MS, 400 * MS, replace(BEAT, hears=(7,))))
    assert said.now(9000 * MS)[0] is before  # watchdog main does not know whom this path hears
    assert said.take(BeatContent(9000 * MS, 400 * MS, replace(BEAT, role=Role.STANDBY)))


def test_whom_the_path_hears_is_said_also_for_a_silent_watchdog() -> None:
    said = words(BeatContent(1000 * MS, 400 * MS, BEAT))
    assert said.hear((3,))
    assert said.now(1000 * MS)[0] == replace(BEAT, hears=(3,))
    assert said.now(9000 * MS)[0].hears == (3,)
    silent = Words(0)
    silent.hear((2,))
    assert silent.now(0)[0].hears == (2,)


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
