"""Addresses of hosts that the configuration names, without waiting for a name server.

The C library's look-up blocks for as long as a name server is silent, so a short-lived `getent` does it: one at a
time, killed after `LIMIT_NS`, and not again for the same name before `AGAIN_NS` have passed. The last address that
was found stays in use. Literal addresses are their own and cost nothing.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections import deque
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.lifecheck.probes.reading import Watcher

LIMIT_NS = 5 * NS_PER_S
AGAIN_NS = 30 * NS_PER_S
MAX_OUTPUT = 16_384


def literal(host: str) -> str | None:
    """The address that a host already is, or None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


class Resolver:
    """`address` answers at once with what is known; `look_up` asks for it to be found (again)."""

    def __init__(self, watcher: Watcher, clock: Callable[[], int]) -> None:
        self._watcher = watcher
        self._clock = clock
        self._known: dict[str, str] = {}
        self._asked_at_ns: dict[str, int] = {}
        self._waiting: deque[str] = deque()
        self._child: subprocess.Popen[bytes] | None = None
        self._name = ""
        self._output = b""
        self._deadline_ns = 0

    def address(self, host: str) -> str | None:
        """The newest address, or None while a name is not known."""
        return self._known.get(host) or literal(host)

    def look_up(self, host: str, now_ns: int) -> None:
        """Find a name's address, unless that was tried lately or it needs none."""
        asked_at_ns = self._asked_at_ns.get(host)
        if literal(host) is not None or (asked_at_ns is not None and now_ns - asked_at_ns < AGAIN_NS):
            return
        self._asked_at_ns[host] = now_ns
        self._waiting.append(host)
        self._start_next(now_ns)

    def wake(self) -> int | None:
        """When the look-up that runs is out of time."""
        return self._deadline_ns if self._child is not None else None

    def tick(self, now_ns: int) -> None:
        """End what is out of time."""
        if self._child is not None and now_ns >= self._deadline_ns:
            self._finish()

    def late(self, lateness_ns: int) -> None:
        """Our own standstill is not the name server's."""
        self._deadline_ns += lateness_ns

    def close(self) -> None:
        """End the look-up that runs, and start no other."""
        self._waiting.clear()
        if self._child is not None:
            self._finish()

    def _start_next(self, now_ns: int) -> None:
        while self._child is None and self._waiting:
            self._name, self._output = self._waiting.popleft(), b""
            argv = ("getent", "ahosts", self._name)
            try:
                # A session of its own, and no shell: the name is an argument.
                self._child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                continue  # the name stays unknown, which the verdict says; the next failure asks again
            self._deadline_ns = now_ns + LIMIT_NS
            descriptor = self._descriptor(self._child)
            os.set_blocking(descriptor, False)
            self._watcher.watch(descriptor, self._on_output)

    def _on_output(self) -> None:
        assert self._child is not None
        try:
            data = os.read(self._descriptor(self._child), MAX_OUTPUT)
        except BlockingIOError:
            return
        self._output += data
        if not data or len(self._output) > MAX_OUTPUT:
            self._finish()

    def _finish(self) -> None:
        child = self._child
        assert child is not None and child.stdout is not None
        self._watcher.unwatch(self._descriptor(child))
        child.stdout.close()
        child.kill()  # it has ended, or has had its time; either way `wait` returns at once
        child.wait()
        self._child = None
        address = first_address(self._output)
        if address is not None:
            self._known[self._name] = address
        self._start_next(self._clock())

    @staticmethod
    def _descriptor(child: subprocess.Popen[bytes]) -> int:
        assert child.stdout is not None
        return child.stdout.fileno()


def first_address(output: bytes) -> str | None:
    """The address that getent(1) prefers (RFC 6724), None if it found none."""
    for line in output.decode("ascii", "replace").split("\n")[:-1]:  # a line that was cut off may hold half an address
        words = line.split()
        address = literal(words[0]) if words else None
        if address is not None:
            return address
    return None
