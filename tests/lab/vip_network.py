"""Two network namespaces joined by a cable, and ways to act inside them from one test process.

A socket belongs for ever to the namespace in which it was opened, so a test can hold the VIP in one and ask from
the other.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog.settings import Fence, VipAddress, VipSettings
from pgvigil.watchdog.vip.holder import VipHolder

CLONE_NEWNET = 0x40000000
VIP4, VIP6 = "10.99.0.100", "fd99::100"
_libc = ctypes.CDLL(None, use_errno=True)


def settings(driver: str = "netlink", up: str = "", down: str = "", arping: str = "") -> VipSettings:
    """A VIP of both families on the node's side of the cable."""
    addresses = (VipAddress(VIP4, 24), VipAddress(VIP6, 64))
    return VipSettings(addresses, "va", driver, up, down, arping, 30, 5)


class Cable:
    """Namespaces `node` (interface va) and `peer` (interface vb)."""

    def __init__(self) -> None:
        self.names = {side: f"pgvh2-{os.getpid()}-{side}" for side in ("node", "peer")}
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        node, peer = self.names["node"], self.names["peer"]
        self.run("node", f"ip link add va type veth peer name vb netns {peer}")
        assert node != peer
        for side, link, last in (("node", "va", 1), ("peer", "vb", 2)):
            self.run(side, "ip link set lo up")
            self.run(side, f"ip addr add 10.99.0.{last}/24 dev {link}")
            self.run(side, f"ip -6 addr add fd99::{last}/64 dev {link} nodad")
            self.run(side, f"ip link set {link} up")

    def run(self, side: str, command: str) -> str:
        """The output of a shell command inside a namespace."""
        argv = ["ip", "netns", "exec", self.names[side], "/bin/sh", "-c", command]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout

    @contextmanager
    def inside(self, side: str) -> Iterator[None]:
        """This thread acts in a namespace."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.names[side]}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def close(self) -> None:
        """Remove the namespaces with all that is in them."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Node:
    """A holder with its loop, to be driven by hand inside the namespace `node`."""

    def __init__(self, vip: VipSettings, fence: Fence = Fence.REQUIRED) -> None:
        self.loop = Loop()
        self.changes = 0
        self.downs = 0
        self.runner = Runner(self.loop)
        self.holder = VipHolder(vip, fence, self.loop, self.runner, self._changed)
        self.holder.prepare()

    def _changed(self) -> None:
        self.changes += 1

    def down(self) -> None:
        """For `drop`."""
        self.downs += 1

    def go(self, duration_ms: int) -> None:
        """Let the loop run."""
        end_ns = boottime_ns() + duration_ms * NS_PER_MS
        while (left_ns := end_ns - boottime_ns()) > 0:
            self.loop.run_once(min(left_ns, 10 * NS_PER_MS))

    def hold(self, lease_ms: int) -> int:
        """Hold for a lease of that length; its end."""
        end_ns = boottime_ns() + lease_ms * NS_PER_MS
        self.holder.hold(end_ns)
        return end_ns

    def raise_vip(self, lease_ms: int = 1000) -> None:
        """Hold until the addresses are there."""
        for _ in range(100):
            self.hold(lease_ms)
            self.go(10)
            if all(present for _, present in self.holder.status().addresses):
                return
        raise AssertionError(f"the VIP did not come up: {self.holder.status()}")

    def close(self) -> None:
        """Give everything back."""
        self.holder.close()
        self.loop.close()
