"""What people see of a status: current things as they are, old things as unknown."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.helpers import node, status

from pgvigil.watchdog.cli import cluster, codes, render
from pgvigil.watchdog.cli.render import Reading


def page(colour: bool = False, **changes: Any) -> str:
    return render.page(Reading(100, status(**changes), ""), colour)


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if f"{name} (" in line and "EVIDENCE" not in line[:60])


def test_a_healthy_leader() -> None:
    text = page()
    assert text.splitlines()[0] == "pg01: leads with the word of 3 of 3 voters"
    for words in (
        "quorum 3 of 3 (2 needed)",
        "document 7.3 committed",
        "leader      pg01 (1)",
        "lease       812 ms left, length 1000 ms",
        "virtual IP  10.0.0.100/24 up on eth0",
        "gate        open, closes in 811 ms",
        "killed by SIGKILL",
        "heard on 1 of 1 paths",
        "eth0  pg02  in the last 120 ms  0.5 %  0.31 ms     0.07 ms",
        "2 h",
    ):
        assert words in text
    assert "\x1b" not in text
    assert "event 1" in text and "event 6" not in text


def test_columns_are_aligned_also_with_colour() -> None:
    plain, coloured = page(), page(colour=True)
    assert "\x1b[32mleader\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    lines = [line for line in plain.splitlines() if "HEALTH" in line or "alive" in line][-3:]
    assert len({line.index("alive") for line in lines}) == 1


@pytest.mark.parametrize("changes", [{"health": "dead"}, {"health": "unknown"}, {"age_ms": 2001}, {"age_ms": None}])
def test_what_is_old_or_not_alive_is_unknown(changes: dict[str, Any]) -> None:
    stale = node(2, role="leader", electable=True, **changes)
    text = page(nodes=[node(1, self=True), stale])
    line = next(line for line in text.splitlines() if line.strip().startswith("pg02"))
    assert "leader" not in line
    assert line.count("unknown") >= 3
    assert " yes " not in line


def test_what_waits_and_what_is_missing_is_said() -> None:
    vip = status()["vip"] | {"gate": "missing", "fence_problems": ["no nftables"], "conflict": "02:aa answers"}
    text = page(insecure=True, waiting_for=[2, 9], restart_wait_ms=500, leader_id=None, vip=vip)
    for words in (
        "INSECURE", "waiting for pg02 (2), node 9", "pgvigil bootstrap", "another 500 ms", "leader      unknown",
        "fence       no nftables", "conflict    02:aa answers", "gate        missing",
    ):  # fmt: skip
        assert words in text


def test_without_an_answer_everything_is_unknown() -> None:
    reading = Reading(100, None, "watchdog main did not answer within 1000 ms")
    text = render.page(reading)
    assert "process 100" in text
    assert text.count("unknown") == 6
    assert cluster.code_of(reading) == codes.UNKNOWN
    assert json.loads(cluster.as_json(reading))["state"] == "unknown"


def test_exit_codes_of_a_status() -> None:
    assert cluster.code_of(Reading(100, status(), "")) == codes.OK
    assert cluster.code_of(Reading(100, status(leader_id=None), "")) == codes.UNKNOWN
    assert cluster.code_of(Reading(None, None, "x")) == codes.NOT_RUNNING


def test_one_line_changes_only_with_the_state() -> None:
    first = render.line(Reading(1, status(), ""))
    later = status(lease={"left_ms": 1, "length_ms": 1000}, now_ns=5)
    assert render.line(Reading(1, later, "")) == first
    assert first.startswith("leader, term 7, leader pg01 (1), quorum 3/3, vip up, gate open, pg01=leader/alive")


def test_words_of_others_cannot_steer_the_terminal() -> None:
    text = page(nodes=[node(2, label="\x1b[2Jx", evidence="\x1b]0;x\x07\n")])
    assert "\x1b" not in text and "\x07" not in text


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_999, "60.0 s"), (60_000, "1 min"), (7_200_000, "2 h"),
     (172_800_000, "2 d"), (None, "unknown"), (True, "unknown")],
)  # fmt: skip
def test_durations(value_ms: object, text: str) -> None:
    assert render.duration(value_ms) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_status_of_another_version_is_shown_as_far_as_possible(data: st.DataObject) -> None:
    value = status()
    for key in data.draw(st.lists(st.sampled_from(sorted(value)), max_size=4)):
        value.pop(key, None)
        if data.draw(st.booleans()):
            value[key] = data.draw(JSON)
    render.page(Reading(1, value, ""))
    render.line(Reading(1, value, ""))


def test_what_of_the_voters_needs_an_eye_is_shown() -> None:
    lost = {"id": 3, "cause": "lost", "returns": True, "text": "it was removed because it had been lost for too long"}
    voters = {
        "own": "an operator removed it; `pgvigil node add pg01` adds it again", "ids": [2, 9], "removed": [lost],
        "not_in_configuration": [9], "not_voters": [1, 3], "going": [{"id": 2, "in_ms": 4200}],
    }  # fmt: skip
    page = render.page(Reading(1, status(voters=voters), ""))
    for line in (
        "no voter: an operator removed it; `pgvigil node add pg01` adds it again",
        "voters that the configuration does not name: 9; add them to it, or 'pgvigil node remove ID'",
        "lost        pg02 (2) is to be removed in 4.2 s",
        "no voter    pg03 (3): it was removed because it had been lost for too long",
    ):
        assert line in page
    voters["removed"] = []
    page = render.page(Reading(1, status(voters=voters), ""))
    assert "no voter    pg03 (3); 'pgvigil node add pg03' makes it one" in page


def test_half_is_shown_with_its_limit() -> None:
    half = {
        "tie_breaker": "10.0.0.254", "answers": True, "evidence": "answered within 1.0 ms", "applies": True,
        "leads_by_half": True, "not_guaranteed": "both may lead",
    }  # fmt: skip
    page = render.page(Reading(1, status(half=half), ""))
    assert "NOT GUARANTEED: both may lead" in page
    assert "tie-breaker 10.0.0.254 answers (answered within 1.0 ms); this node LEADS WITH HALF of the voters" in page
    page = render.page(Reading(1, status(half=half | {"answers": False, "applies": False}), ""))
    assert "10.0.0.254 DOES NOT ANSWER" in page and "an odd number of voters: a majority is needed" in page
    page = render.page(Reading(1, status(half=half | {"answers": False, "answered_for_ms": 1200}), ""))
    assert "10.0.0.254 answers, but not yet without a failure for three leases" in page
    page = render.page(Reading(1, status(half=half | {"in_force": False, "proposed": True}), ""))
    assert "the cluster's document still demands a majority" in page
    page = render.page(Reading(1, status(half=half | {"in_force": True, "proposed": False}), ""))
    assert "this node's file says majority" in page
    assert "NOT GUARANTEED" not in render.page(Reading(1, status(half=None), ""))


def test_paths_say_what_is_known_of_them() -> None:
    quality = {"lost_permille": None, "round_trip_us": None, "jitter_us": None}
    silent = {"interface": "eth1", "last_heard_ms": 14_000, "lost_permille": 1000, "silent_ms": 12_300}
    never = {"interface": "eth2", "last_heard_ms": None, "silent_ms": None}
    text = page(nodes=[node(1, self=True, paths=[]), node(2, paths=[silent | quality, never, {"interface": "eth3"}])])
    rows = [line.split(None, 2) for line in text.splitlines() if line.startswith("eth")]
    assert [row[0:2] for row in rows] == [["eth1", "pg02"], ["eth2", "pg02"], ["eth3", "pg02"]]
    assert [row[2].split("  ")[0] for row in rows] == ["silent for 12.3 s", "not yet", "not yet"]
    assert "PATH" not in page(nodes=[node(1, self=True, paths=[])])


def test_troubles_are_said_but_do_not_fill_the_screen() -> None:
    troubles = [{"path": 0, "node": number, "count": 1, "reason": f"late {number}"} for number in range(9)]
    lines = [line for line in page(troubles=troubles).splitlines() if line.startswith("trouble")]
    assert lines == [f"trouble     late {number}" for number in range(5)]


def drift(**changes: Any) -> dict[str, Any]:
    row = {"node": 2, "label": "pg02", "key": "vip.driver", "here": "netlink", "leader": "command", "fatal": False}
    return {**row, "since_ms": 5, **changes}


def test_settings_that_differ_are_shown_and_those_that_keep_a_node_out_first() -> None:
    text = page(drift=[drift(), drift(key="nodes", here="1 2", leader="1 2 3", fatal=True)], drift_untold=4)
    lines = text.splitlines()
    start = lines.index("SETTINGS THAT DIFFER FROM THE LEADER'S")
    assert lines[start + 1 : start + 4] == [
        "pg02 (2)  nodes: here 1 2, leader 1 2 3 (keeps it out)",
        "pg02 (2)  vip.driver: here netlink, leader command",
        "and 4 more",
    ]
    assert "DIFFER" not in page() and "DIFFER" not in page(drift=[])


def test_many_differences_are_counted_and_what_they_say_cannot_steer_the_terminal() -> None:
    text = page(drift=[drift(here="\x1b[2J")] * 30)
    assert text.count("vip.driver: here ?[2J") == render.SHOWN_DRIFT and "and 10 more" in text
