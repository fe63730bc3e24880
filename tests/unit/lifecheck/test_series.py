"""Series of answers: what ends one, and from when an answer counts."""

from __future__ import annotations

import pytest

from pgvigil.lifecheck.core.series import NEVER, Seen, Series
from pgvigil.lifecheck.settings import split_upstream


def test_answers_make_a_series_from_the_first_question_on() -> None:
    series = Series(gap_ns=500)
    assert series.seen == NEVER
    assert [series.answered(at_ns, "yes").since_ns for at_ns in (1000, 1200, 1699)] == [1000] * 3
    assert series.seen == Seen(1699, 1000, "yes")


def test_one_failed_question_ends_it() -> None:
    series = Series(gap_ns=500)
    series.answered(1000, "yes")
    assert series.failed("refused") == Seen(0, 0, "refused")
    assert series.answered(1100, "yes") == Seen(1100, 1100, "yes")


def test_a_time_without_questions_ends_it() -> None:
    series = Series(gap_ns=500)
    series.answered(1000, "yes")
    assert series.answered(1500, "yes") == Seen(1500, 1500, "yes")


@pytest.mark.parametrize("value", ["10.0.0.254:0", "10.0.0.254:65536", "[fd00::1]:-1", "10.0.0.254:", "[fd00::1]"])
def test_a_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        split_upstream(value)


def test_addresses_with_and_without_a_port() -> None:
    told = ("10.0.0.254", "10.0.0.254:443", "fd00::1", "[fd00::1]:443")
    assert [split_upstream(value) for value in told] == [
        ("10.0.0.254", 0), ("10.0.0.254", 443), ("fd00::1", 0), ("fd00::1", 443),
    ]  # fmt: skip
