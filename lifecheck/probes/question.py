"""One question to one pgpool-II: connect, ask, read, without ever blocking.

libpq does the talking (`psycopg.pq`, its thin wrapper): it knows every way in which a server may ask for a password. A
question is driven by whoever watches its descriptor; it refuses to look up names (the address is given), to ask
Kerberos, and to judge: `Ending` says what happened, `core.answers` what it means.
"""

from __future__ import annotations

import select
from dataclasses import dataclass

from psycopg import OperationalError, pq

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.lifecheck.core.answers import Ending

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_FAILED_RESULTS = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR)
_COPIES = (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH)
_NO_RESULT = "query is a COPY, expected one with a result", "0A000"
_TCP_IS_UP = (pq.ConnStatus.MADE, pq.ConnStatus.SSL_STARTUP)
# The states in which pgpool-II has answered the first packet, given that it was a request for TLS.
_BEHIND_FIRST_ANSWER = (pq.ConnStatus.AWAITING_RESPONSE, pq.ConnStatus.AUTH_OK, pq.ConnStatus.AUTHENTICATING)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, as whom, and what. `host` names it in .pgpass, `address` is where the packets go."""

    host: str
    address: str
    port: int
    database: str
    user: str
    password: str
    passfile: str

    def conninfo(self) -> bytes:
        """libpq's connection string. Every value that libpq would take from files or its environment is given."""
        values = {
            "host": self.host,
            "hostaddr": self.address,
            "port": str(self.port),
            "dbname": self.database,
            "user": self.user,
            "passfile": self.passfile,
            "application_name": "pgvigil",
            # The answer to this request is the proof that pgpool-II itself lives, with and without TLS.
            "sslmode": "prefer",
            # Kerberos would ask its servers while the loop waits.
            "gssencmode": "disable",
            "require_auth": "none,password,md5,scram-sha-256",
        }
        if self.password:
            values["password"] = self.password
        return " ".join(f"{name}={_quoted(value)}" for name, value in values.items()).encode()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Question:
    """`fd` and `events` say what to wait for (epoll's bits); `advance` goes on, and returns the ending once."""

    def __init__(self, target: Target, query: str, asked_at_ns: int, deadline_ns: int) -> None:
        self.asked_at_ns = asked_at_ns
        self.deadline_ns = deadline_ns
        self.events = _WRITE
        self._query = query.encode()
        self._connected = self._answered = self._is_session = False
        self._error: tuple[str, str] | None = None
        self._connection = pq.PGconn.connect_start(target.conninfo())

    @property
    def fd(self) -> int:
        """-1 if there is no socket (any more)."""
        try:
            return self._connection.socket
        except OperationalError:
            return -1

    def advance(self, now_ns: int) -> Ending | None:
        """The descriptor is ready: do what can be done."""
        try:
            return self._converse(now_ns) if self._is_session else self._connect(now_ns)
        except OperationalError as error:
            return self._ending(now_ns, str(error))

    def give_up(self, now_ns: int) -> Ending:
        """The deadline has passed."""
        return self._ending(now_ns, None, timed_out=True)

    def close(self) -> None:
        """Say good-bye if there is a session, and give the descriptor back."""
        self._connection.finish()

    def _connect(self, now_ns: int) -> Ending | None:
        if self._connection.status == pq.ConnStatus.BAD:
            return self._ending(now_ns, self._connection.get_error_message())
        polled = self._connection.connect_poll()
        self._note_progress()
        if polled == pq.PollingStatus.FAILED:
            return self._ending(now_ns, self._connection.get_error_message())
        if polled == pq.PollingStatus.OK:
            self._is_session = True
            self._connection.nonblocking = 1
            self._connection.send_query(self._query)
            self._flush()
        else:
            self.events = _READ if polled == pq.PollingStatus.READING else _WRITE
        return None

    def _note_progress(self) -> None:
        status = self._connection.status
        self._answered = self._answered or status in _BEHIND_FIRST_ANSWER or status == pq.ConnStatus.OK
        self._connected = self._connected or self._answered or status in _TCP_IS_UP

    def _flush(self) -> None:
        self.events = _READ | _WRITE if self._connection.flush() else _READ

    def _converse(self, now_ns: int) -> Ending | None:
        self._flush()
        self._connection.consume_input()
        while not self._connection.is_busy():
            result = self._connection.get_result()
            if result is None:
                text, sqlstate = self._error or (None, "")
                return self._ending(now_ns, text, sqlstate)
            if result.status in _COPIES:  # libpq would give the same one again and again
                return self._ending(now_ns, *_NO_RESULT)
            if result.status in _FAILED_RESULTS and self._error is None:
                primary, state = pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.SQLSTATE
                words = (result.error_field(primary) or b"").decode("utf-8", "replace")
                sqlstate = (result.error_field(state) or b"").decode("ascii", "replace")
                # An error that libpq makes up itself (a connection that broke) has a text only.
                self._error = words or result.get_error_message(), sqlstate
            result.clear()
        return None

    def _ending(self, now_ns: int, error: str | None, sqlstate: str = "", timed_out: bool = False) -> Ending:
        took_ms = (now_ns - self.asked_at_ns) // NS_PER_MS
        return Ending(self._connected, self._answered, timed_out, took_ms, error, sqlstate)
