"""Settings of links and upstream servers: what is refused, what is warned of, and what lifecheck is told."""

from __future__ import annotations

import shutil

import pytest
from tests.unit.config.helpers import GOOD, mistakes, outcome
from tests.unit.config.helpers import warnings as all_warnings

from pgvigil.lifecheck.settings import LinkSettings, UpstreamSettings

ASKED = GOOD + '[lifecheck]\nmethods = ["heartbeat", "process", "upstream"]\n'
VIP = '[vip]\naddresses = ["10.0.0.100/24"]\n'


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs of this machine, whatever machine the test runs on."""
    here = ["ping", "/usr/bin/sudo"]
    monkeypatch.setattr(shutil, "which", lambda name: name if name in here else None)
    return here


def warnings(text: str) -> list[str]:
    """Without that about the missing key."""
    return [said for said in all_warnings(text) if "insecure" not in said]


def links_of(text: str) -> LinkSettings:
    settings = outcome(text).settings
    assert settings is not None
    return settings.lifecheck.links


def test_the_interface_of_the_virtual_ip_is_always_monitored_and_nothing_without_one() -> None:
    assert links_of(GOOD) == LinkSettings((), "", 100)
    assert links_of(GOOD + VIP) == LinkSettings((), "eth0", 100)
    lifecheck = '[lifecheck]\ninterfaces = ["eth0", "eth1"]\nlink_debounce_ms = 20\n'
    assert links_of(GOOD + VIP + lifecheck) == LinkSettings(("eth0", "eth1"), "eth0", 20)


def test_commands_may_carry_the_virtual_ip_without_an_interface_of_that_name(programs: list[str]) -> None:
    by_commands = 'driver = "command"\ninterface = "cloud0"\n'
    assert links_of(GOOD + VIP + by_commands).vip_interface == ""
    assert links_of(GOOD + VIP + by_commands.replace("cloud0", "eth0")).vip_interface == "eth0"


def test_an_interface_that_is_not_here_is_warned_of_because_it_may_come() -> None:
    text = GOOD + '[lifecheck]\ninterfaces = ["eth0", "eth7"]\n'
    assert mistakes(text) == []
    (said,) = warnings(text)
    assert "this machine has no interface eth7 now, which counts as down; expected some of lo, eth0, eth1" in said


def test_upstream_servers_reach_lifecheck() -> None:
    settings = outcome(ASKED + 'upstream_servers = ["10.0.0.254", "FD00::FE"]\n').settings
    assert settings is not None
    assert settings.lifecheck.upstream == UpstreamSettings(("10.0.0.254", "fd00::fe"), None, 1000, 1000, 3)


def test_servers_that_nobody_asks_are_warned_of() -> None:
    text = GOOD + '[lifecheck]\nupstream_servers = ["10.0.0.254"]\n'
    (said,) = warnings(text)
    assert 'methods has no "upstream": nobody asks these hosts; add "upstream"' in said


def test_a_name_is_warned_of_and_needs_the_program(programs: list[str]) -> None:
    text = ASKED + 'upstream_servers = ["10.0.0.254", "gw.example"]\n'
    assert mistakes(text) == []
    (said,) = warnings(text)
    assert "gw.example is a name, asked by running ping" in said
    programs.remove("ping")
    (said,) = mistakes(text)
    assert "ping is not here or not executable; expected a program" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ping 'x", "cannot be split into words"),
        ("ping -c 1", "has no %h"),
        ("ping -c 1 %%h", "has no %h"),
        ("nosuch %h", "nosuch is not here or not executable"),
    ],
)
def test_a_command_that_cannot_work_is_refused(programs: list[str], command: str, said: str) -> None:
    (found,) = mistakes(ASKED + f'upstream_servers = ["gw.example"]\nupstream_command = "{command}"\n')
    assert said in found and "upstream_command" in found


def test_a_command_makes_names_as_good_as_addresses(programs: list[str]) -> None:
    text = ASKED + 'upstream_servers = ["gw.example"]\nupstream_command = "ping -q -c 1 %h"\n'
    assert mistakes(text) == [] and warnings(text) == []
