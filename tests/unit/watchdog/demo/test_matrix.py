"""The matrix as a table: nothing that was promised is missing, every limit has its reason, results read back."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, groupby
from pathlib import Path

import pytest

from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog.demo.matrix import faults_machine, moments
from pgvigil.watchdog.demo.matrix import row as rows
from pgvigil.watchdog.demo.matrix.__main__ import Report
from pgvigil.watchdog.demo.matrix.case import Case, Role, Timing
from pgvigil.watchdog.demo.matrix.cases import KINDS, all_cases, select
from pgvigil.watchdog.demo.matrix.ground import Setting
from pgvigil.watchdog.demo.matrix.history import Fault, Judgement, Wrong

FAULTS = {
    *("cable-out", "cable-in", "unplug", "peers-out", "peers-in", "peers-both", "flap-300ms", "loss30-cable"),
    *("loss30-nodes", "path0-both", "path0-out", "path0-in", "path1-unplug", "path1-flap-300ms"),
    *(
        "slow-disk-30ms",
        "slow-disk-100ms",
        "full-disk",
        "busy-2",
        "busy-8",
        "short-of-memory",
        "clock-plus-1h",
        "clock-minus-1h",
    ),
    *("delete-tables", "flush-ruleset", "remove-vip", "add-vip", "delete-run-dir", "delete-pid-file"),
    *("reload-kill-supervisor-5ms", "reload-kill-supervisor-50ms", "kill-all", "stop-all"),
}


def test_no_case_is_there_twice() -> None:
    names = Counter(case.name for case in all_cases())
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("what", ["kill", "stop"])
@pytest.mark.parametrize("role", [Role.LEADER, Role.STANDBY])
def test_every_process_and_every_pair_is_killed_and_stopped(what: str, role: Role) -> None:
    played = {case.fault for case in all_cases() if case.role is role and case.timing is Timing.STEADY}
    singles = {f"{what}-{kind}" for kind in KINDS}
    pairs = {f"{what}-{one}+{two}" for one, two in combinations(KINDS, 2)}
    assert len(singles) == 5 and len(pairs) == 10
    assert singles | pairs <= played


def test_every_other_fault_is_there() -> None:
    assert {case.fault for case in all_cases()} >= FAULTS


def test_processes_and_links_fail_during_hand_overs_and_elections_too() -> None:
    for timing in (Timing.HAND_OVER, Timing.ELECTION):
        played = {case.fault for case in all_cases() if case.timing is timing}
        assert {"kill-main", "kill-supervisor", "stop-main", "peers-both", "cable-in", "loss30-nodes"} <= played


def test_what_a_standby_suffers_alone_must_not_be_noticed() -> None:
    for case in all_cases():
        if case.role is Role.STANDBY and case.timing is Timing.STEADY:
            assert case.limit.ms == 0, case.name


def test_a_lost_leader_costs_a_second_and_a_half_at_most_unless_a_reason_says_more() -> None:
    for case in all_cases():
        assert case.limit.why
        if case.limit.ms > 1500:
            assert len(case.limit.why) > 40, f"{case.name}: {case.limit}"


def test_cases_of_one_setting_follow_one_another() -> None:
    """A ground is dear: each setting builds one, as long as all cases hold."""
    settings = [case.setting for case in all_cases()]
    assert [setting for setting, _ in groupby(settings)] == list(Setting)


def test_cases_are_picked_by_part_or_pattern() -> None:
    assert {case.name for case in select("unplug/leader/steady path1-unplug/leader")} == {
        "unplug/leader/steady",
        "path1-unplug/leader/steady",
        "path1-unplug/leader/hand-over",
    }
    assert {case.role for case in select("kill-*/candidate/*")} == {Role.CANDIDATE}
    assert len(select("")) == len(all_cases())
    with pytest.raises(ConfigError, match="nosuchcase"):
        select("nosuchcase")


# results


def _case() -> Case:
    return select("unplug/leader/steady")[0]


def _judgement(*faults: Fault, two: int = 0) -> Judgement:
    return Judgement(1234.5, 600, two, (1, 2), (2,), 12.0, 3.0, faults)


def test_a_row_tells_case_limit_outage_and_verdict() -> None:
    row = rows.row_of(_case(), _judgement(), "a note", 4.2, 0.5)
    assert row.holds and not row.is_only_slow
    cells = rows.line(row).split()
    assert cells[:9] == ["unplug", "leader", "steady", "1500", "ms", "1234", "ms", "0", "holds"]
    assert "(a note)" in rows.line(row)


def test_a_row_knows_whether_only_speed_is_wrong() -> None:
    slow, two = Fault(Wrong.SLOW, "slow"), Fault(Wrong.TWO, "TWO NODES ANSWERED")
    assert rows.row_of(_case(), _judgement(slow), "", 0, 0).is_only_slow
    both = rows.row_of(_case(), _judgement(slow, two, two=3), "", 0, 0)
    assert not both.holds and not both.is_only_slow
    assert "TWO NODES ANSWERED" in rows.line(both) and " 3 " in rows.line(both)


def test_a_case_that_was_not_played_has_failed() -> None:
    row = rows.row_of_error(_case(), "no such namespace", 0)
    assert not row.holds and not row.is_only_slow
    assert "not played: no such namespace" in rows.line(row)


def test_rows_are_saved_as_they_come_and_summed_up_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    report = Report(2, path)
    report.add(rows.row_of(_case(), _judgement(), "", 0, 0))
    assert [row["case"] for row in json.loads(path.read_text())["rows"]] == ["unplug/leader/steady"]
    assert not report.holds, "one of two was not played"
    report.add(rows.row_of(_case(), _judgement(Fault(Wrong.TWO, "TWO"), two=7), "", 0, 0))
    report.finish()
    shown = capsys.readouterr().out
    assert "2 of 2 cases played" in shown
    assert "instants with two nodes answering: 7" in shown
    assert "FAILED unplug/leader/steady: TWO; allowed 1500 ms because: the leader is lost" in shown
    assert not report.holds
    saved = json.loads(path.read_text())["rows"][1]
    assert saved["wrong"] == ["TWO"] and saved["outage_ms"] == 1234.5


# small parts


def test_only_what_was_appended_to_a_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert moments.read_from(path, 0) == b""
    path.write_bytes(b"old asks for pre-votes\n")
    size = moments.size_of(path)
    assert moments.read_from(path, size) == b""
    with open(path, "ab") as file:
        file.write(b"new\n")
    assert moments.read_from(path, size) == b"new\n"


def test_filling_stops_at_a_disk_that_is_larger_than_expected(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="expected a small disk"):
        faults_machine.fill(tmp_path / "filler")
    assert list(tmp_path.iterdir()) == []
