"""Which processes of a pgpool-II serve no client, and what they hold: from a folder made like /proc."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgvigil.watchdog.pools import processes
from pgvigil.watchdog.pools.freeing import Duty
from pgvigil.watchdog.pools.processes import Processes

PCP = "pgpool: PCP: wait for connection request"


class Proc:
    """Such a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(
        self, pid: int, title: str, children: Sequence[int] = (), sockets: Sequence[int] = (), name: str = "pgpool"
    ) -> None:
        own = self.folder / str(pid)
        (own / "fd").mkdir(parents=True, exist_ok=True)
        (own / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        (own / "comm").write_text(name + "\n", encoding="utf-8")
        # pgpool-II writes its title over the arguments and the environment, and fills up with zeros.
        (own / "cmdline").write_bytes(title.encode() + bytes(40))
        (own / "task" / str(pid) / "children").write_text("".join(f"{child} " for child in children), encoding="ascii")
        targets = ["/dev/null", "anon_inode:[eventpoll]", *(f"socket:[{inode}]" for inode in sockets)]
        for link in (own / "fd").iterdir():
            link.unlink()
        for number, target in enumerate(targets, 2):
            (own / "fd" / str(number)).symlink_to(target)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """One as pgpool-II 4.3.5 has them, with a client and a PCP worker at work."""
    made = Proc(tmp_path)
    made.process(10, "pgpool -n -f /etc/pgpool2/pgpool.conf", (11, 12, 13, 14, 15, 16), (100, 101))
    made.process(11, "pgpool: wait for connection request", sockets=(110,))
    made.process(12, "pgpool: postgres postgres 10.0.0.1(4711) idle", sockets=(120,))
    made.process(13, PCP, (21, 22), (130,))
    made.process(14, "pgpool: worker process", sockets=(140,))
    made.process(15, "pgpool: health check process(0)", sockets=(150,))
    made.process(16, "pgpool: health check process(1)")
    made.process(21, "pgpool: PCP: processing node info request", sockets=(210,))
    made.process(22, PCP)
    return made


def found(seen: Processes) -> dict[int, tuple[Duty, set[int]]]:
    return {one.pid: (one.duty, set(one.inodes)) for one in seen.find(10)}


def test_all_but_those_that_serve_clients_are_found_with_their_sockets(proc: Proc) -> None:
    seen = Processes(str(proc.folder))
    assert found(seen) == {
        10: (Duty.MAIN, {100, 101}),
        13: (Duty.PCP, {130}),
        21: (Duty.PCP_WORKER, {210}),
        22: (Duty.PCP_WORKER, set()),
        14: (Duty.REPLICATION, {140}),
        15: (Duty.HEALTH, {150}),
        16: (Duty.HEALTH, set()),
    }
    assert seen.obstacle == ""


def test_a_pcp_worker_that_recovers_a_backend_is_told_from_the_others(proc: Proc) -> None:
    proc.process(22, "pgpool: PCP: processing recovery request", sockets=(220,))
    seen = found(Processes(str(proc.folder)))
    assert (seen[21][0], seen[22]) == (Duty.PCP_WORKER, (Duty.RECOVERY, {220}))


def test_what_serves_clients_is_looked_at_once_and_one_without_a_title_again(proc: Proc) -> None:
    seen = Processes(str(proc.folder))
    proc.process(16, "pgpool -n -f /etc/pgpool2/pgpool.conf")
    assert 16 not in found(seen)
    proc.process(16, PCP)
    proc.process(11, PCP)
    assert 16 in found(seen) and 11 not in found(seen)
    seen.forget()
    assert 11 in found(seen)


def test_a_number_that_was_given_again_is_looked_at_anew(proc: Proc) -> None:
    seen = Processes(str(proc.folder))
    found(seen)
    proc.process(10, "pgpool", (13,))
    assert 11 not in found(seen)
    proc.process(10, "pgpool", (11, 13))
    proc.process(11, PCP)
    assert 11 in found(seen)


def test_what_is_gone_is_no_obstacle(proc: Proc) -> None:
    seen = Processes(str(proc.folder))
    proc.process(10, "pgpool", (11, 13, 99))
    assert 13 in found(seen) and seen.obstacle == ""


def test_the_pid_of_another_program_in_a_pid_file_that_was_left_behind_is_nobodys(proc: Proc) -> None:
    seen = Processes(str(proc.folder))
    proc.process(10, "postgres: walreceiver", (11, 14), (100,), name="postgres")
    assert seen.find(10) == []
    assert seen.obstacle == "process 10 of its pid file is postgres, expected pgpool"
    assert seen.find(99) == [] and seen.obstacle == "", "gone is no news"


def test_a_kernel_that_names_no_children_is_one(proc: Proc) -> None:
    (proc.folder / "10" / "task" / "10" / "children").unlink()
    seen = Processes(str(proc.folder))
    assert found(seen) == {10: (Duty.MAIN, {100, 101})}
    assert seen.obstacle == "/proc/10/task/10/children names nobody"


def test_what_may_not_be_read_is_told_and_the_rest_is_found(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: str) -> object:
        if path.endswith("/21/fd"):
            raise PermissionError(errno.EACCES, "no")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    seen = Processes(str(proc.folder))
    assert found(seen)[21] == (Duty.PCP_WORKER, set())
    assert found(seen)[13] == (Duty.PCP, {130})
    assert seen.obstacle == "/proc/21/fd: EACCES (Permission denied)"
    monkeypatch.undo()
    assert found(seen)[21] == (Duty.PCP_WORKER, {210})
    assert seen.obstacle == ""


def test_no_more_than_so_many_are_looked_at(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_PROCESSES", 3)
    assert set(found(Processes(str(proc.folder)))) == {10, 13, 21}, "health checks are left out first"


def test_those_that_make_a_session_are_found_anew_each_time(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Processes(str(proc.folder))
    found(seen)
    assert seen.sessions(10) == []
    proc.process(11, "pgpool: accept connection", sockets=(110, 111))
    (one,) = seen.sessions(10)
    assert (one.pid, one.duty, set(one.inodes)) == (11, Duty.SESSION, {110, 111})
    proc.process(11, "pgpool: accept connection postgres 10.0.0.1(4711) idle", sockets=(110,))
    assert seen.sessions(10) == [], "a session that is made, of a user whose name is accept"
    proc.process(12, "pgpool: accept connection")
    proc.process(11, "pgpool: accept connection")
    assert len(seen.sessions(10)) == 2
    monkeypatch.setattr(processes, "MAX_SESSIONS", 1)
    assert len(seen.sessions(10)) == 1


def test_only_a_pgpool_that_runs_hides_its_descriptors(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> object:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "scandir", refuse)
    seen = Processes(str(proc.folder))
    assert seen.hidden(10) == "/proc/10/fd: EACCES (Permission denied)"
    (proc.folder / "10" / "cmdline").write_bytes(b"")
    assert seen.hidden(10) == "", "it has ended, and nobody has waited for it"
    proc.process(10, "pgpool")
    (proc.folder / "10" / "comm").write_text("sshd", encoding="ascii")
    assert seen.hidden(10) == "" and seen.hidden(4711) == ""
