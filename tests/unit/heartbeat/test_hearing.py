"""Whom we hear, when that is taken back, and when the receiver says that there is nothing to read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.heartbeat.hearing import Hearing

MS = 1_000_000


def hearing(deadtime_ms: int = 1000, latest_ms: int = 1000) -> Hearing:
    return Hearing((2, 3), 200, deadtime_ms, latest_ms, 0)


def test_nobody_is_heard_before_he_was() -> None:
    heard, told = hearing(), []
    assert not heard.look(749 * MS)
    for node_id in (3, 2, 3):
        told.append((heard.hears, heard.heard(node_id, 100 * MS)))
    assert told == [((), True), ((3,), True), ((2, 3), False)]


def test_a_word_is_taken_back_before_the_dead_time_is_over() -> None:
    heard = hearing()
    heard.heard(2, 100 * MS)
    heard.heard(3, 100 * MS)
    heard.heard(3, 700 * MS)
    assert not heard.look(849 * MS) and heard.due_ns == 850 * MS
    assert heard.look(850 * MS) and heard.hears == (3,)


def test_silence_is_testified_to_twice_an_interval_until_nobody_needs_it() -> None:
    heard = hearing()
    heard.heard(2, 100 * MS)
    now_ms, said = 850, 0
    heard.heard(3, 840 * MS)
    while now_ms < 5100:
        heard.heard(3, now_ms * MS)
        assert heard.look(now_ms * MS) and heard.due_ns == (now_ms + 100) * MS
        now_ms, said = now_ms + 100, said + 1
    heard.heard(3, now_ms * MS)
    assert heard.look(now_ms * MS) and heard.due_ns == (now_ms + 750) * MS
    heard.begin_again(now_ms * MS)
    assert heard.due_ns == (now_ms + 100) * MS
    assert heard.look((now_ms + 100) * MS) and heard.due_ns == (now_ms + 200) * MS


def test_the_shortest_dead_time_decides_and_the_longest_how_long_it_goes_on() -> None:
    heard = hearing(0, 3000)
    heard.heard(2, 0)
    heard.heard(3, 0)
    assert heard.due_ns == 450 * MS
    assert heard.look(14_999 * MS) and heard.due_ns == 15_099 * MS
    assert heard.look(15_000 * MS) and heard.due_ns == 15_450 * MS


def test_who_is_awake_looks_early_and_is_not_woken_for_it() -> None:
    heard = hearing()
    wakes = 0
    for now_ms in range(0, 20_000, 200):
        for node_id in (2, 3):
            wakes += heard.due_ns <= now_ms * MS
            heard.heard(node_id, now_ms * MS)
            if heard.soon(now_ms * MS):
                assert not heard.look(now_ms * MS)
    assert wakes == 0


@given(st.lists(st.tuples(st.integers(2, 3), st.integers(0, 900)), max_size=40))
def test_it_is_true_what_the_others_are_told(arrivals: list[tuple[int, int]]) -> None:
    """Whenever it is due it is looked at; then everybody named was heard lately, and nobody who was is left out."""
    heard, now_ms = hearing(), 0
    last: dict[int, int] = {}
    for node_id, pause_ms in arrivals:
        end_ms = now_ms + pause_ms
        while heard.due_ns <= end_ms * MS:
            now_ns = heard.due_ns
            heard.look(now_ns)
            assert heard.due_ns > now_ns
            assert heard.hears == tuple(one for one in (2, 3) if one in last and now_ns - last[one] < 750 * MS)
        now_ms = end_ms
        heard.heard(node_id, now_ms * MS)
        last[node_id] = now_ms * MS
