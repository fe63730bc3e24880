"""Who finds out what: the leader's settings count, fatal ones keep out, and without a leader a majority counts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.drift.network import OTHER_DRIVER, OTHER_VIP, SAME, SECOND, Net

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.drift import messages
from pgvigil.watchdog.drift.compare import differences
from pgvigil.watchdog.drift.diary import GRACE_NS
from pgvigil.watchdog.drift.exchange import REPEAT_NS, SILENT_NS, TOLD_AT_ONCE
from pgvigil.watchdog.drift.facts import digest
from pgvigil.watchdog.drift.messages import Ask, Values

REPEAT_S = REPEAT_NS // SECOND
GRACE_S = GRACE_NS // SECOND


def led(*facts: dict[str, str], leader: int = 1) -> Net:
    net = Net(*facts)
    net.leader = leader
    net.run()
    return net


def test_equal_nodes_exchange_digests_and_nothing_else() -> None:
    net = led(SAME, SAME, SAME)
    assert net.out() == []
    assert all("agree with those of the leader pg01" in net.nodes[number].notes[0] for number in (2, 3))
    kinds: list[str] = []

    def see(sent: tuple[int, int, int, int, bytes]) -> bool:
        kinds.append(type(messages.decode(sent[4])).__name__)
        return False

    net.lost = see
    net.run(REPEAT_S)
    assert kinds == ["State"] * 6


def test_a_harmless_difference_is_found_and_keeps_nobody_out() -> None:
    net = led(SAME, OTHER_DRIVER, SAME)
    assert net.out() == [] and net.keys(2) == ["vip.driver"] and net.keys(3) == []
    assert {node: state.told for node, state in net.nodes[1].exchange.reports(net.now_ns).items()} == {
        2: differences(OTHER_DRIVER, SAME)
    }
    assert net.nodes[2].notes == net.nodes[1].notes == []
    net.run(GRACE_S)
    assert net.nodes[2].notes == ["differs from the leader pg01: vip.driver: here command, leader netlink"]
    assert net.nodes[1].notes == [
        "pg02 differs from this leader in 1 setting: vip.driver: here command, leader netlink"
    ]


def test_another_virtual_ip_keeps_a_node_out_until_it_agrees() -> None:
    net = led(SAME, SAME, OTHER_VIP)
    assert net.out() == [3]
    assert (
        net.nodes[3].exchange.kept_out
        == net.nodes[3].obstacle
        == (
            "its settings differ from those of the leader pg01: vip.addresses: here 10.0.0.101/24, leader 10.0.0.100/24"
        )
    )
    net.restart(3, SAME)
    net.run()
    assert net.out() == [] and net.nodes[1].exchange.reports(net.now_ns) == {}


def test_a_leader_is_never_kept_out_however_alone_it_is() -> None:
    net = led(OTHER_VIP, SAME, SAME)
    assert net.out() == [2, 3]
    net.leader = 2
    net.run()
    assert net.out() == [1] and net.nodes[2].obstacle == ""


def test_what_a_leader_is_given_to_run_with_counts_at_once() -> None:
    net = led(SAME, SAME, SAME)
    net.restart(1, OTHER_VIP)
    net.run(2)
    assert net.out() == [2, 3]
    net.restart(2, OTHER_VIP)
    net.restart(3, OTHER_VIP)
    net.run(2)
    assert net.out() == []


def test_without_a_leader_a_majority_of_the_voters_counts() -> None:
    """The first node of a rolling change of the virtual IPs leads, and dies: the others must be able to go on."""
    net = led(OTHER_VIP, SAME, SAME)
    assert net.out() == [2, 3]
    net.down.add(1)
    net.leader = 0
    net.tick()
    assert net.out() == []


def test_without_a_leader_who_differs_from_a_majority_is_kept_out() -> None:
    net = Net(SAME, SAME, OTHER_VIP)
    net.run()
    assert net.out() == [3]
    assert "a majority (pg01, pg02) agrees on other virtual IPs or voters" in net.nodes[3].obstacle


def test_without_a_leader_and_a_majority_all_stays_as_it_was() -> None:
    net = led(SAME, OTHER_VIP, {**SAME, "vip.addresses": "10.0.0.102/24"})
    assert net.out() == [2, 3]
    net.leader = 0
    net.run(100)
    assert net.out() == [2, 3]
    net.restart(2, OTHER_VIP)
    net.run(1)
    assert net.out() == [3]


def test_who_votes_decides_what_a_majority_is() -> None:
    net = Net(SAME, OTHER_VIP, OTHER_VIP)
    for number, node in net.nodes.items():
        net.carry(number, node.exchange.tick(net.now_ns, 0, (1,)))
    net.arrive()
    assert net.out() == [2, 3]


def test_the_settings_of_pgpool_are_compared_once_both_know_theirs() -> None:
    net = led(SAME, SAME)
    here, there = {"pgpool.conf.max_pool": "4"}, {"pgpool.conf.max_pool": "8"}
    net.carry(2, net.nodes[2].exchange.set_part("pgpool", here, net.now_ns))
    net.run(1)
    assert net.keys(2) == []
    net.carry(1, net.nodes[1].exchange.set_part("pgpool", there, net.now_ns))
    net.run(3)
    assert net.keys(2) == ["pgpool.conf.max_pool"] and net.out() == []
    assert net.nodes[2].exchange.set_part("pgpool", here, net.now_ns) == []
    net.carry(2, net.nodes[2].exchange.set_part("pgpool", there, net.now_ns))
    assert net.keys(2) == []
    net.carry(2, net.nodes[2].exchange.set_part("pgpool", here, net.now_ns))
    net.run(3)
    assert net.keys(2) == ["pgpool.conf.max_pool"]
    net.carry(2, net.nodes[2].exchange.set_part("pgpool", {}, net.now_ns))
    net.run(3)
    assert net.keys(2) == []


def test_many_settings_travel_in_parts() -> None:
    many = {f"node.{number:03}.priority": "x" * 150 for number in range(400)}
    net = led({**SAME, **many}, {**SAME, **many, "node.399.priority": "y"})
    assert net.keys(2) == ["node.399.priority"]


def test_what_others_told_is_forgotten_when_they_fall_silent() -> None:
    net = led(SAME, OTHER_DRIVER, SAME)
    net.down.add(2)
    net.run(SILENT_NS // SECOND - REPEAT_S)
    assert list(net.nodes[1].exchange.reports(net.now_ns)) == [2]
    net.run(REPEAT_S + 1)
    assert net.nodes[1].exchange.reports(net.now_ns) == {}


def test_a_late_copy_changes_nothing() -> None:
    net = led(SAME, OTHER_DRIVER)
    old = messages.encode(messages.State(1, digest(SAME), digest(SAME), b"", 1, 0, ()))
    assert net.nodes[1].exchange.take(2, net.nodes[2].boot, 1, old, net.now_ns) == []
    assert list(net.nodes[1].exchange.reports(net.now_ns)) == [2]


def test_the_leader_does_not_answer_more_often_than_once_a_second() -> None:
    net = led(SAME, SAME)
    net.now_ns += 10 * SECOND
    ask = messages.encode(Ask(digest(SAME)))
    leader = net.nodes[1].exchange
    assert len(leader.take(2, 1, 100, ask, net.now_ns)) == 1
    assert leader.take(2, 1, 101, ask, net.now_ns + SECOND // 2) == []
    assert len(leader.take(2, 1, 102, ask, net.now_ns + SECOND)) == 1


def test_settings_that_are_not_those_of_their_digest_are_refused() -> None:
    net = Net(SAME, OTHER_DRIVER)
    net.leader = 1
    # What node 1 answers is lost, so node 2 still waits for it.
    net.lost = lambda sent: isinstance(messages.decode(sent[4]), Values)
    net.run()
    lie = messages.encode(messages.parts(digest(SAME), OTHER_VIP)[0])
    with pytest.raises(PeerError, match="settings of node 1 that are not those of their digest"):
        net.nodes[2].exchange.take(1, 1, 1000, lie, net.now_ns)
    net.lost = lambda sent: False
    net.run()
    assert net.keys(2) == ["vip.driver"] and net.out() == []


def test_a_stranger_is_refused() -> None:
    with pytest.raises(PeerError, match="node 9, which the configuration does not name"):
        Net(SAME).nodes[1].exchange.take(9, 1, 1, messages.encode(Ask(bytes(16))), 0)


def test_digests_of_another_scheme_are_no_part_of_a_majority() -> None:
    net = Net(SAME, SAME, OTHER_VIP)
    for number in (1, 2):
        strange = messages.State(2, digest(SAME), digest(SAME), b"", 0, 0, ())
        net.nodes[3].exchange.take(number, 1, 1, messages.encode(strange), net.now_ns)
    net.carry(3, net.nodes[3].exchange.tick(net.now_ns, 0, (1, 2, 3)))
    assert net.out() == []


def test_in_a_large_cluster_a_node_tells_only_a_few_at_once_and_forgets_nobody() -> None:
    net = Net(*[SAME] * 59, OTHER_VIP)
    net.leader = 30
    net.down = set(range(1, 25))
    for _ in range(2 * REPEAT_S):
        net.tick()
        assert max(Counter(sent[0] for sent in net.way).values(), default=0) <= TOLD_AT_ONCE
        net.arrive()
    assert net.out() == [60]
    for number in set(net.nodes) - net.down:
        expected = [] if number == 60 else [60]
        assert list(net.nodes[number].exchange.reports(net.now_ns)) == expected


CHOICES = st.lists(st.sampled_from([SAME, OTHER_DRIVER, OTHER_VIP]), min_size=2, max_size=5)


@settings(deadline=None)
@given(CHOICES, st.data())
def test_after_any_loss_everybody_knows_what_is_true(chosen: list[dict[str, str]], data: st.DataObject) -> None:
    """Messages are lost, late and doubled, nodes restart with other settings and leaders change; then it is quiet."""
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    net = Net(*chosen)
    now = dict(enumerate(chosen, start=1))
    late: list[tuple[int, int, int, int, bytes]] = []

    def lose(sent: tuple[int, int, int, int, bytes]) -> bool:
        if chance.random() < 0.2:
            late.append(sent)
        return chance.random() < 0.4

    net.lost = lose
    for _ in range(20):
        if chance.random() < 0.2:
            net.leader = chance.choice([0, *net.labels])
        if chance.random() < 0.2:
            number = chance.choice(list(net.labels))
            now[number] = chance.choice([SAME, OTHER_DRIVER, OTHER_VIP])
            net.restart(number, now[number])
        net.way += [late.pop(0) for _ in range(len(late) // 2)]
        net.run(1)
    net.lost = lambda sent: False
    net.leader = chance.choice(list(net.labels))
    net.run(3 * REPEAT_S)
    for number, node in net.nodes.items():
        expected = differences(now[number], now[net.leader])
        assert node.exchange.found == expected
        assert bool(node.obstacle) is any(one.fatal for one in expected)
    told = {number: state.told for number, state in net.nodes[net.leader].exchange.reports(net.now_ns).items()}
    assert told == {number: node.exchange.found for number, node in net.nodes.items() if node.exchange.found}
