"""The file of a run: what was written is what is read, nothing else is believed, and one run at a time."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.rolling.cluster import primary_and

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.rolling import journal
from pgvigil.watchdog.rolling.journal import Journal
from pgvigil.watchdog.rolling.plan import OnFailure, Phase, Plan, Rules, State, draw_up


def a_plan() -> Plan:
    rules = Rules("touch '{host}' && echo \"ü\n\"", "2", 1, False, OnFailure.LEAVE, 3, 5000, 6000)
    plan = draw_up("ab", rules, primary_and(4))
    member = replace(plan.member(1), phase=Phase.RUNNING, attempts=2, process="boot 12 34", error="x", succeeded=True)
    return replace(plan.put(member), state=State.UNFINISHED, sentence="waiting")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rolling.json"
    own = Journal(str(path))
    assert own.load() is None
    own.save(a_plan())
    own.save(replace(a_plan(), sentence="and again"))
    assert own.load() == replace(a_plan(), sentence="and again")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rolling.json", "rolling.json.lock"]
    own.close()


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "rolling.json")
    assert journal.holder(path) == 0
    first = Journal(path)
    with pytest.raises(CommandError, match=rf"at work already \(process {os.getpid()}, "):
        Journal(path)
    assert journal.holder(path) == os.getpid()
    first.close()
    assert journal.holder(path) == 0
    Journal(path).close()


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"format": 2},
        lambda value: value | {"state": "odd"},
        lambda value: value | {"sentence": 5},
        lambda value: value | {"more": 1},
        lambda value: {key: item for key, item in value.items() if key != "run_id"},
        lambda value: value | {"members": None},
        lambda value: value | {"members": [5]},
        lambda value: value | {"members": [value["members"][0] | {"phase": "lost"}]},
        lambda value: value | {"members": [value["members"][0] | {"port": "5432"}]},
        lambda value: value | {"members": [value["members"][0] | {"succeeded": 1}]},
        lambda value: value | {"rules": value["rules"] | {"batch": "0"}},
        lambda value: value | {"rules": value["rules"] | {"keep": None}},
        lambda value: [value],
        lambda value: "text",
    ],
)
def test_nothing_else_is_believed(tmp_path: Path, change: object) -> None:
    path = tmp_path / "rolling.json"
    own = Journal(str(path))
    own.save(a_plan())
    value = change(json.loads(path.read_text(encoding="ascii")))  # type: ignore[operator]
    path.write_text(json.dumps(value), encoding="ascii")
    with pytest.raises(CommandError, match="holds no state of a run that this version can read"):
        own.load()
    own.close()


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rolling.json"
    own = Journal(str(path))
    own.save(a_plan())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CommandError, match="look with 'pgvigil backend list'"):
        own.load()
    own.close()


def test_a_file_that_others_may_write_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "rolling.json"
    own = Journal(str(path))
    own.save(a_plan())
    path.chmod(0o620)
    with pytest.raises(CommandError, match=r"-rw--w---- of user \d+, expected a file that only user \d+ may write"):
        own.load()
    assert journal.load(str(path)) == a_plan()  # to look at it is no harm
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandError, match="expected a file"):
        own.load()
    own.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot lock"):
        Journal(str(tmp_path / "no" / "rolling.json"))
    own = Journal(str(tmp_path / "rolling.json"))
    (tmp_path / "rolling.json.new").mkdir()
    with pytest.raises(CommandError, match="cannot write the state of the run"):
        own.save(a_plan())
    own.close()


def test_the_outputs_of_an_earlier_run_go(tmp_path: Path) -> None:
    own = Journal(str(tmp_path / "rolling.json"))
    plan = a_plan()
    Path(own.output(plan, 1)).write_text("said", encoding="ascii")
    other = tmp_path / "rolling.json.ffff.1.log"
    other.write_text("somebody else's", encoding="ascii")
    own.remove_outputs(plan)
    assert not Path(own.output(plan, 1)).exists() and other.exists()
    own.close()
