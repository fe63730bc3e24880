"""The log: one line per event, whatever the event contains.

A line says when, which node, which process and how bad, then the reason. Texts from outside (commands,
peers, tracebacks) are escaped, so that nobody can write a second line or repaint a terminal. The log never
stops a process: a target that cannot be opened at start is the operator's mistake (`ConfigError`), but a later
full disk or a stuck reader only loses lines, which are counted and reported as soon as writing works again.
Nothing here waits for a reader: a pipe that is full is a lost line, not a stopped watchdog.
"""

from __future__ import annotations

import datetime
import logging
import os
import select
import socket
import traceback
from typing import Protocol

from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import ConfigError

LOGGER = "pgvigil"
LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FILE_MODE = 0o640
MAX_LINE_BYTES = 64 * 1024
PIPE_BUF = 4096
SYSLOG_SOCKET = "/dev/log"
SYSLOG_MAX_BYTES = 8192
FACILITY_DAEMON = 3 << 3


class Sink(Protocol):
    """Where lines go; `write` answers whether the line arrived, and never raises or waits."""

    def write(self, line: str, priority: int) -> bool: ...
    def reopen(self) -> None: ...
    def descriptors(self) -> tuple[int, ...]: ...
    def close(self) -> None: ...


def escape(text: str) -> str:
    """The text on one line: what is not printable becomes `\\n`, `\\x1b`, `\\u2028` and the like."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def priority_of(level: int) -> int:
    """The priority of syslog(3) for a level of `logging`."""
    for limit, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= limit:
            return priority
    return 7


class StderrSink:
    """Standard error, with the `<N>` prefix of sd-daemon(3) when it is the journal's."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._prefixed = _is_journal(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, line: str, priority: int) -> bool:
        data = (f"<{priority}>{line}\n" if self._prefixed else f"{line}\n").encode("utf-8", "backslashreplace")
        # A pipe that polls writable takes PIPE_BUF bytes at once (pipe(7)); more could wait for its reader.
        return all(self._put(data[start : start + PIPE_BUF]) for start in range(0, len(data), PIPE_BUF))

    def _put(self, piece: bytes) -> bool:
        try:
            ready = self._poll.poll(0)
            return bool(ready and ready[0][1] & select.POLLOUT) and os.write(self._fd, piece) == len(piece)
        except OSError:
            return False

    def reopen(self) -> None:
        """Nothing to reopen."""

    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)

    def close(self) -> None:
        """Standard error is not ours to close."""


def _is_journal(fd: int) -> bool:
    """Whether JOURNAL_STREAM names this very descriptor (systemd.exec(5)); terminals inherit the variable too."""
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


class FileSink:
    """A file, one O_APPEND write per line, so that the lines of all processes interleave whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, FILE_MODE)

    def write(self, line: str, _priority: int) -> bool:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:
            return False

    def reopen(self) -> None:
        """After a rotation: the path anew; the old file stays if that fails (`OSError`)."""
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh

    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)

    def close(self) -> None:
        os.close(self._fd)


class SyslogSink:
    """Datagrams to syslogd or the journal; syslog(3) itself would wait for a daemon that does not read."""

    def __init__(self, path: str = SYSLOG_SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.reopen()

    def write(self, line: str, priority: int) -> bool:
        data = f"<{FACILITY_DAEMON | priority}>pgvigil[{os.getpid()}]: {line}".encode("utf-8", "backslashreplace")
        return self._put(data[:SYSLOG_MAX_BYTES]) or (self._reconnect() and self._put(data[:SYSLOG_MAX_BYTES]))

    def _put(self, data: bytes) -> bool:
        try:
            return self._socket is not None and self._socket.send(data) == len(data)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False

    def _reconnect(self) -> bool:
        if self._socket is not None:
            return False
        try:
            self.reopen()
        except OSError:
            return False
        return True

    def reopen(self) -> None:
        self.close()
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh

    def descriptors(self) -> tuple[int, ...]:
        return () if self._socket is None else (self._socket.fileno(),)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class LineHandler(logging.Handler):
    """Turns records into lines and counts what its sink lost."""

    def __init__(self, process_name: str, node_label: str, sink: Sink) -> None:
        super().__init__()
        self.process_name = process_name
        self.node_label = node_label
        self.sink = sink
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception as error:  # a log call with wrong arguments is our mistake, but no reason to end
            line = f"{self._head(record)} cannot format the log message {escape(repr(record.msg))}: {error!r}"
        if self.lost and self.sink.write(f"{self._head(record)} {counted(self.lost, 'line')} could not be logged", 4):
            self.lost = 0
        if not self.sink.write(_cut(line), priority_of(record.levelno)):
            self.lost += 1

    def _head(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        return f"{when} {self.node_label} {self.process_name}[{os.getpid()}] {record.levelname}"

    def _line(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}\n{''.join(traceback.format_exception(*record.exc_info)).rstrip()}"
        return f"{self._head(record)} {escape(text)}"


def _cut(line: str) -> str:
    if len(line) <= MAX_LINE_BYTES // 4:
        return line
    data = line.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_LINE_BYTES:
        return line
    return f"{data[:MAX_LINE_BYTES].decode('utf-8', 'ignore')} [cut, {len(data)} bytes in all]"


_handler: LineHandler | None = None


def setup(process_name: str, node_label: str, target: str, level: str) -> logging.Logger:
    """Send the "pgvigil" logger to "stderr", "syslog" or "file:/absolute/path"; a second call replaces the first.

    Raises `ConfigError` for a level or target that does not exist or cannot be opened; nothing changes then.
    """
    global _handler
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r}: expected one of {', '.join(LEVELS)}")
    fresh = LineHandler(escape(process_name), escape(node_label), _open_sink(target))
    logger = logging.getLogger(LOGGER)
    for old in tuple(logger.handlers):
        logger.removeHandler(old)
    if _handler is not None:
        _handler.sink.close()
    _handler = fresh
    logger.addHandler(fresh)
    logger.setLevel(LEVELS[level])
    logger.propagate = False
    return logger


def _open_sink(target: str) -> Sink:
    try:
        if target == "stderr":
            return StderrSink()
        if target == "syslog":
            return SyslogSink()
        kind, _, path = target.partition(":")
        if kind == "file" and os.path.isabs(path):
            return FileSink(path)
    except OSError as error:
        raise ConfigError(f"log target {target!r} cannot be opened: {error.strerror}") from None
    raise ConfigError(f'log target {target!r}: expected "stderr", "syslog" or "file:/absolute/path"')


def rename(process_name: str) -> None:
    """The name in the lines from now on; for a child, after the fork."""
    if _handler is not None:
        _handler.process_name = escape(process_name)


def reopen() -> None:
    """Open the target again (after a log rotation); on failure the old one goes on, which is logged."""
    if _handler is None:
        return
    try:
        _handler.sink.reopen()
    except OSError as error:
        logging.getLogger(LOGGER).error("cannot reopen the log (%s); the old one is used on", error.strerror)


def descriptors() -> tuple[int, ...]:
    """The open descriptors of the log, which a forked child must keep."""
    return () if _handler is None else _handler.sink.descriptors()


def shutdown() -> None:
    """Undo `setup`; for tests."""
    global _handler
    if _handler is not None:
        logging.getLogger(LOGGER).removeHandler(_handler)
        _handler.sink.close()
        _handler = None
