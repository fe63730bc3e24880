"""The judging of recorded lists: what counts as an outage, and as two nodes answering."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.demo.records import (
    ANSWER_LIMIT_MS,
    Record,
    first_answer_after,
    intervals,
    longest_gap_ns,
    outage,
    read_records,
    two_answering,
)

MS = NS_PER_MS


def answers(who: int, first_ms: int, last_ms: int, every_ms: int = 5) -> list[Record]:
    """A node answering regularly, each time within half a millisecond."""
    return [Record(at * MS, at * MS + MS // 2, who) for at in range(first_ms, last_ms + 1, every_ms)]


def losses(first_ms: int, last_ms: int, every_ms: int = 5) -> list[Record]:
    return [Record(at * MS, 0, 0) for at in range(first_ms, last_ms + 1, every_ms)]


def test_an_outage_reaches_from_the_last_good_question_to_the_next() -> None:
    records = answers(1, 0, 100) + losses(105, 295) + answers(2, 300, 400)
    seen = outage(records, 0, 400 * MS)
    assert seen.gap_ms == 200
    assert (seen.lost, seen.owners) == (39, (1, 2))


def test_late_answers_do_not_hide_an_outage() -> None:
    """A queued question is answered when the service returns: by the time of asking there would be no gap."""
    late = [Record(at * MS, 300 * MS, 2) for at in range(105, 300, 5)]
    seen = outage(answers(1, 0, 100) + late + answers(2, 305, 400), 0, 400 * MS)
    assert seen.gap_ms == pytest.approx(199.5)
    assert seen.lost == 0


def test_an_answer_after_the_limit_is_none() -> None:
    assert not Record(0, (ANSWER_LIMIT_MS + 1) * MS, 1).is_good
    assert Record(MS, ANSWER_LIMIT_MS * MS, 1).is_good


def test_an_outage_without_end_lasts_to_the_end_of_the_window() -> None:
    assert outage(answers(1, 0, 100) + losses(105, 1000), 0, 1000 * MS).gap_ms == pytest.approx(899.5, abs=1)


def test_a_prober_that_was_late_shows_it() -> None:
    seen = outage(answers(1, 0, 100) + answers(1, 180, 300), 0, 300 * MS)
    assert (seen.gap_ms, seen.prober_gap_ms, seen.lost) == (80, 80, 0)


def test_a_hand_over_is_not_two_nodes_answering() -> None:
    assert two_answering(answers(1, 0, 100) + answers(2, 105, 200)).never


def test_a_hand_over_and_back_is_not_two_nodes_answering() -> None:
    assert two_answering(answers(1, 0, 100) + answers(2, 105, 400) + answers(1, 405, 600)).never


def test_one_question_with_two_answers_is_enough() -> None:
    seen = two_answering(answers(1, 0, 100) + answers(2, 100, 200))
    assert (seen.doubled, seen.never) == (1, False)


def test_interleaved_answers_are_two_nodes_answering() -> None:
    """No single question is answered twice here, as when each node hears only some of them."""
    seen = two_answering(answers(1, 0, 200, 10) + answers(2, 105, 305, 10))
    assert seen.doubled == 0
    assert seen.overlap_ms == 95


def test_only_the_window_counts() -> None:
    records = answers(1, 0, 300) + answers(2, 0, 100)
    assert two_answering(records, 150 * MS, 300 * MS).never


def test_instants_are_joined_into_intervals() -> None:
    assert intervals([0, 10 * MS, 200 * MS, 205 * MS]) == [(0, 10 * MS), (200 * MS, 205 * MS)]


def test_the_first_answer_after_an_instant() -> None:
    records = answers(1, 0, 100)
    assert first_answer_after(records, 42 * MS) == Record(45 * MS, 45 * MS + MS // 2, 1)
    assert first_answer_after(records, 101 * MS) is None


def test_a_half_written_record_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(array("q", (7, 8, 1, 3, 4, 2)).tobytes() + b"\1\2\3")
    assert read_records(path) == [Record(3, 4, 2), Record(7, 8, 1)]
    assert read_records(path, offset=24) == [Record(3, 4, 2)]
    assert read_records(tmp_path / "nothing") == []


@given(st.lists(st.integers(1, 999), unique=True))
def test_the_longest_gap_is_a_gap(instants: list[int]) -> None:
    gap = longest_gap_ns(sorted(instants), 0, 1000)
    assert 1000 / (len(instants) + 1) <= gap <= 1000
    edges = {0, 1000, *instants}
    assert any(edge + gap in edges for edge in edges)
