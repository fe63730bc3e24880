"""The real cluster: watchdog main of this machine, over its control socket, asked one thing at a time.

A connection per question, because a run may last for hours and watchdog main may be restarted meanwhile.
"""

from __future__ import annotations

import json

from pgvigil.ipc.channel import ControlClient
from pgvigil.ipc.endpoints import control_endpoint
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.ipc.frames import OUTCOME_UNKNOWN, Reply
from pgvigil.watchdog.rolling.cluster import OrderRefused, Seen, seen_of

LIST_TIMEOUT_MS = 5_000
ORDER_TIMEOUT_MS = 70_000
"""Watchdog main answers after 65 s at the latest."""


class ControlCluster:
    """A `Cluster` for the node that runs here."""

    def __init__(self, run_dir: str) -> None:
        self._endpoint = control_endpoint(run_dir)

    def list(self) -> Seen:
        """The agreed backends and what every pgpool-II says of them."""
        reply = self._ask("backend-list", (), LIST_TIMEOUT_MS)
        if not reply.accepted:
            raise CommandError(reply.message)
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise PeerError("watchdog main answered with something that is no JSON; are both of one version?") from None
        return seen_of(value)

    def detach(self, backend_id: int, reason: str) -> None:
        """Returns when the cluster has agreed on it."""
        self._order("backend-detach", backend_id, reason)

    def attach(self, backend_id: int, reason: str) -> None:
        """The same the other way round."""
        self._order("backend-attach", backend_id, reason)

    def _order(self, verb: str, backend_id: int, reason: str) -> None:
        reply = self._ask(verb, (str(backend_id), reason), ORDER_TIMEOUT_MS)
        if reply.accepted:
            return
        if reply.message.startswith(OUTCOME_UNKNOWN):
            raise CommandError(reply.message)
        raise OrderRefused(reply.message)

    def _ask(self, verb: str, arguments: tuple[str, ...], timeout_ms: int) -> Reply:
        client = ControlClient(self._endpoint)
        try:
            return list(client.ask(verb, arguments, timeout_ms))[-1]
        finally:
            client.close()
