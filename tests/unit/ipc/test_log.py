"""The log: one event, one line; never a reason to stop."""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc import log
from pgvigil.ipc.errors import ConfigError

HEAD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d pg01 watchdog main\[\d+\] "


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    log.shutdown()


def to_file(tmp_path: Path, level: str = "info") -> tuple[logging.Logger, Path]:
    path = tmp_path / "log"
    return log.setup("watchdog main", "pg01", f"file:{path}", level), path


def test_a_line_says_when_where_who_and_why(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    logger.warning("node %s is silent for %d ms", "pg02", 1000)
    assert re.fullmatch(HEAD + r"WARNING node pg02 is silent for 1000 ms\n", path.read_text())
    assert f"[{os.getpid()}]" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("\udc80", r"\udc80"),
        ("\u202eevil", r"\u202eevil"),
        ("Zürich 東京 🐘", "Zürich 東京 🐘"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert log.escape(text) == shown


@given(st.text(st.characters()))
def test_any_text_stays_on_one_line(text: str) -> None:
    shown = log.escape(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    shown.encode()


def test_an_error_with_its_traceback_is_one_line(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("this happened")
    (line,) = path.read_text().splitlines()
    assert r"ERROR this happened\nTraceback (most recent call last):\n" in line
    assert line.endswith(r"ValueError: first\nsecond")


def test_a_wrong_log_call_is_logged_and_not_raised(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    logger.info("%d of %d", 1)
    assert "cannot format the log message '%d of %d'" in path.read_text()


def test_a_huge_text_is_cut(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    logger.info("ü" * 100_000)
    (line,) = path.read_text().splitlines()
    assert line.endswith("bytes in all]")
    assert len(line.encode()) < log.MAX_LINE_BYTES + 100


def test_levels(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path, "warning")
    logger.info("quiet")
    logger.error("loud")
    assert "quiet" not in path.read_text()
    assert "loud" in path.read_text()
    with pytest.raises(ConfigError, match="'chatty': expected one of debug, info, warning, error"):
        log.setup("x", "pg01", "stderr", "chatty")


@pytest.mark.parametrize("target", ["file:relative", "file:", "journal", "", "stdout"])
def test_a_target_that_does_not_exist_is_the_operators_mistake(target: str) -> None:
    with pytest.raises(ConfigError, match="log target"):
        log.setup("x", "pg01", target, "info")


def test_an_unwritable_file_is_refused_and_the_old_log_goes_on(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    with pytest.raises(ConfigError, match="cannot be opened: Is a directory"):
        log.setup("watchdog main", "pg01", f"file:{tmp_path}", "info")
    logger.info("still here")
    assert "still here" in path.read_text()


def test_reopening_after_a_rotation(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    logger.info("before")
    path.rename(tmp_path / "log.1")
    logger.info("between")
    log.reopen()
    logger.info("after")
    assert "between" in (tmp_path / "log.1").read_text()
    assert "after" in path.read_text()
    assert "before" not in path.read_text()


def test_a_log_that_cannot_be_reopened_is_used_on(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / "log"
    logger = log.setup("watchdog main", "pg01", f"file:{path}", "info")
    path.rename(tmp_path / "moved")
    (tmp_path / "d").rmdir()
    log.reopen()
    logger.info("on")
    assert re.search("cannot reopen the log.*\n.* on", (tmp_path / "moved").read_text())


def test_a_child_has_its_own_name(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    log.rename("lifecheck\n")
    logger.info("x")
    assert rf" lifecheck\n[{os.getpid()}] INFO x" in path.read_text()


def test_lost_lines_are_counted_and_reported(tmp_path: Path) -> None:
    logger, path = to_file(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # stands in for a full disk
    try:
        logger.info("lost")
        logger.info("lost too")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    logger.info("there again")
    lines = path.read_text().splitlines()
    assert "2 lines could not be logged" in lines[0]
    assert lines[1].endswith("there again")


def test_a_reader_that_does_not_read_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    reader, writer = os.pipe()
    sink = log.StderrSink(writer)
    done = threading.Event()

    def fill() -> None:
        while sink.write("x" * 1000, 6):
            pass
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert done.wait(10), "writing to a full pipe waits for its reader"
    os.close(reader)
    assert not sink.write("nobody is there", 6)
    os.close(writer)


@pytest.mark.parametrize(("journal", "prefix"), [("ours", "<4>"), ("8:1", ""), ("", "")])
def test_standard_error(monkeypatch: pytest.MonkeyPatch, journal: str, prefix: str) -> None:
    reader, writer = os.pipe()
    info = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}" if journal == "ours" else journal)
    assert log.StderrSink(writer).write("a line", 4)
    os.close(writer)
    assert os.read(reader, 100).decode() == f"{prefix}a line\n"
    os.close(reader)


def test_syslog(tmp_path: Path) -> None:
    path = str(tmp_path / "devlog")
    first = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    first.bind(path)
    sink = log.SyslogSink(path)
    assert sink.write("hello", 3)
    assert first.recv(1000).decode() == f"<27>pgvigil[{os.getpid()}]: hello"
    first.close()
    assert not sink.write("while it restarts", 3)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        assert sink.write("back", 6)
        assert second.recv(1000).decode().endswith("back")
        second.setblocking(False)
        while sink.write("x" * 5000, 6):  # a syslogd that does not read
            pass
        assert len(second.recv(10_000)) > 5000
    sink.close()
    with pytest.raises(OSError, match="No such file"):
        log.SyslogSink(str(tmp_path / "missing"))


def test_the_module_brings_nothing_heavy() -> None:
    import subprocess

    code = "import sys, pgvigil.ipc.log; print([m for m in ('zmq', 'asyncio', 'logging.handlers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
