"""The two ways to give this host an address: netlink, or the user's commands.

Netlink is synchronous (tens of microseconds) and gives every address a lifetime, after which the kernel removes it by
itself. Commands run beside the loop, one after the other, with a time limit; `$_IP_$` in them is the address, as in
pgpool-II. A command may move an address that this host never shows (a cloud's elastic IP), so its success counts as
presence until it is undone, unless the address was seen on this host and then vanished.

A driver decides nothing about leases and gates.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.watchdog.commands.runner import Result, Runner
from pgvigil.watchdog.settings import VipAddress, VipSettings
from pgvigil.watchdog.vip.netlink import IFA_F_NOPREFIXROUTE, Address, Addresses, HostAddress, KernelRefusal, Link

PLACEHOLDER = "$_IP_$"
COMMAND_RETRY_NS = 5 * NS_PER_S


def ip(vip: VipAddress) -> Address:
    """The address proper."""
    return ipaddress.ip_address(vip.address)


class Driver(Protocol):
    """What the holder needs. `failure` is the newest reason, empty after a success."""

    failure: str

    @property
    def busy(self) -> bool: ...
    @property
    def lifetime_ends_ns(self) -> int | None: ...
    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]: ...
    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]: ...
    def put(self, hosts: list[HostAddress], link: Link | None, lease_end_ns: int) -> None: ...
    def remove(self, hosts: list[HostAddress]) -> None: ...
    def announce(self) -> bool: ...


class NetlinkDriver:
    """Addresses with kernel lifetimes."""

    def __init__(self, settings: VipSettings, addresses: Addresses) -> None:
        self._settings = settings
        self._netlink = addresses
        self._lifetime_ends_ns: int | None = None
        self.failure = ""
        self.busy = False

    @property
    def lifetime_ends_ns(self) -> int | None:
        """When the kernel removes the addresses; None if it has none of ours."""
        return self._lifetime_ends_ns

    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]:
        """For each VIP, whether it is where it belongs."""
        index = link.index if link is not None else -1
        have = {(host.address, host.prefix_length) for host in hosts if host.index == index}
        return tuple((ip(vip), vip.prefix_length) in have for vip in self._settings.addresses)

    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]:
        """VIPs on another interface or with another prefix."""
        index = link.index if link is not None else -1
        wanted = {(ip(vip), vip.prefix_length, index) for vip in self._settings.addresses}
        ours = {ip(vip) for vip in self._settings.addresses}
        keys = [(host, (host.address, host.prefix_length, host.index)) for host in hosts if host.address in ours]
        return [host for host, key in keys if key not in wanted]

    def put(self, hosts: list[HostAddress], link: Link | None, lease_end_ns: int) -> None:
        """Add the addresses or renew their lifetime: whole seconds, at least one more than the lease has."""
        if link is None:
            self.failure = f"interface {self._settings.interface} does not exist"
            return
        now_ns = boottime_ns()
        valid_s = -((now_ns - lease_end_ns) // NS_PER_S) + 1
        try:
            for vip in self._settings.addresses:
                extra = route_flags(vip, hosts, link)
                self._netlink.put(ip(vip), vip.prefix_length, link.index, valid_s, extra)
        except KernelRefusal as refusal:
            self.failure = f"{refusal} on {link.name}"
            return
        self._lifetime_ends_ns = now_ns + valid_s * NS_PER_S
        self.failure = ""

    def remove(self, hosts: list[HostAddress]) -> None:
        """Remove the addresses, wherever they are."""
        self._lifetime_ends_ns = None
        self.failure = ""
        ours = {ip(vip) for vip in self._settings.addresses}
        for host in hosts:
            if host.address in ours:
                try:
                    self._netlink.delete(host.address, host.prefix_length, host.index)
                except KernelRefusal as refusal:
                    self.failure = str(refusal)

    def announce(self) -> bool:
        """Frames of pgvigil's own do it."""
        return True


def route_flags(vip: VipAddress, hosts: list[HostAddress], link: Link) -> int:
    """No prefix route for an IPv6 VIP whose network this interface already has.

    The kernel would put our lifetime on the route that both share, and the host would lose its network with the VIP.
    """
    network = ipaddress.ip_network(str(vip), strict=False)
    for host in hosts:
        same = host.index == link.index and host.prefix_length == vip.prefix_length and host.address != ip(vip)
        if network.version == 6 and same and host.address in network:
            return IFA_F_NOPREFIXROUTE
    return 0


class CommandDriver:
    """if_up_cmd, if_down_cmd, arping_cmd: one at a time, towards the newest order."""

    lifetime_ends_ns = None

    def __init__(self, settings: VipSettings, runner: Runner, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._runner = runner
        self._on_change = on_change
        self._believed: bool | None = None
        self._seen = False
        self._queue: list[tuple[str, str]] = []
        self._going_up = False
        self._running = False
        self._retry_at_ns = 0
        self.failure = ""

    @property
    def busy(self) -> bool:
        """Whether a command runs, or one failed too recently."""
        return self._running or bool(self.failure and boottime_ns() < self._retry_at_ns)

    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]:
        """What the commands achieved, corrected by what this host shows."""
        have = {host.address for host in hosts}
        shown = [ip(vip) in have for vip in self._settings.addresses]
        if self._running:
            return tuple(shown)
        if self._believed is None or (self._seen and not all(shown)):
            return tuple(shown)
        self._seen = self._seen or (self._believed and all(shown))
        return tuple(item or self._believed for item in shown)

    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]:
        """The commands know where the address belongs."""
        return []

    def put(self, hosts: list[HostAddress], link: Link | None, lease_end_ns: int) -> None:
        """Run if_up_cmd for every address."""
        self._order(True, "if_up_cmd", self._settings.if_up_cmd)

    def remove(self, hosts: list[HostAddress]) -> None:
        """Run if_down_cmd for every address; what was queued before is dropped."""
        self._order(False, "if_down_cmd", self._settings.if_down_cmd)

    def announce(self) -> bool:
        """Run arping_cmd; frames of our own are not sent beside it."""
        if self._settings.arping_cmd:
            self._queue += [("arping_cmd", text) for text in self._each(self._settings.arping_cmd)]
            self._next()
        return False

    def _each(self, command: str) -> list[str]:
        return [command.replace(PLACEHOLDER, vip.address) for vip in self._settings.addresses]

    def _order(self, up: bool, label: str, command: str) -> None:
        self._going_up, self._seen, self.failure = up, False, ""
        self._queue = [(label, text) for text in self._each(command)]
        self._next()

    def _next(self) -> None:
        if self._running or not self._queue:
            return
        label, text = self._queue.pop(0)
        self._running = True
        up = self._going_up
        limit_ms = self._settings.command_timeout_s * 1000
        self._runner.start(label, text, limit_ms, lambda result: self._done(result, label, up))

    def _done(self, result: Result, label: str, up: bool) -> None:
        self._running = False
        if label != "arping_cmd" and up == self._going_up:
            self._judge(result, label, up)
        if not result.succeeded and label == "arping_cmd":
            self.failure = result.describe()
        self._next()
        self._on_change()

    def _judge(self, result: Result, label: str, up: bool) -> None:
        if not result.succeeded:
            self.failure = result.describe()
            self._retry_at_ns = boottime_ns() + COMMAND_RETRY_NS
            if up:
                self._queue = []  # the rest comes with the next attempt
        if not any(item == label for item, _ in self._queue):
            self._believed = up if not self.failure else None
