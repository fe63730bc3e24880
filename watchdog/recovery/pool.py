"""One pgpool-II as a recovery sees it: over PCP, with the patience that pgpool-II needs.

Its PCP process starts again about a second after every change and forgets its callers, so questions are asked again
until their limit, and so is the way in; an order is sent once, because it may have been carried out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Address, Client, PcpRefused
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import NodeInfo

T = TypeVar("T")

QUESTION_MS = 15_000
ORDER_MS = 60_000
ATTEMPT_MS = 5000
PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class Pool:
    """`label` is the node's name."""

    label: str
    address: Address
    user: str
    password: str

    def question(self, request: Request[T], limit_ms: int = QUESTION_MS) -> T:
        """The answer, however often it has to be asked for; the last error when the limit has passed."""
        deadline_ns = boottime_ns() + limit_ms * NS_PER_MS
        while True:
            try:
                with self._client(min(ATTEMPT_MS, limit_ms)) as client:
                    return client.ask(request, min(ATTEMPT_MS, limit_ms))
            except PcpRefused:
                raise
            except (CommandError, PeerError) as error:
                if boottime_ns() >= deadline_ns:
                    raise CommandError(f"{self.label}: {error}") from None
            time.sleep(PAUSE_S)

    def order(self, request: Request[None], limit_ms: int = ORDER_MS) -> None:
        """Sent once. `CommandError` when it was not sent or refused, `PeerError` when its outcome is unknown."""
        with self._logged_in() as client:
            client.ask(request, limit_ms)

    def _logged_in(self) -> Client:
        deadline_ns = boottime_ns() + QUESTION_MS * NS_PER_MS
        while True:
            try:
                return self._client(ATTEMPT_MS)
            except PcpRefused:
                raise
            except (CommandError, PeerError) as error:
                if boottime_ns() >= deadline_ns:
                    raise CommandError(f"{self.label}: {error}; nothing was ordered") from None
            time.sleep(PAUSE_S)

    def _client(self, limit_ms: int) -> Client:
        return Client(self.address, self.user, self.password, limit_ms)

    # --- what a recovery wants to know ---------------------------------------------------------------

    def backend(self, backend_id: int, limit_ms: int = QUESTION_MS) -> NodeInfo:
        """One backend; `CommandError` (refused) if there is none of this number."""
        return self.question(requests.node_info(backend_id), limit_ms)[0]

    def parameters(self) -> dict[str, str]:
        """The settings that it runs with."""
        return {one.name: one.value for one in self.question(requests.pool_status())}

    def clients(self, but: str = "") -> int:
        """Sessions of clients, those of one user left out: lifecheck's questions change nothing."""
        slots = self.question(requests.process_info())
        return len({slot.pid for slot in slots if slot.connected and slot.user != but})
