"""The connection to pgpool-II's own watchdog: one exchange at a time over its command socket, never blocking.

`core.informing` decides what is asked, `core.pgpool_ipc` knows the format; this module has the socket and the
deadline. It judges nobody's pgpool-II: its reading is whether that watchdog answers. A watchdog that hangs (it is one
thread, and reads without a time limit) is asked ever more seldom, because each request waits in its queue.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.ipc.frames import Health, PgpoolWatchdog
from pgvigil.lifecheck.core import pgpool_ipc
from pgvigil.lifecheck.core.informing import Informing, Kind, Order, Wish
from pgvigil.lifecheck.probes.knock import Knocking
from pgvigil.lifecheck.probes.reading import Reading, Watcher
from pgvigil.lifecheck.settings import PgpoolWatchdogSettings

logger = logging.getLogger("pgvigil")

ANSWER_LIMIT_NS = 3 * NS_PER_S
RETRY_NS = NS_PER_S
MAX_RETRY_NS = 16 * NS_PER_S
RECEIVE_BYTES = 64 * 1024
ROOT = 0
CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of whoever listens (unix(7), SO_PEERCRED)."""

_ANSWERS = {Health.UNKNOWN: "is being asked", Health.ALIVE: "answers"}


class _Gone(CommandError):
    """Nobody listens: that watchdog has ended, and a new one knows nothing."""


