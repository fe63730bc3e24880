"""The lab itself: cables, partitions, hosts that vanish, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo import run as commands
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.responder import PORT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], 7777), 0.3).recv(1)"


@pytest.fixture
def reaches(lab: Lab) -> Callable[[Host, Host], bool]:
    """Can one host open a connection to another?"""
    for node in lab.nodes:
        lab.start_module(node, "responder", (str(node.number), str(PORT)), "responder.log")

    def one_try(source: Host, target: Host) -> bool:
        return lab.run(source, (sys.executable, "-c", _CONNECT, str(target.address))).code == 0

    for node in lab.nodes:
        commands.wait_until(lambda node=node: one_try(lab.client, node), 10, f"responder of {node.name}")  # type: ignore[misc]
    return one_try


def test_a_cut_cable_isolates_one_host_and_can_be_restored(lab: Lab, reaches: Callable[[Host, Host], bool]) -> None:
    lab.cut(lab.node(1))
    assert not reaches(lab.client, lab.node(1))
    assert reaches(lab.client, lab.node(2))
    carrier = lab.run(lab.node(1), ("ip", "link", "show", "eth0")).out
    assert "NO-CARRIER" in carrier

    lab.restore(lab.node(1))
    commands.wait_until(lambda: reaches(lab.client, lab.node(1)), 5, "the restored host")


def test_a_partition_separates_nodes_but_not_the_client(lab: Lab, reaches: Callable[[Host, Host], bool]) -> None:
    lab.partition([lab.node(1)], lab.others(lab.node(1)))
    assert not reaches(lab.node(1), lab.node(2))
    assert not reaches(lab.node(3), lab.node(1))
    assert reaches(lab.node(2), lab.node(3))
    assert reaches(lab.client, lab.node(1))

    lab.heal()
    assert reaches(lab.node(1), lab.node(2))


def test_a_host_that_is_switched_off_loses_its_processes_and_its_kernel_state(lab: Lab) -> None:
    host = lab.node(2)
    sleeper = lab.start(host, ("sleep", "100"), "sleep.log")
    lab.run(host, ("ip", "addr", "add", "10.77.0.100/24", "dev", "eth0")).checked()

    lab.power_off(host)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not lab.is_on(host)

    lab.power_on(host)
    assert "10.77.0.100" not in lab.run(host, ("ip", "addr")).out


def test_two_labs_live_side_by_side_and_leave_nothing() -> None:
    with Lab() as one, Lab(nodes=5) as two:
        assert len(two.nodes) == 5
        assert {host.namespace for host in one.hosts}.isdisjoint(host.namespace for host in two.hosts)
        names = [one.name, two.name]
        roots = [one.root, two.root]
    _assert_nothing_left(names, roots)


_HELD_LAB = """
import signal, time
# Whoever runs the tests may have had them ignored (nohup, a shell's background).
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from pgvigil.watchdog.demo.lab import Lab
with Lab() as lab:
    for node in lab.nodes:
        lab.start(node, ("sleep", "100"), "sleep.log")
    print(lab.name, lab.root, flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_lab_cleans_up_behind_itself(number: signal.Signals) -> None:
    process, name, root = _start_held_lab()
    try:
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _assert_nothing_left([name], [root])


def test_what_a_killed_lab_left_behind_is_swept_by_the_next() -> None:
    process, name, root = _start_held_lab()
    process.kill()
    process.communicate(timeout=60)
    assert root.exists()
    assert name in Lab.sweep()
    _assert_nothing_left([name], [root])


def _start_held_lab() -> tuple[subprocess.Popen[str], str, Path]:
    argv = (sys.executable, "-c", _HELD_LAB)
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    name, root = process.stdout.readline().split()
    return process, name, Path(root)


def _assert_nothing_left(names: list[str], roots: list[Path]) -> None:
    left = [entry for entry in os.listdir(commands.NETNS_DIR) if entry.startswith(tuple(f"{name}-" for name in names))]
    assert left == []
    assert not any(root.exists() for root in roots)


def test_a_command_that_hangs_is_ended_and_reported(lab: Lab) -> None:
    with pytest.raises(CommandError, match="not done after"):
        lab.run(lab.client, ("sleep", "100"), limit_s=0.2)
