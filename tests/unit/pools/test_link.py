"""PCP from inside a loop, against a fake pgpool-II behind a real socket."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.pcp.fake import Fake, Slowly, frame, report, serving
from tests.unit.pools.loops import Ground, ground

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, InvariantError
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pools import link as link_module
from pgvigil.watchdog.pools.door import Door
from pgvigil.watchdog.pools.link import Answer, Link


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def ask(place: Ground, link: Link, request: Any, limit_ms: int = 20_000) -> Answer[Any]:
    got: list[Answer[Any]] = []
    link.ask(request, got.append, limit_ms)
    place.until(lambda: bool(got))
    return got[0]


def test_a_question_over_a_unix_socket_and_nothing_stays_open(place: Ground) -> None:
    server = Fake("4.3")
    with serving(lambda: server.answer, place.folder) as (host, port):
        link = place.link(host, port)
        assert ask(place, link, requests.node_count()).value == 2
        place.until(lambda: server.asked[-1][0] == "X")
        assert link.wake() is None and not link.problem
        link.close()


@pytest.mark.parametrize("slowly", [False, True])
def test_several_questions_share_a_connection_over_tcp(place: Ground, slowly: bool) -> None:
    connections = []

    def connection() -> Any:
        server = Fake("4.3")
        connections.append(server)

        def answer(letter: str, body: bytes) -> bytes | None:
            said = server.answer(letter, body)
            return Slowly(said) if slowly and said else said

        return answer

    with serving(connection) as (host, port):
        link = place.link(host, port)
        got: list[Answer[Any]] = []
        for request in (requests.node_count(), requests.node_info(), requests.pool_status()):
            link.ask(request, got.append, 20_000)
        place.until(lambda: len(got) == 3)
        assert got[0].value == 2
        assert [len(answer.value or ()) for answer in got[1:]] == [2, 2]
        assert len(connections) == 1
        link.close()


def test_what_pgpool_refuses_is_an_answer(place: Ground) -> None:
    with serving(lambda: Fake("4.3").answer, place.folder) as (host, port):
        link = place.link(host, port)
        answer = ask(place, link, requests.node_info(7))
        assert answer.report is not None and "invalid node ID" in answer.report.detail
        assert "refused node-info" in answer.problem and not link.problem
        assert ask(place, link, requests.node_count()).value == 2
        link.close()


def test_a_question_is_asked_again_when_the_connection_breaks(place: Ground) -> None:
    asked: list[str] = []

    def connection() -> Any:
        server = Fake("4.3")

        def answer(letter: str, body: bytes) -> bytes | None:
            said = server.answer(letter, body)
            if letter == "L":
                asked.append(letter)
                return None if len(asked) < 3 else said
            return said

        return answer

    with serving(connection, place.folder) as (host, port):
        link = place.link(host, port)
        assert ask(place, link, requests.node_count()).value == 2 and len(asked) == 3
        link.close()


def test_an_order_is_sent_once_and_its_outcome_may_be_unknown(place: Ground) -> None:
    orders: list[str] = []

    def connection() -> Any:
        server = Fake("4.3")

        def answer(letter: str, body: bytes) -> bytes | None:
            if letter == "D":
                orders.append(letter)
                return None
            return server.answer(letter, body)

        return answer

    with serving(connection, place.folder) as (host, port):
        link = place.link(host, port)
        answer = ask(place, link, requests.detach(1))
        assert answer.unknown and "detach may have been carried out" in answer.problem
        assert ask(place, link, requests.node_count()).value == 2 and orders == ["D"]
        link.close()


def test_an_order_that_nobody_wants_any_more_never_leaves(place: Ground) -> None:
    server = Fake("4.3")
    wanted = [True]

    def answer(letter: str, body: bytes) -> bytes | None:
        if letter == "R":
            wanted[0] = False  # while the login is still under way
        return server.answer(letter, body)

    with serving(lambda: answer, place.folder) as (host, port):
        link = place.link(host, port)
        got: list[Answer[Any]] = []
        link.ask(requests.detach(1), got.append, 20_000, still=lambda: wanted[0])
        place.until(lambda: bool(got))
        assert got[0].problem == link_module.CANCELLED and not got[0].unknown
        assert "D" not in [letter for letter, _ in server.asked]
        link.close()


def test_a_refused_login_is_told_and_not_tried_again_at_once(place: Ground) -> None:
    place.write_password("wrong")
    servers: list[Fake] = []

    def connection() -> Any:
        servers.append(Fake("4.3"))
        return servers[-1].answer

    with serving(connection, place.folder) as (host, port):
        link = place.link(host, port)
        answer = ask(place, link, requests.node_count())
        assert "refused the login" in answer.problem and len(servers) == 1
        assert "wrong" not in answer.problem
        link.close()


@pytest.mark.parametrize("letter", ["M", "L"])
def test_silence_ends_at_the_deadline(place: Ground, letter: str) -> None:
    server = Fake("4.3")

    def answer(got: str, body: bytes) -> bytes | None:
        return b"" if got == letter else server.answer(got, body)

    with serving(lambda: answer, place.folder) as (host, port):
        link = place.link(host, port)
        said = ask(place, link, requests.node_count(), 300)
        assert "waited 300 ms in vain" in said.problem
        link.close()


def test_silence_before_the_login_ends_an_order_that_was_never_sent(place: Ground) -> None:
    with serving(lambda: lambda _letter, _body: b"", place.folder) as (host, port):
        link = place.link(host, port)
        said = ask(place, link, requests.detach(1), 300)
        assert said.problem and not said.unknown
        link.close()


def test_nobody_there_is_told_at_the_deadline(place: Ground) -> None:
    link = place.link(str(place.folder / "nowhere"), 9898)
    assert "No such file" in ask(place, link, requests.node_count(), 300).problem
    link.close()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    link = place.link("127.0.0.1", port)
    assert "refused" in ask(place, link, requests.node_count(), 300).problem
    link.close()


def test_a_password_file_that_others_may_read_is_told(place: Ground) -> None:
    place.password_file.chmod(0o644)
    with serving(lambda: Fake("4.3").answer, place.folder) as (host, port):
        link = place.link(host, port)
        assert str(place.password_file) in ask(place, link, requests.node_count(), 300).problem
        place.password_file.chmod(0o600)
        assert ask(place, link, requests.node_count()).value == 2
        link.close()


class Names:
    """A resolver that knows a name only after it was asked to look it up, and then for good."""

    def __init__(self) -> None:
        self.looked_up: list[str] = []

    def address(self, host: str) -> str | None:
        return "127.0.0.1" if host in self.looked_up else None

    def look_up(self, host: str, now_ns: int) -> None:
        self.looked_up.append(host)


def test_a_host_name_is_looked_up_and_used_once_it_is_known(place: Ground) -> None:
    names = Names()
    with serving(lambda: Fake("4.3").answer) as (_, port):
        link = Link(place.loop, cast(Resolver, names), place.target("pg01.example", port))
        assert ask(place, link, requests.node_count()).value == 2
        assert set(names.looked_up) == {"pg01.example"}
        link.close()


def test_garbage_is_told_and_the_next_question_is_answered(place: Ground) -> None:
    answers = iter([b"garbage", frame("l", "CommandComplete", "2")])

    def connection() -> Any:
        server = Fake("4.3")
        return lambda letter, body: next(answers) if letter == "L" else server.answer(letter, body)

    with serving(connection, place.folder) as (host, port):
        link = place.link(host, port)
        assert ask(place, link, requests.node_count()).value == 2
        link.close()


def test_a_fatal_refusal_ends_the_connection_and_what_waits_goes_over_a_new_one(place: Ground) -> None:
    def connection() -> Any:
        server = Fake("4.3")
        fatal = report("E", "FATAL", "no", D="ends here")
        return lambda letter, body: fatal if letter == "H" else server.answer(letter, body)

    with serving(connection, place.folder) as (host, port):
        link = place.link(host, port)
        got: list[Answer[Any]] = []
        link.ask(requests.health_stats(0), lambda said: link.ask(requests.node_count(), got.append, 20_000), 20_000)
        place.until(lambda: bool(got))
        assert got[0].value == 2
        link.close()


def test_too_many_questions_are_refused_at_once(place: Ground) -> None:
    link = place.link(str(place.folder / "nowhere"), 9898)
    got: list[Answer[Any]] = []
    for _ in range(link_module.MAX_JOBS + 1):
        link.ask(requests.node_count(), got.append)
    assert len(got) == 1 and "wait for pgpool-II" in got[0].problem
    link.close()
    with pytest.raises(InvariantError, match="no answer"):
        place.link(str(place.folder), 9898).ask(requests.no_operation(), got.append)


def test_nobody_is_called_after_the_end(place: Ground) -> None:
    got: list[Answer[Any]] = []
    with serving(lambda: lambda _letter, _body: b"", place.folder) as (host, port):
        link = place.link(host, port)
        link.ask(requests.node_count(), got.append, 100)
        link.close()
        for _ in range(10):
            place.loop.run_once(30_000_000)
    assert got == []


def test_neither_password_nor_proof_is_in_any_text(place: Ground) -> None:
    link = place.link(str(place.folder), 9898)
    assert "postgres" not in repr(link.target).replace("pgsql", "") and "postgres" not in repr(vars(link))
    link.close()


def test_questions_that_are_late_all_at_once_are_given_up_although_each_asks_again(place: Ground) -> None:
    """After a stop of this process; the first one's next question begins a connection, and takes its turn."""
    now = [boottime_ns()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = place.target("127.0.0.1", listener.getsockname()[1])
        link = Link(place.loop, place.resolver, target, lambda: now[0])
        got: list[str] = []

        def again(answer: Answer[Any]) -> None:
            got.append(answer.problem)
            link.ask(requests.node_count(), lambda later: None)

        for _ in range(3):
            link._jobs.append(link_module._Job(requests.node_count(), again, 100, now[0] + 100, lambda: True))
        now[0] += 10 * NS_PER_S
        link.tick(now[0])
        assert len(got) == 3
        link.close()


def test_a_lack_of_descriptors_is_a_refusal_that_is_told_and_leaves_no_socket(
    place: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pgvigil.watchdog.pools.door.select.epoll", none_left)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = Door(place.loop, lambda data: None, lambda reason: None)
        with pytest.raises(CommandError, match="no descriptor: Too many open files"):
            door.open("127.0.0.1", listener.getsockname()[1])
    assert not door.is_open
