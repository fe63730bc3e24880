"""Differences as values, and the words for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.watchdog.drift.compare import Difference, differences, in_short

HERE = {"vip.addresses": "10.0.0.100/24", "vip.driver": "netlink", "nodes": "1 2", "only.here": "1"}
LEADER = {"vip.addresses": "10.0.0.101/24", "vip.driver": "command", "nodes": "1 2", "only.there": "1"}
FACTS = st.dictionaries(st.sampled_from(["nodes", "vip.addresses", "a", "b", "node.1.host"]), st.sampled_from("xyz"))


def test_the_words_for_a_difference() -> None:
    assert str(Difference("vip.driver", "netlink", "command")) == "vip.driver: here netlink, leader command"


def test_fatal_ones_come_first_and_what_one_side_does_not_know_is_none() -> None:
    assert differences(HERE, LEADER) == (
        Difference("vip.addresses", "10.0.0.100/24", "10.0.0.101/24"),
        Difference("vip.driver", "netlink", "command"),
    )
    assert [one.fatal for one in differences(HERE, LEADER)] == [True, False]


def test_few_are_told_and_the_rest_counted() -> None:
    found = [Difference(name, "1", "2") for name in "abcd"]
    assert in_short(found[:1]) == "a: here 1, leader 2"
    assert in_short(found) == "a: here 1, leader 2; b: here 1, leader 2 (and 2 more)"


@given(FACTS, FACTS)
def test_both_sides_see_the_same_keys(here: dict[str, str], leader: dict[str, str]) -> None:
    found, turned = differences(here, leader), differences(leader, here)
    assert [(one.key, one.here, one.leader) for one in found] == [(one.key, one.leader, one.here) for one in turned]
    assert {one.key for one in found} == {key for key in here if key in leader and here[key] != leader[key]}
    assert sorted(found, key=lambda one: (not one.fatal, one.key)) == list(found)
