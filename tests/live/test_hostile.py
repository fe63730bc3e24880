"""Hostile input to every open door of a running node: no process dies, memory and log stay bounded, the leader stays.

The sockets inside a node stand in a folder of mode 0700, so who can write there could kill the processes as well;
what is tested is that a broken or foreign process cannot do by accident what an attacker there need not do at all.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime

import psutil
import pytest
import zmq
from tests.live.clusters import Cluster, Member, leadership_stays, observe

from pgvigil.heartbeat.packet import MAX_DATAGRAM_BYTES, Heartbeat, Signer
from pgvigil.ipc import codec, endpoints, frames
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.frames import Beat, Frame, Health, NodeVerdict, PathEvidence, Role
from pgvigil.watchdog.config import keys
from pgvigil.watchdog.transport.doorman import MAX_STRANGERS

pytestmark = pytest.mark.live

ENDPOINTS: dict[str, Callable[[str], str]] = {
    "watchdog.ipc": endpoints.watchdog_endpoint,
    "lifecheck.ipc": endpoints.lifecheck_endpoint,
    "sender-0.ipc": lambda run_dir: endpoints.sender_endpoint(run_dir, 0),
    "control.ipc": endpoints.control_endpoint,
}
HUGE = 2**63 - 1
NESTED = b"\x91" * 1000 + b"\xc0"
"""Lists in lists: valid msgpack, and deeper than Python recurses."""
LONG = "\x07" * 8000
COMPLAINT = r"^(\S+) \S+ (.*\[\d+\]) WARNING dropped (?:\d+ )?([^:;]+)"
MAX_GROWTH_BYTES = 12 * 1024 * 1024
BEAT = Beat(Role.LEADER, HUGE, True, Health.ALIVE, HUGE, HUGE, (HUGE,) * 250, HUGE)


def samples() -> list[Frame]:
    """A valid frame of every kind that is of no harm where it belongs."""
    now = boottime_ns()
    calm = Beat(Role.UNKNOWN, 0, False, Health.UNKNOWN, 0, 0, (), 0)
    process = frames.ProcessInfo("intruder", 1, "running", 0, now, "")
    return [
        frames.Ready("intruder"),
        frames.Alive(True, "intruder"),
        frames.StopOrder(frames.StopMode.IMMEDIATE),
        frames.HandOverOrder(),
        frames.ReopenLogsOrder(),
        frames.ChildrenReport((process,)),
        frames.ReloadDone(False, "intruder"),
        frames.Sessions(0, ()),
        frames.Heard(99, 0, now, calm),
        frames.PathTrouble(0, 99, 1, ""),
        frames.Verdicts(0, Health.DEAD, 0, "intruder", (), ()),
        frames.Request(1, "no such verb", ()),
        frames.Reply(1, True, True, "intruder", b"{}"),
    ]


def garbage() -> list[bytes]:
    """What is no frame."""
    dice = random.Random(7)
    valid = frames.pack(samples()[4], "intruder", 1, 1)
    return [
        b"",
        b"\0",
        b"\xc0",
        b"\x90" * 50_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        *(dice.randbytes(dice.randrange(2000)) for _ in range(100)),
        *(valid[:length] for length in range(len(valid))),
        *(valid[:place] + bytes((valid[place] ^ 0x55,)) + valid[place + 1 :] for place in range(len(valid))),
        dice.randbytes(codec.MAX_FRAME_BYTES),
        codec.encode(frames.Envelope(frames.SCHEMA + 1, 1, "intruder", 1, 1, b"")),
        codec.encode(frames.Envelope(frames.SCHEMA, 99, "intruder", 1, 1, b"")),
        codec.encode(frames.Envelope(frames.SCHEMA, 11, "intruder", 1, 1, b"\x96")),
        NESTED,
        codec.encode(frames.Envelope(frames.SCHEMA, 11, "intruder", 1, 1, NESTED)),
    ]  # fmt: skip


class Intruder:
    """A process that found the sockets of a node. It never waits longer than a test may."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}

    def _socket(self, door: str) -> zmq.Socket[bytes]:
        found = self._sockets.get(door)
        if found is None:
            found = self._context.socket(zmq.DEALER if door == "control.ipc" else zmq.PUSH)
            found.setsockopt(zmq.LINGER, 0)
            found.setsockopt(zmq.SNDTIMEO, 5000)
            found.connect(ENDPOINTS[door](str(self.member.run_dir)))
            self._sockets[door] = found
        return found

    def send(self, door: str, *parts: bytes) -> None:
        """A message of these parts."""
        self._socket(door).send_multipart(parts)

    def frames(self, door: str, items: Sequence[Frame], times: int = 1) -> None:
        """Well-formed frames."""
        for _ in range(times):
            for frame in items:
                self.send(door, frames.pack(frame, "intruder", 1, boottime_ns()))

    def close(self) -> None:
        """Free everything."""
        self._context.destroy(linger=0)


