"""The table of lifecheck as a program: nothing promised is missing, sentences are read back, verdicts are judged."""

from __future__ import annotations

import dataclasses
import datetime
import json
import struct
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.lifecheck import row as rows
from pgvigil.watchdog.demo.lifecheck.__main__ import Report
from pgvigil.watchdog.demo.lifecheck.case import LONG, SHORT, Case, Move, Says, Speaker
from pgvigil.watchdog.demo.lifecheck.cases import all_cases, select
from pgvigil.watchdog.demo.lifecheck.ground import Setting
from pgvigil.watchdog.demo.lifecheck.hold import startup_message
from pgvigil.watchdog.demo.lifecheck.sentences import JUDGE, STATUS, Sentence, parse, status_sentences
from pgvigil.watchdog.demo.lifecheck.verdict import Seen, find, judge
from pgvigil.watchdog.demo.matrix.case import Role
from pgvigil.watchdog.demo.matrix.history import Fault, Judgement
from pgvigil.watchdog.demo.matrix.history import Wrong as HistoryWrong
from pgvigil.watchdog.demo.records import Outage

PROMISED = {
    *("pgpool-killed", "pgpool-stopped", "out-of-connections", "firewalled-from-peers", "backend-down"),
    *("wrong-password", "one-path-cut", "both-paths-cut", "link-down", "upstream-gone", "full-load", "loss-30"),
}
CALM_POOL = Outage(gap_ms=12.0, lost=0, asked=100, owners=(78,), prober_gap_ms=10.0)
HOST = Host("n1", "space", "to-n1", "02:77:00:00:00:01", "10.77.0.11", Path("/nowhere"), 1)


def case(name: str) -> Case:
    (found,) = (one for one in all_cases() if one.name == name)
    return found


def said(text: str, node: str = "n1", at_s: float = 100.5, process: str = JUDGE) -> Sentence:
    return Sentence(at_s, node, process, text)


def history(
    owners: tuple[int, ...] = (1,), outage_ms: float = 0.0, lost: int = 0, faults: tuple[Fault, ...] = ()
) -> Judgement:
    return Judgement(outage_ms, lost, 0, owners, owners[-1:], 0.0, 2.5, faults)


def seen(sentences: Iterable[Sentence], found: Judgement, restarted: bool = False) -> Seen:
    return Seen(("n1",), 100.0, "n1", tuple(sentences), found, restarted)


def kinds(of: Case, what: Seen) -> list[str]:
    return [kind for kind, _ in judge(of, what).wrong]


# the table


def test_every_fault_of_the_issue_is_there() -> None:
    assert {one.fault for one in all_cases()} >= PROMISED


def test_no_case_is_there_twice_and_cases_of_one_setting_follow_one_another() -> None:
    names = [one.name for one in all_cases()]
    assert len(set(names)) == len(names)
    assert [setting for setting, _ in groupby(one.setting for one in all_cases())] == list(Setting)


def test_a_case_without_a_sentence_lasts_five_minutes() -> None:
    silent = [one for one in all_cases() if one.says is None]
    assert {one.fault for one in silent} == {"full-load", "loss-30"}
    assert all((one.lasts_s(LONG), one.lasts_s(SHORT)) == (300, 20) for one in silent)
    assert all(one.lasts_s(SHORT) < one.lasts_s(LONG) < 20 for one in all_cases() if one.says is not None)


def test_a_leader_that_stays_must_not_lose_a_question() -> None:
    for one in all_cases():
        assert (one.move is Move.NEVER) == (one.limit.ms == 0), one.name


def test_cases_are_picked_by_part_or_pattern() -> None:
    assert [one.name for one in select("pgpool-killed/leader link-*")] == ["pgpool-killed/leader", "link-down/leader"]
    assert len(select("")) == len(all_cases())
    with pytest.raises(ConfigError, match="nosuchcase"):
        select("nosuchcase")


# sentences


