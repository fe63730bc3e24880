"""Exit codes, words to systemd, what a reload may change, the order of a stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.heartbeat.settings import HeartbeatSettings
from pgvigil.ipc.errors import CommandError, ConfigError, InvariantError, PeerError
from pgvigil.ipc.ready import Link
from pgvigil.lifecheck.settings import LifecheckSettings
from pgvigil.watchdog.settings import (
    ClusterSettings,
    CommandSettings,
    Fence,
    NodeSettings,
    PathSettings,
    ProcessSettings,
    Settings,
    VipAddress,
    VipSettings,
)
from pgvigil.watchdog.supervisor import children, exits, reload
from pgvigil.watchdog.supervisor.children import ChildSpec
from pgvigil.watchdog.supervisor.notify import Notifier

BEAT = HeartbeatSettings(1, 0, "eth0", "10.0.0.1", 9694, (), b"k" * 32, 200, "/run/pgvigil")
SETTINGS = Settings(
    source="/etc/pgvigil/pgvigil.toml",
    node_id=1,
    cluster=ClusterSettings("main", b"k" * 32, False, 1000, 200, "majority", False, Fence.REQUIRED),
    nodes=(
        NodeSettings(1, "pg01", 9000, False, 1, "pg01", 9999, 9898, (PathSettings("eth0", "10.0.0.1", 9694),)),
        NodeSettings(2, "pg02", 9000, False, 1, "pg02", 9999, 9898, (PathSettings("eth0", "10.0.0.2", 9694),)),
    ),
    heartbeats=(BEAT,),
    lifecheck=LifecheckSettings(1, (), ("eth0",), ("heartbeat",), 200, 1000, None, "/run/pgvigil"),
    vip=VipSettings((VipAddress("10.0.0.100", 24),), "eth0", "netlink", "", "", "", 60, 5),
    commands=CommandSettings(None),
    process=ProcessSettings("/run/pgvigil", "/var/lib/pgvigil", "stderr", "info", 4000),
)


# --- exits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit 0 (stopped as asked)"),
        (1 << 8, "exit 1 (the environment refused something)"),
        (70 << 8, "exit 70 (internal error)"),
        (42 << 8, "exit 42"),
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGSEGV | 0x80, "killed by SIGSEGV"),
        (100, "killed by signal 100"),
    ],
)
def test_a_wait_status_in_words(status: int, text: str) -> None:
    assert exits.describe(status) == text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (CommandError("x"), 1),
        (OSError(5, "x"), 1),
        (PeerError("x"), 70),
        (InvariantError("x"), 70),
        (ZeroDivisionError(), 70),
    ],
)
def test_exit_codes_by_blame(error: Exception, code: int) -> None:
    assert exits.code_of(error) == code


def test_every_exit_code_has_a_meaning() -> None:
    codes = [value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)]
    assert sorted(codes) == sorted(exits.MEANINGS)


# --- systemd ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [True, False])
def test_words_reach_systemd(tmp_path: Path, abstract: bool) -> None:
    address = f"@{tmp_path}/notify" if abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        notifier = Notifier(address)
        notifier.ready("leader")
        notifier.reloading()
        notifier.stopping("bye")
        notifier.alive()
        words = [systemd.recv(1000).decode() for _ in range(4)]
        notifier.close()
    assert words[0] == "READY=1\nSTATUS=leader"
    assert words[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert words[2:] == ["STOPPING=1\nSTATUS=bye", "WATCHDOG=1"]


def test_no_systemd_is_no_error(tmp_path: Path) -> None:
    Notifier(None).ready("x")
    deaf = Notifier(f"{tmp_path}/nobody")
    deaf.ready("x")
    deaf.close()
    deaf.ready("x")


def test_the_environment_is_read_and_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("NOTIFY_SOCKET", "@x")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier.from_environment()
    assert notifier.watchdog_ns == 3_000_000_000
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    notifier.close()


@pytest.mark.parametrize(("usec", "pid"), [("3000000", "1"), ("0", ""), ("x", ""), ("", "")])
def test_a_watchdog_that_is_not_ours_is_not_fed(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str) -> None:
    for name, value in (("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.setenv(name, value)
    notifier = Notifier.from_environment()
    assert notifier.watchdog_ns is None
    notifier.close()


# --- reload -----------------------------------------------------------------------------------------------

FIXED_CHANGES: list[tuple[Settings, str]] = [
    (replace(SETTINGS, node_id=2), "the node's id cannot change from 1 to 2"),
    (replace(SETTINGS, cluster=replace(SETTINGS.cluster, name="x")), "cluster.name cannot change from 'main' to 'x'"),
    (replace(SETTINGS, cluster=replace(SETTINGS.cluster, key=b"z" * 32)), "the cluster's key cannot change while"),
    (replace(SETTINGS, process=replace(SETTINGS.process, run_dir="/r")), "process.run_dir cannot change from"),
    (replace(SETTINGS, process=replace(SETTINGS.process, state_dir="/s")), "process.state_dir cannot change from"),
    (
        replace(SETTINGS, vip=replace(SETTINGS.vip, addresses=())),
        "vip.addresses cannot change from 10.0.0.100/24 to none while pgvigil runs, because they may be up",
    ),
    (replace(SETTINGS, vip=replace(SETTINGS.vip, interface="eth1")), "vip.interface cannot change from 'eth0'"),
    (replace(SETTINGS, vip=replace(SETTINGS.vip, driver="command")), "vip.driver cannot change from 'netlink'"),
]


@pytest.mark.parametrize(("changed", "start"), FIXED_CHANGES)
def test_what_a_reload_cannot_change_is_refused_with_one_sentence(changed: Settings, start: str) -> None:
    (sentence,) = reload.refusals(SETTINGS, changed)
    assert sentence.startswith(start)
    assert "kkkk" not in sentence


def test_all_refusals_are_told_at_once() -> None:
    changed = replace(SETTINGS, node_id=2, cluster=replace(SETTINGS.cluster, name="x", key=b"z" * 32))
    assert len(reload.refusals(SETTINGS, changed)) == 3


@pytest.mark.parametrize(
    "changed",
    [
        SETTINGS,
        replace(SETTINGS, cluster=replace(SETTINGS.cluster, lease_ms=2000, renew_ms=100)),
        replace(SETTINGS, process=replace(SETTINGS.process, log_level="debug", hang_timeout_ms=1000)),
        replace(SETTINGS, vip=replace(SETTINGS.vip, announce_interval_s=5)),
        replace(SETTINGS, nodes=SETTINGS.nodes[:1]),
    ],
)
def test_what_a_reload_may_change(changed: Settings) -> None:
    assert reload.refusals(SETTINGS, changed) == ()


def entry(_settings: Any, _link: Link, _life_interval_ns: int) -> int:
    """An entry function that no test calls."""
    raise AssertionError


def spec(name: str, part: object) -> ChildSpec:
    return ChildSpec(name, entry, part, False, 1, ())


SPECS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1)).map(
    lambda parts: tuple(spec(name, part) for name, part in parts.items())
)


@given(SPECS, SPECS)
def test_differences_lead_from_the_old_to_the_new(old: tuple[ChildSpec, ...], new: tuple[ChildSpec, ...]) -> None:
    gone, changed, fresh = reload.differences(old, new)
    wanted = {one.name: one for one in new}
    result = {one.name: one for one in old if one.name not in gone}
    result |= {name: wanted[name] for name in (*changed, *fresh)}
    assert result == wanted
    untouched = set(result) - set(changed) - set(fresh)
    assert all(one in old for name, one in result.items() if name in untouched)


# --- children ---------------------------------------------------------------------------------------------


def test_the_table_of_a_node() -> None:
    table = children.table(SETTINGS, 5)
    assert [(one.name, one.vital) for one in table] == [
        ("heartbeat receiver eth0", False),
        ("heartbeat sender eth0", False),
        ("lifecheck", False),
        ("watchdog main", True),
    ]
    assert [one.settings for one in table] == [BEAT, BEAT, SETTINGS.lifecheck, SETTINGS]
    assert children.table(SETTINGS, 5) == table


def test_two_paths_on_one_interface_have_names_of_their_own() -> None:
    two = replace(SETTINGS, heartbeats=(BEAT, replace(BEAT, path=1, address="10.0.0.9")))
    names = [one.name for one in children.table(two, 5)]
    assert names[:4] == [
        "heartbeat receiver eth0/0", "heartbeat receiver eth0/1", "heartbeat sender eth0/0", "heartbeat sender eth0/1"
    ]  # fmt: skip


def test_a_new_log_level_concerns_every_child() -> None:
    louder = replace(SETTINGS, process=replace(SETTINGS.process, log_level="debug"))
    gone, changed, fresh = reload.differences(children.table(SETTINGS, 5), children.table(louder, 5))
    assert (gone, len(changed), fresh) == ((), 4, ())


def test_preloading_makes_no_thread_and_no_context() -> None:
    """A ZeroMQ context made before the fork loses messages without a word; its threads would be lost in the fork."""
    code = """
import os
from pgvigil.watchdog.supervisor import daemon
daemon.real_parts()
from pgvigil.heartbeat import receiver, sender
from pgvigil.lifecheck import process
from pgvigil.watchdog import process
import zmq
opened = [one for one in map(int, os.listdir("/proc/self/fd")) if one > 2]
left = [one for one in opened if os.path.lexists(f"/proc/self/fd/{one}")]
print(len(os.listdir("/proc/self/task")), zmq.Context._instance, left)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1 None []\n"
