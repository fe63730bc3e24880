"""Knocking at a silent node's pgpool-II: real sockets that answer, accept only, refuse, or stop answering."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.probes.knock import AGAIN_NS, LIMIT_NS, SSL_REQUEST, SURE_NS, Knocking
from pgvigil.lifecheck.settings import PgpoolAddress


class Street:
    """One node with one door; time runs as the test says."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.door = socket.create_server((address, 0), family=family)
        self.door.settimeout(5)
        self.port = self.door.getsockname()[1]
        self.knocking = Knocking((PgpoolAddress(2, "pg02", ("pg02", address), self.port),))
        self.guests: list[socket.socket] = []
        self.now_ns = boottime_ns()

    def ask(self) -> Health:
        return self.knocking.ask(2, self.now_ns)

    def answer(self, words: bytes) -> None:
        """Somebody is at home."""
        guest, _ = self.door.accept()
        guest.settimeout(5)
        self.guests.append(guest)
        self.look()
        assert guest.recv(len(SSL_REQUEST)) == SSL_REQUEST
        guest.sendall(words)

    def look(self, later_ms: int = 20) -> bool:
        self.now_ns += later_ms * NS_PER_MS
        return self.knocking.tick(self.now_ns)

    def until_known(self) -> Health:
        """Looks without a passing of virtual time until an answer that was sent has arrived."""
        end_ns = boottime_ns() + 10 * NS_PER_S
        while self.ask() is Health.UNKNOWN:
            assert boottime_ns() < end_ns
            self.look(0)
        return self.ask()

    def close(self) -> None:
        self.knocking.close()
        for one in (self.door, *self.guests):
            one.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def street(request: pytest.FixtureRequest) -> Iterator[Street]:
    made = Street(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("words", [b"N", b"S", b"E"])
def test_who_answers_is_alive(street: Street, words: bytes) -> None:
    assert street.ask() is Health.UNKNOWN and street.knocking.answering() == []
    street.answer(words)
    assert street.until_known() is Health.ALIVE
    assert street.knocking.answering() == [2] and street.knocking.wake() is not None


def test_a_kernel_that_only_accepts_is_not_believed(street: Street) -> None:
    street.ask()
    assert not street.look() and street.ask() is Health.UNKNOWN
    street.knocking.late(NS_PER_S)
    assert not street.look(LIMIT_NS // NS_PER_MS), "our own standstill does not count"
    assert street.look(1000) and street.ask() is Health.DEAD
    assert street.knocking.wake() is None, "who is dead is not asked again while it is silent"


def test_what_is_no_answer_of_pgpool_is_none(street: Street) -> None:
    street.ask()
    street.answer(b"HTTP/1.1 400")
    assert street.until_known() is Health.DEAD


def test_a_closed_door_is_known_at_once(street: Street) -> None:
    street.door.close()
    street.ask()
    assert street.until_known() is Health.DEAD


def test_who_answered_is_asked_again_until_it_owes_two_answers(street: Street) -> None:
    street.ask()
    street.answer(b"N")
    assert street.until_known() is Health.ALIVE
    assert not street.look(AGAIN_NS // NS_PER_MS), "asked again, and alive until it has not answered"
    assert not street.look(LIMIT_NS // NS_PER_MS), "it may be slow once"
    assert not street.look(SURE_NS // NS_PER_MS) and street.ask() is Health.ALIVE
    assert street.look(LIMIT_NS // NS_PER_MS) and street.ask() is Health.DEAD


def test_a_node_that_is_heard_again_is_forgotten(street: Street) -> None:
    street.ask()
    street.look(LIMIT_NS // NS_PER_MS)
    assert street.ask() is Health.DEAD
    street.knocking.forget(2)
    assert street.ask() is Health.UNKNOWN


def test_a_node_that_is_known_by_name_only_cannot_be_asked() -> None:
    knocking = Knocking((PgpoolAddress(2, "pg02", ("pg02",), 9999),))
    assert knocking.ask(2, 0) is Health.DEAD and knocking.wake() is None


def test_a_kernel_without_that_family_of_addresses_is_one_door_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_family(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    knocking = Knocking((PgpoolAddress(2, "pg02", ("::1",), 9999),))
    monkeypatch.setattr(socket, "socket", no_such_family)
    assert knocking.ask(2, 0) is Health.DEAD
