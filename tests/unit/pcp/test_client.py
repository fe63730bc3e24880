"""The client against a pgpool-II of bytes behind a real socket: every version, and every way of misbehaving."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest
from tests.unit.pcp import fake
from tests.unit.pcp.fake import PASSWORD, USER, Answer, Fake, Slowly, serving

from pgvigil.ipc.errors import CommandError, ConfigError, PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Address, Client, PcpRefused

pytestmark = pytest.mark.timeout(60)

LIMIT_MS = 20_000
SHORT_MS = 200
"""For what is to run out."""


def client(place: tuple[str, int], password: str = PASSWORD, limit_ms: int = LIMIT_MS) -> Client:
    return Client(Address(*place), USER, password, limit_ms)


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_over_tcp_and_over_a_unix_socket(version: str, tmp_path: Path) -> None:
    for path in (None, tmp_path):
        with serving(lambda: Fake(version).answer, path) as place, client(place) as pcp:
            assert pcp.ask(requests.node_count(), LIMIT_MS) == 2
            assert [node.node_id for node in pcp.nodes(LIMIT_MS)] == [0, 1]
            assert [stats.node_id for stats in pcp.all_health_stats(LIMIT_MS)] == [0, 1]
            assert pcp.ask(requests.attach(1), LIMIT_MS) is None
            assert pcp.ask(requests.no_operation(), LIMIT_MS) is None
            assert len(pcp.ask(requests.process_info(), LIMIT_MS)) == 2


def test_a_promotion_that_pgpool_would_not_carry_out_is_not_ordered() -> None:
    server = Fake("4.2")
    expected = pytest.raises(CommandError, match=r"is of 4\.2 and would promote without a switchover, expected 4\.3")
    with serving(lambda: server.answer) as place, client(place) as pcp, expected:
        pcp.promote(0, switchover=True, limit_ms=LIMIT_MS)
    expected = pytest.raises(CommandError, match="backend 1 is down, expected it up or waiting: attach it first")
    with serving(lambda: server.answer) as place, client(place) as pcp, expected:
        pcp.promote(1, limit_ms=LIMIT_MS)
    assert "J" not in {letter for letter, _ in server.asked}
    with serving(lambda: server.answer) as place, client(place) as pcp:
        pcp.promote(0, limit_ms=LIMIT_MS)
    assert ("J", b"0 \0n") in server.asked


def test_it_says_good_bye() -> None:
    server = Fake()
    with serving(lambda: server.answer) as place:
        with client(place) as pcp:
            pcp.ask(requests.node_count(), LIMIT_MS)
        client(place).close()  # the fake has read all of the first connection by then
    assert [letter for letter, _ in server.asked].count("X") >= 1


def test_a_wrong_password_is_the_operators_mistake() -> None:
    with serving(lambda: Fake().answer) as place, pytest.raises(ConfigError) as raised:
        client(place, password="guess")
    assert "refused the login: FATAL: authentication failed" in str(raised.value)
    assert "expected a user and password of its pcp.conf" in str(raised.value)
    assert "guess" not in str(raised.value)


def test_a_refusal_carries_what_pgpool_said() -> None:
    with serving(lambda: Fake().answer) as place, client(place) as pcp:
        with pytest.raises(PcpRefused, match="refused node-info: ERROR: informing node info failed") as raised:
            pcp.ask(requests.node_info(9), LIMIT_MS)
        assert raised.value.report.severity == "ERROR" and raised.value.report.detail == "invalid node ID : 9"
        assert pcp.ask(requests.node_count(), LIMIT_MS) == 2
        with pytest.raises(PcpRefused, match=r"needs pgpool-II 4\.6 or newer"):
            pcp.ask(requests.invalidate_cache(), LIMIT_MS)
        with pytest.raises(PeerError, match="has hung up, expected a connection for node-count"):
            pcp.ask(requests.node_count(), LIMIT_MS)


def test_a_hint_of_the_server_goes_before_our_own() -> None:
    no = fake.report(message="PCP: informing watchdog info failed", D="watcdhog is not enabled")
    expected = pytest.raises(PcpRefused, match="use_watchdog is off there")
    with serving(lambda: after_login("W", no)) as place, client(place) as pcp, expected:
        pcp.ask(requests.watchdog_info(), LIMIT_MS)
    no = fake.report(message="no", D="watchdog is not enabled", H="turn it on")
    expected = pytest.raises(PcpRefused, match=r"\(watchdog is not enabled\); turn it on$")
    with serving(lambda: after_login("W", no)) as place, client(place) as pcp, expected:
        pcp.ask(requests.watchdog_info(), LIMIT_MS)


def test_notices_are_kept() -> None:
    said = fake.report("N", "NOTICE", "first") * 40 + fake.frame("l", "CommandComplete", "1")
    with serving(lambda: after_login("L", said)) as place, client(place) as pcp:
        assert pcp.ask(requests.node_count(), LIMIT_MS) == 1
        assert [notice.message for notice in pcp.notices] == ["first"] * 16


def test_an_answer_that_is_whole_counts_whatever_follows() -> None:
    said = fake.frame("c", "CommandComplete") + b"garbage"
    with serving(lambda: after_login("C", said)) as place, client(place) as pcp:
        assert pcp.ask(requests.attach(0), LIMIT_MS) is None


# --- what cannot be reached -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda _: Address("127.0.0.1", free_port()), "Connection refused; expected its PCP port"),
        (lambda path: Address(str(path), 9898), r"/\.s\.PGSQL\.9898: No such file or directory"),
        (lambda path: Address(f"{path}/{'x' * 200}", 9898), "AF_UNIX path too long"),
        (lambda _: Address("no such host", 9898), "the name no such host cannot be resolved"),
        (lambda _: Address("x" * 300, 9898), "cannot be resolved"),
    ],
)
def test_what_cannot_be_reached(place: Callable[[Path], Address], words: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=words):
        Client(place(tmp_path), USER, PASSWORD, LIMIT_MS)


def test_addresses_as_text() -> None:
    assert str(Address("10.0.0.1", 9898)) == "10.0.0.1:9898"
    assert str(Address("fd00::1", 9898)) == "[fd00::1]:9898"
    assert str(Address("/run/pgpool/", 9898)) == "/run/pgpool/.s.PGSQL.9898"


# --- hostile servers --------------------------------------------------------------------------------------------


def after_login(letter: str, said: bytes | None) -> Answer:
    """A pgpool-II that answers one request with these bytes (None: hangs up)."""
    honest = Fake()

    def answer(asked: str, body: bytes) -> bytes | None:
        return said if asked == letter else honest.answer(asked, body)

    return answer


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "the connection was closed, expected the answer to node-info"),
        (b"", "waited 200 ms in vain, expected the answer to node-info"),
        (b"i\0\0", "waited 200 ms in vain, expected the answer to node-info"),
        (b"i\0\0\0\0", "length is 0, expected at least 4"),
        (b"i\xff\xff\xff\xff", "frame 'i' of 4294967296 bytes, expected at most 262144"),
        (fake.raw("i", b"ArraySize\x001"), "ends with 'ArraySize\\\\x001'|expected a NUL byte"),
        (fake.frame("i", "ArraySize", "2147483647"), "2147483647 rows announced, expected 0 to 128"),
        (fake.frame("i", "ArraySize", "1") * 2, "expected 'NodeInfo' or 'CommandComplete'"),
        (b"HTTP/1.1 400 Bad Request", "frame 'H', expected 'i' with the answer to node-info"),
        (fake.report("N", "NOTICE", "x" * 200) * 5000, "expected at most"),
    ],
)
def test_a_hostile_answer_ends_in_a_clear_error(said: bytes | None, words: str) -> None:
    with serving(lambda: after_login("I", said)) as place, client(place) as pcp:
        limit_ms = SHORT_MS if "in vain" in words else LIMIT_MS
        with pytest.raises(PeerError, match=words):
            pcp.ask(requests.node_info(), limit_ms)
        with pytest.raises(PeerError, match="has hung up"):
            pcp.ask(requests.node_info(), LIMIT_MS)


def test_a_silent_login_ends() -> None:
    expected = pytest.raises(PeerError, match="waited 200 ms in vain, expected the salt of the login")
    with serving(lambda: lambda _letter, _body: b"") as place, expected:
        client(place, limit_ms=SHORT_MS)


def test_a_login_that_hangs_up() -> None:
    expected = pytest.raises(PeerError, match=r"closed, expected the salt of the login|Connection reset")
    with serving(lambda: lambda _letter, _body: None) as place, expected:
        client(place)


def test_a_trickle_does_not_stretch_the_deadline() -> None:
    """Every byte is a sign of life; the deadline is for the whole answer."""
    slow = Slowly(fake.report("N", "NOTICE", "still here") * 1000)
    with serving(lambda: after_login("L", slow)) as place, client(place) as pcp:
        with pytest.raises(PeerError, match="waited 400 ms in vain, expected the answer to node-count"):
            pcp.ask(requests.node_count(), 2 * SHORT_MS)
        assert pcp.address.port == place[1]


def test_a_port_that_nobody_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(PeerError, match="waited 200 ms in vain, expected the salt of the login"):
            client(listener.getsockname(), limit_ms=SHORT_MS)
        assert listener.fileno() >= 0


def test_an_endless_answer_needs_bounded_memory() -> None:
    row = fake.frame("b", "ProcessConfig", "name", "value", "x" * 1000)
    endless = fake.raw("b", b"ArraySize\0\0\0\x1f\x40") + b"".join(repeat(row, 20_000))
    with serving(lambda: after_login("B", endless)) as place, client(place) as pcp:
        tracemalloc.start()
        try:
            with pytest.raises(PeerError, match="limit 4194304 bytes for the answer to pool-status"):
                pcp.ask(requests.pool_status(), LIMIT_MS)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
