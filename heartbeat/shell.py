"""What the small processes (heartbeat sender, heartbeat receiver, lifecheck) have in common.

A loop, a ZeroMQ context made after the fork, the link to the supervisor, a title, and the rule for the end: an order,
SIGTERM, or a supervisor that is gone. It refuses to end for anything else; signals that a terminal sends to
the whole group are the supervisor's business.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from setproctitle import setproctitle

from pgvigil.ipc import frames, log
from pgvigil.ipc.channel import Inbox, Outbox, ZmqPoller, new_context
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, SignOfLife

logger = logging.getLogger("pgvigil")

LEFT_TO_THE_SUPERVISOR = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Shell:
    """The surroundings of one process; `name` is its title without what changes."""

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.loop = Loop(ZmqPoller())
        self.context = new_context()
        self._link = link
        self._title = ""
        self._sockets: list[Inbox | Outbox] = []
        for number in LEFT_TO_THE_SUPERVISOR:
            signal.signal(number, signal.SIG_IGN)
        self.loop.on_signals((signal.SIGTERM,), self._on_signal)
        self.loop.watch(link.fd, self._on_link)

    def inbox(self, endpoint: str, on_readable: Callable[[Inbox], None]) -> Inbox:
        """A bound inbox whose callback runs when frames are there."""
        inbox = Inbox(self.context, endpoint, logger.warning)
        self._sockets.append(inbox)
        self.loop.watch(inbox.socket, lambda: on_readable(inbox))
        return inbox

    def outbox(self, endpoint: str, on_connected: Callable[[], None] | None = None) -> Outbox:
        """An outbox that names this process as the sender; `on_connected` runs whenever its receiver is there anew."""
        outbox = Outbox(self.context, endpoint, self.name)
        self._sockets.append(outbox)
        if on_connected is not None:
            call = on_connected

            def take() -> None:
                outbox.connected()
                call()

            self.loop.watch(outbox.connections(), take)
        return outbox

    def set_title(self, title: str) -> None:
        """Show the state to `ps`; costs nothing if it has not changed."""
        if title != self._title:
            self._title = title
            setproctitle(f"pgvigil: {title}")

    def run(self, describe: Callable[[], str], life_interval_ns: int) -> int:
        """Say `Ready`, then go round until the end; the exit code. `describe` is asked for each sign of life."""
        self._link.send(frames.Ready(describe()))
        self.loop.join(SignOfLife(self._link, life_interval_ns, lambda: frames.Alive(False, describe())))
        try:
            self.loop.run()
        finally:
            self._close()
        return 0

    def _on_link(self) -> None:
        for received in self._link.receive():
            if isinstance(received.frame, frames.StopOrder):
                self.loop.stop()
            elif isinstance(received.frame, frames.ReopenLogsOrder):
                log.reopen()
        if self._link.closed:
            logger.info("%s: the supervisor is gone; ending", self.name)
            self.loop.unwatch(self._link.fd)
            self.loop.stop()

    def _on_signal(self, _number: int) -> None:
        self.loop.stop()

    def _close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self.context.destroy(linger=0)
        self.loop.close()
