"""The commands against a lock and a control socket: what they print and which exit code they end with."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from tests.unit.cli.helpers import json_reply, running, status, write_config

from pgvigil.ipc import frames
from pgvigil.ipc.clock import boottime_ns
from pgvigil.watchdog.cli import codes, parser
from pgvigil.watchdog.cli.__main__ import main

PGVIGIL = (sys.executable, "-m", "pgvigil.watchdog.cli")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PGVIGIL, *arguments], capture_output=True, text=True, timeout=20, env={**os.environ, **environment}
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short-named folder with a configuration that all commands of the test use."""
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(write_config(tmp_path)))
    monkeypatch.delenv("PGVIGIL_NODE_ID", raising=False)
    return tmp_path


Capture = pytest.CaptureFixture[str]


def test_every_command_has_help_with_an_example(capsys: Capture) -> None:
    for command in parser.COMMANDS:
        assert main([command.name, "--help"]) == codes.OK
        text = capsys.readouterr().out
        assert "example" in text and f"pgvigil {command.name}" in text.replace("-c new.toml --node-id 2 ", "")


def test_usage_mistakes(capsys: Capture) -> None:
    for argv, said in (
        (["statsu"], "did you mean 'status'?"),
        (["stop", "-m", "smrt"], "did you mean 'smart'?"),
        (["node", "ad", "pg02"], "did you mean 'add'?"),
        (["stop", "--timeout", "0"], "more than 0"),
        (["stop", "--timeout", "x"], "invalid seconds value"),
        (["--node-id", "0", "status"], "1 to 127"),
        (["status", "--jso"], "unrecognized"),
        ([], "COMMAND"),
    ):
        assert main(argv) == codes.USAGE
        assert said in capsys.readouterr().err


def test_global_options_stand_before_or_after_the_command(folder: Path, capsys: Capture) -> None:
    path = str(folder / "pgvigil.toml")
    for argv in (["-c", path, "--node-id", "1", "check"], ["check", "--config", path, "--node-id", "1"]):
        assert main(argv) == codes.OK
        assert f"{path}: no mistakes, 2 warnings; this is node 1" in capsys.readouterr().out
    assert main(["check", "--node-id", "9"]) == codes.USAGE


def test_check_prints_a_normal_form_that_passes_the_check(folder: Path, capsys: Capture) -> None:
    assert main(["check", "--print"]) == codes.OK
    again = folder / "again.toml"
    again.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["-c", str(again), "check"]) == codes.OK
    assert "lease_ms = 1000" in again.read_text(encoding="utf-8")


def test_keygen_writes_once_and_only_for_its_owner(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "key"
    assert main(["keygen", str(path)]) == codes.OK
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["keygen", str(path)]) == codes.FAILED
    assert "not overwritten" in capsys.readouterr().err
    assert path.read_bytes() == first
    assert main(["keygen"]) == codes.OK
    assert len(capsys.readouterr().out.strip()) == 44
    assert main(["keygen", str(tmp_path / "no" / "key")]) == codes.FAILED


@pytest.mark.parametrize("argv", [["status"], ["stop"], ["reload"], ["switchover"], ["bootstrap"], ["node", "leave"]])
def test_a_node_that_does_not_run(folder: Path, capsys: Capture, argv: list[str]) -> None:
    assert main(argv) == codes.NOT_RUNNING
    output = capsys.readouterr()
    assert "does not run here" in output.out + output.err


def test_status_shows_what_watchdog_main_says(folder: Path, capsys: Capture) -> None:
    with running(folder, lambda request: json_reply(request, status())):
        assert main(["status"]) == codes.OK
        assert capsys.readouterr().out.startswith("pg01: leads")
        assert main(["status", "--json"]) == codes.OK
        value = json.loads(capsys.readouterr().out)
        assert (value["running"], value["supervisor_pid"], value["leader_id"]) == (True, os.getpid(), 1)
    with running(folder, lambda request: json_reply(request, status(leader_id=None))):
        assert main(["status"]) == codes.UNKNOWN


def test_status_without_an_answer_or_with_nonsense(folder: Path, capsys: Capture) -> None:
    with running(folder):
        assert main(["status"]) == codes.UNKNOWN
        assert f"process {os.getpid()} runs" in capsys.readouterr().out
    with running(folder, lambda request: [frames.Reply(request.request_id, True, True, "", b"[1]")]):
        assert main(["status"]) == codes.UNKNOWN
        assert "no JSON object" in capsys.readouterr().out


def test_a_broken_file_does_not_hide_a_running_node(folder: Path, capsys: Capture) -> None:
    path = folder / "pgvigil.toml"
    path.write_text(path.read_text(encoding="utf-8") + "\n[[[", encoding="utf-8")
    with running(folder, lambda request: json_reply(request, status())):
        assert main(["status"]) == codes.OK
    assert f"looking into {folder}/run" in capsys.readouterr().err


