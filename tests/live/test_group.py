"""A real user without any rights, and what a member of `control_group` may do with a running node."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.live.clusters import Cluster, Member
from tests.live.conftest import MakeCluster

from pgvigil.ipc import channel, insisting
from pgvigil.watchdog.cli import backend, codes, failover, membership, parser
from pgvigil.watchdog.cli.__main__ import main

pytestmark = pytest.mark.live

NOBODY = pwd.getpwnam("nobody")
GROUP, GROUP_ID = "daemon", 1
"""A group that every Debian has and that owns nothing."""
IMPORTED_FOR_NOBODY = (backend, channel, failover, insisting, membership)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may pass through, which pytest's own is not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def member(make_cluster: MakeCluster, place: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    """A running node whose run directory a group may pass through."""
    cluster: Cluster = make_cluster(1)
    node = cluster.members[0]
    run_dir = place / "run"
    text = node.text.replace(str(node.run_dir), str(run_dir))
    if os.geteuid() == 0:
        text = text.replace("[process]\n", f'[process]\ncontrol_group = "{GROUP}"\n')
    node.run_dir = run_dir
    node.text = text
    node.write_config(text)
    cluster.start()
    cluster.leader()
    small = place / "pgvigil.toml"
    small.write_text(f'[process]\nrun_dir = "{run_dir}"\n')
    small.chmod(0o644)
    monkeypatch.setenv(parser.CONFIG_VARIABLE, str(small))
    return node


Words = tuple[str, ...]


def called(*words: str) -> tuple[int, str]:
    """A command in this process: its exit code and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    return code, said.getvalue()


def as_nobody(groups: list[int], work: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """The same in a process of the user nobody, who need not be able to read this repository."""
    called("status")  # imports all that it needs
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            os.write(writer, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    code, text = json.loads(data)
    return code, text


def reached(run_dir: Path) -> tuple[int, str]:
    """Which sockets of the run directory this user can connect to."""
    found = []
    for name in ("control.ipc", "group.ipc", "watchdog.ipc", "lifecheck.ipc", "sender-0.ipc"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one, contextlib.suppress(PermissionError):
            one.connect(str(run_dir / name))
            found.append(name)
    return 0, " ".join(found)


def test_what_a_member_of_the_group_and_a_stranger_may_do(member: Member) -> None:
    if os.geteuid() != 0:  # nobody else can become another user: what is closed stays closed
        assert member.run_dir.stat().st_mode & 0o777 == 0o700
        return
    assert as_nobody([GROUP_ID], lambda: reached(member.run_dir)) == (0, "group.ipc")
    assert as_nobody([], lambda: reached(member.run_dir)) == (0, "")
    code, text = as_nobody([GROUP_ID], lambda: called("status", "--json"))
    assert code == codes.OK and json.loads(text)["state"] == "leader"
    code, text = as_nobody([GROUP_ID], lambda: called("backend", "list", "--json"))
    assert code == codes.OK and json.loads(text)["backends"] == []
    code, text = as_nobody([GROUP_ID], lambda: called("backend", "detach", "0"))
    assert code == codes.FAILED and "is not for members of control_group" in text
    code, text = as_nobody([GROUP_ID], _calling(("failover", "--timeout", "3", "0", "pg-a")))
    assert code == codes.FAILED and "no pgpool-II has told the leader its backends yet" in text
    words: Words
    for words in (("switchover",), ("node", "leave")):
        code, text = as_nobody([GROUP_ID], _calling(words))
        assert code == codes.FAILED and "permission denied" in text
    for words in (("failover", "0", "pg-a"), ("backend", "list")):
        code, text = as_nobody([], _calling(words))
        assert code == codes.FAILED and "member of control_group" in text


def _calling(words: Words) -> Callable[[], tuple[int, str]]:
    return lambda: called(*words)
