"""Is a host silent: against one that takes connections, one that refuses them, and one that says nothing."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.unit.pools.loops import Ground, ground

from pgvigil.ipc.clock import boottime_ns
from pgvigil.watchdog.pools import silence
from pgvigil.watchdog.pools.silence import LIMIT_NS, SilenceProbe

HERE = "127.0.0.1"


@contextmanager
def deaf() -> Iterator[int]:
    """A port where new connections are met with silence: the queue is full and nobody takes from it."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HERE, 0))
        listener.listen(0)
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Asked:
    """A prober and what it heard."""

    def __init__(self, place: Ground) -> None:
        self.place = place
        self.heard: list[tuple[str, int, bool]] = []
        self.prober: SilenceProbe[str] = SilenceProbe(place.loop, lambda *told: self.heard.append(told), boottime_ns)

    def ask(self, port: int) -> bool:
        """Whether it was silence."""
        before_ns = boottime_ns()
        self.prober.ask("a", HERE, port)
        self.place.until(lambda: bool(self.heard))
        key, asked_ns, silent = self.heard.pop()
        assert key == "a" and before_ns <= asked_ns <= boottime_ns()
        return silent


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    with ground(tmp_path) as place:
        made = Asked(place)
        yield made
        made.prober.close()


def test_who_takes_the_connection_lives_and_is_told_nothing(asked: Asked) -> None:
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(30)
        assert asked.ask(listener.getsockname()[1]) is False
        with listener.accept()[0] as taken:
            taken.settimeout(30)
            assert taken.recv(100) == b""


def test_who_refuses_lives(asked: Asked) -> None:
    with socket.socket() as unused:
        unused.bind((HERE, 0))
        assert asked.ask(unused.getsockname()[1]) is False


def test_who_says_nothing_in_time_is_silent(asked: Asked) -> None:
    with deaf() as port:
        began_ns = boottime_ns()
        assert asked.ask(port) is True
        assert boottime_ns() - began_ns >= LIMIT_NS


def test_one_question_at_a_time_and_nobody_is_called_after_the_end(asked: Asked) -> None:
    with deaf() as port:
        asked.prober.ask("a", HERE, port)
        first_ns = asked.prober.wake()
        asked.prober.ask("a", HERE, port)
        assert first_ns is not None and asked.prober.wake() == first_ns
        asked.prober.close()
        assert asked.prober.wake() is None and asked.heard == []
        asked.place.loop.join(asked.prober)  # the fixture closes it once more


@pytest.mark.parametrize(
    ("code", "silent"),
    [
        (errno.ETIMEDOUT, True),
        (errno.EHOSTUNREACH, True),
        (errno.ENETUNREACH, True),
        (errno.ECONNREFUSED, False),
        (errno.EADDRNOTAVAIL, False),
        (0, False),
    ],
)
def test_what_the_network_says_at_once(asked: Asked, monkeypatch: pytest.MonkeyPatch, code: int, silent: bool) -> None:
    monkeypatch.setattr(silence, "_begin", lambda made, address, port: code)
    assert asked.ask(5432) is silent


def test_without_a_descriptor_nobody_is_called_silent(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> object:
        raise OSError(errno.EMFILE, "no")

    with deaf() as port:
        monkeypatch.setattr(select, "epoll", refuse)
        asked.prober.ask("a", HERE, port)
    assert [silent for _, _, silent in asked.heard] == [False]
    assert asked.prober.wake() is None and not asked.prober.asks("a")


def test_an_answer_that_was_there_in_time_counts_although_it_is_read_late(asked: Asked) -> None:
    with socket.create_server((HERE, 0)) as listener:
        asked.prober.ask("a", HERE, listener.getsockname()[1])
        deadline_ns = asked.prober.wake()
        assert deadline_ns is not None
        listener.accept()[0].close()
        asked.prober.tick(deadline_ns)
    assert [silent for _, _, silent in asked.heard] == [False]
