"""When lifecheck reports, and which complaints it passes on."""

from __future__ import annotations

from pgvigil.ipc import frames
from pgvigil.ipc.frames import Health, PathTrouble
from pgvigil.lifecheck.process import MAX_TROUBLES, REPEAT_NS, Reporter, TroubleTable
from pgvigil.watchdog.beliefs import STALE_NS

MS = 1_000_000


def test_reports_are_eager_for_a_second_then_calm() -> None:
    reporter = Reporter(0)
    assert reporter.due_ns == 0
    reporter.sent(True, 10 * MS)
    assert reporter.due_ns == 60 * MS
    reporter.sent(True, 1000 * MS)
    assert reporter.due_ns == 1000 * MS + REPEAT_NS
    assert 2 * REPEAT_NS < STALE_NS


def test_news_is_reported_in_the_same_round() -> None:
    reporter = Reporter(0)
    reporter.sent(True, 1500 * MS)
    reporter.news(1600 * MS)
    assert reporter.due_ns == 1600 * MS


def test_a_refused_report_is_repeated_until_taken_and_eagerly_afterwards() -> None:
    reporter = Reporter(0)
    reporter.sent(False, 5000 * MS)
    assert reporter.due_ns == 5020 * MS
    reporter.sent(True, 5020 * MS)
    assert reporter.due_ns == 5070 * MS


def test_troubles_are_kept_while_they_are_repeated() -> None:
    table = TroubleTable()
    table.take("receiver", PathTrouble(0, 2, 1, "forged"), 0)
    table.take("sender", PathTrouble(0, 2, 1, "unreachable"), 0)
    table.take("receiver", PathTrouble(0, 2, 2, "forged again"), 10_000 * MS)
    assert [trouble.reason for trouble in table.current(14_000 * MS)] == ["forged again", "unreachable"]
    assert [trouble.reason for trouble in table.current(16_000 * MS)] == ["forged again"]
    table.take("receiver", PathTrouble(0, 2, 2, ""), 17_000 * MS)
    assert table.current(17_000 * MS) == ()


def test_the_table_has_a_limit() -> None:
    table = TroubleTable()
    for number in range(2 * MAX_TROUBLES):
        table.take("receiver", PathTrouble(0, number, 1, "x"), 0)
    assert len(table.current(0)) == MAX_TROUBLES


def test_all_troubles_fit_into_one_frame_however_long_their_reasons_are() -> None:
    table = TroubleTable()
    for number in range(MAX_TROUBLES):
        table.take("receiver", PathTrouble(0, number, 1, "x" * 8000), 0)
    verdicts = frames.Verdicts(0, Health.ALIVE, 0, "runs", (), table.current(0))
    assert frames.unpack(frames.pack(verdicts, "lifecheck", 1, 1)).frame == verdicts
