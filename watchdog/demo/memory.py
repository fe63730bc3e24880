"""How much memory a node's processes take, and would take on a host of their own.

In the lab three nodes share the pages of Python and its libraries, so each one's PSS is less than on a real host.
"Alone" counts what a node's own processes share among themselves only once, but in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MB = 1e6
_KIB = 1024
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Memory:
    """One process; MB are 10**6 bytes."""

    pss_mb: float
    anonymous_mb: float
    """Its share of memory that no file backs; after a fork it is shared within the node only."""
    files_mb: dict[Key, float] = field(repr=False)
    """Resident pages of each mapped piece of a file (path, offset)."""


def read_memory(pid: int) -> Memory:
    """From smaps and smaps_rollup (proc(5)); all zero when the process is gone."""
    rollup = _fields(_lines(pid, "smaps_rollup"))
    return Memory(
        pss_mb=rollup.get("Pss", 0) * _KIB / MB,
        anonymous_mb=(rollup.get("Pss_Anon", 0) + rollup.get("Pss_Shmem", 0)) * _KIB / MB,
        files_mb=_files(_lines(pid, "smaps")),
    )


def alone_mb(processes: Iterable[Memory]) -> float:
    """What these processes would take if nothing else on the machine shared their pages, in MB.

    Processes of one family hold the same pages of a file: the largest resident part of each piece counts, once.
    """
    pieces: dict[Key, float] = {}
    anonymous = 0.0
    for memory in processes:
        anonymous += memory.anonymous_mb
        for key, size in memory.files_mb.items():
            pieces[key] = max(pieces.get(key, 0.0), size)
    return anonymous + sum(pieces.values())


def _lines(pid: int, name: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _fields(lines: Iterable[str]) -> dict[str, int]:
    """`Name:  123 kB` lines."""
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) for name, value in pairs}


def _files(lines: Iterable[str]) -> dict[Key, float]:
    found: dict[Key, float] = {}
    key: Key | None = None
    for line in lines:
        words = line.split()
        if len(words) >= 5 and "-" in words[0] and not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
            key = (path, words[2]) if path.startswith("/") else None
        elif key is not None and words[0] in ("Rss:", "Anonymous:"):
            sign = 1 if words[0] == "Rss:" else -1
            found[key] = found.get(key, 0.0) + sign * int(words[1]) * _KIB / MB
    return found
