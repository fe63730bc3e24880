"""Where a running node is found, even if its file has been broken since the start.

The commands that look at a running node need nothing but its run directory. They must work while an operator mends
the file, so this reads as much as is there and says what it assumed; it never judges the file.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config import schema
from pgvigil.watchdog.config.kinds import Wrong
from pgvigil.watchdog.config.source import Unreadable, read_bytes, read_source

_LINE = re.compile(r"^\s*run_dir\s*=\s*[\"'](/[^\"'\n]*)[\"']", re.MULTILINE)
_RUN_DIR = next(key for key in schema.PROCESS if key.name == "run_dir")


@dataclass(frozen=True, slots=True)
class Place:
    """The run directory, and a note for the operator if it had to be guessed."""

    run_dir: str
    note: str = ""


def find_place(path: str) -> Place:
    """The run directory that the file names; `ConfigError` if there is no file."""
    try:
        process = read_source(path).tables.get("process", {})
        value = process.get("run_dir", _RUN_DIR.default) if isinstance(process, dict) else _RUN_DIR.default
        return Place(_RUN_DIR.kind.read(value))
    except Wrong as wrong:
        return Place(_RUN_DIR.default, f"run_dir {wrong.wrong}; looking into {_RUN_DIR.default}")
    except Unreadable as error:
        if error.wrong.endswith(os.strerror(errno.EACCES)):  # pgpool-II's user need not be able to read it
            return Place(_RUN_DIR.default, f"{path}: {error.wrong}; looking into {_RUN_DIR.default}")
        if not error.line:
            raise ConfigError(f"{path}: {error.wrong}; {error.expected}") from None
        return _guess(path, error)


def _guess(path: str, error: Unreadable) -> Place:
    match = _LINE.search(read_bytes(path).decode("utf-8", errors="replace"))
    run_dir = (match[1].rstrip("/") or "/") if match else str(_RUN_DIR.default)
    return Place(run_dir, f"{path}:{error.line}: {error.wrong}; looking into {run_dir}")