class PgpoolWatchdogProbe:
    """Not a method of its own: it tells verdicts on, and reports the node list with `on_news`."""

    method = "pgpool_watchdog"

    def __init__(
        self,
        settings: PgpoolWatchdogSettings,
        own_id: int,
        watcher: Watcher,
        on_change: Callable[[Reading], None],
        on_news: Callable[[], None],
        now_ns: int,
    ) -> None:
        self._path = settings.socket_path
        self._pid_file = settings.pid_file
        self._authkey = settings.authkey
        self._watcher = watcher
        self._on_change = on_change
        self._on_news = on_news
        self._own_id = own_id
        self._labels = {node.node_id: node.label for node in settings.nodes}
        self._plan = Informing(own_id, settings.nodes, now_ns)
        self._knocking = Knocking(settings.nodes)
        self._wishes: dict[int, Wish] = {}
        self._connection: socket.socket | None = None
        self._order: Order | None = None
        self._received = b""
        self._deadline_ns = 0
        self._retry_ns = RETRY_NS
        self._read_at_ns = 0
        self._known: pgpool_ipc.NodeList | None = None
        self.reading = Reading(Health.UNKNOWN, now_ns, "pgpool-II's watchdog has not been asked yet")

    # --- for the process --------------------------------------------------------------------------

    def wish(self, wishes: dict[int, Wish], now_ns: int) -> None:
        """What pgpool-II should believe of each node; what it does not believe yet is said at once."""
        self._wishes = wishes
        for node_id, wish in wishes.items():
            self._plan.wish(node_id, self._confirmed(node_id, wish, now_ns))
        self._go_on(now_ns)

    def _confirmed(self, node_id: int, wish: Wish, now_ns: int) -> Wish:
        """A silent peer counts as dead for pgpool-II only if its pgpool-II does not answer either."""
        if node_id == self._own_id or wish.health is not Health.DEAD or wish.certain:
            self._knocking.forget(node_id)
        elif (health := self._knocking.ask(node_id, now_ns)) is not Health.DEAD:
            return Wish(Health.UNKNOWN, f"{wish.sentence}, but its pgpool-II {_ANSWERS[health]}")
        return wish

    def report(self) -> PgpoolWatchdog:
        """For status."""
        known = self._known
        if known is None:
            return PgpoolWatchdog(self._read_at_ns, self.reading.evidence, "", "unknown", False, "", ())
        leader = known.leader()
        return PgpoolWatchdog(
            self._read_at_ns,
            self._trouble(),
            "" if leader is None else leader.name,
            pgpool_ipc.QUORUM_NAMES[known.quorum],
            known.escalated,
            known.nodes[0].delegate_ip,
            self._plan.members(),
        )

    def _trouble(self) -> str:
        answering = [self._labels[node_id] for node_id in self._knocking.answering()]
        if answering:
            return f"{', '.join(answering)}: silent for pgvigil, but pgpool-II there answers, so it is not called dead"
        return self._plan.trouble()

    def wake(self) -> int | None:
        own_ns = self._deadline_ns if self._connection is not None else self._plan.wake()
        return min((at for at in (own_ns, self._knocking.wake()) if at is not None), default=None)

    def tick(self, now_ns: int) -> None:
        if self._knocking.tick(now_ns):
            for node_id in self._knocking.answering():
                logger.warning("%s is silent, but its pgpool-II answers: not called dead", self._labels[node_id])
            self.wish(self._wishes, now_ns)
            self._on_news()
        if self._connection is not None and now_ns >= self._deadline_ns:
            self._fail(f"has not answered for {ANSWER_LIMIT_NS // NS_PER_MS} ms", now_ns)
        self._go_on(now_ns)

    def late(self, lateness_ns: int) -> None:
        """Its answer may wait in the socket already."""
        self._deadline_ns += lateness_ns
        self._knocking.late(lateness_ns)

    def close(self) -> None:
        """Give all sockets back."""
        self._knocking.close()
        self._end()

    def _end(self) -> None:
        """End the exchange that is under way."""
        if self._connection is not None:
            self._watcher.unwatch(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self._order = None
        self._received = b""

    # --- one exchange -----------------------------------------------------------------------------

    def _go_on(self, now_ns: int) -> None:
        """Begin what is due, unless an exchange is under way."""
        if self._connection is not None:
            return
        order = self._plan.next(now_ns)
        if order is None:
            return
        try:
            self._connection = self._send(self._request(order))
        except CommandError as error:
            self._fail(str(error), now_ns, isinstance(error, _Gone))
            return
        self._order = order
        self._deadline_ns = now_ns + ANSWER_LIMIT_NS
        self._watcher.watch(self._connection.fileno(), self._on_readable)

    def _request(self, order: Order) -> bytes:
        if order.kind is Kind.LIST:
            return pgpool_ipc.node_list_request(self._authkey)
        return pgpool_ipc.status_request(order.pgpool_id, order.alive, order.message, self._authkey)

    def _send(self, request: bytes) -> socket.socket:
        """A connection on which the whole request is on its way; `CommandError` says why not."""
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise CommandError(self._refused(error)) from None
        try:
            connection.connect(self._path)
            reason = self._stranger(connection)
            if not reason:
                if connection.send(request) == len(request):
                    return connection
                reason = "takes only a part of a request"
        except OSError as error:
            connection.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise _Gone(self._refused(error)) from None
            raise CommandError(self._refused(error)) from None
        connection.close()
        raise CommandError(reason)

    def _stranger(self, connection: socket.socket) -> str:
        """Who listens there if it cannot be pgpool-II: in a folder like /tmp anybody could, to be given the key."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        uid = CREDENTIALS.unpack(credentials)[1]
        allowed = {ROOT, os.geteuid()}
        try:
            allowed.add(os.stat(self._pid_file).st_uid)
        except OSError:
            pass  # pgpool-II has just ended or begins: then only root and we ourselves
        if uid in allowed:
            return ""
        return (
            f"is not behind {self._path}: user {uid} is, expected root, {os.geteuid()} or the owner of {self._pid_file}"
        )

    def _refused(self, error: OSError) -> str:
        if error.errno == errno.ENOENT:
            return f"has no socket {self._path}"
        if error.errno == errno.EAGAIN:
            return f"does not take connections at {self._path}: its queue is full"
        return f"cannot be reached at {self._path}: {os.strerror(error.errno or 0)}"

    def _on_readable(self) -> None:
        connection, now_ns = self._connection, boottime_ns()
        if connection is None:
            return
        try:
            part = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"broke off: {os.strerror(error.errno or 0)}", now_ns)
            return
        self._received += part
        try:
            reply = pgpool_ipc.whole_reply(self._received)
            if reply is None and part:
                return
            self._finish(reply, now_ns)
        except PeerError as error:
            self._fail(f"answers with something invalid: {error}", now_ns)
        self._go_on(boottime_ns())

    def _finish(self, reply: tuple[bytes, bytes] | None, now_ns: int) -> None:
        """A whole reply, or the end of the connection, which is how a change of status succeeds."""
        order = self._order
        assert order is not None
        if reply is not None and reply[0] != pgpool_ipc.OK:
            self._fail(pgpool_ipc.refusal(*reply), now_ns)
        elif order.kind is Kind.STATUS:
            self._end()
            self._plan.said(order, now_ns)
            logger.info("told pgpool-II's watchdog: %s", order.message)
            self._on_news()
        elif reply is None:
            self._fail("closed the connection without an answer", now_ns)
        else:
            self._take_list(pgpool_ipc.parse_node_list(reply[1]), now_ns)

    def _take_list(self, node_list: pgpool_ipc.NodeList, now_ns: int) -> None:
        self._end()
        self._retry_ns = RETRY_NS
        before = self._known
        self._known = node_list
        self._read_at_ns = now_ns
        self._plan.listed(node_list, now_ns)
        trouble = self._trouble()
        leader = node_list.leader()
        leads = "none leads" if leader is None else f"{leader.name} leads"
        self._conclude(Health.ALIVE, f"pgpool-II's watchdog answers: {trouble or leads}", now_ns)
        if node_list != before:
            self._on_news()

    def _fail(self, reason: str, now_ns: int, gone: bool = False) -> None:
        """The exchange came to nothing; what was known of the list is out of date."""
        hangs = self._connection is not None
        self._end()
        self._plan.failed(self._retry_ns, now_ns, gone)
        # A socket that is not there costs nothing to look for.
        self._retry_ns = min(2 * self._retry_ns, MAX_RETRY_NS) if hangs else RETRY_NS
        known_before = self._known is not None
        self._known = None
        self._conclude(Health.DEAD, f"pgpool-II's watchdog {reason}", now_ns)
        if known_before:
            self._on_news()

    def _conclude(self, health: Health, evidence: str, now_ns: int) -> None:
        since_ns = self.reading.since_ns if health is self.reading.health else now_ns
        changed = health is not self.reading.health
        self.reading = Reading(health, since_ns, evidence)
        if changed:
            self._on_change(self.reading)
