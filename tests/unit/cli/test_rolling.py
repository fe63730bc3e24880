"""The rolling command against a control socket: what it asks, prints and ends with, also when it is killed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.helpers import json_reply, running, write_config

from pgvigil.ipc import frames
from pgvigil.watchdog.cli import codes, parser
from pgvigil.watchdog.cli.__main__ import main
from pgvigil.watchdog.demo.run import wait_until

Capture = pytest.CaptureFixture[str]
PGVIGIL = (sys.executable, "-m", "pgvigil.watchdog.cli")
LIMIT_S = 30.0


class Main:
    """Watchdog main as far as rolling needs it: three backends, and a log of the orders."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, ...]] = []
        self.reasons: dict[int, str] = {}
        self.refuse = ""
        self.agreed = True

    def __call__(self, request: frames.Request) -> list[frames.Reply]:
        if request.verb == "backend-list":
            return json_reply(
                request, {"agreed": self.agreed, "decided": 1, "backends": [self._backend(n) for n in range(3)]}
            )
        self.orders.append((request.verb, *request.arguments))
        number = int(request.arguments[0])
        if self.refuse:
            return [frames.Reply(request.request_id, True, False, self.refuse, b"")]
        if request.verb == "backend-detach":
            self.reasons[number] = request.arguments[1]
        else:
            self.reasons.pop(number, None)
        return [
            frames.Reply(request.request_id, False, True, "asked the leader", b""),
            frames.Reply(request.request_id, True, True, "done", b""),
        ]

    def _backend(self, number: int) -> dict[str, Any]:
        status = "down" if number in self.reasons else "up"
        pool = {"node": 1, "label": "pg01", "status": status, "role": "standby", "quarantined": False, "failed": False,
                "age_ms": 5}  # fmt: skip
        role = "standby" if number else "primary"
        return {"id": number, "host": f"db{number}", "port": 5432, "status": status, "role": role,
                "reason": self.reasons.get(number, ""), "decision": 1, "pools": [pool]}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short-named folder with a configuration that all commands of the test use, and the state folder."""
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(write_config(tmp_path)))
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path


@contextmanager
def session(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own; killed at the end if it still runs."""
    with open(folder / "out", "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            (*PGVIGIL, "rolling", *arguments), stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT_S)


def said(folder: Path) -> str:
    return (folder / "out").read_text(encoding="utf-8")


def wait_for(folder: Path, name: str) -> None:
    wait_until((folder / name).exists, LIMIT_S, f"{name}: {said(folder)}", 0.02)


def test_a_run_in_a_pipe(folder: Path, capsys: Capture) -> None:
    watchdog = Main()
    with running(folder, watchdog):
        assert main(["rolling", "--batch", "1", "--run", f"echo {{host}}:{{port}} >> {folder}/log"]) == codes.OK
    assert [(verb, number) for verb, number, *_ in watchdog.orders] == [
        ("backend-detach", "1"), ("backend-attach", "1"), ("backend-detach", "2"), ("backend-attach", "2"),
    ]  # fmt: skip
    assert watchdog.orders[0][2].startswith("rolling ")
    assert (folder / "log").read_text(encoding="utf-8") == "db1:5432\ndb2:5432\n"
    output = capsys.readouterr().out
    assert "batch 1 of 2: detaching db1:5432" in output and output.endswith("2 of 2 backends done\n")


def test_json_lines(folder: Path, capsys: Capture) -> None:
    with running(folder, Main()):
        assert main(["rolling", "--batch", "half", "--run", "true", "--json"]) == codes.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["phases"] == {"0": "skipped", "1": "detaching", "2": "waiting"} and lines[0]["after_ms"] >= 0
    assert (lines[-1]["outcome"], lines[-1]["done"], lines[-1]["state"]) == ("finished", 2, "finished")
    assert lines[-1]["rules"]["command"] == "true"


def test_a_dry_run_changes_nothing(folder: Path, capsys: Capture) -> None:
    watchdog = Main()
    with running(folder, watchdog):
        assert main(["rolling", "--batch", "2", "--run", "false", "--dry-run"]) == codes.OK
        assert "db1:5432  standby  waiting" in capsys.readouterr().out
        assert main(["rolling", "--batch", "2", "--run", "false", "--dry-run", "--json"]) == codes.OK
        assert json.loads(capsys.readouterr().out)["outcome"] == "planned"
    assert watchdog.orders == [] and not list((folder / "state").iterdir())


def test_a_failure_its_status_and_the_end_of_it(folder: Path, capsys: Capture) -> None:
    state = str(folder / "elsewhere.json")
    watchdog = Main()
    with running(folder, watchdog):
        assert main(["rolling", "--state", state, "--batch", "2", "--run", "echo hm; exit {id}"]) == codes.FAILED
        output = capsys.readouterr()
        assert "db2:5432: its command ended with status 2" in output.err and "hm" in output.out
        assert f"pgvigil rolling --state {state} --resume' goes on" in output.err
        assert main(["rolling", "--state", state, "--status"]) == codes.FAILED
        assert "unfinished, 0 of 2 backends done, batch 1 of 1, nobody works on it" in capsys.readouterr().out
        assert main(["rolling", "--state", state, "--batch", "1", "--run", "true"]) == codes.USAGE
        assert "has not ended: db1:5432, db2:5432 detached" in capsys.readouterr().err
        assert main(["rolling", "--state", state, "--resume", "--run", "exit 0", "--json"]) == codes.OK
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["outcome"] == "finished"
        assert main(["rolling", "--state", state, "--status", "--json"]) == codes.OK
        assert json.loads(capsys.readouterr().out)["state"] == "finished"
        assert main(["rolling", "--state", state, "--abandon"]) == codes.USAGE
        assert "no run to abandon: run" in capsys.readouterr().err
        assert main(["rolling", "--state", state, "--batch", "1", "--run", "true"]) == codes.OK
    assert watchdog.reasons == {}


def test_giving_up(folder: Path, capsys: Capture) -> None:
    watchdog = Main()
    with running(folder, watchdog):
        assert main(["rolling", "--batch", "1", "--run", "false"]) == codes.FAILED
        assert set(watchdog.reasons) == {1}
        assert main(["rolling", "--abandon"]) == codes.OK
        assert watchdog.reasons == {}
        assert "given up with 0 of 2 backends done" in capsys.readouterr().out
        assert main(["rolling", "--resume"]) == codes.USAGE
        assert "is abandoned" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "needs --batch and --run"),
        (("--batch", "1"), "needs --batch and --run"),
        (("--batch", "1", "--run", " "), "--run is empty"),
        (("--batch", "0", "--run", "x"), "expected half or a number"),
        (("--keep", "0", "--batch", "1", "--run", "x"), "expected a number of 1"),
        (("--resume", "--status"), "exclude each other"),
        (("--resume", "--keep", "2"), "--keep is fixed when a run begins"),
        (("--abandon", "--run", "x"), "--abandon runs nothing"),
        (("--batch", "half", "--keep", "3", "--run", "x"), "half is 1; attached now: 3, to stay so: 3"),
        (("--batch", "1", "--include-primary", "--run", "x"), "detaching db0:5432 is a failover"),
        (("--resume",), "no run to resume: there is none in"),
    ],
)
def test_mistakes(folder: Path, capsys: Capture, arguments: tuple[str, ...], text: str) -> None:
    watchdog = Main()
    with running(folder, watchdog):
        assert main(["rolling", *arguments]) == codes.USAGE
    assert text in capsys.readouterr().err and watchdog.orders == []


