"""Rules between commands, consensus and pgpool-II."""

from __future__ import annotations

import grp
import os

import pytest
from tests.unit.config.helpers import GOOD, mistakes, outcome, warnings

from pgvigil.watchdog.config.places import find_place
from pgvigil.watchdog.core.base import CoreConsensus
from pgvigil.watchdog.process import core_settings

HALF = GOOD.replace('[[node]]\nid = 3\nhost = "10.0.0.3"\n', "")


@pytest.fixture
def pcp(tmp_path: object) -> str:
    """What makes backends watched."""
    path = f"{tmp_path}/pcp"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write("secret\n")
    return f'[pgpool]\npcp_user = "pgvigil"\npcp_password_file = "{path}"\n'


def test_all_commands_and_the_consensus_reach_the_core(pcp: str) -> None:
    names = ("escalation", "de_escalation", "failover", "failback", "follow_primary")
    commands = "".join(f'{name} = {{ run = "true" }}\n' for name in names).replace(
        "}\nfailback", ', policy = "retry" }\nfailback'
    )
    text = (
        GOOD
        + pcp
        + (
            "[failover]\nhalf_votes = true\nmultiple_requests_from_node = true\nconsensus_timeout_s = 3\n[commands]\n"
            + commands
        )
    )
    made = outcome(text).settings
    assert made is not None
    told = core_settings(made)
    assert [(one.name, one.policy) for one in told.commands] == [
        ("escalation", "once"), ("failover", "retry"), ("failback", "once"), ("follow_primary", "once"),
    ]  # fmt: skip
    assert told.consensus == CoreConsensus(True, True, True, 3000)
    assert made.commands.de_escalation is not None and made.commands.get("run") is None


def test_what_a_file_says_nothing_about_is_pgpools_default() -> None:
    made = outcome(GOOD).settings
    assert made is not None and core_settings(made).consensus == CoreConsensus() and core_settings(made).commands == ()
    assert made.process.control_group == ""


@pytest.mark.parametrize("name", ["failover", "failback", "follow_primary"])
def test_a_command_that_would_never_run_is_refused(name: str) -> None:
    (found,) = mistakes(GOOD + f'[commands]\n{name} = {{ run = "true" }}\n')
    assert f"[commands.{name}]" in found
    assert "without pcp_user and pcp_password_file of [pgpool] nobody watches the backends" in found
    (found,) = mistakes(GOOD + f'[pgpool]\npcp_user = "x"\n[commands]\n{name} = {{ run = "true" }}\n')
    assert "would never run: without pcp_password_file of [pgpool]" in found


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ("failover = { run = \"x '%d'\" }", "%d stands inside quotes; expected it without"),
        ('failback = { run = "x %z" }', "%z is no placeholder; expected one of %d %h %p"),
        ('de_escalation = { run = "x", policy = "retry" }', "cannot have it repeated"),
        ('falover = { run = "x" }', "did you mean 'failover'?"),
    ],
)
def test_mistakes_in_commands(pcp: str, commands: str, said: str) -> None:
    (found,) = mistakes(GOOD + pcp + f"[commands]\n{commands}\n")
    assert said in found


@pytest.mark.parametrize("key", ["half_votes", "multiple_requests_from_node"])
def test_votes_that_nobody_counts_are_a_contradiction(key: str) -> None:
    (found,) = mistakes(GOOD + f"[failover]\nrequire_consensus = false\n{key} = true\n")
    assert f"{key} = true" in found and "one report is enough" in found


def test_half_of_an_odd_number_is_a_majority() -> None:
    assert any("3 pgpool-IIs have no half" in text for text in warnings(GOOD + "[failover]\nhalf_votes = true\n"))
    assert not any("no half" in text for text in warnings(HALF + "[failover]\nhalf_votes = true\n"))
    alone = HALF.replace('host = "10.0.0.2"\n', 'host = "10.0.0.2"\nrole = "witness"\n')
    assert any("1 pgpool-II has no half" in text for text in warnings(alone + "[failover]\nhalf_votes = true\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[commands]\nfailover = { run = "x" }', "expected failover_command in pgpool.conf"),
        ('[commands]\nde_escalation = { run = "x" }', "expected wd_de_escalation_command in pgpool.conf"),
        ("[failover]\nhalf_votes = true", "pgpool-II's own watchdog decides on failovers"),
    ],
)
def test_beside_pgpools_own_watchdog_nothing_is_decided_here(text: str, said: str) -> None:
    (found,) = mistakes(GOOD + f'[pgpool]\nwatchdog = "external"\nwatchdog_port = 9010\n{text}\n')
    assert said in found


def test_a_group_has_to_be_here() -> None:
    here = grp.getgrgid(os.getgid()).gr_name
    made = outcome(GOOD + f'[process]\ncontrol_group = "{here}"\n').settings
    assert made is not None and made.process.control_group == here
    (found,) = mistakes(GOOD + '[process]\ncontrol_group = "no such group"\n')
    assert "this machine has no such group; expected the group of pgpool-II's user" in found


def test_who_may_not_read_the_file_looks_into_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(os, "open", refuse)
    place = find_place("/etc/pgvigil/pgvigil.toml")
    assert place.run_dir == "/run/pgvigil"
    assert place.note == "/etc/pgvigil/pgvigil.toml: cannot read: Permission denied; looking into /run/pgvigil"