@contextmanager
def unharmed(cluster: Cluster, member: Member) -> Iterator[Intruder]:
    """Afterwards the same processes run, none has grown, the leader is the same, and the log is short."""
    intruder = Intruder(member)
    pids = {"supervisor": member.supervisor_pid(), **member.children()}
    before = {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}
    mark = member.mark()
    with leadership_stays(cluster):
        try:
            yield intruder
            for _ in observe(0.3):  # for what dies a little later
                pass
            cluster.settle()
        finally:
            intruder.close()
        assert {"supervisor": member.supervisor_pid(), **member.children()} == pids, member.since(mark)
    for name, pid in pids.items():
        grown = psutil.Process(pid).memory_info().rss - before[name]
        assert grown < MAX_GROWTH_BYTES, f"{name} has grown by {grown} bytes"
    _said_seldom(member)
    assert len(member.since(mark)) < 20_000, member.since(mark)


def _said_seldom(member: Member) -> None:
    """Every process complains of one thing once a minute at most, however often it happens."""
    newest: dict[tuple[str, str], float] = {}
    for when, process, what in re.findall(COMPLAINT, member.log_text(), re.MULTILINE):
        at_s = datetime.fromisoformat(when).timestamp()
        assert at_s - newest.get((process, what), 0.0) > 59, f"{process} said too often: dropped {what}"
        newest[process, what] = at_s


@pytest.mark.parametrize("door", ENDPOINTS)
def test_garbage_in_the_sockets_of_a_node(cluster: Cluster, door: str) -> None:
    leader = cluster.leader()
    with unharmed(cluster, leader) as intruder:
        for data in garbage() * 5:
            intruder.send(door, data)
        intruder.send(door, b"two", b"parts")
        intruder.send(door, *[b"x"] * 500)
        name = "heartbeat sender lo" if door.startswith("sender") else door.removesuffix(".ipc")
        name = "watchdog main" if door in ("watchdog.ipc", "control.ipc") else name
        what = "requests" if door == "control.ipc" else "frames"
        leader.wait_log(rf"{name}\[{leader.pid_of(name)}\] WARNING dropped \d+ invalid {what}; the newest: ")


@pytest.mark.parametrize("door", ENDPOINTS)
def test_frames_of_the_wrong_kind_and_replays(cluster: Cluster, door: str) -> None:
    leader = cluster.leader()
    with unharmed(cluster, leader) as intruder:
        intruder.frames(door, samples(), times=300)


@pytest.mark.parametrize("door", ENDPOINTS)
def test_messages_that_are_too_long_or_no_messages_at_all(cluster: Cluster, door: str) -> None:
    leader = cluster.leader()
    path = ENDPOINTS[door](str(leader.run_dir)).removeprefix("ipc://")
    with unharmed(cluster, leader) as intruder:
        for size in (codec.MAX_FRAME_BYTES + 1, 32 * 1024 * 1024):
            intruder.send(door, bytes(size))
        for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\xff" + b"\0" * 8 + b"\x7f\x03" + b"\0" * 53):
            _throw(path, data)
        idle = [_connect(path) for _ in range(50)]
        assert leader.status()["state"] == "leader"
        for one in idle:
            one.close()


def test_valid_frames_with_absurd_values(cluster: Cluster) -> None:
    leader, others = cluster.leader(), cluster.standbys()
    with unharmed(cluster, leader) as intruder:
        for number in range(100):
            peers = tuple(
                NodeVerdict(other.node_id, Health.ALIVE, HUGE, LONG, (PathEvidence(LONG, HUGE),) * 2, None, HUGE)
                for other in others
            )
            intruder.frames(
                "watchdog.ipc",
                [
                    frames.Verdicts(boottime_ns(), Health.ALIVE, HUGE, LONG, peers, ()),
                    frames.Verdicts(HUGE, Health.DEAD, HUGE, LONG, (), ()),
                    frames.Verdicts(1, Health.DEAD, 1, "of long ago", (), ()),
                ],
            )
            trouble = frames.PathTrouble(number, HUGE, HUGE, LONG)
            intruder.frames("lifecheck.ipc", [trouble, frames.Heard(HUGE, HUGE, HUGE, BEAT)])
            sessions = tuple(frames.PeerSession(10**6 + 200 * number + node, HUGE, HUGE) for node in range(200))
            intruder.frames("sender-0.ipc", [frames.Sessions(HUGE, sessions), frames.BeatContent(HUGE, HUGE, BEAT)])
            if number % 10 == 0:
                orders = [frames.Request(HUGE, LONG, (LONG,) * 3), frames.Request(1, "switchover", (LONG,) * 2)]
                intruder.frames("control.ipc", [*orders, frames.Request(2, "status", (LONG,))])


def test_a_flood_of_questions(cluster: Cluster) -> None:
    leader = cluster.leader()
    with unharmed(cluster, leader) as intruder:
        intruder.frames("control.ipc", [frames.Request(number, "status", ()) for number in range(500)])
        assert leader.status()["state"] == "leader"


