"""pgvigil recovery: what is asked of watchdog main and of pgpool-II, what is printed, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.helpers import running, write_config
from tests.unit.pcp.fake import PASSWORD, USER, Fake, parameter_rows, report, serving

from pgvigil.ipc import frames
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.cli import codes, parser
from pgvigil.watchdog.cli.__main__ import main
from pgvigil.watchdog.cli.recovery import Desk, DeskRefused, agree, holds_of
from pgvigil.watchdog.recovery.plan import Wish
from pgvigil.watchdog.recovery.world import Held

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.timeout(60)


def view(*nodes: dict[str, object]) -> bytes:
    return json.dumps({"wish": "hold", "hold_limit_s": 90, "nodes": nodes}).encode()


def answering(asked: list[tuple[str, ...]], body: bytes, refusal: str = "") -> Callable[..., list[frames.Reply]]:
    """A watchdog main that says this of the others."""

    def answer(request: frames.Request) -> list[frames.Reply]:
        asked.append((request.verb, *request.arguments))
        return [frames.Reply(request.request_id, True, not refusal, refusal, body)]

    return answer


class Streaming(Fake):
    """A pgpool-II in streaming replication; its backend 0 is up, and 1 is down."""

    def answer(self, letter: str, body: bytes) -> bytes | None:
        said = super().answer(letter, body)
        return parameter_rows([("backend_clustering_mode", "1", "clustering mode")]) if letter == "B" else said


class Silent(Streaming):
    """One that hangs up instead of an answer to the order."""

    def answer(self, letter: str, body: bytes) -> bytes | None:
        return None if letter == "O" else super().answer(letter, body)


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch, port: int = 9898) -> None:
    """A node alone, whose pgpool-II is the fake one."""
    password = folder / "pcp_password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD + "\n", encoding="utf-8")
    pgpool = f'[pgpool]\npcp_user = "{USER}"\npcp_password_file = "{password}"\n'
    path = write_config(folder, pgpool)
    text = path.read_text(encoding="utf-8").replace("id = 1\n", f"id = 1\npcp_port = {port}\n")
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(path))


def test_where_pgvigil_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    configured(tmp_path, monkeypatch)
    assert main(["recovery", "1"]) == codes.NOT_RUNNING
    assert "pgvigil does not run here" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["one", "-1", "128", "9999", "٣"])
def test_what_is_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, backend: str) -> None:
    configured(tmp_path, monkeypatch)
    assert main(["recovery", "--", backend]) == codes.USAGE
    assert "expected the number of a backend, 0 to 127" in capsys.readouterr().err


def test_a_backend_that_is_up_is_refused_for_people_and_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Nothing is asked of watchdog main: no client ever waits for a recovery that cannot be."""
    asked: list[tuple[str, ...]] = []
    with serving(lambda: Fake().answer) as (_, port):
        configured(tmp_path, monkeypatch, port)
        with running(tmp_path, answering(asked, view())):
            assert main(["recovery", "0"]) == codes.FAILED
            shown = capsys.readouterr()
            assert "expected it down: detach it first" in shown.err and shown.out == ""
            assert main(["recovery", "0", "--json"]) == codes.FAILED
    value = json.loads(capsys.readouterr().out)
    assert (value["backend"], value["outcome"], value["steps"]) == (0, "failed", [])
    assert "expected it down" in value["message"] and asked == []


def test_alone_with_streaming_replication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked: list[tuple[str, ...]] = []
    with serving(lambda: Streaming().answer) as (_, port):
        configured(tmp_path, monkeypatch, port)
        with running(tmp_path, answering(asked, view())):
            assert main(["recovery", "1"]) == codes.OK
            lines = capsys.readouterr().out.splitlines()
            assert main(["recovery", "1", "--json"]) == codes.OK
    assert "ms  streaming replication has no second stage" in lines[0]
    assert "ms  backend 1 is recovered and attached everywhere" in lines[-1]
    value = json.loads(capsys.readouterr().out)
    assert value["outcome"] == "done" and len(value["steps"]) == len(lines) - 1
    assert {one[0] for one in asked} == {"backend-list"}  # nobody was told to hold


