"""What watchdog main tells lifecheck about the tie-breaker of `quorum = "half"`: whom the document names (P22 a).

Nodes with different files thus ask the same address. The words are repeated with the housekeeping, so either process
may be restarted at any moment. As long as no document has named a tie-breaker there is no socket for it: most clusters
have none. What the answers are worth is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.ipc import frames
from pgvigil.ipc.channel import Outbox
from pgvigil.ipc.clock import NS_PER_MS

Question = tuple[str, int, int]


class Upstream:
    """The newest question, and the way to lifecheck."""

    def __init__(self, connect: Callable[[], Outbox]) -> None:
        """`connect` opens the way to lifecheck when it is needed first."""
        self._connect = connect
        self._outbox: Outbox | None = None
        self._told: Question | None = None

    def tell(self, question: Question, again: bool = False) -> None:
        """Address, interval and gap (ns), as the core says; sent if it has changed, was not taken, or `again`."""
        if question == self._told and not again:
            return
        if self._outbox is None:
            if not question[0]:
                return
            self._outbox = self._connect()
        address, interval_ns, gap_ns = question
        sent = self._outbox.send(frames.AskTieBreaker(address, interval_ns // NS_PER_MS, gap_ns // NS_PER_MS))
        self._told = question if sent else None

    def close(self) -> None:
        """Free the socket."""
        if self._outbox is not None:
            self._outbox.close()
