"""The knock at pgpool-II's door, and sessions that would not hold."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.recovery.latch import SSL_REQUEST, Latch, LatchTarget, is_served, obstacle

LIMIT_MS = 20_000


@contextmanager
def door(answer: bytes | None) -> Iterator[int]:
    """Somebody who answers the first visitor with these bytes; None: who serves nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve(said: bytes) -> None:
            visitor, _ = listener.accept()
            with visitor:
                visitor.settimeout(20)
                assert visitor.recv(64) == SSL_REQUEST
                visitor.sendall(said)

        thread = None if answer is None else threading.Thread(target=serve, args=(answer,))
        if thread is not None:
            thread.start()
        yield listener.getsockname()[1]
        if thread is not None:
            thread.join(20)


@pytest.mark.parametrize("answer", [b"N", b"S", b"E"])
def test_whoever_answers_serves(answer: bytes) -> None:
    with door(answer) as port:
        assert is_served("127.0.0.1", port, LIMIT_MS)


def test_who_hangs_up_or_keeps_silent_does_not_serve() -> None:
    with door(b"") as port:
        assert not is_served("127.0.0.1", port, LIMIT_MS)
    with door(None) as port:  # connected by the kernel, as in the second stage
        assert not is_served("127.0.0.1", port, 200)


def test_where_nobody_listens_nobody_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not is_served("127.0.0.1", port, LIMIT_MS)


@pytest.mark.parametrize(("idle_limit_s", "holds"), [(0, True), (3, True), (600, True), (-1, False), (1, False)])
def test_a_session_that_pgpool_would_end_is_no_latch(idle_limit_s: int, holds: bool) -> None:
    assert (obstacle(idle_limit_s) == "") == holds
    assert holds or f"client_idle_limit_in_recovery = {idle_limit_s} " in obstacle(idle_limit_s)


def test_no_session_is_the_environments_mistake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(CommandError, match=f"no session through pgpool-II at 127.0.0.1:{port}: connection"):
        Latch(LatchTarget("127.0.0.1", port, "nobody", "postgres", None))