def test_a_log_line_is_read_back() -> None:
    line = "2026-11-21T10:00:00.250+01:00 n2 lifecheck[4711] WARNING node n1 dead: silent on eth0 for 1004 ms"
    sentence = parse(line)
    assert sentence is not None
    nine = datetime.datetime(2026, 11, 21, 9, 0, 0, 250_000, datetime.UTC)
    assert sentence == Sentence(nine.timestamp(), "n2", JUDGE, "node n1 dead: silent on eth0 for 1004 ms")
    assert sentence.is_death and not sentence.is_hand_over


@pytest.mark.parametrize(
    "line", ["", "Traceback (most recent call last):", "yesterday n2 lifecheck[1] INFO x", "2026-11-21T10:00:00 n2 li"]
)
def test_what_is_no_log_line_is_passed_over(line: str) -> None:
    assert parse(line) is None


def test_only_lifecheck_gives_verdicts_of_death() -> None:
    assert said("pgpool is dead: gone").is_death
    assert not said("pgpool is dead: gone", process="watchdog main").is_death
    assert not said("node n2 alive: heard on eth0; eth1 has been dead for long").is_death
    assert not said("path eth1 to n2 dead: silent for 1004 ms; this alone moves nothing").is_death


def test_a_hand_over_is_known_by_its_sentence_and_never_from_the_status() -> None:
    text = "hands over: its pgpool-II is dead: pgpool-II (pid 7) has ended"
    assert said(text, process="watchdog main").is_hand_over
    assert not said(text, process=STATUS).is_hand_over


def test_every_text_of_a_status_document_is_a_sentence() -> None:
    raw = json.dumps({"nodes": [{"evidence": "silent on eth1 for 7 ms", "id": 1}], "sentence": "leads"})
    assert [one.text for one in status_sentences(HOST, raw, 1.0)] == ["silent on eth1 for 7 ms", "leads"]
    assert status_sentences(HOST, "", 1.0) == []


def test_the_first_sentence_of_the_right_speaker_counts() -> None:
    says = Says(Speaker.OTHER, r"\b{struck} is dead: ")
    talk = [said("n1 is dead: x", "n1"), said("n10 is dead: x", "n2"), said("n1 is dead: y", "n3")]
    assert find(says, ("n1",), talk) is talk[2]
    assert find(Says(Speaker.STRUCK, "dead"), ("n1",), talk) is talk[0]
    assert find(Says(Speaker.STRUCK, "nothing of it"), ("n1",), talk) is None


# judging

DIED = "pgpool is dead: pgpool-II (pid 7) has ended"
GIVEN = "hands over: its pgpool-II is dead: pgpool-II (pid 7) has ended"


def test_a_case_holds_when_the_sentence_was_said_and_the_leader_moved() -> None:
    found = judge(case("pgpool-killed/leader"), seen([said(DIED)], history((1, 2), 31.0, 15)))
    assert found.wrong == ()
    assert found.after_ms == pytest.approx(500)
    assert found.leads_at_last == "n2"


def test_a_sentence_that_nobody_said_fails() -> None:
    assert kinds(case("pgpool-killed/leader"), seen([], history((1, 2)))) == ["UNSAID"]


def test_a_leader_that_stayed_fails() -> None:
    assert kinds(case("pgpool-killed/leader"), seen([said(DIED)], history((1,)))) == ["STAYED"]


def test_a_verdict_beside_the_right_one_fails() -> None:
    talk = [said(DIED), said("node n3 dead: silent on eth0 for 1001 ms", "n2")]
    found = judge(case("pgpool-killed/leader"), seen(talk, history((1, 2))))
    assert [kind for kind, _ in found.wrong] == ["FALSE"]
    assert found.false == (talk[1],)


def test_what_a_case_excuses_is_no_false_verdict() -> None:
    ill = [said(DIED), said("pgpool is dead: query refused"), said("pgpool of n1 is dead from here: refused", "n2")]
    assert kinds(case("pgpool-killed/leader"), seen(ill, history((1, 2)))) == []
    well = [said("pgpool is dead: query refused", "n2"), said("pgpool of n3 is dead from here: refused", "n1")]
    assert kinds(case("pgpool-killed/leader"), seen([*ill, *well], history((1, 2)))) == ["FALSE", "FALSE"]
    both = "silent on eth0 for 1001 ms and on eth1 for 1002 ms"
    talk = [said(f"node n1 dead: {both}", "n2"), said(f"node n2 dead: {both}", "n1")]
    assert kinds(case("both-paths-cut/leader"), seen(talk, history((1, 3)))) == []
    assert kinds(case("full-load/all"), seen(talk, history((1, 3)))) == ["FALSE", "FALSE"]


