"""The roster: the children that a node should have, and the mechanics of having them.

It starts, watches, kills and buries, and changes the list after a reload. What an exit or a word means is decided by
its owner, through `Owner`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from pgvigil.ipc import frames, log
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.supervisor import reload
from pgvigil.watchdog.supervisor.child import Child
from pgvigil.watchdog.supervisor.children import WATCHDOG_MAIN, ChildSpec

REPEAT_INTERVAL_NS = 10 * NS_PER_S

_log = logging.getLogger(log.LOGGER)


class Owner(Protocol):
    """Who decides."""

    def on_change(self) -> None:
        """Something that titles and reports show has changed."""

    def on_ready(self, child: Child) -> None:
        """A child does its duty from now on."""

    def on_killed(self, child: Child) -> None:
        """A child was sent SIGKILL and does its duty no longer."""

    def on_exit(self, child: Child, status: int) -> bool:
        """A child has ended; True if the owner deals with it in any case, asked or not."""

    def on_failure(self, child: Child, ran_ready_ns: int | None) -> None:
        """A child ended unasked, or could not be forked; `ran_ready_ns` is how long it did its duty."""


class Roster:
    """Children by name, in the order of their start. `lock_fd` answers what watchdog main has to inherit."""

    def __init__(self, loop: Loop, owner: Owner, lock_fd: Callable[[], int], in_child: Callable[[], None]) -> None:
        self._loop = loop
        self._owner = owner
        self._lock_fd = lock_fd
        self._in_child = in_child
        self._told: frames.ChildrenReport | None = None
        self._tell_ns = 0
        self.by_name: dict[str, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self.by_name.values()))

    @property
    def main(self) -> Child:
        """Watchdog main, which is always there."""
        return self.by_name[WATCHDOG_MAIN]

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(child.pid for child in self)

    def all_ready(self) -> bool:
        return all(child.ready for child in self)

    def restarting(self) -> bool:
        """Whether one was killed to be started again and has not ended yet."""
        return any(child.restart_asked for child in self)

    def unready(self) -> str:
        """Those that are not ready, each with its last end."""
        return ", ".join(
            child.spec.name + (f" ({child.last_exit})" if child.last_exit else "") for child in self if not child.ready
        )

    def drop(self) -> None:
        """In a fresh child: nothing of the siblings may stay open, or be closed later by accident."""
        for child in self:
            child.drop()

    def fill(self, specs: tuple[ChildSpec, ...]) -> None:
        """Enter the children; nothing is started yet."""
        self.by_name = {spec.name: Child(spec) for spec in specs}

    def start(self, child: Child) -> None:
        """Fork it and listen to it; a fork that fails is its failure."""
        try:
            child.start((self._lock_fd(),) if child.spec.vital else (), self._in_child)
        except OSError as error:
            child.last_exit = f"cannot fork: {error.strerror}"
            self._owner.on_failure(child, None)
            return
        self._watch(child)
        _log.info("%s started as pid %d", child.spec.name, child.pid)
        self._owner.on_change()

    def kill(self, child: Child) -> None:
        """SIGKILL; its exit comes later."""
        child.state = "stopping"
        child.kill()
        self._owner.on_killed(child)
        self._owner.on_change()

    def tell_main(self, own: frames.ProcessInfo, now_ns: int) -> None:
        """The table of processes: at once what has changed, else now and then, for each frame wakes watchdog main."""
        report = frames.ChildrenReport((own, *(child.info() for child in self)))
        if report == self._told and now_ns < self._tell_ns:
            return
        if self.main.order(report):
            self._told, self._tell_ns = report, now_ns + REPEAT_INTERVAL_NS

    # --- what happens to children -----------------------------------------------------------------------

    def _watch(self, child: Child) -> None:
        self._loop.watch(child.pidfd, lambda: self._on_exit(child))
        if child.link is not None:
            self._loop.watch(child.link.fd, lambda: self.listen(child))

    def _unwatch(self, child: Child) -> None:
        self._loop.unwatch(child.pidfd)
        if child.link is not None:
            self._loop.unwatch(child.link.fd)

    def listen(self, child: Child) -> None:
        """Take what it has said.

        A child that is ready only gives signs of life: they wait for the supervisor's next round instead of waking it
        one by one. Its end shows at the pidfd.
        """
        if child.link is None:
            return
        if child.hear():
            _log.info("%s is ready", child.spec.name)
            self._owner.on_ready(child)
            self._owner.on_change()
        if child.link.closed or child.ready:
            self._loop.unwatch(child.link.fd)

    def _on_exit(self, child: Child) -> None:
        if not child.alive:
            return
        self._unwatch(child)  # before the descriptors are closed and their numbers given again
        status = child.bury()
        if status is None:
            self._watch(child)
            return
        if not self._owner.on_exit(child, status):
            self._follow(child)
        self._owner.on_change()

    def _follow(self, child: Child) -> None:
        if child.removed:
            _log.info("%s ended (%s): the configuration no longer has it", child.spec.name, child.last_exit)
            del self.by_name[child.spec.name]
        elif child.restart_asked:
            child.restart_asked = False
            self.start(child)
        else:
            self._owner.on_failure(child, None if child.ready_ns is None else boottime_ns() - child.ready_ns)

    # --- a new configuration ----------------------------------------------------------------------------

    def change_to(self, specs: tuple[ChildSpec, ...]) -> str:
        """Stop, restart and start what differs; what was done, for the log."""
        wanted = {spec.name: spec for spec in specs}
        before = tuple(child.spec for child in self if not child.removed)
        gone, changed, fresh = reload.differences(before, specs)
        for name in gone:
            self._remove(self.by_name[name])
        for name in changed:
            self.restart(self.by_name[name], wanted[name])
        for name in fresh:
            self._add(wanted[name])
        self._sort(wanted)
        parts = (("stopped", gone), ("restarted", changed), ("started", fresh))
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names) or "nothing has changed"

    def _remove(self, child: Child) -> None:
        child.removed = True
        if child.alive:
            self.kill(child)
        else:
            del self.by_name[child.spec.name]

    def restart(self, child: Child, spec: ChildSpec) -> None:
        """From this spec. Not through a clean stop: that would hand leadership over. A killed main resumes its term."""
        child.spec, child.removed = spec, False
        if child.alive:
            child.restart_asked = True
            self.kill(child)
        else:
            child.due_ns = boottime_ns()

    def _add(self, spec: ChildSpec) -> None:
        leaving = self.by_name.get(spec.name)
        if leaving is not None:  # taken out and put back before it had ended
            self.restart(leaving, spec)
            return
        self.by_name[spec.name] = Child(spec)
        self.start(self.by_name[spec.name])

    def _sort(self, wanted: Mapping[str, object]) -> None:
        place = {name: number for number, name in enumerate(wanted)}
        self.by_name = dict(sorted(self.by_name.items(), key=lambda item: place.get(item[0], len(place))))
