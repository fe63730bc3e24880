"""A small blocking PCP client for the command line: one connection, every wait with a deadline.

Whoever must not block uses `session` in a loop of its own. Errors go by blame: `ConfigError` for user and password,
`CommandError` for a pgpool-II that cannot be reached or says no (`PcpRefused` with its report), `PeerError` for one
that breaks the format, hangs up or keeps silent. Nothing is asked twice: an order without an answer may have been done.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError, PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import HealthStats, NodeInfo, Report
from pgvigil.watchdog.pcp.session import Answered, Broken, Event, LoggedIn, Noticed, Refused, Session, State

T = TypeVar("T")

CONNECT_LIMIT_MS = 10_000
ANSWER_LIMIT_MS = 10_000
RECEIVE_BYTES = 65_536
KEPT_NOTICES = 16
MAX_TARGETS = 8
UNKNOWN_PACKET = "unknown PCP packet type"
INVALID_NODE = "invalid node ID"


class PcpRefused(CommandError):
    """pgpool-II said no; `report` is what it said."""

    def __init__(self, text: str, report: Report) -> None:
        super().__init__(text)
        self.report = report


@dataclass(frozen=True, slots=True)
class Address:
    """Where PCP listens: a host and its TCP port, or the folder of the unix socket and the port in its name."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether it is a unix socket."""
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_local:
            return f"{self.host.rstrip('/')}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant until which something may take, and the limit that it came from."""

    limit_ms: int
    at_ns: int

    @classmethod
    def after(cls, limit_ms: int) -> Deadline:
        return cls(limit_ms, boottime_ns() + limit_ms * NS_PER_MS)

    def left_ms(self) -> int:
        """Rounded up, so that a wait of it never ends just before the deadline; 0 once it has passed."""
        return max(0, -(-(self.at_ns - boottime_ns()) // NS_PER_MS))


class Client:
    """A connection that is logged in. Use it with `with`."""

    def __init__(self, address: Address, user: str, password: str, limit_ms: int = CONNECT_LIMIT_MS) -> None:
        self.address = address
        self.notices: deque[Report] = deque(maxlen=KEPT_NOTICES)
        self.has_ordered = False
        """Whether anything was asked that changes something: then a missing answer means an unknown outcome."""
        self._session = Session(user, password)
        deadline = Deadline.after(limit_ms)
        self._socket = _connect(address, deadline)
        try:
            self._until(LoggedIn, deadline)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, request: Request[T], limit_ms: int = ANSWER_LIMIT_MS) -> T:
        """Send one request and wait for its answer, at most so long; then the connection is of no use any more."""
        if self._session.is_over:
            raise PeerError(f"pgpool-II at {self.address} has hung up, expected a connection for {request.name}")
        deadline = Deadline.after(limit_ms)
        self._session.ask(request)
        self.has_ordered |= request.changes
        if not request.answer:
            self._send(deadline)
            return request.reader().value()
        answered = self._until(Answered, deadline)
        value: T = answered.value
        return value

    def nodes(self, limit_ms: int = ANSWER_LIMIT_MS) -> tuple[NodeInfo, ...]:
        """All backends, from any version: 4.2 must be asked for one after the other."""
        deadline = Deadline.after(limit_ms)
        try:
            return self.ask(requests.node_info(), limit_ms)
        except PcpRefused as error:
            if self._session.is_over or INVALID_NODE.lower() not in error.report.detail.lower():
                raise
        count = self.ask(requests.node_count(), deadline.left_ms())
        found = [self.ask(requests.node_info(node), deadline.left_ms()) for node in range(count)]
        return tuple(node for nodes in found for node in nodes)

    def all_health_stats(self, limit_ms: int = ANSWER_LIMIT_MS) -> tuple[HealthStats, ...]:
        """What health checks of every backend came to."""
        deadline = Deadline.after(limit_ms)
        count = self.ask(requests.node_count(), deadline.left_ms())
        return tuple(self.ask(requests.health_stats(node), deadline.left_ms()) for node in range(count))

    def promote(
        self, node_id: int, graceful: bool = False, switchover: bool = False, limit_ms: int = ANSWER_LIMIT_MS
    ) -> None:
        """Promote a backend; `CommandError` if pgpool-II would say done, or nothing at all, without doing it."""
        deadline = Deadline.after(limit_ms)
        (node,) = self.ask(requests.node_info(node_id), deadline.left_ms())
        obstacle = requests.promotion_obstacle(node, switchover)
        if obstacle:
            raise CommandError(f"pgpool-II at {self.address}: {obstacle}")
        self.ask(requests.promote(node_id, graceful, switchover), deadline.left_ms())

    def close(self) -> None:
        """Say good-bye and hang up; waits for nothing."""
        self._session.close()
        try:
            self._socket.send(self._session.outgoing())
        except OSError:
            pass  # it has hung up already, or does not read: there is nothing left to say
        self._socket.close()

    # waiting

    def _until(self, kind: type[LoggedIn] | type[Answered], deadline: Deadline) -> Any:
        """The first event of this kind; what is no answer is raised or kept."""
        while True:
            self._send(deadline)
            waiting = self._session.waiting_for
            if not _wait(self._socket, select.POLLIN, deadline):
                self._session.close()
                text = f"waited {deadline.limit_ms} ms in vain, expected {waiting}"
                raise PeerError(f"pgpool-II at {self.address}: {text}")
            found = None
            for event in self._receive():
                if isinstance(event, kind):
                    found = event
                # An answer that is whole counts, whatever comes behind it.
                elif found is None or isinstance(event, Noticed):
                    self._consider(event)
            if found is not None:
                return found

    def _receive(self) -> list[Event]:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            waiting = self._session.waiting_for
            self._session.close()
            text = f"the connection broke ({os.strerror(error.errno or 0)}), expected {waiting}"
            raise PeerError(f"pgpool-II at {self.address}: {text}") from None
        return self._session.feed(data) if data else self._session.end()

    def _consider(self, event: Event) -> None:
        if isinstance(event, Noticed):
            self.notices.append(event.report)
        elif isinstance(event, Broken):
            raise PeerError(f"pgpool-II at {self.address}: {event.error}")
        elif isinstance(event, Refused):
            raise self._refusal(event)

    def _refusal(self, event: Refused) -> ConfigError | PcpRefused:
        report = event.report
        if event.during in (State.SALT, State.LOGIN):
            return ConfigError(
                f"pgpool-II at {self.address} refused the login: {report}; expected a user and password of its pcp.conf"
            )
        name = event.request.name if event.request is not None else "the connection"
        return PcpRefused(f"pgpool-II at {self.address} refused {name}: {report}{_hint(name, report)}", report)

    def _send(self, deadline: Deadline) -> None:
        out = self._session.outgoing()
        while out:
            if not _wait(self._socket, select.POLLOUT, deadline):
                self._session.close()
                raise PeerError(
                    f"pgpool-II at {self.address}: reads nothing for {deadline.limit_ms} ms, expected it to"
                )
            try:
                out = out[self._socket.send(out) :]
            except BlockingIOError:
                continue
            except OSError:
                return  # what it said before it hung up is read next, and is the better reason


def _hint(name: str, report: Report) -> str:
    """What we know and pgpool-II does not say."""
    if report.hint:
        return ""
    if UNKNOWN_PACKET in report.detail:
        return "; this request needs pgpool-II 4.6 or newer"
    if name == "watchdog-info" and "not enabled" in report.detail:
        return "; use_watchdog is off there, 'pgvigil status' shows pgvigil's own nodes"
    return ""


# --- connecting ---------------------------------------------------------------------------------------------------


def _connect(address: Address, deadline: Deadline) -> socket.socket:
    reasons: list[str] = []
    for family, target in _targets(address, deadline):
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            reason = _try_connect(connection, target, deadline)
        except BaseException:
            connection.close()
            raise
        if not reason:
            return connection
        connection.close()
        reasons.append(reason)
    why = ", ".join(dict.fromkeys(reasons))
    raise CommandError(f"no connection to pgpool-II at {address}: {why}; expected its PCP port, is pgpool-II running?")


def _try_connect(connection: socket.socket, target: Any, deadline: Deadline) -> str:
    """Empty if it is connected, the reason otherwise."""
    try:
        number = connection.connect_ex(target)
    except OSError as error:  # a path that is too long has no number
        return error.strerror or str(error)
    if number == errno.EAGAIN:
        return "its queue of new connections is full"
    if number not in (0, errno.EINPROGRESS):
        return os.strerror(number)
    if number and not _wait(connection, select.POLLOUT, deadline):
        return f"waited {deadline.limit_ms} ms in vain"
    number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return os.strerror(number) if number else ""


def _wait(connection: socket.socket, events: int, deadline: Deadline) -> bool:
    """Whether the socket is ready before the deadline."""
    poller = select.poll()
    poller.register(connection, events)
    return bool(poller.poll(deadline.left_ms()))


def _targets(address: Address, deadline: Deadline) -> list[tuple[socket.AddressFamily, Any]]:
    """What to connect to, in order."""
    if address.is_local:
        return [(socket.AF_UNIX, str(address))]
    found: list[tuple[socket.AddressFamily, Any]] = []
    reasons: list[str] = []

    def resolve() -> None:
        try:
            infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found.extend((family, target) for family, _, _, _, target in infos)
        except (OSError, UnicodeError) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))

    # The resolver has time limits of its own (resolv.conf(5)) that may be longer, and no way to be interrupted.
    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(deadline.left_ms() / 1000)
    if thread.is_alive():
        raise CommandError(f"the name {address.host} was not resolved within {deadline.limit_ms} ms; expected a host")
    if reasons or not found:
        raise CommandError(f"the name {address.host} cannot be resolved: {''.join(reasons) or 'no address'}")
    return found[:MAX_TARGETS]