def test_a_hand_over_that_a_verdict_caused_fails_where_none_may_be() -> None:
    given = said(GIVEN, process="watchdog main")
    assert kinds(case("full-load/all"), seen([given], history((1, 2)))) == ["HANDED_OVER"]
    assert kinds(case("full-load/all"), seen([], history((1, 2)))) == [], "a lease may run out under full load"
    assert kinds(case("pgpool-killed/leader"), seen([said(DIED), given], history((1, 2)))) == []


def test_a_process_that_was_restarted_fails() -> None:
    assert kinds(case("full-load/all"), seen([], history(), restarted=True)) == ["RESTARTED"]


def test_what_the_history_shows_fails_first() -> None:
    two = Fault(HistoryWrong.TWO, "TWO NODES ANSWERED")
    assert kinds(case("pgpool-killed/leader"), seen([], history((1, 2), faults=(two,)))) == ["TWO", "UNSAID"]


# rows


def test_a_row_tells_sentence_time_and_what_the_cluster_did() -> None:
    one = case("pgpool-killed/leader")
    what = seen([said(DIED)], history((1, 2), 31.4, 15))
    row = rows.row_of(one, what, judge(one, what), dataclasses.replace(CALM_POOL, gap_ms=1234, lost=7), 4.0, 0.5)
    assert row.holds
    assert row.cluster == "leader n1 -> n2, VIP away 31 ms, pgpool-II away 1.2 s"
    assert "500 ms" in rows.line(row) and f"n1: {DIED}" in rows.line(row)
    (*_, cells) = rows.markdown([row]).splitlines()
    assert cells == f"| pgpool-killed | leader | n1: {DIED} | 500 ms | {row.cluster} |"


def test_a_row_of_nothing_says_nothing() -> None:
    one = case("full-load/all")
    what = seen([], history())
    row = rows.row_of(one, what, judge(one, what), CALM_POOL, 300.0, 4.0)
    assert (row.holds, row.cluster, row.after_ms) == (True, "nothing", None)
    assert "| full-load | all, for 300 s | nothing | - | nothing |" in rows.markdown([row])


def test_an_outage_without_a_move_is_told() -> None:
    one = case("pgpool-killed/standby")
    what = seen([said(DIED)], history((2,), 18.0, 3, (Fault(HistoryWrong.SLOW, "18 ms without an answer"),)))
    row = rows.row_of(one, what, judge(one, what), CALM_POOL, 4.0, 0.5)
    assert row.cluster == "leader as before, VIP away 18 ms"
    assert not row.holds and "**FAILED: 18 ms without an answer**" in rows.markdown([row])


def test_rows_are_saved_as_they_come_and_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    report = Report(2, path)
    one = case("full-load/all")
    what = seen([], history())
    report.add(rows.row_of(one, what, judge(one, what), CALM_POOL, 300.0, 4.0))
    assert [row["case"] for row in json.loads(path.read_text())["rows"]] == ["full-load/all"]
    assert not report.holds, "one of two was not played"
    report.add(rows.row_of_error(case("loss-30/all"), "no ground: broken", 0))
    report.finish()
    shown = capsys.readouterr().out
    assert "2 of 2 cases played, failed: loss-30/all" in shown
    assert "not played: no ground: broken" in shown
    assert not report.holds


def test_a_startup_message_says_its_own_length() -> None:
    message = startup_message("postgres", "template1")
    assert struct.unpack_from("!ii", message) == (len(message), 196608)
    assert message[8:] == b"user\0postgres\0database\0template1\0\0"


def test_only_the_leader_and_a_standby_and_all_are_struck() -> None:
    assert {one.role for one in all_cases()} == {Role.LEADER, Role.STANDBY, Role.ALL}
