"""The life of a session: login, one request after another, refusals, and the ends it may take."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pcp import fake
from tests.unit.pcp.conversation import broken, exchange, frames, logged_in, value_of
from tests.unit.pcp.fake import PASSWORD, USER, Fake

from pgvigil.ipc.errors import ConfigError, InvariantError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.session import Answered, Event, LoggedIn, Noticed, Refused, Session, State


def test_the_login() -> None:
    session = Session(USER, PASSWORD)
    assert session.outgoing() == b"M\0\0\0\x04" and session.outgoing() == b""
    assert session.waiting_for == "the salt of the login"
    assert session.feed(fake.raw("m", fake.SALT)) == []
    assert session.outgoing() == fake.frame("R", "pgpool", "8e60ae5116b1a5aabcca6a28f29935f1")
    assert session.waiting_for == "the answer to the login"
    assert session.feed(fake.frame("r", "AuthenticationOK")) == [LoggedIn()]
    assert session.state is State.IDLE


def test_a_request_may_be_asked_before_the_login_is_done() -> None:
    session = Session(USER, PASSWORD)
    session.ask(requests.node_count())
    logged, answered = exchange(session, Fake().answer)
    assert logged == LoggedIn() and isinstance(answered, Answered) and answered.value == 2


@pytest.mark.parametrize("version", fake.VERSIONS)
@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_every_request_of_every_version_in_pieces_of_any_size(version: str, piece: int) -> None:
    server = Fake(version)
    session = logged_in(server.answer)
    asked: list[Request[Any]] = [
        requests.node_count(), requests.node_info(1), requests.health_stats(1), requests.process_count(),
        requests.process_info(), requests.pool_status(), requests.watchdog_info(), requests.attach(0),
        requests.detach(0), requests.detach(0, True), requests.promote(1), requests.promote(1, True, version != "4.2"),
        requests.recovery(1), requests.reload(), requests.set_messages("debug1"), requests.stop(),
    ]  # fmt: skip
    if version in ("4.6", "4.7"):
        asked += [requests.log_rotate(), requests.invalidate_cache()]
    for request in asked:
        session.ask(request)
        value_of(exchange(session, server.answer, piece))
        assert session.state is State.IDLE
    session.ask(requests.no_operation())
    assert exchange(session, server.answer) == []
    assert [letter for letter, _ in server.asked[2:]] == [*(request.letter for request in asked), "F"]


def test_a_wrong_password_ends_it() -> None:
    session = Session(USER, "guess")
    (refused,) = exchange(session, Fake().answer)
    assert isinstance(refused, Refused)
    assert refused.report.is_fatal and refused.during is State.LOGIN and refused.request is None
    assert session.is_over and session.end() == []


def test_a_refusal_leaves_the_session_as_good_as_before() -> None:
    server = Fake()
    session = logged_in(server.answer)
    session.ask(requests.node_info(9))
    (refused,) = exchange(session, server.answer)
    assert isinstance(refused, Refused) and refused.report.detail == "invalid node ID : 9"
    session.ask(requests.node_count())
    assert value_of(exchange(session, server.answer)) == 2


def test_a_fatal_refusal_ends_it() -> None:
    server = Fake("4.5")
    session = logged_in(server.answer)
    session.ask(requests.invalidate_cache())
    (refused,) = exchange(session, server.answer)
    assert isinstance(refused, Refused) and refused.report.is_fatal
    assert session.is_over and session.feed(b"more") == []
    with pytest.raises(InvariantError, match="expected an idle session"):
        session.ask(requests.node_count())


def test_notices_may_come_at_any_time() -> None:
    notice = fake.report("N", "NOTICE", "hello")
    session = Session(USER, PASSWORD)
    session.ask(requests.node_count())
    said = notice + fake.raw("m", fake.SALT) + notice + fake.frame("r", "AuthenticationOK") + notice
    said += fake.frame("l", "CommandComplete", "1") + notice
    kinds = [type(event) for event in session.feed(said)]
    assert kinds == [Noticed, Noticed, LoggedIn, Noticed, Answered, Noticed]


def test_one_request_at_a_time() -> None:
    session = logged_in(Fake().answer)
    session.ask(requests.node_count())
    with pytest.raises(InvariantError, match="while waiting for the answer to node-count"):
        session.ask(requests.node_count())
    with pytest.raises(InvariantError):
        session.ask(requests.no_operation())
    early = Session(USER, PASSWORD)
    with pytest.raises(InvariantError, match="before the login"):
        early.ask(requests.no_operation())


def test_what_was_not_asked_for_breaks_it() -> None:
    session = logged_in(Fake().answer)
    assert "expected nothing of a server that was asked nothing" in broken(
        session.feed(fake.frame("l", "CommandComplete", "1"))
    )
    assert session.is_over
    idle = logged_in(Fake().answer)
    notices = fake.report("N", "NOTICE", "x" * 200) * 1000
    assert "a server that was asked nothing" in broken(idle.feed(notices))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (fake.raw("m", b"12345"), "a salt of 5 bytes, expected 4"),
        (fake.frame("r", "AuthenticationOK"), "frame 'r', expected 'm' with the salt of the login"),
        (fake.raw("m", fake.SALT) + fake.frame("r", "Sure"), "is 'Sure\\x00', expected 'AuthenticationOK'"),
        (b"HTTP/1.1 400 Bad Request\r\n", "frame 'H', expected 'm' with the salt of the login"),
        (b"S", "frame 'S', expected 'm'"),
        (b"E\x7f\xff\xff\xff", "frame 'E' of 2147483648 bytes, expected at most 65536 more"),
    ],
)
def test_a_login_that_breaks_the_format(said: bytes, words: str) -> None:
    assert words in broken(Session(USER, PASSWORD).feed(said))


def test_hanging_up() -> None:
    session = Session(USER, PASSWORD)
    assert "closed, expected the salt of the login" in broken(session.end())
    asked = logged_in(Fake().answer)
    asked.ask(requests.node_count())
    asked.feed(b"l\0\0\0\x13Comm")
    assert "closed inside a frame, after 9 bytes of it, expected the answer to node-count" in broken(asked.end())
    idle = logged_in(Fake().answer)
    assert idle.end() == [] and idle.is_over


def test_good_bye() -> None:
    session = logged_in(Fake().answer)
    session.close()
    assert frames(session.outgoing()) == [("X", b"")]
    early = Session(USER, PASSWORD)
    early.outgoing()
    early.close()
    assert early.outgoing() == b"" and early.is_over


@pytest.mark.parametrize("user", ["", "x" * 128, "a:b", "a\0b"])
def test_users_that_pcp_cannot_say(user: str) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 127 bytes"):
        Session(user, "x")


def test_pieces_make_no_difference_when_it_breaks() -> None:
    said = fake.raw("m", fake.SALT) + fake.frame("r", "AuthenticationOK") + fake.frame("l", "CommandComplete", "x")

    def story(piece: int) -> list[str]:
        session = Session(USER, PASSWORD)
        session.ask(requests.node_count())
        events: list[Event] = []
        for start in range(0, len(said), piece):
            events += session.feed(said[start : start + piece])
        return [str(event) for event in events]

    assert story(1) == story(5) == story(len(said))
    assert "a node count is 'x'" in story(1)[-1]
