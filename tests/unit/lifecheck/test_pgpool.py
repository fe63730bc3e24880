"""The pgpool-II probe against real processes: ends, zombies, stops, restarts, reused pids, odd pid files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.pgpool import CHECK_INTERVAL_NS, PgpoolProbe, parse_pid
from pgvigil.lifecheck.probes.reading import Reading

DEADTIME_NS = NS_PER_S


class Pgpool:
    """A process that does nothing, with a pid file as pgpool-II writes it."""

    def __init__(self, folder: Path) -> None:
        self.pid_file = folder / "pgpool.pid"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(["sleep", "600"])
        self.write(b"%d\0" % self.process.pid)
        return self.process

    def write(self, content: bytes) -> None:
        self.pid_file.write_bytes(content)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Bench:
    """A probe in a real loop; the time given to `tick` may run ahead of the clock."""

    def __init__(self, pid_file: Path) -> None:
        self.loop = Loop()
        self.changes: list[Reading] = []
        self.now_ns = boottime_ns()
        self.probe = PgpoolProbe(str(pid_file), DEADTIME_NS, self.loop, self.changes.append, self.now_ns)

    def check(self, later_ms: int = 0) -> Reading:
        self.now_ns += later_ms * NS_PER_MS
        self.probe.tick(self.now_ns)
        return self.probe.reading

    def until(self, condition: Callable[[], bool]) -> int:
        """Milliseconds until the condition held, with the loop going round and no tick at all."""
        start_ns = boottime_ns()
        while not condition():
            assert boottime_ns() - start_ns < 5 * NS_PER_S
            self.loop.run_once(50 * NS_PER_MS)
        return (boottime_ns() - start_ns) // NS_PER_MS


@pytest.fixture
def pgpool(tmp_path: Path) -> Iterator[Pgpool]:
    fake = Pgpool(tmp_path)
    yield fake
    fake.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "pgpool.pid")
    yield bench
    bench.probe.close()
    bench.loop.close()


def test_a_running_process_is_alive_from_the_first_reading(pgpool: Pgpool, bench: Bench) -> None:
    assert bench.probe.reading.health is Health.UNKNOWN
    reading = bench.check()
    assert reading.health is Health.ALIVE
    assert reading.evidence == f"pgpool-II (pid {pgpool.process.pid}) runs"
    assert bench.probe.wake() == bench.now_ns + CHECK_INTERVAL_NS


def test_its_death_is_known_within_milliseconds(pgpool: Pgpool, bench: Bench) -> None:
    bench.check()
    pgpool.process.kill()  # not waited for: it is a zombie when it is noticed
    waited_ms = bench.until(lambda: bench.probe.reading.health is Health.DEAD)
    assert waited_ms < 100
    assert bench.probe.reading.evidence == f"pgpool-II (pid {pgpool.process.pid}) has ended"
    assert [reading.health for reading in bench.changes] == [Health.ALIVE, Health.DEAD]


def test_a_zombie_in_the_pid_file_is_dead(pgpool: Pgpool, bench: Bench) -> None:
    pgpool.process.kill()
    os.waitid(os.P_PID, pgpool.process.pid, os.WEXITED | os.WNOWAIT)
    reading = bench.check()
    assert reading.health is Health.DEAD
    assert "zombie" in reading.evidence


def test_a_restart_is_followed(pgpool: Pgpool, bench: Bench) -> None:
    bench.check()
    pgpool.stop()
    assert bench.check(500).health is Health.DEAD
    first = pgpool.process.pid
    pgpool.start()
    reading = bench.check(500)
    assert reading.health is Health.ALIVE
    assert str(pgpool.process.pid) in reading.evidence and pgpool.process.pid != first


def test_a_new_process_replaces_one_that_still_runs(pgpool: Pgpool, bench: Bench) -> None:
    bench.check()
    old = pgpool.process
    pgpool.start()
    assert str(pgpool.process.pid) in bench.check(500).evidence
    old.kill()
    old.wait()
    bench.loop.run_once(10 * NS_PER_MS)
    assert bench.probe.reading.health is Health.ALIVE


def test_a_stopped_process_is_dead_after_the_dead_time_and_alive_again_when_continued(
    pgpool: Pgpool, bench: Bench
) -> None:
    bench.check()
    pgpool.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, pgpool.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert bench.check(500).health is Health.ALIVE
    assert bench.check(999).health is Health.ALIVE
    assert bench.probe.wake() == bench.now_ns + NS_PER_MS
    reading = bench.check(1)
    assert reading.health is Health.DEAD
    assert "stopped by a signal for 1000 ms" in reading.evidence
    pgpool.process.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, pgpool.process.pid, os.WCONTINUED | os.WNOWAIT)
    assert bench.check(500).health is Health.ALIVE


def test_our_own_lateness_does_not_kill_a_stopped_process(pgpool: Pgpool, bench: Bench) -> None:
    bench.check()
    pgpool.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, pgpool.process.pid, os.WSTOPPED | os.WNOWAIT)
    bench.check(500)
    bench.probe.late(3000 * NS_PER_MS)
    assert bench.check(3100).health is Health.ALIVE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\0\n", "is empty"),
        (b"abc\n", "holds 'abc"),
        (b"0", "holds '0'"),
        (b"-5", "holds '-5'"),
        (b"99999999999999999999", "expected a process id"),
        (b"1 2", "expected a process id"),
        (b" " * 100 + b"1", "is empty"),
        ("\u0664".encode(), "expected a process id"),
        (b"\xff\xfe", "expected a process id"),
    ],
)
def test_odd_pid_files_are_dead_with_a_reason(tmp_path: Path, bench: Bench, content: bytes, reason: str) -> None:
    (tmp_path / "pgpool.pid").write_bytes(content)
    reading = bench.check()
    assert reading.health is Health.DEAD
    assert reason in reading.evidence


def test_a_missing_pid_file_a_folder_and_a_fifo_are_dead_with_a_reason(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "pgpool.pid"
    assert "does not exist" in bench.check().evidence
    path.mkdir()
    assert "cannot be read: Is a directory" in bench.check(500).evidence
    path.rmdir()
    os.mkfifo(path)
    assert bench.check(500).health is Health.DEAD


def test_a_pid_that_runs_no_more_is_dead_with_a_reason(pgpool: Pgpool, bench: Bench) -> None:
    pgpool.stop()
    reading = bench.check()
    assert reading.health is Health.DEAD
    assert f"no process {pgpool.process.pid}, named in " in reading.evidence


def test_a_reused_pid_is_not_pgpool(pgpool: Pgpool, bench: Bench) -> None:
    os.utime(pgpool.pid_file, (1, 1))  # written long before the process of this pid was started
    reading = bench.check()
    assert reading.health is Health.DEAD
    assert "is sleep now, started after the file" in reading.evidence


def test_a_process_called_pgpool_is_believed_whatever_the_wall_clock_says(tmp_path: Path, bench: Bench) -> None:
    program = tmp_path / "pgpool"
    program.symlink_to(sys.executable)
    process = subprocess.Popen([str(program), "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "pgpool.pid").write_bytes(b"%d" % process.pid)
        os.utime(tmp_path / "pgpool.pid", (1, 1))
        assert bench.check().health is Health.ALIVE
        process.kill()


def test_a_pid_file_that_vanishes_does_not_kill_a_process_that_is_known(pgpool: Pgpool, bench: Bench) -> None:
    bench.check()
    pgpool.pid_file.unlink()
    reading = bench.check(500)
    assert reading.health is Health.ALIVE
    assert "but pid file" in reading.evidence and "does not exist" in reading.evidence
    pgpool.process.kill()
    bench.until(lambda: bench.probe.reading.health is Health.DEAD)
    assert "does not exist" in bench.check(500).evidence


def test_parse_pid_takes_what_pgpool_writes() -> None:
    assert parse_pid(b"1234\0", "f") == 1234
    assert parse_pid(b"1234\n", "f") == 1234
    with pytest.raises(CommandError):
        parse_pid(b"12a", "f")
