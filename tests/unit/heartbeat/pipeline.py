"""Real heartbeat and lifecheck processes of two nodes on loopback, for the live tests.

Every process is forked as the supervisor does it, with a socketpair; its log goes to a file of the test's folder. All
are killed by pid at the end. What watchdog main would hear is taken from a real inbox.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pgvigil.heartbeat import receiver, sender
from pgvigil.heartbeat.settings import HeartbeatSettings, PeerAddress
from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import Inbox, Outbox, new_context
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.ready import Link, make_pair
from pgvigil.lifecheck import process as lifecheck
from pgvigil.lifecheck.settings import LifecheckPeer, LifecheckSettings

T = TypeVar("T")
KEY = b"k" * 32
LIFE_INTERVAL_NS = 100_000_000
Body = Callable[[Link], int]


def wait_for(what: Callable[[], T | None], timeout_s: float = 15.0) -> T:
    """The first value that is not None or False, or an assertion that says that none came in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = what()
        if value is not None and value is not False:
            return value
        time.sleep(0.005)
    raise AssertionError(f"waited {timeout_s} s in vain for {what}")


def free_port(*addresses: str) -> int:
    """A UDP port that is free on all of these addresses."""
    while True:
        probes = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in addresses]
        try:
            probes[0].bind((addresses[0], 0))
            port: int = probes[0].getsockname()[1]
            for probe, address in zip(probes[1:], addresses[1:], strict=True):
                probe.bind((address, port))
            return port
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()


@dataclass
class Child:
    """A forked process with the supervisor's end of its link."""

    name: str
    pid: int
    link: Link
    log: Path
    received: list[frames.Frame] = field(default_factory=list)
    code: int | None = None

    def frames(self) -> list[frames.Frame]:
        """All that it has told the supervisor so far."""
        self.received += [received.frame for received in self.link.receive()]
        return self.received

    def wait_ready(self) -> str:
        """The detail of its `Ready`."""
        ready = wait_for(lambda: next((f for f in self.frames() if isinstance(f, frames.Ready)), None))
        return ready.detail

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, and wait for the end; the wait status."""
        if self.code is None:
            os.kill(self.pid, number)
            self.wait_end()
        assert self.code is not None
        return self.code

    def wait_end(self) -> int:
        """The wait status."""

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = status
            return pid != 0

        if self.code is None:
            wait_for(ended)
        self.link.close()
        assert self.code is not None
        return self.code

    def log_lines(self) -> list[str]:
        """What it has logged."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def title(self) -> str:
        """As ps shows it."""
        return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


class Nursery:
    """Forks children and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.children: list[Child] = []

    def fork(self, name: str, body: Body) -> Child:
        """A child that runs `body(link)` with its log in a file."""
        ours, theirs = make_pair()
        log = self._folder / f"{name}-{len(self.children)}.log"
        pid = os.fork()
        if pid == 0:
            _run_child(body, ours, theirs, log)
        theirs.close()
        child = Child(name, pid, Link(ours, "supervisor", lambda _reason: None), log)
        self.children.append(child)
        return child

    def close(self) -> None:
        """Kill what still runs."""
        for child in self.children:
            if child.code is None:
                os.kill(child.pid, signal.SIGCONT)
                child.kill()


def _run_child(body: Body, ours: socket.socket, theirs: socket.socket, log: Path) -> None:
    code = 70
    try:
        _close_all_but(theirs.fileno())
        ours.detach()
        handler = logging.FileHandler(log)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger = logging.getLogger("pgvigil")
        logger.handlers = [handler]
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        code = body(Link(theirs, "child", logger.warning))
    except BaseException:
        import traceback

        log.open("a").write(traceback.format_exc())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _close_all_but(kept: int) -> None:
    """What the test has open is none of the child's business, and would keep ports and links alive."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of the listing itself


class Node:
    """Sender, receiver and lifecheck of one node; the test plays watchdog main."""

    def __init__(self, nursery: Nursery, folder: Path, node_id: int, address: str, peers: tuple[PeerAddress, ...],
                 port: int) -> None:  # fmt: skip
        self._nursery = nursery
        self.id = node_id
        self.label = f"pg0{node_id}"
        self.run_dir = str(folder / f"n{node_id}")
        endpoints.ensure_run_dir(self.run_dir)
        self.heartbeat = HeartbeatSettings(node_id, 0, "lo", address, port, peers, KEY, 200, self.run_dir)
        self.lifecheck = LifecheckSettings(
            node_id, tuple(LifecheckPeer(peer.node_id, peer.label) for peer in peers), ("lo",),
            ("heartbeat", "process"), 200, 1000, None, self.run_dir,
        )  # fmt: skip
        self._context = new_context()
        self.inbox = Inbox(self._context, endpoints.watchdog_endpoint(self.run_dir), lambda _reason: None)
        self._to_sender = Outbox(self._context, endpoints.sender_endpoint(self.run_dir, 0), "watchdog main")
        self.verdicts: list[frames.Verdicts] = []

    def with_key(self, key: bytes) -> None:
        """Another shared secret from the next start on."""
        self.heartbeat = replace(self.heartbeat, key=key)

    def start_sender(self) -> Child:
        return self._fork("sender", lambda link: sender.run(self.heartbeat, link, LIFE_INTERVAL_NS))

    def start_receiver(self) -> Child:
        return self._fork("receiver", lambda link: receiver.run(self.heartbeat, link, LIFE_INTERVAL_NS))

    def start_lifecheck(self) -> Child:
        return self._fork("lifecheck", lambda link: lifecheck.run(self.lifecheck, link, LIFE_INTERVAL_NS))

    def _fork(self, duty: str, body: Body) -> Child:
        return self._nursery.fork(f"{self.label}-{duty}", body)

    def start(self) -> tuple[Child, Child, Child]:
        return self.start_sender(), self.start_receiver(), self.start_lifecheck()

    def say(self, beat: frames.Beat, started_at_ns: int = 1) -> bool:
        """What watchdog main tells the sender."""
        return self._to_sender.send(frames.BeatContent(boottime_ns(), started_at_ns, beat))

    def latest(self) -> frames.Verdicts | None:
        """The newest report of lifecheck; all are kept in `verdicts`."""
        for received in self.inbox.receive():
            if isinstance(received.frame, frames.Verdicts):
                self.verdicts.append(received.frame)
        return self.verdicts[-1] if self.verdicts else None

    def peer(self) -> frames.NodeVerdict | None:
        """The newest verdict on the only peer."""
        latest = self.latest()
        return latest.peers[0] if latest else None

    def peer_is(self, health: frames.Health) -> bool:
        verdict = self.peer()
        return verdict is not None and verdict.health is health

    def close(self) -> None:
        self.inbox.close()
        self._to_sender.close()
        self._context.term()
