"""One PCP connection without its socket: login, one request after another, what the server says on its own.

Bytes in, events out; `outgoing` is what to send. Whoever owns the socket sends that after every call, and owns the
deadlines too: nothing here knows the time. In a loop that must not block:

    session = Session(user, password)
    session.ask(requests.node_info())                    # may be asked before the login is done
    ... writable: sent = socket.send(session.outgoing()) ...
    ... readable: for event in session.feed(socket.recv(65536)): ...   (b"": session.end())

A server that breaks the format gives one `Broken` with a `PeerError`; after it, and after a fatal report, the session
is over and only a new one helps. One request at a time: the answer says nothing about which question it belongs to.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from pgvigil.ipc.errors import ConfigError, InvariantError, PeerError
from pgvigil.watchdog.pcp import protocol
from pgvigil.watchdog.pcp.digest import digest
from pgvigil.watchdog.pcp.protocol import Frame, FrameBuffer, Reader, Request
from pgvigil.watchdog.pcp.records import Report

LOGIN_BYTES = 64 * 1024
IDLE_BYTES = 64 * 1024
MAX_USER_BYTES = 127
"""What pgpool-II keeps of a user's name (MAX_USER_PASSWD_LEN is 128, NUL included)."""


class State(enum.Enum):
    """What is waited for; the value says it to people."""

    SALT = "the salt of the login"
    LOGIN = "the answer to the login"
    IDLE = "nothing"
    ASKED = "an answer"
    OVER = "nothing more"


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The server knows the user and the password."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The whole answer to a request."""

    request: Request[Any]
    value: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """The server said no; without a request: to the login, or to nothing at all. A fatal report ends the session."""

    request: Request[Any] | None
    report: Report
    during: State


@dataclass(frozen=True, slots=True)
class Noticed:
    """The server remarked something."""

    report: Report


@dataclass(frozen=True, slots=True)
class Broken:
    """The server broke the format, or hung up before it had answered. The session is over."""

    error: PeerError


Event = LoggedIn | Answered | Refused | Noticed | Broken


class Session:
    """A connection from the first byte to the last."""

    def __init__(self, user: str, password: str) -> None:
        # Names and passwords in another encoding than UTF-8 pass through as the bytes that they were.
        name = user.encode(errors="surrogateescape")
        if not 1 <= len(name) <= MAX_USER_BYTES or b"\0" in name or ":" in user:
            raise ConfigError(f"PCP user {user[:40]!r}, expected 1 to {MAX_USER_BYTES} bytes without ':' and NUL")
        self._user, self._password = name, password.encode(errors="surrogateescape")
        self._frames = FrameBuffer()
        self._frames.expect(State.SALT.value, "m", LOGIN_BYTES)
        self._out = protocol.encode("M")
        self._request: Request[Any] | None = None
        self._reader: Reader[Any] | None = None
        self.state = State.SALT

    @property
    def waiting_for(self) -> str:
        """What is waited for, for the sentence about a deadline."""
        if self.state is State.ASKED and self._request is not None:
            return f"the answer to {self._request.name}"
        return self.state.value

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self.state is State.OVER

    def outgoing(self) -> bytes:
        """What is to be sent now; given out once."""
        out, self._out = self._out, b""
        return out

    def ask(self, request: Request[Any]) -> None:
        """Ask as soon as the login is done; `InvariantError` while another request is open."""
        if self._request is not None or self.is_over:
            raise InvariantError(f"{request.name} while waiting for {self.waiting_for}, expected an idle session")
        encoded = request.encoded()
        if not request.answer:
            if self.state is not State.IDLE:
                raise InvariantError(f"{request.name} before the login, expected an idle session")
            self._out += encoded
            return
        self._request = request
        if self.state is State.IDLE:
            self._send_request(request)

    def close(self) -> None:
        """Say good-bye; the rest of what is waited for is given up."""
        if self.state in (State.IDLE, State.ASKED):
            self._out += protocol.encode("X")
        self._over()

    def feed(self, data: bytes) -> list[Event]:
        """Bytes from the server, in pieces of any size."""
        events: list[Event] = []
        if self.is_over:
            return events
        self._frames.add(data)
        try:
            while not self.is_over and (frame := self._frames.take()) is not None:
                events += self._take(frame)
        except PeerError as error:
            self._over()
            events.append(Broken(error))
        return events

    def end(self) -> list[Event]:
        """The server has hung up."""
        if self.is_over:
            return []
        waiting, unread, idle = self.waiting_for, self._frames.unread_bytes, self.state is State.IDLE
        self._over()
        if idle and not unread:
            return []
        inside = f" inside a frame, after {unread} bytes of it" if unread else ""
        return [Broken(PeerError(f"the connection was closed{inside}, expected {waiting}"))]

    # frames, one by one

    def _take(self, frame: Frame) -> list[Event]:
        if frame.letter == protocol.NOTICE:
            return [Noticed(protocol.report(frame.body))]
        if frame.letter == protocol.ERROR:
            return [self._refused(protocol.report(frame.body))]
        if self.state is State.SALT:
            return self._salted(frame.body)
        if self.state is State.LOGIN:
            return self._logged_in(frame.body)
        return self._answered(frame.body)

    def _salted(self, body: bytes) -> list[Event]:
        if len(body) != protocol.SALT_BYTES:
            raise PeerError(f"a salt of {len(body)} bytes, expected {protocol.SALT_BYTES}")
        proof = digest(self._user, self._password, body)
        self._out += protocol.encode("R", self._user + b"\0" + proof + b"\0")
        self._frames.expect(State.LOGIN.value, "r", LOGIN_BYTES)
        self.state = State.LOGIN
        return []

    def _logged_in(self, body: bytes) -> list[Event]:
        if body != protocol.AUTHENTICATED + b"\0":
            wanted = protocol.shown(protocol.AUTHENTICATED)
            raise PeerError(f"the answer to the login is {protocol.shown(body)}, expected {wanted}")
        self._idle()
        if self._request is not None:
            self._send_request(self._request)
        return [LoggedIn()]

    def _answered(self, body: bytes) -> list[Event]:
        request, reader = self._request, self._reader
        if request is None or reader is None:
            raise InvariantError("an answer without a request")
        if not reader.take(body):
            return []
        self._request = self._reader = None
        self._idle()
        return [Answered(request, reader.value())]

    def _refused(self, report: Report) -> Refused:
        request, during = self._request if self.state is State.ASKED else None, self.state
        # A refused login is no login, whatever the server calls it.
        if report.is_fatal or during in (State.SALT, State.LOGIN):
            self._over()
        elif request is not None:
            self._request = self._reader = None
            self._idle()
        return Refused(request, report, during)

    def _send_request(self, request: Request[Any]) -> None:
        self._out += request.encoded()
        self._reader = request.reader()
        self.state = State.ASKED
        self._frames.expect(self.waiting_for, request.answer, request.max_bytes)

    def _idle(self) -> None:
        self._frames.expect("a server that was asked nothing", "", IDLE_BYTES)
        self.state = State.IDLE

    def _over(self) -> None:
        self.state = State.OVER
        self._frames.clear()
        self._request = self._reader = None
