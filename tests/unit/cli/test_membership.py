"""node add, remove and leave: what is asked of watchdog main, what is printed, and the exit codes that scripts read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.helpers import running, write_config

from pgvigil.ipc import frames
from pgvigil.watchdog.cli import codes, parser
from pgvigil.watchdog.cli.__main__ import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short-named folder with a configuration that all commands of the test use."""
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(write_config(tmp_path)))
    return tmp_path


def answering(asked: list[frames.Request], *replies: tuple[bool, bool, str]) -> Callable[..., list[frames.Reply]]:
    """A watchdog main that gives these replies (final, accepted, message)."""

    def answer(request: frames.Request) -> list[frames.Reply]:
        asked.append(request)
        return [frames.Reply(request.request_id, *reply, b"") for reply in replies]

    return answer


@pytest.mark.parametrize(
    ("words", "verb", "arguments"),
    [
        (("add", "pg04"), "node-add", ("pg04",)),
        (("remove", "3"), "node-remove", ("3",)),
        (("leave",), "node-leave", ()),
    ],
)
def test_what_is_asked(
    folder: Path, capsys: Capture, words: tuple[str, ...], verb: str, arguments: tuple[str, ...]
) -> None:
    asked: list[frames.Request] = []
    with running(folder, answering(asked, (False, True, "on its way"), (True, True, "pg04 is a voter now"))):
        assert main(["node", *words]) == codes.OK
    assert [(item.verb, item.arguments) for item in asked] == [(verb, arguments)]
    output = capsys.readouterr().out
    assert "on its way" in output and "ms  pg04 is a voter now" in output


@pytest.mark.parametrize(
    ("message", "outcome", "code"),
    [
        ("refused: pg04 does not follow", "refused", codes.FAILED),
        ("unknown: no answer of a leader", "unknown", codes.UNKNOWN),
    ],
)
def test_refused_is_not_unknown(folder: Path, capsys: Capture, message: str, outcome: str, code: int) -> None:
    for options in ((), ("--json",)):
        with running(folder, answering([], (True, False, message))):
            assert main(["node", "add", "pg04", *options]) == code
        output = capsys.readouterr()
        if options:
            found = json.loads(output.out)
            assert (found["outcome"], found["message"], found["action"]) == (outcome, message, "add")
        else:
            assert f"pgvigil node add: {message}" in output.err


def test_a_switchover_that_may_still_come_about_is_unknown_too(folder: Path) -> None:
    with running(folder, answering([], (True, False, "unknown: nobody has been seen taking over yet"))):
        assert main(["switchover"]) == codes.UNKNOWN


def test_leave_stops_only_a_node_that_has_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    def stop(options: object) -> int:
        stopped.append(getattr(options, "mode", ""))
        return codes.OK

    monkeypatch.setattr("pgvigil.watchdog.cli.service.stop", stop)
    with running(folder, answering([], (True, False, "refused: too few"))):
        assert main(["node", "leave", "--stop"]) == codes.FAILED
    assert stopped == []
    with running(folder, answering([], (True, True, "pg01 is no voter any more"))):
        assert main(["node", "leave", "--stop"]) == codes.OK
    assert stopped == ["smart"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add",), "add needs a node"),
        (("leave", "pg02"), "run it on pg02"),
        (("remove", "pg02", "--stop"), "--stop stops this node"),
        (("add", "x" * 300), "too long"),
    ],
)
def test_mistakes_in_the_command(folder: Path, capsys: Capture, words: tuple[str, ...], said: str) -> None:
    assert main(["node", *words]) == codes.USAGE
    assert said in capsys.readouterr().err
