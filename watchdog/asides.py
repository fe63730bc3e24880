"""Messages between the shells of two watchdog mains that no decision of the core depends on.

One handler per topic. What arrives is untrusted in its content, though its sender is authenticated: a handler raises
`PeerError` for what it does not understand, which is counted and told once a minute. Nothing is repeated here.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.ipc.channel import Complaints
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.watchdog.core.messages import Aside

MAX_BODY_BYTES = 32 * 1024

Handler = Callable[[int, Aside], None]


class Asides:
    """The topics of one watchdog main."""

    def __init__(self, boot: int, send: Callable[[int, Aside], None], complain: Callable[[str], None]) -> None:
        """`send` takes a node id; `boot` is this start's."""
        self._boot = boot
        self._send = send
        self._number = 0
        self._handlers: dict[str, Handler] = {}
        self._complaints = Complaints(complain, "messages between shells")

    def on(self, topic: str, handler: Handler) -> None:
        """Hand messages of a topic to `handler(sender, message)`."""
        if topic in self._handlers:
            raise InvariantError(f"topic {topic!r} has a handler already")
        self._handlers[topic] = handler

    def say(self, to: int, topic: str, body: bytes) -> None:
        """Send something to another node; `InvariantError` if it is too long."""
        if len(body) > MAX_BODY_BYTES:
            raise InvariantError(f"{topic}: {len(body)} bytes, at most {MAX_BODY_BYTES} may be sent")
        self._number += 1
        self._send(to, Aside(topic, self._boot, self._number, body))

    def take(self, sender: int, message: Aside) -> None:
        """Hand over what has arrived."""
        handler = self._handlers.get(message.topic)
        try:
            if handler is None:
                raise PeerError(f"topic {message.topic!r}, expected one of {', '.join(sorted(self._handlers))}")
            if len(message.body) > MAX_BODY_BYTES:
                raise PeerError(f"{message.topic}: {len(message.body)} bytes, expected at most {MAX_BODY_BYTES}")
            handler(sender, message)
        except PeerError as error:
            self._complaints.add(f"node {sender}: {error}")
