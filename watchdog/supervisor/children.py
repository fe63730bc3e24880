"""Which processes a node consists of, made from its settings.

A child is its entry function, its own part of the settings and the facts that supervision needs. Two specs
that are equal need no restart. The modules are imported in the parent, once, before the first fork, so that all
processes share their memory; importing is all that happens to them here: no ZeroMQ context, no thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgvigil.ipc import endpoints
from pgvigil.ipc.ready import Link
from pgvigil.watchdog.settings import Settings

WATCHDOG_MAIN = "watchdog main"
LIFECHECK = "lifecheck"

Run = Callable[[Any, Link, int], int]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child. `run(settings, link, life_interval_ns)` returns its exit code.

    `vital`: without it there is no node. It also survives the supervisor, to hand over by itself, and holds the
    lock of the run directory until then. `shared` is what makes a restart necessary beside `settings`: the log.
    `sockets` are the files in the run directory that the child makes.
    """

    name: str
    run: Run
    settings: object
    vital: bool
    life_interval_ns: int
    shared: tuple[str, ...]
    sockets: tuple[str, ...] = ()


Table = Callable[[Settings, int], tuple[ChildSpec, ...]]


def table(settings: Settings, life_interval_ns: int) -> tuple[ChildSpec, ...]:
    """The children of this node: receivers, senders, lifecheck and watchdog main, in the order of their start."""
    # Imported here, not above: watchdog.process imports supervisor.daemon (revive), which imports this module.
    from pgvigil.heartbeat import receiver, sender
    from pgvigil.lifecheck import process as lifecheck
    from pgvigil.lifecheck.preload import preload
    from pgvigil.watchdog import process as watchdog

    preload(settings.lifecheck)
    shared = (settings.process.log, settings.process.log_level, settings.node.host)

    def spec(name: str, run: Run, part: object, *bound: str, vital: bool = False) -> ChildSpec:
        return ChildSpec(name, run, part, vital, life_interval_ns, shared, tuple(map(endpoints.file_of, bound)))

    run_dir = settings.process.run_dir

    beats = tuple(zip(_path_labels(settings), settings.heartbeats, strict=True))
    return (
        *(spec(f"heartbeat receiver {label}", receiver.run, part) for label, part in beats),
        *(
            spec(f"heartbeat sender {label}", sender.run, part, endpoints.sender_endpoint(run_dir, part.path))
            for label, part in beats
        ),
        spec(LIFECHECK, lifecheck.run, settings.lifecheck, endpoints.lifecheck_endpoint(run_dir)),
        spec(
            WATCHDOG_MAIN,
            watchdog.run,
            settings,
            endpoints.watchdog_endpoint(run_dir),
            endpoints.control_endpoint(run_dir),
            *([endpoints.group_endpoint(run_dir)] if settings.process.control_group else []),
            vital=True,
        ),
    )


def _path_labels(settings: Settings) -> tuple[str, ...]:
    """The interface, with the path's number where one interface carries several paths."""
    uses = Counter(part.interface for part in settings.heartbeats)
    return tuple(
        part.interface if uses[part.interface] == 1 else f"{part.interface}/{part.path}" for part in settings.heartbeats
    )
