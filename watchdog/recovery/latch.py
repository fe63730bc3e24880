"""How the second stage of a recovery is noticed and kept waiting, through the front door of the local pgpool-II.

pgpool-II tells nobody that the second stage begins. But it begins with two things that every client can see: new
clients are connected by the kernel and served by nobody, and pgpool-II waits (at most `recovery_timeout`) until its
present clients have gone before it runs recovery_2nd_stage_command. So a *knock* tells when the stage begins, and a
session of our own, the *latch*, keeps pgpool-II waiting until everybody else is ready. Measured with 4.3.5, see
docs/recovery.md. Both talk to one pgpool-II only; nothing here knows other nodes.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError

SSL_REQUEST = struct.pack(">II", 8, 80877103)
"""Answered with one byte, before pgpool-II asks who it is and connects to a backend (PostgreSQL's SSLRequest)."""
KNOCK_LIMIT_MS = 1500
CUT_AT_ONCE = -1
LEAST_IDLE_S = 3
TOUCH_S = 1.0
SILENCE_NS = 20_000 * NS_PER_MS


def is_served(host: str, port: int, limit_ms: int = KNOCK_LIMIT_MS) -> bool:
    """Whether pgpool-II takes new clients; False also when nobody listens: nothing must depend on a yes."""
    deadline_ns = boottime_ns() + limit_ms * NS_PER_MS
    try:
        with socket.create_connection((host, port), limit_ms / 1000) as connection:
            connection.settimeout(max(0.001, (deadline_ns - boottime_ns()) / 1e9))
            connection.sendall(SSL_REQUEST)
            return len(connection.recv(1)) == 1
    except OSError:
        return False


def obstacle(idle_limit_s: int) -> str:
    """Why a latch would not hold with this client_idle_limit_in_recovery; empty if it would."""
    if idle_limit_s == 0 or idle_limit_s >= LEAST_IDLE_S:
        return ""
    what = "ends every session at once" if idle_limit_s == CUT_AT_ONCE else "would end our session"
    return f"client_idle_limit_in_recovery = {idle_limit_s} {what}, expected 0 or at least {LEAST_IDLE_S}"


@dataclass(frozen=True, slots=True)
class LatchTarget:
    """The local pgpool-II, and as whom; an empty password file means libpq's own."""

    host: str
    port: int
    user: str
    database: str
    password: str | None


class Latch:
    """A session that pgpool-II waits for; `CommandError` if it cannot be had. It asks something every second."""

    def __init__(self, target: LatchTarget) -> None:
        import psycopg  # the daemons never do

        self._error = psycopg.Error
        try:
            self._session: Any = psycopg.connect(
                host=target.host,
                port=target.port,
                user=target.user,
                dbname=target.database,
                password=target.password,
                connect_timeout=5,
                application_name="pgvigil recovery",
                autocommit=True,
            )
        except psycopg.Error as error:
            raise CommandError(f"no session through pgpool-II at {target.host}:{target.port}: {_line(error)}") from None
        self._opened = threading.Event()
        self._answered_at_ns = boottime_ns()
        # psycopg waits without a limit for an answer; whoever waits for everybody else must not wait for it.
        self._thread = threading.Thread(target=self._touch, daemon=True)
        self._thread.start()

    def _touch(self) -> None:
        try:
            while not self._opened.is_set():
                self._session.execute("SELECT 1")
                self._answered_at_ns = boottime_ns()
                self._opened.wait(TOUCH_S)
        except self._error:
            return
        finally:
            self._session.close()

    def is_shut(self) -> bool:
        """Whether pgpool-II still waits for it, as far as can be known."""
        return self._thread.is_alive() and boottime_ns() < self._answered_at_ns + SILENCE_NS

    def open(self) -> None:
        """Let pgpool-II go on."""
        self._opened.set()
        self._thread.join(TOUCH_S + 2)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
