"""ICMP echo: the bytes, and questions to loopback for real; a question never blocks and never counts late."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes import echo
from pgvigil.lifecheck.probes.echo import (
    ECHO6_REPLY,
    ECHO_REPLY,
    Echo,
    checksum,
    echo_request,
    family_of,
    is_reply,
    permitted,
)

TOKEN = bytes(range(16))
FOUR, SIX = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_an_echo_has_to_bring_back_its_token() -> None:
    sent = echo_request(FOUR, 7, 9, TOKEN)
    assert checksum(sent) == 0 and (sent[0], sent[8:]) == (8, TOKEN)
    reply = struct.pack("!BBHHH", ECHO_REPLY, 0, 0, 7, 9) + TOKEN
    header = bytes([0x45]) + bytes(19)
    assert is_reply(FOUR, reply, TOKEN) and is_reply(FOUR, header + reply, TOKEN)
    assert not is_reply(FOUR, sent, TOKEN)
    assert not is_reply(FOUR, reply[:-1] + b"x", TOKEN) and not is_reply(FOUR, b"", TOKEN)
    assert echo_request(SIX, 7, 9, TOKEN)[0] == 128
    assert is_reply(SIX, bytes([ECHO6_REPLY]) + reply[1:], TOKEN) and not is_reply(SIX, reply, TOKEN)


def test_without_a_question_nothing_is_an_answer() -> None:
    assert not is_reply(FOUR, struct.pack("!BBHHH", ECHO_REPLY, 0, 0, 7, 9), b"")


class NoNetwork:
    """A datagram socket is not permitted; a raw one neither."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, _family: int, kind: int, _protocol: int) -> socket.socket:
        self.asked.append(kind)
        raise PermissionError(1, os.strerror(1))


def test_a_raw_socket_is_tried_where_no_datagram_socket_is_permitted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = NoNetwork()
    monkeypatch.setattr(socket, "socket", none)
    assert not permitted(FOUR)
    assert none.asked == [socket.SOCK_DGRAM, socket.SOCK_RAW]
    with pytest.raises(CommandError, match="cannot ping: Operation not permitted"):
        Echo("127.0.0.1", loop, lambda _: None).ask()


class Pair:
    """An echo whose network is a socket pair: `far` is the other end."""

    def __init__(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fars: list[socket.socket] = []
        monkeypatch.setattr(echo, "open_socket", self._open)
        self.ends: list[str] = []
        self.loop = loop
        self.echo = Echo("192.0.2.1", loop, self.ends.append)

    def _open(self, _family: int) -> _Connected:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.fars.append(far)
        return _Connected(near)

    @property
    def far(self) -> socket.socket:
        return self.fars[-1]

    def question(self) -> bytes:
        return self.far.recv(100)

    def close(self) -> None:
        self.echo.close()
        for far in self.fars:
            far.close()

    def reply(self, question: bytes) -> None:
        self.far.send(bytes([ECHO_REPLY]) + question[1:])
        self.loop.run_once(10 * NS_PER_S)


class _Connected:
    """One end of the pair, which cannot be connected to an address."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near
        for name in ("fileno", "recv", "send", "setblocking", "close"):
            setattr(self, name, getattr(near, name))

    def connect(self, _address: object) -> None: ...


@pytest.fixture
def pair(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    pair = Pair(loop, monkeypatch)
    yield pair
    pair.close()


def test_the_answer_to_the_newest_question_counts_once(pair: Pair) -> None:
    pair.echo.ask()
    question = pair.question()
    pair.reply(question)
    assert pair.ends == [""]
    pair.reply(question)
    assert pair.ends == [""]


def test_a_late_answer_and_a_strangers_count_for_nothing(pair: Pair) -> None:
    pair.echo.ask()
    first = pair.question()
    pair.echo.forget()
    pair.echo.ask()
    second = pair.question()
    pair.reply(first)
    pair.reply(second[:8] + bytes(16))
    assert pair.ends == []
    pair.reply(second)
    assert pair.ends == [""]


def test_only_a_question_without_an_answer_is_followed_by_one_from_another_socket(pair: Pair) -> None:
    """A connected socket keeps its source address, which may be that of a way that is gone."""
    pair.echo.ask()
    pair.reply(pair.question())
    pair.echo.ask()
    assert len(pair.fars) == 1
    pair.echo.forget()
    pair.echo.ask()
    assert len(pair.fars) == 2 and len(pair.question()) == 24


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_answers_wherever_this_user_may_ping_at_all(loop: Loop, address: str) -> None:
    ends: list[str] = []
    asked = Echo(address, loop, ends.append)
    try:
        asked.ask()
    except CommandError as error:
        assert str(error).startswith("cannot ping: ")
        assert not permitted(family_of(address)) or address == "::1"  # a machine may have no IPv6
        return
    deadline_ns = boottime_ns() + 10 * NS_PER_S
    while not ends:
        assert boottime_ns() < deadline_ns
        loop.run_once(50 * NS_PER_MS)
    assert ends == [""]
    asked.close()


def test_a_flood_of_icmp_does_not_keep_the_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of it is read in the next round."""
    read: list[int] = []

    class Endless:
        def recv(self, size: int) -> bytes:
            read.append(size)
            assert len(read) < 1000, "reads for ever"
            return b"\x08"

    echo = Echo("127.0.0.1", loop, lambda _: None)
    monkeypatch.setattr(echo, "_socket", Endless())
    echo._readable()
    assert 0 < len(read) < 1000
