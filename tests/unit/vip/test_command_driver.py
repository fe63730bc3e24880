"""The command driver with real commands and a host that shows what the test says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog.settings import VipAddress, VipSettings
from pgvigil.watchdog.vip.driver import CommandDriver
from pgvigil.watchdog.vip.netlink import FOREVER, HostAddress

SHOWN = HostAddress(ipaddress.ip_address("10.0.0.100"), 24, 2, FOREVER, 0)


class Stand:
    """A driver whose commands write to a file."""

    def __init__(self, folder: Path, up: str = "true", down: str = "true") -> None:
        self.said = folder / "said"
        self.loop = Loop()
        settings = VipSettings(
            (VipAddress("10.0.0.100", 24),),
            "eth0",
            "command",
            f"echo up $_IP_$ >> {self.said}; {up}",
            f"echo down $_IP_$ >> {self.said}; {down}",
            f"echo arping $_IP_$ >> {self.said}",
            30,
            5,
        )
        self.changes = 0
        self.driver = CommandDriver(settings, Runner(self.loop), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def lines(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []

    def state(self) -> tuple[bool, bool]:
        """Busy, and something may be left."""
        return self.driver.busy, self.driver.traces

    def until(self, changes: int) -> None:
        deadline_ns = boottime_ns() + 5_000 * NS_PER_MS
        while self.changes < changes:
            assert boottime_ns() < deadline_ns
            self.loop.run_once(10 * NS_PER_MS)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.loop.close()


def test_success_counts_as_presence_until_it_is_undone(stand: Stand) -> None:
    assert stand.driver.present([], None) == (False,)
    stand.driver.put([], None, 0)
    assert stand.state() == (True, True)
    stand.until(1)
    assert stand.driver.present([], None) == (True,)
    stand.driver.remove([])
    stand.until(2)
    assert stand.driver.present([], None) == (False,) and stand.state() == (False, False)
    assert stand.lines() == ["up 10.0.0.100", "down 10.0.0.100"]


def test_an_address_that_was_seen_and_vanished_is_missing(stand: Stand) -> None:
    stand.driver.put([], None, 0)
    stand.until(1)
    stand.driver.look([SHOWN])
    assert stand.driver.present([SHOWN], None) == (True,)
    assert stand.driver.present([], None) == (False,)


def test_a_drop_while_going_up_comes_down_afterwards(tmp_path: Path) -> None:
    stand = Stand(tmp_path, up="sleep 0.2; false")
    stand.driver.put([], None, 0)
    stand.driver.cancel()
    assert stand.state() == (True, True)
    stand.until(1)
    assert stand.driver.failure == "" and stand.state() == (False, True)
    stand.driver.remove([])
    stand.until(2)
    assert stand.lines() == ["up 10.0.0.100", "down 10.0.0.100"]
    assert stand.state() == (False, False)
    stand.loop.close()


def test_an_order_the_other_way_waits_for_the_command_that_runs(tmp_path: Path) -> None:
    stand = Stand(tmp_path, up=f"sleep 0.2; echo finished >> {tmp_path}/said")
    stand.driver.put([], None, 0)
    stand.driver.remove([])
    stand.until(2)
    assert stand.lines() == ["up 10.0.0.100", "finished", "down 10.0.0.100"]
    stand.loop.close()


def test_a_failure_is_told_and_not_repeated_at_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path, up="echo no luck; exit 4")
    stand.driver.put([], None, 0)
    stand.until(1)
    assert "status 4" in stand.driver.failure and "no luck" in stand.driver.failure
    assert stand.state() == (True, True)
    stand.loop.close()


def test_the_announcement_runs_beside_the_rest(tmp_path: Path) -> None:
    stand = Stand(tmp_path, up="sleep 0.2")
    stand.driver.put([], None, 0)
    assert stand.driver.announce() is False
    stand.until(1)
    assert sorted(stand.lines()) == ["arping 10.0.0.100", "up 10.0.0.100"]
    stand.loop.close()
