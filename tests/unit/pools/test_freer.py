"""Questions to hosts, `/proc` and the kernel's list together: this process is the pgpool-II, loopback the network.

What the kernel is told to end is written down instead; tests/lab ends real connections.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.pools.bench import document
from tests.unit.pools.loops import Ground, ground

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.ipc.netlink import KernelRefusal, NetlinkSocket
from pgvigil.ipc.sock_diag import Connection
from pgvigil.watchdog.core.events import Level, PeerView, Views
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import Backend, BackendRole, BackendStatus
from pgvigil.watchdog.pools import freeing, freer, processes, silence
from pgvigil.watchdog.pools.freeing import Duty, PoolProcess
from pgvigil.watchdog.pools.freer import Freer
from pgvigil.watchdog.pools.plan import Facts, Known, Memory
from pgvigil.watchdog.pools.processes import Processes
from pgvigil.watchdog.pools.view import Incarnation, PoolBackend, View

HERE = "127.0.0.1"
LIFE = Incarnation(os.getpid(), 5)
DEAD = Views(Health.ALIVE, "", (PeerView(2, Health.DEAD, False, 1, 0),))
ALIVE = Views(Health.ALIVE, "", (PeerView(2, Health.ALIVE, True, 1, 0),))


class Server:
    """A backend: one connection to it exists; `vanish` makes it meet new ones with silence."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.listener = self._stack.enter_context(socket.socket())
        self.listener.bind((HERE, 0))
        self.listener.listen(0)
        self.port = int(self.listener.getsockname()[1])
        self.held = self._stack.enter_context(socket.create_connection((HERE, self.port)))
        self._stack.enter_context(self.listener.accept()[0])
        self._fill: list[socket.socket] = []

    @property
    def inode(self) -> int:
        return os.fstat(self.held.fileno()).st_ino

    @property
    def inodes(self) -> set[int]:
        """Of this process's connections: the first one that filled the queue is one, too."""
        return {self.inode, *(os.fstat(one.fileno()).st_ino for one in self._fill)}

    @property
    def begun(self) -> socket.socket:
        """One that got no answer at all."""
        return self._fill[-1]

    def vanish(self) -> None:
        """The queue is full from now on."""
        for _ in range(3):
            one = self._stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((HERE, self.port))
            self._fill.append(one)

    def close(self) -> None:
        self._stack.close()


