"""The runner with real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.runner import KEPT_BYTES, Result, Runner, arguments


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def run(loop: Loop, *commands: str | list[str], timeout_ms: int = 5000) -> list[Result]:
    runner, results = Runner(loop), list[Result]()
    for number, command in enumerate(commands):
        runner.start(f"command {number}", command, timeout_ms, results.append)
    deadline_ns = boottime_ns() + 10_000 * NS_PER_MS
    while len(results) < len(commands):
        assert boottime_ns() < deadline_ns, results
        loop.run_once(10 * NS_PER_MS)
    assert runner.running == 0
    return results


def test_status_and_output(loop: Loop) -> None:
    (result,) = run(loop, "echo one; echo two >&2; exit 3")
    assert (result.exit_status, result.signal, result.timed_out) == (3, None, False)
    assert result.output == "one\ntwo\n"
    assert result.describe().startswith("command 0 ended with status 3 after ")
    assert result.describe().endswith(": one | two")
    assert not result.succeeded


def test_words_are_not_given_to_a_shell(loop: Loop) -> None:
    (result,) = run(loop, ["echo", "$HOME", ";", "true"])
    assert result.output == "$HOME ; true\n" and result.succeeded
    assert arguments("a b") == ["/bin/sh", "-c", "a b"]


def test_a_command_of_its_own_session_without_input(loop: Loop) -> None:
    (result,) = run(loop, "cat; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat")
    assert int(result.output) not in (os.getsid(0), 0)


def test_endless_output_is_read_and_dropped(loop: Loop) -> None:
    (result,) = run(loop, "head -c 5000000 /dev/zero | tr '\\0' x")
    assert result.succeeded and result.output == "x" * KEPT_BYTES


def test_the_time_limit_ends_the_whole_group(loop: Loop) -> None:
    (result,) = run(loop, "sleep 77 & echo $!; wait", timeout_ms=100)
    assert result.timed_out and not result.succeeded and "time limit" in result.describe()
    deadline_ns = boottime_ns() + 1_000 * NS_PER_MS
    while alive(int(result.output)):
        assert boottime_ns() < deadline_ns


def test_who_ignores_sigterm_is_killed(loop: Loop) -> None:
    (result,) = run(loop, "trap '' TERM; echo on; while true; do sleep 0.05; done", timeout_ms=100)
    assert result.timed_out and result.signal == 9 and result.output == "on\n"
    assert result.duration_ms >= 1000


def test_what_runs_on_in_the_background_is_not_waited_for(loop: Loop) -> None:
    (result,) = run(loop, "sleep 3 & echo done")
    assert result.succeeded and result.duration_ms < 2000


def test_what_cannot_be_started_is_answered_too(loop: Loop) -> None:
    (result,) = run(loop, ["/no/such/program"])
    assert result.exit_status is None and "could not be started" in result.describe()
    assert "No such file" in result.describe()


def test_many_at_once(loop: Loop) -> None:
    results = run(loop, *[f"exit {number}" for number in range(20)])
    assert sorted(result.exit_status or 0 for result in results) == list(range(20))


def test_control_characters_do_not_reach_the_log(loop: Loop) -> None:
    (result,) = run(loop, "printf '\\033[31mred\\007'")
    assert result.describe().endswith(": ?[31mred?")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_limit_is_drawn_nearer_for_one_kind_of_command_only(loop: Loop) -> None:
    runner, results = Runner(loop), list[Result]()
    runner.start("slow", "sleep 77", 60_000, results.append)
    runner.start("other", "sleep 0.3", 60_000, results.append)
    runner.limit("slow", boottime_ns() + 50 * NS_PER_MS)
    runner.limit("slow", boottime_ns() + 60_000 * NS_PER_MS)  # never farther
    deadline_ns = boottime_ns() + 20_000 * NS_PER_MS
    while len(results) < 2:
        assert boottime_ns() < deadline_ns, results
        loop.run_once(10 * NS_PER_MS)
    assert {result.label: result.timed_out for result in results} == {"slow": True, "other": False}
