"""pgvigil failover, failback and follow-primary: values, waiting, a watchdog main that restarts, exit codes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from tests.unit.cli.helpers import running, write_config
from tests.unit.cli.test_membership import answering

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.endpoints import control_endpoint
from pgvigil.watchdog.cli import codes, failover, parser
from pgvigil.watchdog.cli.__main__ import main

Capture = pytest.CaptureFixture[str]
WORDS = ("0", "pg-a", " 5432", "/srv/a", " 1", "pg-b", "0", "0", "5432", "/srv/b", "pg-a", "5432")
VALUES = (
    "d=0",
    "h=pg-a",
    "p=5432",
    "D=/srv/a",
    "m=1",
    "H=pg-b",
    "M=0",
    "P=0",
    "r=5432",
    "R=/srv/b",
    "N=pg-a",
    "S=5432",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(write_config(tmp_path)))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "kind"),
    [("failover", "down"), ("failback", "up"), ("follow-primary", "follow"), ("follow_primary", "follow")],
)
def test_what_is_asked(folder: Path, capsys: Capture, command: str, kind: str) -> None:
    asked: list[frames.Request] = []
    with running(
        folder, answering(asked, (False, True, "waits for consensus: 1 of 2"), (True, True, "backend 0 is down"))
    ):
        assert main([command, *WORDS]) == codes.OK
    (request,) = asked
    assert (request.verb, request.arguments[0], request.arguments[3:]) == ("backend-ask", kind, VALUES)
    assert 100_000 < int(request.arguments[1].removeprefix("timeout_ms=")) <= 119_000
    name = "follow-primary" if kind == "follow" else command
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"pgvigil {name}: waits for consensus: 1 of 2 (" in captured.err
    assert f"pgvigil {name}: backend 0 is down (" in captured.err


def test_what_pgpool_writes_when_no_node_is_left(folder: Path) -> None:
    asked: list[frames.Request] = []
    with running(folder, answering(asked, (True, True, "done"))):
        assert main(["failover", "2", "pg-c", "5434", "", "-1", "", "0", "-1", "", "", "", ""]) == codes.OK
        assert main(["failover", "--timeout", "30", "2"]) == codes.OK
    assert asked[0].arguments[7:9] == ("m=-1", "H=") and asked[0].arguments[10] == "P=-1"
    assert asked[1].arguments[3:] == ("d=2",)


def test_a_failure_is_exit_code_1_with_the_reason(folder: Path, capsys: Capture) -> None:
    with running(folder, answering([], (True, False, "no consensus: quarantined"))):
        assert main(["failover", *WORDS]) == codes.FAILED
    assert "pgvigil failover: failed: no consensus: quarantined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "%d is missing"),
        (("",), "%d is missing"),
        (("x",), "%d is 'x', expected a number"),
        (("-1",), "%d is missing"),
        (("0", "$(id)"), "%h is '$(id)'"),
        ((*WORDS, "more"), "13 values, expected at most 12"),
    ],
)
def test_mistakes_in_the_values(folder: Path, capsys: Capture, words: tuple[str, ...], said: str) -> None:
    assert main(["failover", *words]) == codes.USAGE
    assert said in capsys.readouterr().err


def test_nobody_runs(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "CONNECT_MS", 200)
    assert main(["failover", *WORDS]) == codes.NOT_RUNNING
    assert "pgvigil does not run here" in capsys.readouterr().err


def test_a_watchdog_main_without_an_answer(folder: Path, capsys: Capture) -> None:
    with running(folder, lambda _: []):
        assert main(["failover", "--timeout", "1.5", *WORDS]) == codes.FAILED
    assert "pgvigil failover: unknown: watchdog main did not answer" in capsys.readouterr().err


def test_a_watchdog_main_that_restarts_is_asked_again_with_the_same_values(folder: Path, capsys: Capture) -> None:
    """The first one takes the request and dies; the second one answers it."""
    asked: list[frames.Request] = []
    failures: list[BaseException] = []
    heard = threading.Event()

    def one_life(answer: Callable[[frames.Request], list[frames.Reply]], last: bool) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        server = ControlServer(context, control_endpoint(str(folder / "run")), print)
        assert server.socket.poll(10_000, zmq.POLLIN)
        for address, request in server.requests():
            asked.append(request)
            for reply in answer(request):
                server.reply(address, reply)
        assert not last or heard.wait(20)
        server.close()
        context.term()

    def lives() -> None:
        try:
            one_life(lambda _: [], last=False)
            one_life(answering([], (True, True, "backend 0 is down")), last=True)
        except BaseException as error:
            failures.append(error)

    begun_ns = boottime_ns()
    thread = threading.Thread(target=lives)
    thread.start()
    assert main(["failover", *WORDS]) == codes.OK
    heard.set()
    thread.join(10)
    assert failures == []
    first, second = asked
    assert first.arguments[3:] == second.arguments[3:] == VALUES and first.request_id == second.request_id
    asked_ns = int(first.arguments[2].removeprefix("asked_ns="))
    assert first.arguments[2] == second.arguments[2] and begun_ns <= asked_ns <= boottime_ns()  # that of the first
    assert "backend 0 is down" in capsys.readouterr().err
