"""Replay protection: two sides on a wire that loses, doubles, reorders and remembers everything for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgvigil.heartbeat.packet import Heartbeat
from pgvigil.heartbeat.session import CHALLENGE_INTERVAL_NS, DEAF_NS, Freshness, FreshnessTable, PeerFreshness
from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Beat, Health, PeerSession, Role

BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)
MS = 1_000_000


@dataclass
class Letter:
    """A datagram on the wire, with what only the test knows of it."""

    heartbeat: Heartbeat
    made_at_ns: int
    boots_of_sender: int
    accepted: int = 0


@dataclass
class Side:
    """One node: a receiver's table, a sender's copy of it, and a machine that can be started anew."""

    node_id: int
    nonces: Iterator[int]
    now_ns: int
    boots: int = 0
    clock_offset_ns: int = 0
    sent: list[Letter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reboot(self.now_ns)

    @property
    def peer_id(self) -> int:
        return 3 - self.node_id

    def start_receiver(self, now_ns: int) -> None:
        self.freshness = PeerFreshness(self.peer_id, lambda: next(self.nonces))
        self.receiver_started_at_ns = now_ns
        self.newest_boot_accepted = 0

    def start_sender(self) -> None:
        self.table: PeerSession | None = None

    def reboot(self, now_ns: int) -> None:
        self.boots += 1
        self.clock_offset_ns = now_ns - 5_000 * MS
        self.start_receiver(now_ns)
        self.start_sender()

    def pass_table(self) -> None:
        new = self.freshness.announced()
        if new.theirs == 0 and self.table is not None:
            new = PeerSession(new.node_id, new.ours, self.table.theirs)
        self.table = new

    def send(self, now_ns: int) -> Letter | None:
        if self.table is None:
            return None
        sequence = now_ns - self.clock_offset_ns
        heartbeat = Heartbeat(
            self.node_id, self.peer_id, 0, self.boots, self.table.ours, self.table.theirs, sequence, 1, 0, 0, BEAT
        )
        letter = Letter(heartbeat, now_ns, self.boots)
        self.sent.append(letter)
        return letter

    def receive(self, letter: Letter, now_ns: int) -> Freshness:
        """Judge, and check everything that is promised."""
        freshness = self.freshness.judge(letter.heartbeat, now_ns)
        if freshness is Freshness.FRESH:
            letter.accepted += 1
            assert letter.accepted == 1, "a datagram was accepted twice"
            assert letter.made_at_ns > self.receiver_started_at_ns, "it is older than this receiver"
            assert letter.boots_of_sender >= self.newest_boot_accepted, "it is of an earlier life of the machine"
            self.newest_boot_accepted = letter.boots_of_sender
        return freshness


class World:
    def __init__(self) -> None:
        self.now_ns = 10_000 * MS
        counter = itertools.count(1)
        self.sides = (Side(1, counter, self.now_ns), Side(2, counter, self.now_ns))

    def do(self, action: str, which: int, number: int) -> None:
        self.now_ns += 1 + (number % 7) * 40 * MS
        side, other = self.sides[which], self.sides[1 - which]
        if action == "send":
            side.send(self.now_ns)
        elif action == "deliver" and other.sent:
            side.receive(other.sent[-1 - number % min(3, len(other.sent))], self.now_ns)
        elif action == "replay" and other.sent:
            side.receive(other.sent[number % len(other.sent)], self.now_ns)
        elif action == "tell":
            side.pass_table()
        elif action == "round":
            self.round()
        elif action == "restart receiver":
            side.start_receiver(self.now_ns)
        elif action == "restart sender":
            side.start_sender()
        elif action == "reboot":
            side.reboot(self.now_ns)
        elif action == "set back":
            side.clock_offset_ns += 2_500 * MS

    def round(self) -> list[Freshness]:
        """One interval in which all goes well: everything arrives, every table is passed on at once."""
        outcome = []
        self.now_ns += 200 * MS
        for side, other in (self.sides, self.sides[::-1]):
            side.pass_table()
            letter = side.send(self.now_ns)
            assert letter is not None
            self.now_ns += 1
            outcome.append(other.receive(letter, self.now_ns))
        return outcome


ACTIONS = ("send", "deliver", "replay", "tell", "round", "restart receiver", "restart sender", "reboot")
STEP = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 200))
ANY_STEP = st.tuples(st.sampled_from((*ACTIONS, "set back")), st.integers(0, 1), st.integers(0, 200))


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=80))
def test_nothing_is_accepted_twice_or_after_a_restart(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    for step in steps:
        world.do(*step)


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_STEP, max_size=60))
def test_two_sides_always_find_each_other(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    for step in steps:
        world.do(*step)
    for _ in range(15):  # three seconds of fair weather: a second for deafness, a second for the next challenge
        world.round()
    for _ in range(5):
        assert world.round() == [Freshness.FRESH, Freshness.FRESH]


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=60), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 200)), max_size=60))
def test_replays_do_not_disturb_an_established_pair(
    steps: list[tuple[str, int, int]], replays: list[tuple[int, int]]
) -> None:
    world = World()
    for step in steps:
        world.do(*step)
    for _ in range(15):
        world.round()
    for which, number in replays:
        world.do("replay", which, number)
        world.now_ns += 1
        assert world.round() == [Freshness.FRESH, Freshness.FRESH]


def fresh_pair() -> World:
    world = World()
    for _ in range(4):
        world.round()
    return world


def test_a_simultaneous_start_needs_three_datagrams() -> None:
    world = World()
    assert world.round() == [Freshness.UNPROVEN, Freshness.FRESH]
    assert world.round() == [Freshness.FRESH, Freshness.FRESH]


def test_a_restarted_receiver_interrupts_only_itself() -> None:
    world = fresh_pair()
    world.sides[0].start_receiver(world.now_ns)
    # Node 2 goes on believing node 1, whose sender still knows what to echo; node 1 believes node 2 at once.
    assert world.round() == [Freshness.FRESH, Freshness.FRESH]


def test_a_restarted_sender_interrupts_nothing() -> None:
    world = fresh_pair()
    world.sides[0].start_sender()
    assert world.round() == [Freshness.FRESH, Freshness.FRESH]


def test_a_rebooted_machine_is_believed_within_three_rounds() -> None:
    world = fresh_pair()
    world.sides[0].reboot(world.now_ns)
    world.round()
    world.round()
    assert world.round() == [Freshness.FRESH, Freshness.FRESH]


def test_the_old_session_stays_valid_while_a_challenge_is_open() -> None:
    world = fresh_pair()
    one, two = world.sides
    old = one.send(world.now_ns)
    assert old is not None
    stranger = Letter(Heartbeat(1, 2, 0, 99, 5, 5, 1, 1, 0, 0, BEAT), world.now_ns, 99)
    before = two.freshness.announced()
    assert two.receive(stranger, world.now_ns) is Freshness.UNPROVEN
    assert two.freshness.announced().ours != before.ours
    assert two.freshness.announced().theirs == before.theirs
    assert two.receive(old, world.now_ns) is Freshness.FRESH


def test_replays_change_our_nonce_at_most_once_a_second() -> None:
    world = fresh_pair()
    two = world.sides[1]
    seen = set()
    start_ns = world.now_ns
    while world.now_ns < start_ns + 3 * CHALLENGE_INTERVAL_NS:
        two.receive(Letter(Heartbeat(1, 2, 0, 99, 5, 5, 1, 1, 0, 0, BEAT), world.now_ns, 99), world.now_ns)
        world.round()
        seen.add(two.freshness.announced().ours)
    assert len(seen) <= 5


def test_a_repetition_is_told_from_a_datagram_without_proof() -> None:
    world = fresh_pair()
    one, two = world.sides
    assert two.receive(one.sent[-1], world.now_ns) is Freshness.REPEATED
    assert two.receive(one.sent[0], world.now_ns) is Freshness.UNPROVEN


def test_a_larger_sequence_alone_proves_nothing() -> None:
    world = fresh_pair()
    one, two = world.sides
    known = one.sent[-1].heartbeat
    forged = replace(known, echo=known.echo + 1000, sequence=known.sequence + 1)
    assert two.receive(Letter(forged, world.now_ns, 1), world.now_ns) is Freshness.UNPROVEN


def test_a_deaf_side_learns_from_any_authentic_datagram_again() -> None:
    world = fresh_pair()
    two = world.sides[1]
    letter = Letter(Heartbeat(1, 2, 0, 1, 777, 12345, 1, 1, 0, 0, BEAT), world.now_ns, 1)
    two.receive(letter, world.now_ns)
    assert two.freshness.announced().theirs != 777
    two.receive(letter, world.now_ns + DEAF_NS)
    assert two.freshness.announced().theirs == 777


def test_nonces_of_zero_or_too_large_are_refused() -> None:
    for bad in (0, -1, 2**63):
        with pytest.raises(InvariantError, match="nonce"):
            PeerFreshness(1, lambda bad=bad: bad)  # type: ignore[misc]


def test_the_table_keeps_the_order_of_the_peers() -> None:
    counter = itertools.count(1)
    table = FreshnessTable((3, 1, 2), lambda: next(counter))
    assert [session.node_id for session in table.announced()] == [3, 1, 2]
    heartbeat = Heartbeat(1, 9, 0, 1, 50, table.announced()[1].ours, 1, 1, 0, 0, BEAT)
    assert table.judge(heartbeat, 1) is Freshness.FRESH
    assert table.announced()[1] == PeerSession(1, 2, 50)


def test_the_table_is_made_anew_only_when_it_changes() -> None:
    nonces = itertools.count(100)
    table = FreshnessTable((2, 3), lambda: next(nonces))
    sequence = itertools.count(1)

    def judge(**changes: int) -> Freshness:
        told = Heartbeat(2, 1, 0, 7, 55, table.announced()[0].ours, next(sequence), 1, 0, 0, BEAT)
        return table.judge(replace(told, **changes), next(sequence))  # type: ignore[arg-type]

    first = table.announced()
    assert first == (PeerSession(2, 100, 0), PeerSession(3, 101, 0)) and table.announced() is first
    assert judge() is Freshness.FRESH
    second = table.announced()
    assert second == (PeerSession(2, 100, 55), PeerSession(3, 101, 0))
    assert judge() is Freshness.FRESH and judge(echo=1) is Freshness.UNPROVEN
    assert table.announced() is second
    assert judge(nonce=56) is Freshness.FRESH
    assert table.announced() == (PeerSession(2, 100, 56), PeerSession(3, 101, 0))
    assert judge(boot=8, echo=1) is Freshness.UNPROVEN
    assert table.announced() == (PeerSession(2, 102, 56), PeerSession(3, 101, 0))


@given(st.lists(st.tuples(st.sampled_from([2, 3]), st.integers(1, 2), st.integers(1, 3), st.integers(99, 106),
                          st.integers(1, 10**10), st.integers(0, 10**9)), max_size=40))  # fmt: skip
def test_the_table_always_says_what_its_peers_say(letters: list[tuple[int, int, int, int, int, int]]) -> None:
    """And the short way of what is known takes nothing that the long way would not take, with the same effect."""
    nonces, others = itertools.count(100), itertools.count(100)
    table, now_ns = FreshnessTable((2, 3), lambda: next(nonces)), 0
    long_way = FreshnessTable((2, 3), lambda: next(others))
    for node_id, boot, nonce, echo, number, later_ns in letters:
        now_ns += later_ns
        letter = Heartbeat(node_id, 1, 0, boot, nonce, echo, number, 1, 0, 0, BEAT)
        judgement = long_way.judge(letter, now_ns)
        if table.is_next(replace(letter, sequence=0), number, now_ns):
            assert judgement is Freshness.FRESH
        else:
            assert table.judge(letter, now_ns) is judgement
        assert table.announced() == tuple(peer.announced() for peer in table._peers.values())
        assert table.announced() == long_way.announced()