def test_nobody_to_ask_and_nothing_to_show(folder: Path, capsys: Capture) -> None:
    assert main(["rolling", "--batch", "1", "--run", "true"]) == codes.NOT_RUNNING
    assert main(["rolling", "--status"]) == codes.OK
    assert "no run: there is no" in capsys.readouterr().out
    watchdog = Main()
    watchdog.agreed = False
    with running(folder, watchdog):
        assert main(["rolling", "--batch", "1", "--run", "true"]) == codes.FAILED
        assert "does not know what the cluster agrees on" in capsys.readouterr().err
        watchdog.agreed, watchdog.refuse = True, "refused: pg01 leads nobody"
        assert main(["rolling", "--batch", "1", "--run", "true"]) == codes.FAILED
        assert "db1:5432: refused: pg01 leads nobody" in capsys.readouterr().err


def test_killed_in_the_middle_and_continued(folder: Path, capsys: Capture) -> None:
    """SIGKILL while a command runs: it goes on, nobody starts another one beside it, then the run is continued."""
    watchdog = Main()
    text = (
        f"echo {{id}} >> {folder}/log; touch {folder}/begun; until test -e {folder}/go; do sleep 0.05; done; echo late"
    )
    with running(folder, watchdog):
        with session(folder, "--batch", "1", "--run", text) as process:
            wait_for(folder, "begun")
            assert main(["rolling", "--status"]) == codes.OK
            assert f"process {process.pid} works on it" in capsys.readouterr().out
            assert main(["rolling", "--batch", "1", "--run", "true"]) == codes.FAILED
            assert f"at work already (process {process.pid}" in capsys.readouterr().err
            process.kill()
            process.wait(LIMIT_S)
        assert set(watchdog.reasons) == {1}
        assert main(["rolling", "--resume"]) == codes.FAILED
        assert "the command for db1:5432 still runs as process" in capsys.readouterr().err
        (folder / "go").touch()

        def resumed() -> bool:
            return main(["rolling", "--resume"]) == codes.OK

        wait_until(resumed, LIMIT_S, "the command that outlived its run to end", 0.2)
    assert watchdog.reasons == {}
    assert (folder / "log").read_text(encoding="utf-8").split() == ["1", "1", "2"], "cut short, it runs again"
    assert "its command was cut short, it runs again" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_batch_end(folder: Path, number: signal.Signals) -> None:
    watchdog = Main()
    text = f"touch {folder}/begun; until test -e {folder}/go; do sleep 0.05; done; touch {folder}/ended"
    with running(folder, watchdog), session(folder, "--batch", "1", "--run", text) as process:
        wait_for(folder, "begun")
        process.send_signal(number)
        wait_until(
            lambda: "stopping after this batch; once more: end its commands" in said(folder), LIMIT_S, "a word", 0.05
        )
        assert process.poll() is None
        (folder / "go").touch()
        assert process.wait(LIMIT_S) == codes.INTERRUPTED
    assert (folder / "ended").exists() and watchdog.reasons == {}
    assert "nothing is detached; 'pgvigil rolling --resume' goes on" in said(folder)


