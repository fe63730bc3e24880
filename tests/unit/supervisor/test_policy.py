"""Restart rules: tables for what an operator is promised, properties for what must always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.watchdog.supervisor import policy
from pgvigil.watchdog.supervisor.policy import NS_PER_MS, GiveUp, History, Restart, Rules

MS = NS_PER_MS
RULES = Rules(hang_ns=4000 * MS)


@pytest.mark.parametrize(
    ("in_a_row", "pause_ms"),
    [(0, 0), (1, 0), (2, 100), (3, 200), (4, 400), (5, 800), (8, 6400), (9, 10_000), (10, 10_000), (10**9, 10_000)],
)
def test_the_first_restart_is_at_once_and_the_pauses_double_up_to_ten_seconds(in_a_row: int, pause_ms: int) -> None:
    assert policy.backoff_ns(in_a_row, RULES) == pause_ms * MS


@pytest.mark.parametrize(
    ("ran_ms", "in_a_row"),
    [(None, 6), (0, 6), (4999, 6), (5000, 1), (10**9, 1)],
)
def test_a_good_run_forgets_the_past(ran_ms: int | None, in_a_row: int) -> None:
    ran_ns = None if ran_ms is None else ran_ms * MS
    history, verdict = policy.after_exit(History(in_a_row=5, restarts=9), ran_ns, 10**12, False, RULES)
    assert (history.in_a_row, history.restarts) == (in_a_row, 10)
    assert verdict == Restart(10**12 + policy.backoff_ns(in_a_row, RULES))


def failures(count: int, every_ms: int, vital: bool, ran_ms: int | None = None) -> policy.Verdict:
    """The verdict after so many failures at equal distances."""
    history, verdict, now_ns = History(), Restart(0), 10**12
    for _ in range(count):
        ran_ns = None if ran_ms is None else ran_ms * MS
        history, given_verdict = policy.after_exit(history, ran_ns, now_ns, vital, RULES)
        now_ns += every_ms * MS
        verdict = given_verdict  # type: ignore[assignment]
    return verdict


@pytest.mark.parametrize(
    ("count", "every_ms", "vital", "gives_up"),
    [
        (7, 1, True, False),
        (8, 1, True, True),
        (8, 4_285, True, True),  # the first is 29,995 ms ago
        (8, 4_286, True, False),  # the first is 30,002 ms ago and no longer counts
        (1000, 4_286, True, False),
        (1000, 1, False, False),
    ],
)
def test_only_a_vital_child_that_fails_eight_times_in_thirty_seconds_ends_the_node(
    count: int, every_ms: int, vital: bool, gives_up: bool
) -> None:
    assert isinstance(failures(count, every_ms, vital), GiveUp) is gives_up


def test_a_vital_child_killed_every_six_seconds_is_always_back_at_once() -> None:
    verdict = failures(50, 6000, True, ran_ms=5990)
    assert verdict == Restart(10**12 + 49 * 6000 * MS)


def test_giving_up_says_how_often_and_how_fast() -> None:
    verdict = failures(8, 1000, True)
    assert verdict == GiveUp("8 failures within 7.0 s, at most 7 in 30 s are tried")


@pytest.mark.parametrize(
    ("ready", "age_ms", "silent_ms", "reason"),
    [
        (False, 9_999, 9_999, None),
        (False, 10_000, 0, "not ready after 10.0 s, at most 10.0 s are given"),
        (True, 10**6, 3_999, None),
        (True, 10**6, 4_000, "no sign of life for 4000 ms, at most 4000 ms are given"),
    ],
)
def test_who_must_die(ready: bool, age_ms: int, silent_ms: int, reason: str | None) -> None:
    now_ns = 10**15
    assert policy.must_die(now_ns - age_ms * MS, ready, now_ns - silent_ms * MS, now_ns, RULES) == reason


@given(st.integers(0, 10**12), st.booleans(), st.integers(0, 10**12), st.integers(1, 10**11))
def test_a_child_must_die_from_its_deadline_on_and_never_before(
    started_ns: int, ready: bool, life_ns: int, hang_ns: int
) -> None:
    rules = Rules(hang_ns=hang_ns)
    deadline_ns = policy.death_deadline_ns(started_ns, ready, life_ns, rules)
    assert policy.must_die(started_ns, ready, life_ns, deadline_ns - 1, rules) is None
    assert policy.must_die(started_ns, ready, life_ns, deadline_ns, rules) is not None


@pytest.mark.parametrize(("away_ms", "doubts"), [(0, False), (1999, False), (2000, True), (10**7, True)])
def test_a_supervisor_that_was_away_judges_nobody(away_ms: int, doubts: bool) -> None:
    assert policy.must_doubt_itself(away_ms * MS, RULES) is doubts


@given(st.integers(500, 600_000))
def test_the_beats_fit_into_the_time_that_counts_as_hung(hang_ms: int) -> None:
    rules = Rules(hang_ns=hang_ms * MS)
    assert 0 < rules.life_interval_ns * 2 < rules.hang_ns
    assert not policy.must_doubt_itself(rules.beat_ns, rules)
    # What is too short for the supervisor to notice is too short for a child to be judged for.
    assert rules.hang_ns // 2 + rules.life_interval_ns <= rules.hang_ns


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 10**11), st.integers(0, 10**11)), min_size=1, max_size=60),
    st.booleans(),
)
def test_any_history(story: list[tuple[int | None, int]], vital: bool) -> None:
    history, now_ns = History(), 10**12
    for number, (ran_ns, pause_ns) in enumerate(story, 1):
        history, verdict = policy.after_exit(history, ran_ns, now_ns, vital, RULES)
        assert history.restarts == number
        assert 1 <= history.in_a_row <= number
        assert len(history.failed_at_ns) <= RULES.vital_failures
        if isinstance(verdict, Restart):
            assert now_ns <= verdict.at_ns <= now_ns + RULES.backoff_limit_ns
        else:
            assert vital
            return
        now_ns = verdict.at_ns + pause_ns


def test_a_first_start_is_lost_after_three_failures_in_a_row() -> None:
    assert [policy.start_has_failed(History(in_a_row=n), RULES) for n in (1, 2, 3)] == [False, False, True]
