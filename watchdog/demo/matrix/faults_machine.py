"""Faults of the machine below pgvigil: slow disk, full disk, no CPU time, no memory, a wall clock that jumps."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.matrix.case import Blow, Fault
from pgvigil.watchdog.demo.matrix.ground import STATE_KIB, Ground, state_dir
from pgvigil.watchdog.demo.matrix.memory_group import MemoryGroup

LOAD_LIMIT_S = 60
"""A load ends by itself after that, whatever happens to the lab."""
FILLER = "filler"
PRESSURE_BYTES = 96 << 20
"""Limit of the memory group: less than a node's processes and the taker want together."""


def slow_disk(delay_ms: int) -> Fault:
    """Every fsync of the nodes' processes takes longer; one write of the record needs two."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        shims = [ground.shims[host] for host in hosts]
        before = sum(shim.read().fsyncs for shim in shims)

        def each(delay: int) -> None:
            for shim in shims:
                shim.delay_fsync(delay)

        def note() -> str:
            return f"{sum(shim.read().fsyncs for shim in shims) - before} fsyncs"

        return Blow(lambda: each(delay_ms), lambda: each(0), note)

    return prepare


def step_clock(offset_s: int) -> Fault:
    """The wall clock of the nodes' processes jumps, and back when the fault is undone."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        shims = [ground.shims[host] for host in hosts]
        before = sum(shim.read().wall_reads for shim in shims)

        def each(offset: int) -> None:
            for shim in shims:
                shim.step_wall_clock(offset)

        def note() -> str:
            return f"{sum(shim.read().wall_reads for shim in shims) - before} readings of the wall clock"

        return Blow(lambda: each(offset_s), lambda: each(0), note)

    return prepare


def full_disk(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """Not one byte is left in `state_dir`."""
    fillers = [state_dir(host) / FILLER for host in hosts]

    def strike() -> None:
        for path in fillers:
            fill(path)

    def undo() -> None:
        for path in fillers:
            path.unlink(missing_ok=True)

    return Blow(strike, undo)


def fill(path: Path) -> None:
    """Write until the disk is full; `CommandError` if it is larger than the lab's small disks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(2 * STATE_KIB):
            os.write(descriptor, bytes(1024))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return
        raise
    finally:
        os.close(descriptor)
    path.unlink()
    raise CommandError(f"{path.parent} took {2 * STATE_KIB} KiB, expected a small disk that is full by then")


def busy(burners: int, limit_s: int = LOAD_LIMIT_S) -> Fault:
    """Processes of the usual priority that never rest; all hosts of the lab share the machine, so all feel it."""

    def prepare(ground: Ground, hosts: Sequence[Host]) -> Blow:
        running: list[subprocess.Popen[bytes]] = []

        def strike() -> None:
            arguments = ("cpu", str(limit_s))
            running.extend(
                ground.lab.start_module(ground.lab.client, "matrix.load", arguments, "load.log") for _ in range(burners)
            )

        return Blow(strike, lambda: end(running))

    return prepare


def short_of_memory(ground: Ground, hosts: Sequence[Host]) -> Blow:
    """The nodes' processes share a memory group with one that takes all of it, again and again.

    Where no group can be made, the taker is bounded by its own size, and the note says so.
    """
    pids = [pid for host in hosts for pid in ground.cluster.processes(host)]
    running: list[subprocess.Popen[bytes]] = []
    groups: list[MemoryGroup] = []
    notes: list[str] = []

    def strike() -> None:
        arguments = ["memory", str(LOAD_LIMIT_S), str(PRESSURE_BYTES * 2)]
        try:
            groups.append(MemoryGroup(PRESSURE_BYTES))
            groups[0].adopt(pids)
            arguments.append(str(groups[0].path))
            notes.append(f"in a group of {PRESSURE_BYTES >> 20} MiB")
        except CommandError as error:
            notes.append(f"without a group ({error}): {PRESSURE_BYTES >> 19} MiB taken from the machine")
        running.append(ground.lab.start_module(ground.lab.client, "matrix.load", arguments, "load.log"))

    def undo() -> None:
        end(running)
        for group in groups:
            group.close()

    return Blow(strike, undo, lambda: "; ".join(notes))


def end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill loads that were started here; what they forked dies with them."""
    for child in running:
        child.kill()
    for child in running:
        child.wait(10)
