"""Are the upstream servers there? Asked in rounds, each by ICMP echo or by a command, and never waited for.

An address is asked by echo (`probes.echo`); a name, or a host whose kernel permits no echo, by a command, because a
name lookup has no time limit of its own and would stop the loop. The command runs without a shell, in a session of
its own and with the time limit of a question; who wants a shell writes `sh -c '...'`. It is started by vfork, so
that the loop is not held up by copying page tables. What the answers come to is the affair of `core.upstream`.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.runner import Result, Runner
from pgvigil.lifecheck.core.upstream import UpstreamMethod
from pgvigil.lifecheck.probes.echo import Echo, family_of, permitted
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.settings import UpstreamSettings

DEFAULT_COMMAND = "ping -q -c 1 %h"
PAUSE_NS = 100 * NS_PER_MS  # after a time limit: the command that was stopped has to be gone before it is run again


class Way(Protocol):
    """One way to ask. `ask` raises `CommandError` if it cannot; the `on_end` of its maker gets "" or why not, later."""

    def ask(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...


class Command:
    """Asks by running a program; status 0 is the answer. It is asked again only after the last run has ended."""

    def __init__(self, words: list[str], timeout_ms: int, runner: Runner, on_end: Callable[[str], None]) -> None:
        self._words = words
        self._timeout_ms = timeout_ms
        self._runner = runner
        self._on_end = on_end
        self._running = False
        self._counts = False

    def ask(self) -> None:
        """Start it; `CommandError` while the last run is still on its way out."""
        if self._running:
            raise CommandError(f"{self._words[0]} has not ended yet")
        self._running = self._counts = True
        self._runner.start(self._words[0], self._words, self._timeout_ms, self._done)

    def _done(self, result: Result) -> None:
        counts, self._running, self._counts = self._counts, False, False
        if counts:
            self._on_end("" if result.succeeded else result.describe())

    def forget(self) -> None:
        """A late answer counts no more; the runner ends what has had its time."""
        self._counts = False

    def close(self) -> None:
        """The runner keeps the descriptors, until the command has ended."""
        self.forget()


class UpstreamProbe:
    """The method upstream. `on_change` is called when this node becomes isolated, or is not any more.

    `wavering`: nobody answered the last question; `on_waver` is called when that changes and nothing else does.
    """

    method = "upstream"

    def __init__(
        self,
        settings: UpstreamSettings,
        loop: Loop,
        on_change: Callable[[Reading], None],
        on_waver: Callable[[], None],
        now_ns: int,
    ) -> None:
        self._settings = settings
        self._upstream = UpstreamMethod(settings.servers, settings.life_points, now_ns)
        self._on_change = on_change
        self._on_waver = on_waver
        self._runner: Runner | None = None
        self._ways = {server: self._way(server, loop) for server in settings.servers}
        self._open: set[str] = set()
        self._asked_at_ns = 0
        self._due_ns = now_ns
        self.wavering = False
        self.reading = Reading(Health.UNKNOWN, now_ns, "not asked yet")

    def _way(self, server: str, loop: Loop) -> Way:
        on_end = partial(self._ended, server)
        if self._settings.command is None and is_address(server) and permitted(family_of(server)):
            return Echo(server, loop, on_end)
        if self._runner is None:
            self._runner = Runner(loop)
        words = command_words(self._settings.command or DEFAULT_COMMAND, server)
        return Command(words, self._settings.timeout_ms, self._runner, on_end)

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        """End the round when its time is over; begin the next one, a little early if the loop is awake anyway."""
        if self._open:
            if now_ns < self._due_ns:
                return
            for server in self._settings.servers:
                if server in self._open:
                    self._ways[server].forget()
                    self._ended(server, f"no answer within {self._settings.timeout_ms} ms")
            self._due_ns = max(self._due_ns, now_ns + PAUSE_NS)
            return
        self._ask_all(now_ns)

    def late(self, lateness_ns: int) -> None:
        """Answers have as much longer to come, and to be read."""
        if self._open:
            self._due_ns += lateness_ns

    def close(self) -> None:
        """Give the descriptors back."""
        for way in self._ways.values():
            way.close()

    def _ask_all(self, now_ns: int) -> None:
        self._asked_at_ns = now_ns
        self._open = set(self._settings.servers)
        self._due_ns = now_ns + self._settings.timeout_ms * NS_PER_MS
        for server in self._settings.servers:
            try:
                self._ways[server].ask()
            except CommandError as error:
                self._ended(server, str(error))

    def _ended(self, server: str, trouble: str) -> None:
        """The end of one question; the round ends with the last."""
        if server not in self._open:
            return
        self._open.discard(server)
        if trouble:
            self._upstream.missed(server, trouble)
        else:
            self._upstream.answered(server, self._asked_at_ns)
        if not self._open:
            self._due_ns = self._asked_at_ns + self._settings.interval_ms * NS_PER_MS
        self._conclude(boottime_ns())

    def _conclude(self, now_ns: int) -> None:
        opinion = self._upstream.opinion(now_ns)
        changed = opinion.health is not self.reading.health
        since_ns = now_ns if changed else self.reading.since_ns
        self.reading = Reading(opinion.health, since_ns, opinion.evidence)
        before, self.wavering = self.wavering, self._upstream.wavering()
        if changed:
            self._on_change(self.reading)
        elif self.wavering is not before:
            self._on_waver()


def is_address(server: str) -> bool:
    """Whether this is an IP address, which needs no lookup."""
    try:
        socket.inet_pton(family_of(server), server)
    except OSError:
        return False
    return True


def command_words(command: str, server: str) -> list[str]:
    """The program and its arguments: split as a shell would, %h replaced by the server and %% by %."""
    return [_filled(word, server) for word in shlex.split(command)]


def _filled(word: str, server: str) -> str:
    return "%".join(part.replace("%h", server) for part in word.split("%%"))
