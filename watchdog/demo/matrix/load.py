"""Programs that take what the nodes need: CPU time or memory. Bounded in size and time, and they end with the lab.

python -m pgvigil.watchdog.demo.matrix.load cpu SECONDS
python -m pgvigil.watchdog.demo.matrix.load memory SECONDS BYTES [GROUP]
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_S, boottime_ns

PR_SET_PDEATHSIG = 1
CHUNK_BYTES = 1 << 20
PAGE_BYTES = 4096
FIRST_TO_DIE = "1000"


def burn(until_ns: int) -> None:
    """Keep one core busy at the usual priority."""
    while boottime_ns() < until_ns:
        sum(range(10_000))


def press(until_ns: int, size_bytes: int, group: Path | None) -> None:
    """Take memory and touch it, again and again: whenever the kernel kills the taker, the next one begins."""
    while boottime_ns() < until_ns:
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            _take(until_ns, size_bytes, group)
            os._exit(0)
        os.waitpid(pid, 0)


def _take(until_ns: int, size_bytes: int, group: Path | None) -> None:
    """Out of memory, the kernel takes this process first."""
    Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE, encoding="ascii")
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    chunks: list[mmap.mmap] = []
    while boottime_ns() < until_ns:
        if len(chunks) * CHUNK_BYTES < size_bytes:
            chunks.append(mmap.mmap(-1, CHUNK_BYTES))
            touched = chunks[-1:]
        else:
            touched = chunks
        for chunk in touched:
            for at in range(0, CHUNK_BYTES, PAGE_BYTES):
                chunk[at] = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    what, seconds, *rest = arguments
    _die_with_parent()
    until_ns = boottime_ns() + int(float(seconds) * NS_PER_S)
    if what == "cpu":
        burn(until_ns)
    else:
        press(until_ns, int(rest[0]), Path(rest[1]) if len(rest) > 1 else None)


if __name__ == "__main__":
    main(sys.argv[1:])
