"""A memory cgroup (version 1 or 2) that a node's processes can be moved into for a while, and out of again.

It bounds what the memory cases may take from the machine, and it makes the node itself run out of memory and not
somebody else. Groups of labs that were killed are removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.run import wait_until

ROOTS = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
_NAME = re.compile(r"pgvlab-(\d+)-\d+$")
_serial = itertools.count(1)


class MemoryGroup:
    """One group with a limit. Make it, `adopt` pids, `close` it."""

    def __init__(self, limit_bytes: int) -> None:
        """`CommandError` if this machine lets us make no memory cgroup."""
        root, limit = _usable()
        sweep(root)
        self.path = root / f"pgvlab-{os.getpid()}-{next(_serial)}"
        self._homes: dict[int, Path] = {}
        self._root = root
        try:
            self.path.mkdir()
            (self.path / limit).write_text(str(limit_bytes), encoding="ascii")
        except OSError as error:
            raise CommandError(f"no memory cgroup can be made below {root}: {error.strerror}") from None

    def adopt(self, pids: Sequence[int]) -> None:
        """Move processes in; what they allocate from now on counts, their children included."""
        for pid in pids:
            self._homes[pid] = _home(self._root, pid)
            _move(pid, self.path)

    def close(self) -> None:
        """Move everybody back home and remove the group."""
        _dissolve(self.path, self._homes, next(iter(self._homes.values()), self._root))


def _dissolve(path: Path, homes: Mapping[int, Path], home: Path) -> None:
    def is_removed() -> bool:
        for pid in members(path):
            _move(pid, homes.get(pid, home))
        try:
            path.rmdir()
        except OSError:
            return False  # a process is just being born or dying in there
        return True

    wait_until(is_removed, 10, f"the cgroup {path} to become empty")


def sweep(root: Path) -> None:
    """Remove the groups of labs whose process is gone, with what is left in them."""
    for path in root.glob("pgvlab-*"):
        match = _NAME.match(path.name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            _dissolve(path, {}, root)


def members(path: Path) -> list[int]:
    return [int(word) for word in (path / "cgroup.procs").read_text(encoding="ascii").split()]


def _usable() -> tuple[Path, str]:
    """The mounted hierarchy with a memory controller, and the name of its limit."""
    for root, limit in ROOTS:
        if limit == "memory.max":
            controllers = root / "cgroup.subtree_control"
            if controllers.exists() and "memory" in controllers.read_text(encoding="ascii").split():
                return root, limit
        elif (root / limit).exists():
            return root, limit
    raise CommandError(f"no memory cgroup: none of {', '.join(str(root) for root, _ in ROOTS)} has that controller")


def _home(root: Path, pid: int) -> Path:
    """The group that a process is in now (proc(5))."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") or (controllers == "" and root.name != "memory"):
            return root / path.lstrip("/")
    raise CommandError(f"process {pid} is in no memory cgroup")


def _move(pid: int, path: Path) -> None:
    try:
        (path / "cgroup.procs").write_text(str(pid), encoding="ascii")
    except ProcessLookupError:
        pass  # it has ended meanwhile
