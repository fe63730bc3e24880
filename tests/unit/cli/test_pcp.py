"""pgvigil pcp against a pgpool-II of bytes: what it prints, whom it asks as whom, and its exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.cli.helpers import write_config
from tests.unit.pcp import fake
from tests.unit.pcp.conversation import asked, value_of
from tests.unit.pcp.fake import PASSWORD, USER, Answer, Fake, Slowly, serving
from tests.unit.pcp.terminal import Terminal

from pgvigil.watchdog.cli import codes, parser, pcp, pcp_render
from pgvigil.watchdog.cli.__main__ import main
from pgvigil.watchdog.pcp import records, requests

Capture = pytest.CaptureFixture[str]
Folder = Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no password files but the test's own."""
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(tmp_path / "pgvigil.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PCPPASSFILE", "PGVIGIL_NODE_ID", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def private(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


@contextmanager
def pgpool(folder: Path, version: str = "4.3", answer: Callable[[], Answer] | None = None) -> Iterator[tuple[str, ...]]:
    """A fake one, and the options that lead to it."""
    password = private(folder / "password", PASSWORD + "\n")
    with serving(answer or (lambda: Fake(version).answer)) as (host, port):
        yield ("--host", host, "--port", str(port), "--user", USER, "--password-file", password, "--timeout", "20")


def test_every_request_has_a_name_and_a_kind() -> None:
    assert tuple(pcp.KINDS) == parser.PCP_REQUESTS


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_every_request_of_every_version(version: str, tmp_path: Path, capsys: Capture) -> None:
    with pgpool(tmp_path, version) as place:
        for name, kind in pcp.KINDS.items():
            argv = ["pcp", name, *(["0"] if kind.target == "ID" else []), *place]
            old = version in ("4.2", "4.3", "4.4", "4.5") and name in ("log-rotate", "invalidate-cache")
            assert main(argv) == (codes.FAILED if old else codes.OK), name
            shown = capsys.readouterr()
            assert ("needs pgpool-II 4.6 or newer" in shown.err) == old
            assert main([*argv, "--json"]) == (codes.FAILED if old else codes.OK)
            value = json.loads(capsys.readouterr().out)
            assert (value["request"], value["outcome"]) == (name, "refused" if old else "done")
            assert ("answer" in value) != old
            assert (value.get("report", {}).get("severity") == "FATAL") == old


def test_a_pipe_gets_cells_between_tabs(tmp_path: Path, capsys: Capture) -> None:
    with pgpool(tmp_path, "4.4") as place:
        assert main(["pcp", "node-info", "1", *place]) == codes.OK
        cells = capsys.readouterr().out.rstrip("\n").split("\t")
        assert cells[:6] == ["1", "/var/run/postgresql", "5433", "down, quarantined", "down", "0.000000"]
        assert cells[6:11] == ["standby", "standby", "2.500000 s", "streaming", "async"]
        assert main(["pcp", "node-count", *place]) == codes.OK
        assert capsys.readouterr().out == "2\n"
        assert main(["pcp", "proc-count", *place]) == codes.OK
        assert capsys.readouterr().out == "4711\n4712\n0\n"
        assert main(["pcp", "pool-status", "port", *place]) == codes.OK
        assert capsys.readouterr().out == "port\t9999\tPort number.\n"
        assert main(["pcp", "pool-status", "prot", *place]) == codes.USAGE
        assert "no parameter prot" in capsys.readouterr().err


def test_json_has_values_and_no_cells(tmp_path: Path, capsys: Capture) -> None:
    with pgpool(tmp_path, "4.2") as place:
        assert main(["pcp", "node-info", *place, "--json"]) == codes.OK
        first, second = json.loads(capsys.readouterr().out)["answer"]
        assert (first["status"], first["role"], first["weight"], first["pg_status"]) == ("up", "primary", 0.5, None)
        assert (second["node_id"], second["quarantined"], second["delay"]) == (1, True, 2500000)


def test_a_terminal_gets_a_table() -> None:
    terminal = Terminal()
    nodes = (records.NodeInfo(
        0, "pg\x1b[31m01", 5432, records.BackendStatus.UP, False, "up", 0.5, records.Role.PRIMARY, "primary", False, 0,
        "", "", 2**63,
    ),)  # fmt: skip
    page = pcp_render.answer("node-info", nodes, terminal)
    head, row = page.splitlines()
    assert "ID  HOST" in head and "PG STATUS" in head
    assert "pg?[31m01" in row and row.endswith(str(2**63))
    assert pcp_render.answer("node-count", 3, terminal) == "backends  3"
    assert pcp_render.answer("node-info", (), terminal).strip().startswith("ID") is False


def test_health_stats_stand_upright_on_a_terminal() -> None:
    stats = records.HealthStats(
        0, "a", 5432, "up", "primary", "then", 1, 1, 0, 0, 0, None, 0, 1, 1, 2.5, "now", "now", "", ""
    )
    lines = pcp_render.answer("health-stats", (stats, stats), Terminal()).splitlines()
    assert len(lines) == 20
    assert lines[11].split() == ["AVERAGE", "RETRY", "-", "-"]


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_a_terminal_leaves_out_what_does_not_fit_and_what_is_not_known(version: str) -> None:
    slots = value_of(asked(requests.process_info(), fake.process_rows(version, fake.PROCESSES)))
    head = pcp_render.answer("proc-info", slots, Terminal()).splitlines()[0]
    assert "DATABASE" in head and "STARTED AT" not in head
    assert ("STATEMENT" in head) == (version == "4.7")


def test_an_order_says_that_it_was_taken(tmp_path: Path, capsys: Capture) -> None:
    server = Fake()
    with pgpool(tmp_path, answer=lambda: server.answer) as place:
        assert main(["pcp", "promote", "0", "--switchover", "-g", *place]) == codes.OK
        assert "was told to promote backend 0, and said done" in capsys.readouterr().out
        assert main(["pcp", "stop", "-m", "fast", "--cluster", *place]) == codes.OK
    assert ("j", b"0 \0s") in server.asked and ("t", b"f") in server.asked


def test_a_promotion_that_would_not_be_carried_out_is_refused(tmp_path: Path, capsys: Capture) -> None:
    server = Fake("4.2")
    with pgpool(tmp_path, answer=lambda: server.answer) as place:
        assert main(["pcp", "promote", "0", "--switchover", *place]) == codes.FAILED
        assert "expected 4.3 or newer" in capsys.readouterr().err
        assert main(["pcp", "promote", "1", "-g", *place]) == codes.FAILED
        assert "backend 1 is down" in capsys.readouterr().err
    assert not {"J", "j"} & {letter for letter, _ in server.asked}


def test_an_order_without_an_answer_has_an_unknown_outcome(tmp_path: Path, capsys: Capture) -> None:
    def hangs_up(letter: str, body: bytes) -> bytes | None:
        return None if letter in "CI" else honest.answer(letter, body)

    honest = Fake()
    with pgpool(tmp_path, answer=lambda: hangs_up) as place:
        assert main(["pcp", "attach", "1", *place]) == codes.UNKNOWN
        assert "the outcome is unknown" in capsys.readouterr().err
        assert main(["pcp", "attach", "1", "--json", *place]) == codes.UNKNOWN
        assert json.loads(capsys.readouterr().out)["outcome"] == "unknown"
        # The question before a promotion was not answered: nothing was ordered yet.
        for argv in (["node-info"], ["promote", "1"]):
            assert main(["pcp", *argv, *place]) == codes.FAILED
            assert "was closed, expected the answer to node-info" in capsys.readouterr().err


def test_the_time_limit_is_for_everything(tmp_path: Path, capsys: Capture) -> None:
    slow = Slowly(fake.frame("l", "CommandComplete", "2" * 200))
    honest = Fake()
    with pgpool(
        tmp_path, answer=lambda: lambda letter, body: slow if letter == "L" else honest.answer(letter, body)
    ) as place:
        assert main(["pcp", "node-count", *place[:-1], "0.3"]) == codes.FAILED
        assert "in vain, expected the answer to node-count" in capsys.readouterr().err


def test_what_pgpool_remarks_goes_to_standard_error(tmp_path: Path, capsys: Capture) -> None:
    said = fake.report("N", "NOTICE", "by the way\x07") + fake.raw("c", fake.DONE)
    honest = Fake()
    with pgpool(
        tmp_path, answer=lambda: lambda letter, body: said if letter == "C" else honest.answer(letter, body)
    ) as place:
        assert main(["pcp", "attach", "1", *place]) == codes.OK
        assert "NOTICE: by the way?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nodeinfo"], "did you mean 'node-info'?"),
        (["attach"], "attach needs the number of a backend, expected 'pgvigil pcp attach ID'"),
        (["attach", "one"], "'one' after attach, expected a number"),
        (["attach", "-1"], "expected"),
        (["attach", "128"], "backend 128, expected 0 to 127"),
        (["node-count", "3"], "'3' after node-count"),
        (["attach", "1", "-g"], "--graceful with attach, expected it with detach, promote only"),
        (["detach", "1", "--switchover"], "--switchover with detach"),
        (["reload", "-m", "fast"], "--mode with reload, expected it with stop only"),
        (["attach", "1", "--cluster"], "--cluster with attach, expected it with stop, reload, log-rotate only"),
        (["node-count", "--port", "0"], "expected a number of 1 to 65535"),
        (["node-count", "--node", "pg02"], "--host and --node"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anybody_is_asked(
    argv: list[str], said: str, tmp_path: Path, capsys: Capture
) -> None:
    password = private(tmp_path / "password", "x")
    place = ["--host", str(tmp_path), "--user", "ann", "--password-file", password]
    code = main(["pcp", *argv, *place])
    assert said in capsys.readouterr().err
    assert code == codes.USAGE


# --- whom, and as whom ----------------------------------------------------------------------------------------------


def test_the_configuration_names_the_pgpool_and_the_user(tmp_path: Path, capsys: Capture) -> None:
    password = private(tmp_path / "secret", PASSWORD)
    with serving(lambda: Fake().answer) as (_, port):
        more = f'[pgpool]\npcp_user = "{USER}"\npcp_password_file = "{password}"\n'
        path = write_config(tmp_path, more)
        path.write_text(path.read_text().replace('host = "127.0.0.1"', f'host = "127.0.0.1"\npcp_port = {port}'))
        for options in ((), ("--node", "1"), ("--node", "127.0.0.1")):
            assert main(["pcp", "node-count", *options]) == codes.OK
            assert capsys.readouterr().out == "2\n"
        assert main(["pcp", "node-count", "--node", "pg09"]) == codes.USAGE
        assert "--node pg09: no such node, expected one of 127.0.0.1 (1)" in capsys.readouterr().err
        # The configured password is the configured user's, and nobody else's.
        assert main(["pcp", "node-count", "--user", "eve"]) == codes.USAGE
        assert "no password of PCP user eve" in capsys.readouterr().err


def test_without_host_a_broken_configuration_is_told(tmp_path: Path, capsys: Capture) -> None:
    assert main(["pcp", "node-count"]) == codes.USAGE
    assert "pgvigil.toml" in capsys.readouterr().err


def test_the_file_of_pgpools_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with serving(lambda: Fake().answer, tmp_path):
        argv = ["pcp", "node-count", "--host", str(tmp_path), "--user", USER, "--timeout", "20"]
        assert main(argv) == codes.USAGE
        assert f"a line '{tmp_path}:9898:{USER}:password' in {tmp_path}/.pcppass" in capsys.readouterr().err
        private(tmp_path / ".pcppass", f"localhost:9898:{USER}:{PASSWORD}\n")
        assert main(argv) == codes.OK
        os.chmod(tmp_path / ".pcppass", 0o644)
        assert main(argv) == codes.USAGE
        assert "is open to others" in capsys.readouterr().err
        monkeypatch.setenv("PCPPASSFILE", private(tmp_path / "other", f"*:*:*:{PASSWORD}\n"))
        assert main(argv) == codes.OK


def test_a_wrong_password_names_no_password(tmp_path: Path, capsys: Capture) -> None:
    with pgpool(tmp_path) as place:
        private(tmp_path / "password", "guess")
        assert main(["pcp", "node-count", *place]) == codes.USAGE
        shown = capsys.readouterr()
        assert "refused the login" in shown.err and "guess" not in shown.err + shown.out


def test_the_user_is_the_one_of_the_system(tmp_path: Path, capsys: Capture) -> None:
    import pwd

    name = pwd.getpwuid(os.geteuid()).pw_name
    assert main(["pcp", "node-count", "--host", str(tmp_path)]) == codes.USAGE
    assert f"no password of PCP user {name} " in capsys.readouterr().err
