"""What happened, one line per transition, and a digest of all of it.

The digest covers every line since the start, also those that are not kept: two runs with one digest did the same.
"""

from __future__ import annotations

import hashlib
from collections import deque

from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS

KEPT_LINES = 3000


class Story:
    """Lines of (instant, who, what)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=KEPT_LINES)
        self._digest = hashlib.blake2b(digest_size=16)

    def say(self, who: str, what: str) -> None:
        """One line."""
        now_ns = self._world.now_ns
        self._lines.append((now_ns, who, what))
        self._digest.update(f"{now_ns} {who} {what}\n".encode())

    def digest(self) -> str:
        """Of everything said so far."""
        return self._digest.hexdigest()

    def lines(self, last: int = KEPT_LINES) -> list[str]:
        """The last lines, aligned."""
        kept = list(self._lines)[-last:]
        return [f"{now_ns / NS_PER_MS:14.3f} ms  {who:5} {what}" for now_ns, who, what in kept]
