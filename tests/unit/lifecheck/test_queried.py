"""Life points: what makes a pgpool-II dead in the eyes of the query, what does not, and how it comes back."""

from __future__ import annotations

import pytest

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.answers import Answer, Outcome
from pgvigil.lifecheck.core.query import QueriedPgpool

S = 1_000_000_000


def told(pgpool: QueriedPgpool, *answers: Answer, others_answer: bool = False, start_s: int = 1) -> list[Health]:
    """One answer a second; the health after each."""
    healths = []
    for number, answer in enumerate(answers, start_s):
        pgpool.take(Outcome(answer, answer.value), number * S, number * S + S // 2, others_answer)
        healths.append(pgpool.health)
    return healths


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.FULL, Answer.HANGS])
def test_the_proxys_faults_cost_life_points(answer: Answer) -> None:
    pgpool = QueriedPgpool(3, 0)
    healths = told(pgpool, Answer.FINE, answer, answer, answer, answer)
    assert healths == [Health.ALIVE, Health.ALIVE, Health.ALIVE, Health.DEAD, Health.DEAD]
    assert pgpool.since_ns == 4 * S + S // 2
    assert pgpool.evidence == f"{answer.value} (4 failures in a row, for 3500 ms)"


def test_one_answer_gives_all_life_points_back() -> None:
    pgpool = QueriedPgpool(2, 0)
    assert told(pgpool, Answer.HANGS, Answer.FINE, Answer.HANGS, Answer.HANGS)[-2:] == [Health.ALIVE, Health.DEAD]
    assert told(pgpool, Answer.FINE, start_s=5) == [Health.ALIVE]


def test_what_was_never_answered_is_unknown_until_its_life_points_are_gone() -> None:
    pgpool = QueriedPgpool(2, 0)
    assert told(pgpool, Answer.REFUSED, Answer.REFUSED) == [Health.UNKNOWN, Health.DEAD]


def test_a_failure_that_does_not_kill_says_how_many_would() -> None:
    pgpool = QueriedPgpool(3, 0)
    told(pgpool, Answer.FINE, Answer.HANGS)
    assert pgpool.evidence == "query timed out (1 of 3 failures that make it dead)"


def test_a_missing_backend_is_not_the_proxys_fault() -> None:
    assert told(QueriedPgpool(1, 0), *[Answer.NO_BACKEND] * 5) == [Health.ALIVE] * 5


@pytest.mark.parametrize("answer", [Answer.OPERATOR, Answer.OURS])
def test_faults_of_operator_and_ourselves_are_no_verdict(answer: Answer) -> None:
    pgpool = QueriedPgpool(1, 0)
    assert told(pgpool, Answer.REFUSED, answer, answer) == [Health.DEAD, Health.UNKNOWN, Health.UNKNOWN]


def test_silence_behind_the_proxy_counts_only_while_others_answer() -> None:
    all_silent = QueriedPgpool(2, 0)
    assert told(all_silent, *[Answer.SILENT_BEHIND] * 4) == [Health.ALIVE] * 4
    assert all_silent.evidence.endswith("no other does, so a backend hangs")
    alone = QueriedPgpool(2, 0)
    assert told(alone, *[Answer.SILENT_BEHIND] * 2, others_answer=True) == [Health.UNKNOWN, Health.DEAD]
    assert "while others do" in alone.evidence
    assert told(alone, Answer.SILENT_BEHIND, start_s=3) == [Health.ALIVE]


def test_it_tells_changes_only() -> None:
    pgpool = QueriedPgpool(1, 0)
    fine, refused = Outcome(Answer.FINE, "fine"), Outcome(Answer.REFUSED, "refused")
    assert [pgpool.take(one, 0, S, False) for one in (fine, fine, refused, refused, fine)] == [
        True, False, True, False, True,
    ]  # fmt: skip
