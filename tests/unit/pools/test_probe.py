"""Does a PostgreSQL answer: against sockets that say what PostgreSQL says, and those that say nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.pools.loops import Ground, ground

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog.pools import probe
from pgvigil.watchdog.pools.plan import Probed
from pgvigil.watchdog.pools.probe import Prober, judge, startup_packet


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def error(code: str, message: str) -> bytes:
    body = b"SFATAL\0" + b"C" + code.encode() + b"\0M" + message.encode() + b"\0\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


@contextmanager
def server(answer: bytes | None, heard: list[bytes]) -> Iterator[int]:
    """Answers one connection; None: never, and keeps it open."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    ended = threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(20)
            heard.append(connection.recv(4096))
            if answer is None:
                ended.wait(20)
            else:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        listener.close()
        thread.join(30)


def asked(place: Ground, host: str, port: int) -> Probed:
    prober = Prober(place.loop, place.resolver, boottime_ns)
    got: list[Probed] = []
    prober.ask(1, host, port, got.append)
    place.until(lambda: bool(got))
    assert not prober.asks(1) and prober.wake() is None
    prober.close()
    return got[0]


@pytest.mark.parametrize(
    ("said", "answers", "words"),
    [
        (b"R\0\0\0\x08\0\0\0\x00", True, "answers"),
        (error("28P01", "password authentication failed"), True, "password authentication failed"),
        (error("28000", "no pg_hba.conf entry"), True, "no pg_hba.conf entry"),
        (error("53300", "too many clients already"), True, "too many clients"),
        (error("57P03", "the database system is starting up"), False, "starting up"),
        (error("57P03", "the database system is shutting down"), False, "shutting down"),
        (b"HTTP/1.1 400 Bad Request", False, "expected PostgreSQL"),
        (b"", False, "without an answer"),
        (b"E\0\0\0\xff", False, "without an answer"),
        (b"E\x7f\xff\xff\xffSFATAL\0", False, "without an answer"),
    ],
)
def test_what_is_said(said: bytes, answers: bool, words: str, place: Ground) -> None:
    heard: list[bytes] = []
    with server(said, heard) as port:
        probed = asked(place, "127.0.0.1", port)
    assert probed.answers is answers and words in probed.evidence
    assert heard == [startup_packet()]


def test_silence_and_nobody_there_are_no_answer(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LIMIT_NS", 300 * NS_PER_MS)
    with server(None, []) as port:
        assert asked(place, "127.0.0.1", port).answers is False
    assert "refused" in asked(place, "127.0.0.1", port).evidence
    assert asked(place, str(place.folder), 5432).answers is False


def test_silence_is_as_old_as_the_question(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision may come while a question waits: its end says nothing of what is decided."""
    monkeypatch.setattr(probe, "LIMIT_NS", 300 * NS_PER_MS)
    began_ns = boottime_ns()
    with server(None, []) as port:
        probed = asked(place, "127.0.0.1", port)
    assert began_ns <= probed.at_ns <= boottime_ns() - 300 * NS_PER_MS
    began_ns = boottime_ns()
    assert began_ns <= asked(place, "nobody.invalid", 5432).at_ns <= boottime_ns()


def test_a_name_without_an_address_says_nothing_of_postgresql(place: Ground) -> None:
    assert asked(place, "nobody.invalid", 5432).answers is None


def test_a_unix_socket_is_found_by_folder_and_port(place: Ground) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place.folder / ".s.PGSQL.5499"))
    listener.listen()
    prober = Prober(place.loop, place.resolver, boottime_ns)
    got: list[Probed] = []
    prober.ask(0, str(place.folder), 5499, got.append)
    connection, _ = listener.accept()
    connection.sendall(b"R\0\0\0\x08\0\0\0\0")
    place.until(lambda: bool(got))
    assert got[0].answers is True
    connection.close()
    listener.close()
    prober.close()


def test_the_packet_is_that_of_the_protocol() -> None:
    packet = startup_packet()
    assert int.from_bytes(packet[:4], "big") == len(packet) and packet[4:8] == bytes.fromhex("00030000")
    assert packet.endswith(b"\0\0") and b"user\0pgvigil\0" in packet


def test_an_answer_is_judged_from_pieces_and_never_without_end() -> None:
    whole = error("57P03", "the database system is starting up")
    assert [judge(whole[:size]) for size in range(1, len(whole))] == [None] * (len(whole) - 1)
    assert judge(whole) == (False, "does not take connections: the database system is starting up")
    assert judge(b"") is None
    assert judge(b"E\x7f\xff\xff\xff" + b"x" * 9000) is not None
