"""A deleted run directory is made again, and nobody is restarted for nothing."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvigil.ipc import log
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.ready import Link
from pgvigil.watchdog.supervisor import pidfile
from pgvigil.watchdog.supervisor.child import Child
from pgvigil.watchdog.supervisor.children import ChildSpec
from pgvigil.watchdog.supervisor.pidfile import PidFile
from pgvigil.watchdog.supervisor.rundir import RunDir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def held(folder: Path) -> Iterator[PidFile]:
    held = PidFile.take(str(folder))
    yield held
    held.release()


def child(*sockets: Path) -> Child:
    """A child that has bound these and is older than what happens next."""
    made = Child(ChildSpec("lifecheck", _never, None, False, 1, (), tuple(map(str, sockets))))
    made.started_ns = boottime_ns()
    for path in sockets:
        path.touch()
    return made


def _never(_settings: object, _link: Link, _interval_ns: int) -> int:
    raise AssertionError("this child is never started")


def test_what_is_in_place_is_left_alone(folder: Path, held: PidFile) -> None:
    run_dir, own = RunDir(str(folder), held), child(folder / "lifecheck.ipc")
    before = folder.stat()
    assert run_dir.mend()
    assert folder.stat() == before and not run_dir.lacks_sockets_of(own)


def test_a_deleted_folder_is_made_again_with_a_held_pid_file(folder: Path, held: PidFile) -> None:
    run_dir, own = RunDir(str(folder), held), child(folder / "lifecheck.ipc")
    shutil.rmtree(folder)
    assert pidfile.holder(str(folder)) is None
    assert run_dir.mend()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert pidfile.holder(str(folder)) == os.getpid()
    assert run_dir.lacks_sockets_of(own)
    own.started_ns = boottime_ns()
    (folder / "lifecheck.ipc").touch()
    assert run_dir.mend() and not run_dir.lacks_sockets_of(own)


def test_a_child_without_sockets_is_not_restarted(folder: Path, held: PidFile) -> None:
    run_dir, receiver = RunDir(str(folder), held), child()
    shutil.rmtree(folder)
    assert run_dir.mend() and not run_dir.lacks_sockets_of(receiver)


def test_a_folder_that_somebody_else_has_put_there_is_not_the_old_one(folder: Path, held: PidFile) -> None:
    """A second start, for example, with sockets of its own under our names."""
    run_dir, own = RunDir(str(folder), held), child(folder / "lifecheck.ipc")
    shutil.rmtree(folder)
    folder.mkdir(0o755)
    (folder / "lifecheck.ipc").touch()
    assert run_dir.mend() and run_dir.lacks_sockets_of(own)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_deleted_socket_alone_is_seen(folder: Path, held: PidFile) -> None:
    run_dir, own = RunDir(str(folder), held), child(folder / "watchdog.ipc", folder / "control.ipc")
    (folder / "control.ipc").unlink()
    assert run_dir.mend() and run_dir.lacks_sockets_of(own)


def test_a_deleted_pid_file_alone_restarts_nobody(folder: Path, held: PidFile) -> None:
    run_dir, own = RunDir(str(folder), held), child(folder / "lifecheck.ipc")
    (folder / pidfile.NAME).unlink()
    assert run_dir.mend() and not run_dir.lacks_sockets_of(own)
    assert pidfile.holder(str(folder)) == os.getpid()


def test_what_cannot_be_made_again_is_said_once(folder: Path, held: PidFile, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging.getLogger(log.LOGGER), "error", lambda text, *words: said.append(text % words))
    run_dir = RunDir(str(folder), held)
    shutil.rmtree(folder)
    folder.write_text("a file has its name now")
    assert [run_dir.mend(), run_dir.mend()] == [False, False]
    assert len(said) == 1 and "run_dir" in said[0]
    folder.unlink()
    assert run_dir.mend()


def test_another_start_that_was_faster_is_reported_and_nobody_restarted(folder: Path, held: PidFile) -> None:
    run_dir = RunDir(str(folder), held)
    shutil.rmtree(folder)
    folder.mkdir(0o700)
    other = PidFile.take(str(folder))
    assert not run_dir.mend()
    other.release()
    assert run_dir.mend()
