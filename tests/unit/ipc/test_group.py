"""What a group may reach in the run directory, and nothing else."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest
import zmq

from pgvigil.ipc import endpoints
from pgvigil.ipc.channel import ControlServer, Inbox, new_context
from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.supervisor.pidfile import PidFile

OWN = grp.getgrgid(os.getgid()).gr_name


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_groups_own_socket_is_open_to_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    run_dir = tmp_path / "run"
    before = os.umask(umask)
    try:
        endpoints.ensure_run_dir(str(run_dir), OWN)
        context = new_context()
        open_sockets: list[Inbox | ControlServer] = [
            Inbox(context, endpoints.watchdog_endpoint(str(run_dir)), print),
            ControlServer(context, endpoints.control_endpoint(str(run_dir)), print),
            ControlServer(context, endpoints.group_endpoint(str(run_dir)), print, OWN),
        ]
        held = PidFile.take(str(run_dir))
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert mode(run_dir) == 0o710 and run_dir.stat().st_gid == os.getgid()
    found = {path.name: mode(path) for path in run_dir.iterdir()}
    assert found == {"watchdog.ipc": 0o600, "control.ipc": 0o600, "group.ipc": 0o660, "pgvigil.pid": 0o600}
    held.release()
    for one in open_sockets:
        one.close()
    context.term()


def test_without_a_group_the_folder_is_closed_again(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    endpoints.ensure_run_dir(str(run_dir), OWN)
    endpoints.ensure_run_dir(str(run_dir))
    assert mode(run_dir) == 0o700


def test_an_unknown_group_is_the_operators_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="control_group no such group: there is no such group"):
        endpoints.ensure_run_dir(str(tmp_path / "run"), "no such group")


def test_a_group_that_we_may_not_give_to_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted; run pgvigil as root or as a member"):
        endpoints.ensure_run_dir(str(tmp_path / "run"), OWN)
    assert mode(tmp_path / "run") == 0o700


def test_a_socket_of_the_group_answers_like_the_other(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = new_context()
    server = ControlServer(context, endpoints.group_endpoint(str(tmp_path)), print, OWN)
    client = context.socket(zmq.DEALER)
    client.connect(endpoints.group_endpoint(str(tmp_path)))
    client.send(b"noise")
    assert server.socket.poll(10_000, zmq.POLLIN)
    assert list(server.requests()) == [] and server.complaints.count == 1
    client.close(linger=0)
    server.close()
    context.term()
