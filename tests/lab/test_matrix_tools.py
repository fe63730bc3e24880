"""The tools of the fault matrix: each must do what it claims, or a case that holds would prove nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.matrix import faults_network
from pgvigil.watchdog.demo.matrix.faults_machine import fill
from pgvigil.watchdog.demo.matrix.ground import Ground, Setting
from pgvigil.watchdog.demo.matrix.memory_group import MemoryGroup, members
from pgvigil.watchdog.demo.matrix.shim import Shim, build
from pgvigil.watchdog.demo.responder import PORT
from pgvigil.watchdog.demo.run import run, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

_WORK = """
import json, os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
began = time.clock_gettime(time.CLOCK_BOOTTIME)
os.fsync(file)
took = time.clock_gettime(time.CLOCK_BOOTTIME) - began
print(json.dumps([took, time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)]))
"""


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(build(tmp_path), tmp_path / "control")


def _work(shim: Shim, tmp_path: Path) -> tuple[float, float, float]:
    environment = {**os.environ, **shim.environment}
    answer = run((sys.executable, "-c", _WORK, str(tmp_path / "file")), env=environment).checked()
    took, wall, boot = json.loads(answer.out)
    return took, wall, boot


def test_the_library_slows_fsync_and_nothing_else(shim: Shim, tmp_path: Path) -> None:
    shim.delay_fsync(700)
    assert _work(shim, tmp_path)[0] >= 0.7
    shim.delay_fsync(0)
    assert _work(shim, tmp_path)[0] < 0.7
    assert shim.read().fsyncs == 2


def test_the_library_moves_the_wall_clock_and_not_the_clock_of_decisions(shim: Shim, tmp_path: Path) -> None:
    shim.step_wall_clock(-3600)
    _, wall, boot = _work(shim, tmp_path)
    assert abs(wall + 3600 - time.time()) < 60
    assert abs(boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
    assert shim.read().wall_reads > 0


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    group = MemoryGroup(32 << 20)
    yield group
    if group.path.exists():
        group.close()


def test_a_memory_group_ends_the_taker_and_lets_its_members_go(group: MemoryGroup) -> None:
    bystander = subprocess.Popen(("sleep", "60"))
    taker = (sys.executable, "-m", "pgvigil.watchdog.demo.matrix.load", "memory", "2", str(64 << 20), str(group.path))
    try:
        group.adopt([bystander.pid])
        assert bystander.pid in members(group.path)
        run(taker).checked()
        assert bystander.poll() is None, "the kernel took the wrong one"
        group.close()
        assert not group.path.exists()
    finally:
        bystander.kill()
        bystander.wait()


# the network

_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], 7777), 0.4).recv(1)"


@pytest.fixture
def two_paths() -> Iterator[Ground]:
    """A network with two paths between the nodes; no services but the responders."""
    with Lab(paths=2) as lab:
        for node in lab.nodes:
            lab.start_module(node, "responder", (str(node.number), str(PORT)), "responder.log")
        yield Ground(lab, Setting.TWO_PATHS)


def _reaches(lab: Lab, source: Host, target: Host, path: int) -> bool:
    return lab.run(source, (sys.executable, "-c", _CONNECT, lab.address_on(target, path))).code == 0


def test_one_path_fails_and_the_other_stays(two_paths: Ground) -> None:
    lab = two_paths.lab
    one, two, _ = lab.nodes
    for path in (0, 1):
        wait_until(lambda path=path: _reaches(lab, one, two, path), 10, f"path {path}")  # type: ignore[misc]
    for path in (0, 1):
        blow = faults_network.peers(True, True, path=path)(two_paths, [one])
        blow.strike()
        assert [_reaches(lab, one, two, other) for other in (0, 1)] == [path != 0, path != 1]
        assert _reaches(lab, lab.client, one, 0)
        blow.undo()
    lab.cut(one, 1)
    assert [_reaches(lab, one, two, other) for other in (0, 1)] == [True, False]
    lab.restore(one)
    wait_until(lambda: _reaches(lab, one, two, 1), 10, "the second path")


def test_one_direction_fails_and_the_other_stays(two_paths: Ground) -> None:
    """A flood of pings: the switch's counters cannot lie about what passed."""
    lab = two_paths.lab
    one, two, _ = lab.nodes
    wait_until(lambda: _reaches(lab, two, one, 0), 10, "the first node")
    for outgoing in (True, False):
        blow = faults_network.cable_one_way(outgoing)(two_paths, [one])
        before = _received(lab, one), _received(lab, two)
        blow.strike()
        lab.run(one, ("ping", "-c", "20", "-i", "0.01", "-W", "1", "-q", two.address))
        lab.run(two, ("ping", "-c", "20", "-i", "0.01", "-W", "1", "-q", one.address))
        grown = _received(lab, one) - before[0], _received(lab, two) - before[1]
        blow.undo()
        # Whoever still hears the other one hears 20 questions at least, and whoever is deaf hears none.
        heard, deaf = (grown[0], grown[1]) if outgoing else (grown[1], grown[0])
        assert heard >= 20 and deaf < 20, f"outgoing={outgoing}: {grown}"


