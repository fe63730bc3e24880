"""The tie-breaker asked for real: TCP on loopback, echoes; a question never blocks and never counts late."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.core.series import Seen
from pgvigil.lifecheck.probes import tie_breaker
from pgvigil.lifecheck.probes.tie_breaker import (
    ECHO6_REPLY,
    ECHO_REPLY,
    Echo,
    TieBreakerProbe,
    checksum,
    echo_request,
    is_reply,
)
from pgvigil.lifecheck.settings import TieBreakerSettings

TOKEN = bytes(range(16))


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port_of(server: socket.socket) -> int:
    """Where it listens."""
    return int(server.getsockname()[1])


def probe_of(
    loop: Loop, port: int, address: str = "127.0.0.1", gap_ms: int = 5000
) -> tuple[TieBreakerProbe, list[Seen]]:
    """A probe in the loop, and everything it says."""
    said: list[Seen] = []
    settings = TieBreakerSettings(address, port, 200, gap_ms)
    probe = TieBreakerProbe(settings, loop, said.append, boottime_ns())
    loop.join(probe)
    return probe, said


def run_until(loop: Loop, condition: Callable[[], object]) -> None:
    """Rounds of the loop, for at most 10 s."""
    end_ns = boottime_ns() + 10 * NS_PER_S
    while not condition():
        assert boottime_ns() < end_ns, "waited 10 s in vain"
        loop.run_once(50 * NS_PER_MS)


def test_a_listening_port_answers_again_and_again(loop: Loop, server: socket.socket) -> None:
    probe, said = probe_of(loop, port_of(server))
    begun_ns = boottime_ns()
    run_until(loop, lambda: len(said) >= 3)
    asked = [seen.asked_at_ns for seen in said]
    assert begun_ns <= asked[0] < asked[1] < asked[2] <= boottime_ns()
    assert [seen.since_ns for seen in said] == [asked[0]] * 3
    assert said[0].evidence.startswith("answered within ")
    probe.close()


def test_a_closed_port_is_no_answer(loop: Loop, server: socket.socket) -> None:
    probe, said = probe_of(loop, port_of(server))
    run_until(loop, lambda: said)
    server.close()
    run_until(loop, lambda: "refused" in said[-1].evidence)
    assert (said[-1].asked_at_ns, said[-1].since_ns) == (0, 0)  # a failed question ends the series
    probe.close()


def test_a_series_breaks_at_the_gap(loop: Loop, server: socket.socket) -> None:
    probe, said = probe_of(loop, port_of(server), gap_ms=1)  # questions are 200 ms apart
    run_until(loop, lambda: len(said) >= 3)
    assert all(seen.since_ns == seen.asked_at_ns for seen in said)
    probe.close()


class NeverWay:
    """Nobody answers; `late` says that somebody does after all."""

    def __init__(self, settings: TieBreakerSettings, watcher: object, on_end: Callable[[str], None]) -> None:
        self.late = on_end

    def ask(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...


def test_silence_ends_at_the_limit_and_a_late_answer_counts_for_nothing(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[NeverWay] = []

    def make(settings: TieBreakerSettings, watcher: object, on_end: Callable[[str], None]) -> NeverWay:
        made.append(NeverWay(settings, watcher, on_end))
        return made[-1]

    monkeypatch.setattr(tie_breaker, "Connection", make)
    probe, said = probe_of(loop, 1)
    run_until(loop, lambda: said)
    assert said == [Seen(0, 0, "no answer within 200 ms")]
    made[0].late("")
    assert said == [Seen(0, 0, "no answer within 200 ms")]
    probe.close()


def test_an_answer_that_was_read_too_late_ends_the_series(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may have been stopped meanwhile: nobody knows when the answer came."""
    made: list[NeverWay] = []

    def make(settings: TieBreakerSettings, watcher: object, on_end: Callable[[str], None]) -> NeverWay:
        made.append(NeverWay(settings, watcher, on_end))
        return made[-1]

    monkeypatch.setattr(tie_breaker, "Connection", make)
    probe, said = probe_of(loop, 1)
    probe.tick(boottime_ns())
    later_ns = boottime_ns() + 5 * NS_PER_S
    monkeypatch.setattr(probe, "_clock", lambda: later_ns)
    made[0].late("")
    assert (said[0].asked_at_ns, said[0].since_ns) == (0, 0)
    assert "expected within 200 ms" in said[0].evidence
    probe.close()


def test_no_name_is_resolved(loop: Loop) -> None:
    for wrong in ("gateway", "10.0.0", ""):
        with pytest.raises(ValueError, match="is no IP address"):
            probe_of(loop, 443, wrong)


def test_what_cannot_be_asked_is_no_answer_and_asked_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenWay(NeverWay):
        def ask(self) -> None:
            raise CommandError("cannot connect: Network is unreachable")

    monkeypatch.setattr(tie_breaker, "Connection", BrokenWay)
    probe, said = probe_of(loop, 1)
    run_until(loop, lambda: len(said) >= 2)
    assert said[:2] == [Seen(0, 0, "cannot connect: Network is unreachable")] * 2
    probe.close()


def test_an_echo_has_to_bring_back_its_token() -> None:
    four, six = socket.AF_INET, socket.AF_INET6
    sent = echo_request(four, 7, 9, TOKEN)
    assert checksum(sent) == 0 and (sent[0], sent[8:]) == (8, TOKEN)
    reply = struct.pack("!BBHHH", ECHO_REPLY, 0, 0, 7, 9) + TOKEN
    header = bytes([0x45]) + bytes(19)
    assert is_reply(four, reply, TOKEN) and is_reply(four, header + reply, TOKEN)
    assert not is_reply(four, sent, TOKEN)
    assert not is_reply(four, reply[:-1] + b"x", TOKEN) and not is_reply(four, b"", TOKEN)
    assert echo_request(six, 7, 9, TOKEN)[0] == 128
    assert is_reply(six, bytes([ECHO6_REPLY]) + reply[1:], TOKEN) and not is_reply(six, reply, TOKEN)


def test_a_flood_of_icmp_does_not_keep_the_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw socket hears all ICMP of the tie-breaker; what is left is read in the next round."""
    read: list[int] = []

    class Endless:
        def recv(self, size: int) -> bytes:
            read.append(size)
            assert len(read) < 1000, "reads for ever"
            return b"\x08"

    echo = Echo(TieBreakerSettings("127.0.0.1", 0, 200, 5000), loop, lambda _: None)
    monkeypatch.setattr(echo, "_socket", Endless())
    echo._readable()
    assert 0 < len(read) < 1000


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_ping_is_answered_or_the_reason_is_told(loop: Loop, address: str) -> None:
    """Loopback answers wherever this user may ping at all."""
    probe, said = probe_of(loop, 0, address)
    run_until(loop, lambda: said)
    answered = said[0].asked_at_ns > 0
    assert answered == said[0].evidence.startswith("answered within ")
    assert answered or said[0].evidence.startswith(("cannot ping: ", "no answer"))
    probe.close()