def test_status_watch_in_a_pipe_prints_a_line_per_change(folder: Path) -> None:
    terms = iter([7, 7, 7, 8])

    def answer(request: frames.Request) -> list[frames.Reply]:
        return json_reply(request, status(term=next(terms, 9)))

    with running(folder, answer):
        process = subprocess.Popen([*PGVIGIL, "status", "--watch"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == codes.OK
        process.stdout.close()
    assert [line.partition("term ")[2][:1] for line in lines] == ["7", "8", "9"]


@pytest.mark.timeout(300)
def test_status_watch_on_a_terminal_is_live_until_ctrl_c(folder: Path) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 160))
    # pytest-xdist tells its workers a size that would go before that of the terminal.
    without_size = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    with running(folder, lambda request: json_reply(request, status())):
        process = subprocess.Popen(
            [*PGVIGIL, "status", "-w"], stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env={**without_size, "TERM": "xterm"},
        )  # fmt: skip
        os.close(follower)
        try:
            seen = b""
            while b"event 1" not in seen:
                assert select.select([leader], [], [], 60)[0], seen
                seen += os.read(leader, 65536)
            process.send_signal(signal.SIGINT)
            drain = threading.Thread(target=_drain, args=(leader,))
            drain.start()
            assert process.wait(60) == codes.OK
            drain.join(60)
        finally:
            process.kill()
            process.wait(10)
    os.close(leader)
    assert b"pg01: leads" in seen
    assert b"Traceback" not in seen


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:
        pass  # the terminal's other side has gone


def test_switchover_shows_progress_and_the_end(folder: Path, capsys: Capture) -> None:
    def answer(request: frames.Request) -> list[frames.Reply]:
        if request.arguments == ("pg09",):
            return [frames.Reply(request.request_id, True, False, "no node 'pg09', expected one of 1 (pg01)", b"")]
        return [
            frames.Reply(request.request_id, False, True, f"{request.verb} {request.arguments}: closing the gate", b""),
            frames.Reply(request.request_id, True, True, "pg02 leads", b""),
        ]

    with running(folder, answer):
        assert main(["switchover", "pg02"]) == codes.OK
        assert "('pg02',): closing the gate\n" in (out := capsys.readouterr().out) and "pg02 leads\n" in out
        assert main(["switchover", "pg09"]) == codes.FAILED
        assert "expected one of 1 (pg01)" in capsys.readouterr().err
        assert main(["bootstrap"]) == codes.OK
        assert "bootstrap ()" in capsys.readouterr().out
        assert main(["switchover", "x" * 300]) == codes.USAGE


def test_reload_tells_what_the_supervisor_said(folder: Path, capsys: Capture) -> None:
    state: dict[str, object] = {"at_ns": 0, "accepted": True, "message": "none"}
    told = {"accepted": True, "message": "reloaded, nothing changed"}
    previous = signal.signal(signal.SIGHUP, lambda *_: state.update(told, at_ns=boottime_ns()))
    try:
        with running(folder, lambda request: json_reply(request, state)):
            assert main(["reload"]) == codes.OK
            assert "nothing changed" in capsys.readouterr().out
            told.update(accepted=False, message="refused: the key cannot change")
            assert main(["reload"]) == codes.FAILED
            assert "the key cannot change" in capsys.readouterr().err
            write_config(folder, 'log_levl = "info"\n')
            assert main(["reload"]) == codes.FAILED
            assert "did you mean 'log_level'?" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGHUP, previous)


HOLDER = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from pgvigil.watchdog.supervisor.pidfile import PidFile
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = PidFile.take(sys.argv[1])
print("held", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(("mode", "number"), [("smart", 15), ("fast", 2), ("immediate", 3)])
def test_stop_sends_the_signal_of_its_mode_and_waits(folder: Path, capsys: Capture, mode: str, number: int) -> None:
    with _holder(folder, "") as process:
        assert main(["stop", "-m", mode]) == codes.OK
        assert f"stopped process {process.pid} ({mode}) in" in capsys.readouterr().out
        assert process.wait(5) == -number


def test_stop_gives_up_after_its_time_limit(folder: Path, capsys: Capture) -> None:
    with _holder(folder, "deaf") as process:
        assert main(["stop", "--timeout", "0.2"]) == codes.FAILED
        assert f"process {process.pid} has not ended within 0.2 s" in capsys.readouterr().err
        assert process.poll() is None


class _holder:
    """Another process that holds the lock until it is told to end."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder / "run"), kind],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def __enter__(self) -> subprocess.Popen[str]:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_start_refuses_mistakes_before_anything_else(folder: Path, capsys: Capture) -> None:
    write_config(folder, "[vip]\naddresses = 1\n")
    assert main(["start", "--foreground"]) == codes.USAGE
    assert "1 mistake, not started" in capsys.readouterr().err
    assert not (folder / "state").exists()


def test_a_closed_pipe_and_ctrl_c_end_without_a_traceback(folder: Path) -> None:
    with running(folder, lambda request: json_reply(request, status())):
        process = subprocess.Popen(
            [*PGVIGIL, "status", "--watch", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == codes.PIPE_CLOSED
        assert process.stderr.read() == ""
        process.stderr.close()


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from pgvigil.watchdog.cli.__main__ import main; main(['--version']); "
        "print([name for name in ('zmq', 'rich', 'psutil', 'toml', 'msgpack', 'daemon') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    answer = run("--version")
    assert (answer.returncode, answer.stdout) == (0, "pgvigil 0.1.0\n")
