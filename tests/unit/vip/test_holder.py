"""When the holder may say that nothing here answers any more: the seam on which P8 stands. No kernel is asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import pytest

from pgvigil.ipc.loop import Loop
from pgvigil.ipc.netlink import KernelRefusal, Link
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog.core.vip import GateState
from pgvigil.watchdog.settings import Fence, VipAddress, VipSettings
from pgvigil.watchdog.vip import holder
from pgvigil.watchdog.vip.holder import VipHolder
from pgvigil.watchdog.vip.netlink import HostAddress

VIP = ipaddress.ip_address("10.0.0.100")


class Kernel:
    """What the kernel holds, and whether it answers."""

    def __init__(self) -> None:
        self.there: list[HostAddress] = []
        self.refuses = False
        self.gate = GateState.CLOSED

    def dump(self) -> list[HostAddress]:
        if self.refuses:
            raise KernelRefusal("addresses", 105)
        return list(self.there)

    def link(self, name: str) -> Link:
        return Link(2, name, True, True, False, b"")

    def delete(self, address: object, prefix_length: int, index: int) -> None:
        if self.refuses:
            raise KernelRefusal(f"{address}", 105)
        self.there = [host for host in self.there if (host.address, host.index) != (address, index)]

    def close(self) -> None: ...


class Keeper:
    """A gate that is what the kernel says and cannot be changed."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.problem = ""
        self.until_ns = 0

    def state(self, now_ns: int) -> GateState:
        return self._kernel.gate

    def close(self) -> bool:
        return self._kernel.gate is not GateState.MISSING

    def load(self, why: str = "") -> bool:
        return False

    def check(self) -> None: ...
    def close_sockets(self) -> None: ...


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def vip(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[VipHolder]:
    monkeypatch.setattr(holder, "Addresses", lambda: kernel)
    monkeypatch.setattr(holder, "GateKeeper", lambda *_: Keeper(kernel))
    settings = VipSettings((VipAddress("10.0.0.100", 24),), "eth0", "netlink", "", "", "", 10, 5)
    loop = Loop()
    made = VipHolder(settings, Fence.REQUIRED, loop, Runner(loop), lambda: None)
    yield made
    made.close()
    loop.close()


def on_host(index: int) -> HostAddress:
    return HostAddress(VIP, 24, index, 5, 0)


def dropped(vip: VipHolder) -> Callable[[], bool]:
    said: list[bool] = []
    vip.drop(lambda: said.append(True))
    return lambda: bool(said)


def test_it_is_down_once_the_gate_is_closed_and_the_address_gone(vip: VipHolder, kernel: Kernel) -> None:
    kernel.there = [on_host(2)]
    assert dropped(vip)()
    assert kernel.there == []


@pytest.mark.parametrize("index", [2, 3])
def test_without_a_gate_an_unreadable_host_is_never_called_free(vip: VipHolder, kernel: Kernel, index: int) -> None:
    """The kernel refuses everything (no memory): the gate may be open and the address there."""
    kernel.there, kernel.gate, kernel.refuses = [on_host(index)], GateState.MISSING, True
    down = dropped(vip)
    assert not down()
    kernel.refuses = False
    vip._look_and_reconcile()
    assert kernel.there == []
    assert down()
