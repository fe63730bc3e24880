"""Real commands: their text, gate, limits and output."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.rolling import command
from pgvigil.watchdog.rolling.command import Commands, Ended, Job, filled
from pgvigil.watchdog.rolling.decide import Stopping

LIMIT_S = 20.0


def job(folder: Path, number: int, text: str, limit_ms: int = 60_000) -> Job:
    return Job(number, text, {**os.environ, "FOLDER": str(folder)}, str(folder / f"{number}.log"), limit_ms)


class Watching:
    """Runs jobs and remembers; `stop_when` is a file whose appearance is the wish to stop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: dict[int, str] = {}
        self.ended: dict[int, Ended] = {}
        self.stop_when: tuple[str, Stopping] = ("never", Stopping.NO)

    def run(self, *jobs: Job, at_once: int = 9) -> None:
        Commands(self._stopping, lambda: None).run(jobs, at_once, self.started.__setitem__, self._end)

    def _stopping(self) -> Stopping:
        name, wish = self.stop_when
        return wish if (self.folder / name).exists() else Stopping.NO

    def _end(self, ended: Ended) -> None:
        self.ended[ended.backend_id] = ended


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("load {host} {port} {id}", "load pg01 5432 3"),
        ("x{host}", "x{host}"),
        ("--to={host}:{port}", "--to=pg01:5432"),
        ("echo ${host} ${id} {name} {} '{port}'", "echo ${host} ${id} {name} {} '5432'"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    assert filled(text, "pg01", 5432, 3) == expected


def test_a_host_is_quoted_for_the_shell() -> None:
    text = filled("printf %s {host}", "/run/my sockets; echo $(id)", 1, 0)
    done = subprocess.run(text, shell=True, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stdout == "/run/my sockets; echo $(id)"


def test_good_and_bad_ends_and_what_they_said(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.run(
        job(tmp_path, 1, "echo well; cat; echo $FOLDER"),
        job(tmp_path, 2, "echo no >&2; exit 3"),
        job(tmp_path, 3, "kill -9 $$"),
        job(tmp_path, 4, "no-such-command-here"),
    )
    errors = {number: ended.error for number, ended in watching.ended.items()}
    assert errors == {
        1: "",
        2: "its command ended with status 3",
        3: "its command was ended by signal 9",
        4: "its command ended with status 127",
    }
    assert command.tail(str(tmp_path / "1.log")) == f"well\n{tmp_path}"
    assert command.tail(str(tmp_path / "2.log")) == "no"
    assert (tmp_path / "1.log").stat().st_mode & 0o777 == 0o600
    assert "cannot be read" in command.tail(str(tmp_path / "9.log"))


def test_it_is_known_before_it_begins(tmp_path: Path) -> None:
    """The gate: while `started` has not returned nothing runs, and if it fails nothing ever does."""
    seen: list[bool] = []
    begun = tmp_path / "begun"

    def started(number: int, process: str) -> None:
        pid = command.still_runs(process)
        assert pid and os.getpgid(pid) == pid != os.getpgid(0)
        seen.append(begun.exists())
        if number == 2:
            raise OSError("disk full")

    commands = Commands(lambda: Stopping.NO, lambda: None)
    with pytest.raises(OSError, match="disk full"):
        commands.run([job(tmp_path, 2, f"touch {begun}")], 1, started, lambda ended: None)
    assert not begun.exists()
    commands.run([job(tmp_path, 1, f"touch {begun}")], 1, started, lambda ended: None)
    assert begun.exists() and seen == [False, False]


def test_a_gate_whose_keeper_died_stays_shut(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    done = subprocess.run(
        ("/bin/sh", "-c", command.GATE, "gate", f"touch {begun}"), stdin=subprocess.DEVNULL, timeout=LIMIT_S
    )
    assert done.returncode == 125 and not begun.exists()


def test_the_limit_ends_the_whole_group(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.run(job(tmp_path, 1, "sleep 600 & echo $! > $FOLDER/child; wait", limit_ms=300))
    assert watching.ended[1].error == "stopped at its limit of 0.3 s"
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not command.identity(child), LIMIT_S, "the child of the command to end")


def test_one_that_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TERM_GRACE_NS", 200_000_000)
    watching = Watching(tmp_path)
    watching.stop_when = ("ready", Stopping.NOW)
    watching.run(job(tmp_path, 1, "trap '' TERM; touch $FOLDER/ready; while :; do sleep 0.1; done"))
    assert watching.ended[1].error == "stopped as asked"


def test_some_at_once_and_none_begins_after_the_wish_to_stop(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.stop_when = ("2.done", Stopping.AFTER_BATCH)
    text = "test -e $FOLDER/busy && exit 9; touch $FOLDER/busy; sleep 0.1; rm $FOLDER/busy; touch $FOLDER/{id}.done"
    jobs = [job(tmp_path, number, filled(text, "h", 1, number)) for number in (1, 2, 3)]
    watching.run(*jobs, at_once=1)
    assert [ended.error for ended in watching.ended.values()] == ["", ""] and set(watching.started) == {1, 2}


def test_output_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_OUTPUT_BYTES", 1000)
    watching = Watching(tmp_path)
    path = tmp_path / "1.log"
    # It goes on until it sees its output cut, and then says one thing more.
    line, size = "x" * 99, "$(stat -c %s $FOLDER/1.log)"
    text = f"while [ {size} -ge ${{n:-0}} ]; do n={size}; echo {line}; sleep 0.01; done; echo end"
    watching.run(job(tmp_path, 1, text))
    assert watching.ended[1].error == "" and command.tail(str(path)).endswith("end") and path.stat().st_size < 1000


def test_a_process_is_known_beyond_its_number() -> None:
    child = subprocess.Popen(("sleep", "600"))
    try:
        process = command.identity(child.pid)
        boot, pid, begun = process.split(" ")
        assert command.still_runs(process) == child.pid
        assert command.still_runs(f"{boot} {pid} {int(begun) + 1}") == 0
        assert command.still_runs(f"another-boot {pid} {begun}") == 0
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(LIMIT_S)
    assert command.still_runs(process) == 0
    assert [command.still_runs(text) for text in ("", "a b c", "a 1", process + " x")] == [0, 0, 0, 0]