def test_an_order_without_an_answer_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with serving(lambda: Silent().answer) as (_, port):
        configured(tmp_path, monkeypatch, port)
        with running(tmp_path, answering([], view())):
            assert main(["recovery", "1"]) == codes.UNKNOWN
    assert "the outcome is unknown, see 'pgvigil pcp node-info'" in capsys.readouterr().err


def test_what_pgpool_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    class Refusing(Fake):
        def answer(self, letter: str, body: bytes) -> bytes | None:
            if letter == "I":
                return report("E", "ERROR", "informing node info failed", D="invalid node ID : 7")
            return super().answer(letter, body)

    with serving(lambda: Refusing().answer) as (_, port):
        configured(tmp_path, monkeypatch, port)
        with running(tmp_path, answering([], view())):
            assert main(["recovery", "7"]) == codes.FAILED
    assert "invalid node ID : 7" in capsys.readouterr().err


def agreeing(asked: list[tuple[str, ...]], listing: object, refusal: str = "") -> Callable[..., list[frames.Reply]]:
    """A watchdog main that keeps the state of backends."""

    def answer(request: frames.Request) -> list[frames.Reply]:
        asked.append((request.verb, *request.arguments))
        if request.verb == "backend-list":
            return [frames.Reply(request.request_id, True, True, "", json.dumps(listing).encode())]
        return [frames.Reply(request.request_id, True, not refusal, refusal, b"")]

    return answer


def listing(status: str, agreed: bool = True) -> object:
    return {"agreed": agreed, "backends": [{"id": 0, "status": "up"}, {"id": 1, "status": status}]}


@pytest.mark.parametrize(
    ("known", "up", "verbs"),
    [
        (listing("down"), True, ["backend-list", "backend-attach"]),
        (listing("up"), True, ["backend-list"]),
        (listing("up"), False, ["backend-list", "backend-detach"]),
        (listing("down", agreed=False), True, ["backend-list"]),
        ({"agreed": True, "backends": []}, True, ["backend-list"]),
    ],
)
def test_the_cluster_is_told_what_it_came_to(tmp_path: Path, known: object, up: bool, verbs: list[str]) -> None:
    asked: list[tuple[str, ...]] = []
    write_config(tmp_path)
    with running(tmp_path, agreeing(asked, known)):
        agree(str(tmp_path / "run"), 1, up)
    assert [one[0] for one in asked] == verbs and all(one[1] == "1" for one in asked[1:])


def test_a_cluster_that_refuses_is_an_error(tmp_path: Path) -> None:
    write_config(tmp_path)
    said = agreeing([], listing("down"), "outdated")
    with running(tmp_path, said), pytest.raises(CommandError, match="agree that backend 1 is up: outdated"):
        agree(str(tmp_path / "run"), 1, True)


def test_the_desk_tells_what_main_knows(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []
    write_config(tmp_path)
    node = {"id": 2, "label": "pg02", "state": "holds", "left_ms": 5900, "unbroken": [7, 0], "trouble": ""}
    with running(tmp_path, answering(asked, view(node))), Desk(str(tmp_path / "run")) as desk:
        assert desk.wish(Wish.HOLD) == {2: Held("pg02", "holds", (7, 0), "")}
    assert {one[:2] for one in asked} == {("recovery", "hold")} and len({one[2] for one in asked}) == 1


def test_a_desk_that_is_refused_does_not_ask_again(tmp_path: Path) -> None:
    write_config(tmp_path)
    main_says = running(tmp_path, answering([], b"", "another recovery"))
    with main_says, Desk(str(tmp_path / "run")) as desk, pytest.raises(DeskRefused, match="another recovery"):
        desk.wish(Wish.HOLD)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"nodes": 1}', b'{"nodes": [{"id": 1, "unbroken": []}]}'])
def test_what_main_cannot_have_meant(body: bytes) -> None:
    with pytest.raises(CommandError, match="something unexpected"):
        holds_of(body)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Held("pg02", "silent", (0, 0), ""), "pg02 does not answer"),
        (Held("pg02", "unable", (0, 0), "EPERM"), "pg02 cannot hold (EPERM)"),
        (Held("pg02", "ready", (0, 0), ""), "pg02 does not hold"),
    ],
)
def test_a_node_in_words(held: Held, words: str) -> None:
    assert str(held) == words
