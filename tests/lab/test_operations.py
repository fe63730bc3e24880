"""What an operator sees and may do wrong, on a running cluster: titles, a second start, a bad reload, a wrong key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvigil.watchdog.demo.cluster import PGVIGIL
from pgvigil.watchdog.demo.config import config_path, log_path, write_config
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.run import run, wait_until
from pgvigil.watchdog.demo.stage import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

TITLES = (
    r"pgvigil: supervisor \(3 nodes, \d+ processes\)",
    r"pgvigil: watchdog main \((leader|standby), term \d+, quorum 3/3, vip (up|down)\)",
    r"pgvigil: lifecheck \(2/2 peers alive, pgpool alive\)",
    r"pgvigil: heartbeat sender eth0 -> n\d,n\d",
    r"pgvigil: heartbeat receiver eth0:9694",
)

TEN_MISTAKES = """
[cluster]
name = "lab"
authkey_file = "/nonexistent/key"
lease_ms = 300
renew_ms = 200
fence = "sometimes"
colour = "blue"

[[node]]
id = 1
host = "n1"
priority = -1
[[node.path]]
interface = "eth0"
address = "10.77.0.11"

[[node]]
id = 1
host = "n2"
port = 99999
[[node.path]]
interface = "eth0"
address = "10.77.0.11"

[vip]
addresses = ["10.99.0.1/24", "not an address"]
interface = "nothere0"
driver = "magic"

[process]
log_level = "loud"
"""


@pytest.fixture
def leader(stage: Stage) -> Iterator[Host]:
    """The leader of a settled cluster that is put in order again afterwards."""
    yield stage.mend()
    for node in stage.lab.nodes:
        write_config(stage.lab, node)


def test_ps_shows_every_process_with_its_title(stage: Stage, leader: Host) -> None:
    for node in stage.lab.nodes:
        titles = list(stage.lab.pgvigil(node).values())
        for pattern in TITLES:
            assert any(re.fullmatch(pattern, title) for title in titles), f"{pattern} not among {titles}"
        assert len(titles) == len(TITLES)


def test_a_second_start_is_refused_and_changes_nothing(stage: Stage, leader: Host) -> None:
    before = stage.lab.pgvigil(leader)
    answer = stage.cluster.pgvigil(leader, "start")
    assert answer.code != 0
    assert answer.err.strip()
    assert stage.lab.pgvigil(leader).keys() == before.keys()
    assert stage.owner() == leader.number


def test_a_reload_of_a_broken_file_changes_nothing_and_says_why(stage: Stage, leader: Host) -> None:
    log = log_path(leader)
    size = log.stat().st_size
    before = stage.lab.pgvigil(leader)
    config_path(leader).write_text("[cluster\n", encoding="utf-8")
    supervisor = stage.cluster.processes(leader, "supervisor")[0]
    os.kill(supervisor, 1)
    wait_until(lambda: str(config_path(leader)) in _since(log, size), 5, "the log to say why the file is refused")
    assert stage.lab.pgvigil(leader).keys() == before.keys()
    assert stage.owner() == leader.number


def test_a_reload_that_restarts_watchdog_main_of_the_leader_does_not_move_the_vip(stage: Stage, leader: Host) -> None:
    before = stage.cluster.processes(leader, "watchdog main")
    write_config(stage.lab, leader, {"vip": {"announce_interval_s": 30}})
    start_ns = stage.begin()
    answer = stage.cluster.pgvigil(leader, "reload")
    assert answer.code == 0, answer
    wait_until(lambda: stage.cluster.processes(leader, "watchdog main") != before, 5, "a new watchdog main")
    seen = stage.measure(start_ns, stage.calm())
    assert seen.light.lost == 0
    assert seen.light.owners == (leader.number,)
    assert seen.never_two


def test_a_node_with_a_wrong_key_is_kept_out_and_both_sides_say_why_once(stage: Stage, leader: Host) -> None:
    stranger = stage.lab.others(leader)[0]
    stage.cluster.stop(stranger)
    other_key = stage.lab.root / "other-authkey"
    if not other_key.exists():
        run((*PGVIGIL, "keygen", str(other_key))).checked()
    write_config(stage.lab, stranger, {"cluster": {"authkey_file": str(other_key)}})
    sizes = {node: log_path(node).stat().st_size for node in (leader, stranger)}
    stage.cluster.start([stranger])

    def both_say_why() -> bool:
        return all(_about_key(log_path(node), size) for node, size in sizes.items())

    def kept_out() -> bool:
        return stranger.number not in stage.cluster.status(leader).alive

    try:
        wait_until(both_say_why, 15, "both sides to name the key as the reason")
        wait_until(kept_out, 5, "the leader to take the stranger for dead")
        assert stage.owner() == leader.number
        for node, size in sizes.items():
            assert len(_about_key(log_path(node), size)) <= 4, _since(log_path(node), size)
    finally:
        stage.cluster.stop(stranger, "fast")


def test_ten_mistakes_are_reported_at_once(stage: Stage, leader: Host, tmp_path: Path) -> None:
    bad = tmp_path / "pgvigil.toml"
    bad.write_text(TEN_MISTAKES, encoding="utf-8")
    answer = stage.lab.run(leader, (*PGVIGIL, "--config", str(bad), "--node-id", "1", "check"))
    assert answer.code != 0
    lines = [line for line in (answer.out + answer.err).splitlines() if str(bad) in line]
    assert len(lines) >= 10, answer


def _since(path: Path, size: int) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        file.seek(size)
        return file.read()


def _about_key(path: Path, size: int) -> list[str]:
    return [line for line in _since(path, size).splitlines() if "key" in line.lower()]
