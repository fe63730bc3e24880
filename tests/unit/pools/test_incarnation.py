"""Who is this pgpool-II: from real processes, and from what files should not hold."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pgvigil.watchdog.pools.incarnation import incarnation


def test_a_process_is_known_by_pid_and_start(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_bytes(f"{os.getpid()}\n\0".encode())
    first = incarnation(str(file))
    assert first is not None and first.pid == os.getpid() and first == incarnation(str(file))
    child = subprocess.Popen(["sleep", "60"])
    try:
        file.write_text(str(child.pid), encoding="ascii")
        second = incarnation(str(file))
        assert second is not None and second.pid == child.pid and second.started_ticks >= first.started_ticks
    finally:
        child.kill()
        child.wait(10)
    assert incarnation(str(file)) is None


def test_a_name_may_look_like_the_end_of_itself(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(str(number) for number in range(3, 30))
    (tmp_path / "7" / "stat").write_text(f"7 (a) S (b) {fields}", encoding="ascii")
    (tmp_path / "pid").write_text("7", encoding="ascii")
    found = incarnation(str(tmp_path / "pid"), str(tmp_path))
    assert found is not None and (found.pid, found.started_ticks) == (7, 22)


@pytest.mark.parametrize("content", [b"", b"\0", b"-1", b"12a", b"99999999999", b"0x10", b"1 2", b"\xff"])
def test_anything_else_is_nobody(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_bytes(content)
    assert incarnation(str(file)) is None


def test_no_file_or_a_folder_or_a_short_stat_is_nobody(tmp_path: Path) -> None:
    assert incarnation(str(tmp_path / "none")) is None
    assert incarnation(str(tmp_path)) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) S 1 2", encoding="ascii")
    (tmp_path / "pid").write_text("7", encoding="ascii")
    assert incarnation(str(tmp_path / "pid"), str(tmp_path)) is None