# --- from the network --------------------------------------------------------------------------------------


def test_garbage_to_the_heartbeat_port(cluster: Cluster) -> None:
    leader = cluster.leader()
    key = keys.heartbeat_key(keys.master_key(keys.read_secret(str(leader.key_file)), "live"), "live")
    standby = cluster.standbys()[0]
    calm = Beat(Role.LEADER, HUGE, True, Health.ALIVE, HUGE, 1, (1, 2, 3), 0)
    ours = Heartbeat(standby.node_id, leader.node_id, 0, 1, 1, 1, HUGE, HUGE, HUGE, HUGE, calm)
    signed = [
        ours,
        Heartbeat(99, leader.node_id, 0, 1, 1, 1, 1, 1, 0, 0, calm),
        Heartbeat(standby.node_id, 99, 0, 1, 1, 1, 1, 1, 0, 0, calm),
        Heartbeat(leader.node_id, leader.node_id, 0, 1, 1, 1, 1, 1, 0, 0, calm),
    ]
    datagrams = [
        *(Signer(key).encode(one) for one in signed),
        Signer(os.urandom(32)).encode(ours),
        sealed(Signer(key), NESTED),
        *(Signer(key).encode(ours)[:length] for length in range(0, 120, 3)),
        b"",
        os.urandom(MAX_DATAGRAM_BYTES + 1),
        os.urandom(60_000),
        *(os.urandom(size) for size in range(100)),
    ]
    with unharmed(cluster, leader), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.77", 0))
        for _ in range(50):
            for datagram in datagrams:
                stranger.sendto(datagram, (leader.address, leader.beat_port))
        leader.wait_log("WARNING dropped a datagram from 127.0.0.77 on lo, not a heartbeat of pgvigil")


def sealed(signer: Signer, body: bytes) -> bytes:
    """A datagram of somebody who knows the key and means harm."""
    content = signer._header + body
    return content + signer._mac(content)


def test_garbage_to_the_port_of_the_transport(cluster: Cluster) -> None:
    leader = cluster.leader()
    said = r"WARNING dropped \d+ connections of unknown hosts; the newest: 127.0.0.78 does not speak"
    with unharmed(cluster, leader):
        for _ in range(4):  # on a loaded machine one burst was seen to pass without a word in the log
            with ExitStack() as held:
                _speak_garbage(leader, held)
                try:
                    leader.wait_log(said, 5)
                    break
                except AssertionError:
                    continue
        leader.wait_log(said)
        _knock_with_other_keys(leader)


def _speak_garbage(leader: Member, held: ExitStack) -> None:
    """60 connections, half of them with random bytes, half with the greeting of CURVE and then nonsense."""
    for number in range(60):
        one = held.enter_context(socket.create_connection((leader.address, leader.port), 10, ("127.0.0.78", 0)))
        garbage = os.urandom(number * 50) if number % 2 else b"\xff" + b"\0" * 8 + b"\x7f\x03\0CURVE" + bytes(60)
        with suppress(ConnectionError):  # the node may hang up before the last byte
            one.sendall(garbage)


def test_silent_connections_to_the_port_of_the_transport(cluster: Cluster) -> None:
    standby = cluster.standbys()[0]
    main = psutil.Process(standby.pid_of("watchdog main"))
    with unharmed(cluster, standby), ExitStack() as held:
        before = main.num_fds()
        for _ in range(400):
            one = socket.create_connection((standby.address, standby.port), 10, ("127.0.0.78", 0))
            held.enter_context(one)
        for _ in observe(0.5):
            pass
        assert main.num_fds() - before <= MAX_STRANGERS + 30


def _knock_with_other_keys(leader: Member) -> None:
    """A ZeroMQ client with a key pair of its own, who knows the public key of the node."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    secret = keys.read_secret(str(leader.key_file))
    server, _ = keys.curve_pair(keys.master_key(secret, "live"), leader.node_id)
    public, private = zmq.curve_keypair()
    client = context.socket(zmq.PUSH)
    client.setsockopt(zmq.LINGER, 0)
    client.setsockopt(zmq.CURVE_SERVERKEY, server)
    client.setsockopt(zmq.CURVE_PUBLICKEY, public)
    client.setsockopt(zmq.CURVE_SECRETKEY, private)
    monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    client.connect(f"tcp://127.0.0.79:0;{leader.address}:{leader.port}")
    try:
        assert monitor.poll(5000), "the node let a stranger in"
    finally:
        client.disable_monitor()
        context.destroy(linger=0)


def _connect(path: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(2)
    one.connect(path)
    return one


def _throw(path: str, data: bytes) -> None:
    """Bytes that are no ZeroMQ, and the end."""
    with _connect(path) as one:
        try:
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            while one.recv(4096):
                pass
        except OSError:
            return
