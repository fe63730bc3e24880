"""pgvigil backend: what is asked, what is shown to people and to programs, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.helpers import json_reply, running, status, write_config
from tests.unit.cli.test_membership import answering
from tests.unit.pcp.terminal import Terminal

from pgvigil.ipc import frames
from pgvigil.watchdog.cli import backend_render, codes, inform, parser, render
from pgvigil.watchdog.cli.__main__ import main

Capture = pytest.CaptureFixture[str]


def pool(label: str, state: str, **changes: Any) -> dict[str, Any]:
    return {"node": 1, "label": label, "status": state, "role": "standby", "quarantined": False, "failed": False,
            "age_ms": 200} | changes  # fmt: skip


LIST: dict[str, Any] = {
    "backends": [
        {"id": 0, "host": "pg-a", "port": 5432, "status": "up", "role": "primary", "reason": "", "decision": 0,
         "pools": [pool("pg01", "up"), pool("pg02", "waiting")]},
        {"id": 1, "host": "pg-b", "port": 5432, "status": "down", "role": "standby", "reason": "detached by alice",
         "decision": 4, "pools": [pool("pg01", "down", quarantined=True), pool("pg02", "up", age_ms=9000)]},
    ],
    "decided": 4, "agreed": True, "decisions": [],
    "pools": [{"node": 3, "label": "pg03", "age_ms": 0, "problem": "PCP is not reached"}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(write_config(tmp_path)))
    monkeypatch.setattr(inform, "reporter", lambda: "alice")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "verb", "arguments"),
    [
        (("attach", "pg-a:5432"), "backend-attach", ("pg-a:5432", "attached by alice")),
        (("detach", "1", "--reason", "new disk"), "backend-detach", ("1", "detached by alice: new disk")),
        (("promote", "pg-b"), "backend-promote", ("pg-b", "promoted by alice")),
        (("promote", "1", "--switchover"), "backend-promote", ("1", "promoted by alice", "switchover")),
    ],
)
def test_what_is_asked(
    folder: Path, capsys: Capture, words: tuple[str, ...], verb: str, arguments: tuple[str, ...]
) -> None:
    asked: list[frames.Request] = []
    with running(
        folder, answering(asked, (False, True, "the failover command runs"), (True, True, "backend 1 is down"))
    ):
        assert main(["backend", *words]) == codes.OK
    assert [(item.verb, item.arguments) for item in asked] == [(verb, arguments)]
    output = capsys.readouterr().out
    assert "ms  the failover command runs" in output and "ms  backend 1 is down" in output


@pytest.mark.parametrize(
    ("message", "outcome", "code"),
    [("no leader to ask", "refused", codes.FAILED), ("unknown: it may still come", "unknown", codes.UNKNOWN)],
)
def test_a_refusal_is_no_unknown_outcome(folder: Path, capsys: Capture, message: str, outcome: str, code: int) -> None:
    with running(folder, answering([], (True, False, message))):
        assert main(["backend", "detach", "1"]) == code
        assert f"pgvigil backend detach: {message}" in capsys.readouterr().err
        assert main(["backend", "detach", "1", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["action"], found["outcome"], found["message"]) == ("detach", outcome, message)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "1"), "list takes neither a backend nor a reason"),
        (("detach",), "detach needs a backend"),
        (("attach", "1", "--switchover"), "--switchover with attach"),
        (("detach", "1", "--reason", "x" * 301), "the reason has 301 letters"),
    ],
)
def test_mistakes_in_the_command_are_found_before_anybody_is_asked(
    folder: Path, capsys: Capture, words: tuple[str, ...], said: str
) -> None:
    assert main(["backend", *words]) == codes.USAGE
    assert said in capsys.readouterr().err


def test_nothing_runs(folder: Path, capsys: Capture) -> None:
    for words in (("detach", "1"), ("list",)):
        assert main(["backend", *words]) == codes.NOT_RUNNING
        assert "pgvigil does not run here" in capsys.readouterr().err


def test_the_list_for_programs(folder: Path, capsys: Capture) -> None:
    with running(folder, lambda request: json_reply(request, LIST)):
        assert main(["backend", "list", "--json"]) == codes.OK
        assert json.loads(capsys.readouterr().out) == LIST
        assert main(["backend", "list"]) == codes.OK
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t") == ["0", "pg-a:5432", "up", "primary", "yes", "pg01 up, pg02 waiting", "0", "-"]
    assert second.split("\t")[4:6] == ["no", "pg01 quarantined, pg02 unknown"]


def test_a_list_that_nobody_has_agreed_on_is_said_to_be_so(folder: Path) -> None:
    with running(folder, lambda request: json_reply(request, LIST | {"agreed": False})):
        assert main(["backend", "list", "--json"]) == codes.UNKNOWN


def test_the_list_for_people() -> None:
    page = backend_render.page(LIST | {"agreed": False}, Terminal())
    head, *rows = page.splitlines()
    assert [word for word in backend_render.HEAD if word not in head] == []
    assert "detached by alice" in rows[1] and "not known to be agreed" in rows[2]
    assert "the pgpool-II of pg03 is not known: PCP is not reached" in rows[3]


@pytest.mark.parametrize("value", [{}, {"backends": None}, {"backends": [1, {}]}, {"backends": [{"pools": [3, {}]}]}])
def test_a_list_of_another_version_is_shown_as_far_as_it_goes(value: dict[str, Any]) -> None:
    assert backend_render.lines(value, colour=False)


def test_what_other_nodes_say_does_not_steer_the_terminal() -> None:
    hostile = {"backends": [LIST["backends"][0] | {"host": "\x1b[2J", "reason": "a\nb"}], "agreed": True}
    assert "\x1b" not in "".join(backend_render.lines(hostile, colour=False))
    assert len(backend_render.lines(hostile, colour=False)) == 2


def test_the_status_has_the_backends_once_there_are_some() -> None:
    page = render.page(render.Reading(1, status(backends=LIST), ""))
    assert "POOLS AGREE" in page and "pg01 quarantined" in page
    assert "POOLS AGREE" not in render.page(render.Reading(1, status(backends={"backends": []}), ""))