def test_a_second_ctrl_c_ends_the_command(folder: Path) -> None:
    watchdog = Main()
    with (
        running(folder, watchdog),
        session(folder, "--batch", "1", "--run", f"touch {folder}/begun; exec sleep 600") as process,
    ):
        wait_for(folder, "begun")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "once more" in said(folder), LIMIT_S, "the first one to be taken", 0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == codes.INTERRUPTED
    assert "db1:5432: stopped as asked; db1:5432 stay detached" in said(folder) and set(watchdog.reasons) == {1}


def test_a_reader_that_has_gone_stops_the_run_between_batches(folder: Path) -> None:
    watchdog = Main()
    read, write = os.pipe()
    with running(folder, watchdog):
        process = subprocess.Popen(
            (*PGVIGIL, "rolling", "--batch", "1", "--run", "true"), stdout=write, stderr=subprocess.DEVNULL
        )
        os.close(write)
        os.close(read)
        assert process.wait(LIMIT_S) == codes.PIPE_CLOSED
    assert watchdog.reasons == {}


def on_terminal(*arguments: str) -> tuple[int, str]:
    """The command on a terminal of 160 columns: its exit code and all that it wrote."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 160))
    without_size = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        (*PGVIGIL, "rolling", *arguments), stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**without_size, "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    try:
        while select.select([leader], [], [], LIMIT_S)[0]:
            try:
                seen += os.read(leader, 65536)
            except OSError:
                break  # nobody holds its other side any more
        return process.wait(LIMIT_S), seen.decode(errors="replace")
    finally:
        process.kill()
        process.wait(LIMIT_S)
        os.close(leader)


def test_a_terminal_gets_a_table(folder: Path) -> None:
    with running(folder, Main()):
        code, text = on_terminal("--batch", "half", "--run", "true")
    assert code == codes.OK
    for words in ("BATCH", "db2:5432", "detached everywhere", "2 of 2 backends done", "\x1b["):
        assert words in text