class Scene:
    """A freer whose owner looks at every turn of the loop."""

    def __init__(self, place: Ground, server: Server) -> None:
        self.place, self.server = place, server
        self.notes: list[tuple[Level, str]] = []
        self.views: Views | None = DEAD
        self.life: Incarnation | None = LIFE
        self.host = HERE
        self.agreed_only = False
        self.lost = False
        self.freer = Freer(place.loop, place.resolver, lambda *note: self.notes.append(note), boottime_ns)

    def look(self) -> None:
        now_ns, port = boottime_ns(), self.server.port
        seen = PoolBackend(3, self.host, port, SeenStatus.UP, BackendRole.PRIMARY)
        agreed = Backend(3, self.host, port, BackendStatus.UP, BackendRole.PRIMARY, "", 1)
        if self.lost:
            seen, agreed = replace(seen, status=SeenStatus.DOWN), replace(agreed, status=BackendStatus.DOWN)
        view = None if self.agreed_only else View(now_ns, LIFE, (seen,))
        known = self.agreed_only or self.lost
        facts = Facts(now_ns, document(agreed) if known else None, view, self.life)
        self.freer.look(facts, Memory(known={3: Known(1, now_ns)}), self.views)

    def until(self, happened: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.look()
            return happened()

        self.place.until(looked)

    def for_a_while(self) -> None:
        """Four times as long as it takes to act."""
        end_ns = boottime_ns() + 1200 * NS_PER_MS
        self.until(lambda: boottime_ns() >= end_ns)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a tenth of the time."""
    for name in ("SILENT_NS", "ASK_AGAIN_NS", "LIVES_AGAIN_NS", "AGAIN_NS"):
        monkeypatch.setattr(freeing, name, getattr(freeing, name) // 10)
    monkeypatch.setattr(silence, "LIMIT_NS", 100 * NS_PER_MS)
    monkeypatch.setattr(processes, "NAME", Path("/proc/self/comm").read_bytes().strip())
    monkeypatch.setattr(freer, "SLACK_NS", 0)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of what was ended."""
    inodes: list[int] = []

    def end(netlink: NetlinkSocket, connection: Connection) -> None:
        inodes.append(connection.inode)

    monkeypatch.setattr(freer, "destroy", end)
    return inodes


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    server = Server()
    # A pgpool-II always has children, and one that shows none is complained about.
    child = subprocess.Popen(("sleep", "120"), start_new_session=True)
    try:
        with ground(tmp_path) as place:
            made = Scene(place, server)
            yield made
            made.freer.close()
    finally:
        server.close()
        child.kill()
        child.wait(30)


def test_a_silent_host_is_freed_from_again_and_again_and_told(scene: Scene, ended: list[int]) -> None:
    scene.server.vanish()
    scene.until(lambda: len(ended) >= 2)
    assert scene.server.inode in ended and set(ended) <= scene.server.inodes
    level, text = scene.notes[0]
    assert level is Level.WARNING
    where = f" to backend 3 ({HERE}:{scene.server.port}): that host has been silent for "
    assert text.startswith("freed its pgpool-II from ") and where in text and text.endswith("(main process)")


def test_what_is_agreed_tells_the_backends_of_one_that_never_answered(scene: Scene, ended: list[int]) -> None:
    scene.server.vanish()
    scene.agreed_only = True
    scene.until(lambda: bool(ended))


@pytest.mark.parametrize("lost", [False, True])
def test_a_session_in_the_making_is_freed_only_from_a_backend_that_was_given_up(
    scene: Scene, ended: list[int], monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """No node is dead: that the backend was given up is reason enough to ask its host."""
    scene.server.vanish()
    begun = os.fstat(scene.server.begun.fileno()).st_ino
    main = PoolProcess(LIFE.pid, Duty.MAIN, frozenset({scene.server.inode}))
    session = PoolProcess(4711, Duty.SESSION, frozenset({begun}))
    monkeypatch.setattr(Processes, "find", lambda self, pid: [main])
    monkeypatch.setattr(Processes, "sessions", lambda self, pid: [session] if pid == LIFE.pid else [])
    scene.lost = lost
    scene.views = ALIVE if lost else DEAD
    scene.until(lambda: (begun if lost else scene.server.inode) in ended)
    scene.for_a_while()
    assert (begun in ended) is lost
    assert any("session in the making" in text for _, text in scene.notes) is lost


def test_a_host_that_lives_is_left_alone(scene: Scene, ended: list[int]) -> None:
    scene.server.listener.setblocking(False)
    taken: list[socket.socket] = []

    def accept() -> bool:
        try:
            taken.append(scene.server.listener.accept()[0])
        except BlockingIOError:
            pass
        return len(taken) >= 3

    scene.until(accept)
    for one in taken:
        one.close()
    assert ended == [] and scene.notes == []


def test_nobody_is_asked_while_all_is_well(scene: Scene, ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def begin(made: socket.socket, address: str, port: int) -> int:
        asked.append(port)
        return errno.ETIMEDOUT

    monkeypatch.setattr(silence, "_begin", begin)
    for views in (ALIVE, None):
        scene.views = views
        scene.for_a_while()
    scene.views, scene.life = DEAD, None
    scene.for_a_while()
    scene.life, scene.host = LIFE, "/var/run/postgresql"
    scene.for_a_while()
    assert asked == [] and ended == []
    scene.host = HERE
    scene.until(lambda: bool(ended))
    assert set(asked) == {scene.server.port}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EOPNOTSUPP, "not supported); this kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)"),
        (errno.EPERM, "EPERM (Operation not permitted); give pgvigil CAP_NET_ADMIN"),
    ],
)
def test_a_kernel_that_refuses_is_named_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    tries: list[int] = []

    def refuse(netlink: NetlinkSocket, connection: Connection) -> None:
        tries.append(connection.inode)
        raise KernelRefusal("end of the connection to 127.0.0.1", code)

    monkeypatch.setattr(freer, "destroy", refuse)
    scene.server.vanish()
    scene.until(lambda: len(tries) >= 3)
    ((level, text),) = scene.notes
    assert level is Level.WARNING and text.startswith("cannot free its pgpool-II: ") and text.endswith(told)


def test_what_is_gone_meanwhile_is_no_news(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def gone(netlink: NetlinkSocket, connection: Connection) -> None:
        tries.append(connection.inode)
        raise KernelRefusal("end", errno.ENOENT)

    monkeypatch.setattr(freer, "destroy", gone)
    scene.server.vanish()
    scene.until(lambda: len(tries) >= 2)
    assert scene.notes == []


def test_processes_that_may_not_be_read_are_told_once(
    scene: Scene, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def refuse(path: str) -> object:
        looks.append(path)
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "scandir", refuse)
    scene.server.vanish()
    scene.until(lambda: len(looks) >= 3)
    assert ended == []
    told = f"/proc/{os.getpid()}/fd: EACCES (Permission denied); run pgvigil as the user of pgpool-II"
    assert [told in text for _, text in scene.notes] == [True]


def test_what_would_be_missing_in_an_emergency_is_told_at_the_start(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> object:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "scandir", refuse)
    scene.views = ALIVE
    scene.for_a_while()
    ((level, text),) = scene.notes
    assert level is Level.WARNING
    assert text.startswith("cannot see the connections of its pgpool-II, to free it from a host that vanishes: /proc/")
    assert text.endswith("; run pgvigil as the user of pgpool-II, or give it CAP_SYS_PTRACE")


def test_another_program_behind_the_pid_file_keeps_its_connections(
    scene: Scene, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "NAME", b"pgpool")
    scene.server.vanish()
    scene.until(lambda: bool(scene.notes))
    scene.for_a_while()
    ((_, text),) = scene.notes
    assert ended == [] and f"process {os.getpid()} of its pid file is " in text and "CAP_SYS_PTRACE" not in text


def test_a_view_without_backends_asks_nobody(scene: Scene) -> None:
    facts = Facts(boottime_ns(), None, View(0, LIFE, ()), LIFE)
    scene.freer.look(facts, Memory(), DEAD)
    scene.freer.look(replace(facts, view=None), Memory(), DEAD)
    assert scene.notes == []
