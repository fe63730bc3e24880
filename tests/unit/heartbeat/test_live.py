"""Two nodes on loopback with real senders, receivers and lifechecks; the tests play watchdog main and the attacker."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.heartbeat.pipeline import KEY, Child, Node, Nursery, free_port, wait_for

from pgvigil.heartbeat.packet import MAX_DATAGRAM_BYTES, Signer
from pgvigil.heartbeat.settings import PeerAddress
from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns

pytestmark = pytest.mark.live

ALIVE, DEAD = frames.Health.ALIVE, frames.Health.DEAD
BEAT = frames.Beat(frames.Role.STANDBY, 3, True, ALIVE, 1, 0, (3,), 0)


class Pair:
    """Nodes pg02 and pg03."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port("127.0.0.2", "127.0.0.3")
        self.nursery = Nursery(folder)
        self.one = self._node(folder, 2, 3)
        self.two = self._node(folder, 3, 2)

    def _node(self, folder: Path, own: int, other: int) -> Node:
        peers = (PeerAddress(other, f"pg0{other}", f"127.0.0.{other}", self.port),)
        return Node(self.nursery, folder, own, f"127.0.0.{own}", peers, self.port)

    def both_alive(self) -> bool:
        return self.one.peer_is(ALIVE) and self.two.peer_is(ALIVE)

    def close(self) -> None:
        self.nursery.close()
        self.one.close()
        self.two.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def no_death_for(node: Node, seconds: float) -> None:
    """Watch the verdicts for a while; that is what is tested, not a way to synchronise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert not node.peer_is(DEAD), node.peer()
        time.sleep(0.01)


def wait_for_line(child: Child, *words: str) -> str:
    def found() -> str | None:
        return next((line for line in child.log_lines() if all(word in line for word in words)), None)

    return wait_for(found)


def evidence(node: Node) -> str:
    verdict = node.peer()
    return "" if verdict is None else verdict.evidence


def heard_after(node: Node, at_ns: int) -> bool:
    verdict = node.peer()
    return verdict is not None and verdict.paths[0].last_heard_at_ns > at_ns


def summary(child: Child) -> str:
    lives = [frame.summary for frame in child.frames() if isinstance(frame, frames.Alive)]
    return lives[-1] if lives else ""


def test_two_nodes_find_each_other_and_say_who_they_are(pair: Pair) -> None:
    sender, receiver, lifecheck = pair.one.start()
    pair.two.start()
    wait_for(pair.both_alive)
    assert wait_for(lambda: pair.one.say(BEAT, boottime_ns() - 7000 * NS_PER_MS))

    def told() -> frames.Beat | None:
        verdict = pair.two.peer()
        return verdict.beat if verdict and verdict.beat and verdict.beat.term == 3 else None

    beat = wait_for(told)
    assert (beat.role, beat.electable, beat.pgpool, beat.hears) == (frames.Role.STANDBY, True, ALIVE, (3,))
    assert 7000 <= beat.up_for_ms < 12_000 and beat.content_age_ms < 1000
    assert sender.title() == "pgvigil: heartbeat sender lo -> pg03"
    assert receiver.title() == f"pgvigil: heartbeat receiver lo:{pair.port}"
    wait_for(lambda: lifecheck.title() == "pgvigil: lifecheck (1/1 peers alive, pgpool not checked)")
    assert wait_for_line(lifecheck, "node pg03 alive: heard on lo")


def test_a_change_of_role_is_told_at_once(pair: Pair) -> None:
    pair.one.heartbeat = replace(pair.one.heartbeat, interval_ms=10_000)
    pair.one.start()
    pair.two.start()
    wait_for(lambda: pair.two.peer_is(ALIVE))
    time.sleep(0.1)  # outside the 50 ms in which extra rounds wait
    start = time.monotonic()
    wait_for(lambda: pair.one.say(replace(BEAT, role=frames.Role.LEADER)))

    def leader() -> bool:
        verdict = pair.two.peer()
        return verdict is not None and verdict.beat is not None and verdict.beat.role is frames.Role.LEADER

    wait_for(leader)
    assert time.monotonic() - start < 5.0  # usually 5 ms; the regular round comes after 10 s


def test_a_silent_watchdog_claims_no_role(pair: Pair) -> None:
    pair.one.start()
    pair.two.start()
    wait_for(lambda: pair.one.say(BEAT))

    def role() -> tuple[frames.Role, bool] | None:
        verdict = pair.two.peer()
        return (verdict.beat.role, verdict.beat.electable) if verdict and verdict.beat else None

    wait_for(lambda: role() == (frames.Role.STANDBY, True))
    wait_for(lambda: role() == (frames.Role.UNKNOWN, False))
    verdict = pair.two.peer()
    assert verdict is not None and verdict.beat is not None
    assert verdict.beat.content_age_ms >= 2000 and verdict.health is ALIVE


def test_a_dead_node_is_noticed_within_the_dead_time_and_comes_back(pair: Pair) -> None:
    pair.one.start()
    sender, *_ = pair.two.start()
    wait_for(pair.both_alive)
    sender.kill()
    killed = time.monotonic()
    wait_for(lambda: pair.one.peer_is(DEAD))
    assert time.monotonic() - killed > 0.6
    assert evidence(pair.one).startswith("silent on lo for 1")
    pair.two.start_sender()
    wait_for(lambda: pair.one.peer_is(ALIVE))


def test_a_node_that_is_never_heard_is_unknown_and_then_dead(pair: Pair) -> None:
    pair.one.start_lifecheck()
    wait_for(lambda: pair.one.peer_is(frames.Health.UNKNOWN))
    wait_for(lambda: "the heartbeat receiver of lo does not report" in evidence(pair.one))
    assert pair.one.peer_is(frames.Health.UNKNOWN)
    pair.one.start_receiver()
    wait_for(lambda: pair.one.peer_is(DEAD))
    assert evidence(pair.one).startswith("never heard on lo for ")


@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_a_process_that_is_killed_and_restarted_costs_no_verdict(pair: Pair, victim: str) -> None:
    sender, receiver, _ = pair.one.start()
    pair.two.start()
    wait_for(pair.both_alive)
    (sender if victim == "sender" else receiver).kill()
    new = pair.one.start_sender() if victim == "sender" else pair.one.start_receiver()
    new.wait_ready()
    restarted_ns = boottime_ns()
    no_death_for(pair.one, 1.5)
    no_death_for(pair.two, 0.1)
    assert heard_after(pair.one, restarted_ns) and heard_after(pair.two, restarted_ns)


def test_a_restarted_lifecheck_and_watchdog_hear_quickly(pair: Pair) -> None:
    *_, lifecheck = pair.one.start()
    pair.two.start()
    wait_for(pair.both_alive)
    lifecheck.kill()
    pair.one.verdicts.clear()
    pair.one.start_lifecheck()
    wait_for(lambda: pair.one.peer_is(ALIVE))


def recording(pair: Pair, node_id: int) -> tuple[socket.socket, list[bytes]]:
    """Stand where node `node_id` receives, and record what is sent there."""
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((f"127.0.0.{node_id}", pair.port))
    wire.settimeout(3)
    return wire, [wire.recv(2000) for _ in range(4)]


def test_replays_from_the_wire_are_refused_also_after_a_restart(pair: Pair) -> None:
    sender, receiver, _ = pair.one.start()
    two_sender, two_receiver, _ = pair.two.start()
    wait_for(pair.both_alive)
    two_receiver.kill()
    wire, recorded = recording(pair, 3)  # authentic, and nobody but the attacker has seen them
    wire.close()
    sender.kill()
    new_receiver = pair.two.start_receiver()
    new_receiver.wait_ready()
    wait_for(lambda: pair.two.peer_is(DEAD))
    died_ns = boottime_ns()
    attacker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(3):
        for datagram in recorded:
            attacker.sendto(datagram, ("127.0.0.3", pair.port))
    wait_for(lambda: "12 rejected" in summary(new_receiver))
    assert pair.two.peer_is(DEAD) and not heard_after(pair.two, died_ns)
    pair.one.start_sender()
    wait_for(lambda: pair.two.peer_is(ALIVE))
    for datagram in recorded * 3:
        attacker.sendto(datagram, ("127.0.0.3", pair.port))
    no_death_for(pair.two, 1.2)
    attacker.close()
    assert receiver.code is None and two_sender.code is None


def test_another_key_is_named_once_and_its_end_too(pair: Pair) -> None:
    pair.one.start()
    other = b"o" * 32
    pair.two.with_key(other)
    sender, receiver, _ = pair.two.start()
    line = wait_for_line(receiver, "127.0.0.2 (pg02)", "signed with another key")
    theirs, ours = Signer(KEY).key_id, Signer(other).key_id
    assert f"(theirs {theirs}, ours {ours}); is authkey_file the same on both hosts?" in line

    def trouble() -> frames.PathTrouble | None:
        latest = pair.two.latest()
        return latest.troubles[0] if latest and latest.troubles else None

    told = wait_for(trouble)
    assert told.node_id == 2 and "another key" in told.reason
    wait_for(lambda: pair.two.peer_is(DEAD))
    assert sum("another key" in line for line in receiver.log_lines()) == 1
    assert not any(key in receiver.log.read_bytes() for key in (KEY, other, KEY.hex().encode()))
    sender.kill()
    receiver.kill()
    pair.two.with_key(KEY)
    pair.two.start_sender()
    pair.two.start_receiver()
    wait_for(pair.both_alive)


def test_rubbish_from_the_network_is_counted_and_ends_nothing(pair: Pair) -> None:
    pair.one.start()
    _, receiver, _ = pair.two.start()
    wait_for(pair.both_alive)
    attacker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for datagram in (b"", b"x", b"pgvH", os.urandom(300), b"x" * (MAX_DATAGRAM_BYTES + 1), b"y" * 9000):
        for _ in range(4):
            attacker.sendto(datagram, ("127.0.0.3", pair.port))
    attacker.close()
    wait_for(lambda: any(f"{number} rejected" in summary(receiver) for number in range(24, 27)))
    no_death_for(pair.two, 0.5)
    assert sum("not a heartbeat of pgvigil" in line for line in receiver.log_lines()) == 1
    assert sum("larger than a heartbeat can be" in line for line in receiver.log_lines()) == 1


def test_a_port_in_use_is_reported_and_tried_again(pair: Pair) -> None:
    blocker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    blocker.bind(("127.0.0.2", pair.port))
    sender, receiver, _ = pair.one.start()
    detail = receiver.wait_ready()
    assert detail.startswith(f"not listening: cannot bind 127.0.0.2:{pair.port}: another process uses it")
    pair.two.start()
    blocker.close()
    wait_for(pair.both_alive)
    assert wait_for_line(receiver, "heartbeats are received on", "again")
    assert sender.code is None


def test_an_address_and_an_interface_that_are_missing_end_nothing(pair: Pair) -> None:
    pair.one.heartbeat = replace(pair.one.heartbeat, address="192.0.2.7")
    sender, receiver, _ = pair.one.start()
    assert "this host does not have the address 192.0.2.7" in receiver.wait_ready()
    assert "this host does not have the address 192.0.2.7" in sender.wait_ready()
    pair.two.heartbeat = replace(pair.two.heartbeat, interface="pgvnone0")
    sender, receiver, _ = pair.two.start()
    assert "interface pgvnone0 does not exist" in receiver.wait_ready()

    def trouble() -> bool:
        latest = pair.two.latest()
        reasons = [trouble.reason for trouble in latest.troubles] if latest else []
        return {reason.split(":")[0] for reason in reasons} == {"no heartbeats are received", "no heartbeats are sent"}

    wait_for(trouble)
    assert receiver.kill(signal.SIGTERM) == 0 and sender.kill(signal.SIGTERM) == 0


def test_ipv6(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    port = free_port("127.0.0.2")
    peers = (PeerAddress(2, "pg02", "::1", port),)
    node = Node(nursery, tmp_path, 2, "::1", peers, port)  # alone with itself: a node is its own peer here
    try:
        node.start()
        wait_for(lambda: node.peer_is(ALIVE))
    finally:
        nursery.close()
        node.close()


def test_all_ways_to_end(pair: Pair) -> None:
    for child, end in zip(pair.one.start() + pair.two.start(), ("order", "gone", "term") * 2, strict=True):
        child.wait_ready()
        os.kill(child.pid, signal.SIGINT)  # a terminal's; the supervisor decides what it means
        if end == "order":
            child.link.send(frames.ReopenLogsOrder())
            child.link.send(frames.StopOrder(frames.StopMode.SMART))
        elif end == "gone":
            child.link.close()
        else:
            os.kill(child.pid, signal.SIGTERM)
        assert child.wait_end() == 0, child.log_lines()


def test_our_own_standstill_kills_nobody(pair: Pair) -> None:
    *_, lifecheck = pair.one.start()
    pair.two.start()
    wait_for(pair.both_alive)
    os.kill(lifecheck.pid, signal.SIGSTOP)
    time.sleep(2.5)  # the standstill itself
    os.kill(lifecheck.pid, signal.SIGCONT)
    no_death_for(pair.one, 1.5)
    assert wait_for_line(lifecheck, "lifecheck was late by")


def test_our_own_receivers_standstill_kills_nobody(pair: Pair) -> None:
    _, receiver, _ = pair.one.start()
    pair.two.start()
    wait_for(pair.both_alive)
    os.kill(receiver.pid, signal.SIGSTOP)
    wait_for(lambda: "the heartbeat receiver of lo does not report" in evidence(pair.one))
    no_death_for(pair.one, 1.0)
    os.kill(receiver.pid, signal.SIGCONT)
    wait_for(lambda: pair.one.peer_is(ALIVE))
    no_death_for(pair.one, 0.5)
    assert not any(verdict.peers[0].health is DEAD for verdict in pair.one.verdicts)


def test_every_path_is_measured(pair: Pair) -> None:
    pair.one.start()
    pair.two.start()

    def measured() -> frames.PathEvidence | None:
        verdict = pair.one.peer()
        path = None if verdict is None else verdict.paths[0]
        return path if path is not None and path.round_trip_us is not None and path.jitter_us is not None else None

    path = wait_for(measured, 20.0)
    assert path.lost_permille is not None and path.lost_permille <= 1000
    assert path.round_trip_us is not None and 0 < path.round_trip_us < 20_000_000


def test_nodes_say_whom_they_hear_and_take_it_back_before_anybody_is_dead(pair: Pair) -> None:
    sender, *_ = pair.one.start()
    pair.two.start()

    def hears() -> tuple[int, ...] | None:
        verdict = pair.one.peer()
        return None if verdict is None or verdict.beat is None else verdict.beat.hears

    wait_for(lambda: hears() == (2,), 20.0)
    sender.kill()  # pg03 hears pg02 no more, and says so
    wait_for(lambda: hears() == (), 20.0)
    assert pair.one.peer_is(ALIVE)
