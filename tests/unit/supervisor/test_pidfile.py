"""The pid file: what counts is the lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog.supervisor import pidfile
from pgvigil.watchdog.supervisor.pidfile import AlreadyRunning, PidFile


def test_taken_named_released(tmp_path: Path) -> None:
    held = PidFile.take(str(tmp_path))
    assert pidfile.holder(str(tmp_path)) == os.getpid()
    assert (tmp_path / "pgvigil.pid").read_text().splitlines()[0] == str(os.getpid())
    with pytest.raises(AlreadyRunning, match=f"already running: pid {os.getpid()} holds .*pgvigil stop"):
        PidFile.take(str(tmp_path), wait_ns=0)
    held.release()
    assert pidfile.holder(str(tmp_path)) is None
    PidFile.take(str(tmp_path)).release()


@pytest.mark.parametrize("content", ["", "1\n1\n", "999999999\n5\n", "nonsense", "\0" * 5000, "-1 -1"])
def test_what_stands_in_an_unlocked_file_does_not_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "pgvigil.pid").write_text(content)
    assert pidfile.holder(str(tmp_path)) is None
    PidFile.take(str(tmp_path)).release()


def test_a_pid_that_was_given_to_another_process_is_not_named(tmp_path: Path) -> None:
    held = PidFile.take(str(tmp_path))
    os.pwrite(held.fd, f"{os.getpid()}\n{pidfile.start_time_of(os.getpid()) - 1}\n".encode(), 0)
    assert pidfile.holder(str(tmp_path)) is None
    with pytest.raises(AlreadyRunning, match="handing over"):
        PidFile.take(str(tmp_path), wait_ns=0)
    held.release()


def test_nothing_there(tmp_path: Path) -> None:
    assert pidfile.holder(str(tmp_path / "missing")) is None
    with pytest.raises(ConfigError, match="No such file"):
        PidFile.take(str(tmp_path / "missing"))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pgvigil.pid").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match=r"pgvigil\.pid"):
        PidFile.take(str(tmp_path))
    assert not (tmp_path / "victim").exists()


def test_a_deleted_file_is_put_back(tmp_path: Path) -> None:
    held = PidFile.take(str(tmp_path))
    assert held.is_in_place()
    os.unlink(held.path)
    assert not held.is_in_place()
    held.put_back()
    assert held.is_in_place()
    assert pidfile.holder(str(tmp_path)) == os.getpid()
    held.release()


def test_a_deleted_file_that_another_start_holds_is_reported(tmp_path: Path) -> None:
    held = PidFile.take(str(tmp_path))
    os.unlink(held.path)
    other = PidFile.take(str(tmp_path))
    with pytest.raises(CommandError, match=f"was deleted and pid {os.getpid()} holds its successor"):
        held.put_back()
    held.release()
    other.release()


def test_a_child_that_inherited_the_lock_keeps_it(tmp_path: Path) -> None:
    held = PidFile.take(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], pass_fds=[held.fd], stdin=subprocess.PIPE, text=True
    ) as child:
        os.close(held.fd)
        with pytest.raises(AlreadyRunning):
            PidFile.take(str(tmp_path), wait_ns=0)
        child.communicate("\n")
    PidFile.take(str(tmp_path)).release()


def test_start_times() -> None:
    assert pidfile.start_time_of(os.getpid()) > 0
    assert pidfile.start_time_of(2**22 + 1) == 0
