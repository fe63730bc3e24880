"""Which pgpool-II is this? Its pid and the instant it started, so that a restart is never taken for a change by hand.

Two reads of small files (`/proc` and the pid file); refuses to guess: whatever cannot be read is no incarnation, and
whoever asks then treats what it sees as new.
"""

from __future__ import annotations

import os

from pgvigil.watchdog.pools.view import Incarnation

MAX_BYTES = 1024
START_FIELD = 19
"""starttime among the fields behind the name, counted from 0 (proc(5): field 22)."""


def incarnation(pid_file: str, proc: str = "/proc") -> Incarnation | None:
    """Who runs now according to a pid file; None if nobody does or it is hidden from us."""
    words = _read(pid_file).strip(b"\0 \t\r\n")
    if not words.isdigit() or len(words) > 10:
        return None
    stat = _read(f"{proc}/{int(words)}/stat")
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) <= START_FIELD or not fields[START_FIELD].isdigit():
        return None
    return Incarnation(int(words), int(fields[START_FIELD]))


def _read(path: str) -> bytes:
    """At most so many bytes; none if it cannot be read."""
    try:
        # Not to hang on a fifo that somebody put there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, MAX_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