def _received(lab: Lab, host: Host) -> int:
    """ICMP messages that a host's kernel has received (snmp(5))."""
    lines = [line.split() for line in lab.run(host, ("cat", "/proc/net/snmp")).out.splitlines()]
    names, values = [line for line in lines if line[0] == "Icmp:"]
    return int(values[names.index("InMsgs")])


def test_a_lossy_cable_loses_some_and_not_all(two_paths: Ground) -> None:
    lab = two_paths.lab
    one, two, _ = lab.nodes
    blow = faults_network.loss(30, between_nodes=True)(two_paths, lab.nodes)
    lab.run(one, ("ping", "-c", "1", "-W", "5", "-q", two.address))  # ARP is lost too, and three losses end all
    blow.strike()
    before = _received(lab, two)
    lab.run(one, ("ping", "-c", "200", "-i", "0.002", "-W", "1", "-q", two.address))
    heard = _received(lab, two) - before
    blow.undo()
    assert 100 <= heard <= 180, heard  # 140 are expected, with a standard deviation of 6.5


def test_a_flapping_cable_flaps_and_stays_in_place(two_paths: Ground) -> None:
    lab = two_paths.lab
    blow = faults_network.flap()(two_paths, [lab.node(1)])
    blow.strike()
    time.sleep(2)
    blow.undo()
    assert int(blow.note().split()[0]) >= 2
    wait_until(lambda: _reaches(lab, lab.client, lab.node(1), 0), 10, "the node after the flapping")


def test_a_small_disk_is_filled_to_the_last_byte_and_goes_with_its_lab() -> None:
    with Lab() as lab:
        disk = lab.root / "disk"
        disk.mkdir()
        run(("mount", "-t", "tmpfs", "-o", "size=256k", "pgvlab", str(disk))).checked()
        fill(disk / "filler")
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_text("x")
        root = lab.root
    assert not root.exists()
    assert str(root) not in Path("/proc/self/mounts").read_text()


_HELD_DISK = """
import time
from pgvigil.watchdog.demo.lab import Lab
from pgvigil.watchdog.demo.run import run
with Lab() as lab:
    disk = lab.root / "disk"
    disk.mkdir()
    run(("mount", "-t", "tmpfs", "-o", "size=256k", "pgvlab", str(disk))).checked()
    print(lab.name, lab.root, flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_small_disk_does_not_outlive_a_lab_that_was_ended(number: signal.Signals) -> None:
    process = subprocess.Popen((sys.executable, "-c", _HELD_DISK), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name, root = process.stdout.readline().split()
    process.send_signal(number)
    process.communicate(timeout=30)
    swept = Lab.sweep()
    assert (name in swept) == (number is signal.SIGKILL)
    assert not Path(root).exists()
    assert root not in Path("/proc/self/mounts").read_text()


def test_without_a_compiler_the_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="gcc"):
        build(tmp_path)
