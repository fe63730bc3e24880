"""The two ways to give this host an address: netlink, or the user's commands.

Netlink is synchronous (tens of microseconds) and gives every address a lifetime, after which the kernel removes it by
itself. Commands run beside the loop, one after the other, with a time limit; `$_IP_$` in them is the address, as in
pgpool-II. A command may move an address that this host never shows (a cloud's elastic IP), so its success counts as
presence until it is undone, unless the address was seen on this host and then vanished.

A driver decides nothing about leases and gates.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
from collections.abc import Callable
from typing import Protocol

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.netlink import KernelRefusal, Link
from pgvigil.ipc.runner import Result, Runner
from pgvigil.watchdog.settings import VipAddress, VipSettings
from pgvigil.watchdog.vip.netlink import FOREVER, IFA_F_NOPREFIXROUTE, Address, Addresses, HostAddress

PLACEHOLDER = "$_IP_$"
COMMAND_RETRY_NS = 5 * NS_PER_S

_log = logging.getLogger("pgvigil")


@functools.cache
def ip(vip: VipAddress) -> Address:
    """The address proper; made once, it is compared a hundred times a second."""
    return ipaddress.ip_address(vip.address)


class Driver(Protocol):
    """What the holder needs. `failure` is the newest reason, empty after a success; `traces`: something may be left."""

    failure: str

    @property
    def traces(self) -> bool: ...
    @property
    def busy(self) -> bool: ...
    @property
    def lifetime_ends_ns(self) -> int | None: ...
    def look(self, hosts: list[HostAddress]) -> None: ...
    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]: ...
    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]: ...
    def put(self, hosts: list[HostAddress], link: Link | None, lease_end_ns: int) -> None: ...
    def remove(self, hosts: list[HostAddress]) -> None: ...
    def cancel(self) -> None: ...
    def announce(self) -> bool: ...


class NetlinkDriver:
    """Addresses with kernel lifetimes. Lists of `hosts` are never changed, only replaced by the next look."""

    def __init__(self, settings: VipSettings, addresses: Addresses) -> None:
        self._settings = settings
        self._netlink = addresses
        self._ours = frozenset(ip(vip) for vip in settings.addresses)
        self._hosts: list[HostAddress] | None = None
        self._link: Link | None = None
        self._found: tuple[tuple[bool, ...], list[HostAddress]] = ((), [])
        self.lifetime_ends_ns = 0  # what an earlier process left is renewed at the first chance
        self.failure = ""
        self.busy = False
        self.traces = False

    def look(self, hosts: list[HostAddress]) -> None:
        """Notice that somebody made one of the addresses permanent; it gets its lifetime back."""
        if any(host.address in self._ours and host.valid_s == FOREVER for host in hosts):
            self.lifetime_ends_ns = 0

    def cancel(self) -> None:
        """Nothing is ever queued."""

    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]:
        """For each VIP, whether it is where it belongs."""
        return self._places(hosts, link)[0]

    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]:
        """VIPs on another interface or with another prefix."""
        return self._places(hosts, link)[1]

    def _places(self, hosts: list[HostAddress], link: Link | None) -> tuple[tuple[bool, ...], list[HostAddress]]:
        """Both, worked out once for every look at the host: they are asked for much more often."""
        if hosts is not self._hosts or link is not self._link:
            index = link.index if link is not None else -1
            wanted = [(ip(vip), vip.prefix_length, index) for vip in self._settings.addresses]
            found = [host for host in hosts if host.address in self._ours]
            have = [(host.address, host.prefix_length, host.index) for host in found]
            present = tuple(key in have for key in wanted)
            misplaced = [host for host, key in zip(found, have, strict=True) if key not in wanted]
            self._hosts, self._link, self._found = hosts, link, (present, misplaced)
        return self._found

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
        self.lifetime_ends_ns = now_ns + valid_s * NS_PER_S
        self.failure = ""

    def remove(self, hosts: list[HostAddress]) -> None:
        """Remove the addresses, wherever they are."""
        self.lifetime_ends_ns = 0
        self.failure = ""
        for host in hosts:
            if host.address in self._ours:
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
    if ip(vip).version != 6:
        return 0
    network = ipaddress.ip_network(str(vip), strict=False)
    for host in hosts:
        same = host.index == link.index and host.prefix_length == vip.prefix_length and host.address != ip(vip)
        if same and host.address in network:
            return IFA_F_NOPREFIXROUTE
    return 0


class CommandDriver:
    """if_up_cmd, if_down_cmd, arping_cmd: towards the newest order; what changes the address runs one at a time."""

    lifetime_ends_ns = None

    def __init__(self, settings: VipSettings, runner: Runner, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._runner = runner
        self._on_change = on_change
        self._up: bool | None = None
        self._seen = False
        self._queue: list[str] = []
        self._ordered_up = False
        self._cancelled = False
        self._running = False
        self._retry_at_ns = 0
        self.traces = False
        self.failure = ""

    @property
    def busy(self) -> bool:
        """Whether a command runs, or one failed too recently."""
        return self._running or bool(self.failure and boottime_ns() < self._retry_at_ns)

    def look(self, hosts: list[HostAddress]) -> None:
        """Remember that this host showed the addresses: from then on their absence counts."""
        have = {host.address for host in hosts}
        self._seen = self._seen or (self._up is True and all(ip(vip) in have for vip in self._settings.addresses))

    def present(self, hosts: list[HostAddress], link: Link | None) -> tuple[bool, ...]:
        """What the commands achieved, corrected by what this host shows."""
        have = {host.address for host in hosts}
        believed = self._up is True and not self._seen
        return tuple(ip(vip) in have or believed for vip in self._settings.addresses)

    def misplaced(self, hosts: list[HostAddress], link: Link | None) -> list[HostAddress]:
        """The commands know where the address belongs."""
        return []

    def put(self, hosts: list[HostAddress], link: Link | None, lease_end_ns: int) -> None:
        """Run if_up_cmd for every address."""
        self.traces = True
        self._order(True, self._settings.if_up_cmd)

    def remove(self, hosts: list[HostAddress]) -> None:
        """Run if_down_cmd for every address."""
        self._order(False, self._settings.if_down_cmd)

    def cancel(self) -> None:
        """Forget what is queued to bring it up, and earlier failures: the way down is free."""
        if self._ordered_up:
            self._queue, self._cancelled, self.failure = [], True, ""

    def announce(self) -> bool:
        """Run arping_cmd beside everything else; frames of our own are not sent."""
        for text in self._each(self._settings.arping_cmd) if self._settings.arping_cmd else ():
            self._runner.start("arping_cmd", text, self._settings.command_timeout_s * 1000, _say_failure)
        return False

    def _each(self, command: str) -> list[str]:
        return [command.replace(PLACEHOLDER, vip.address) for vip in self._settings.addresses]

    def _order(self, up: bool, command: str) -> None:
        if self._running and self._ordered_up == up and not self._cancelled:
            return
        self._ordered_up, self._cancelled, self.failure = up, False, ""
        self._up, self._seen = None, False
        self._queue = self._each(command)
        self._next()

    def _next(self) -> None:
        if self._running or not self._queue:
            return
        up, text = self._ordered_up, self._queue.pop(0)
        self._running = True
        label = "if_up_cmd" if up else "if_down_cmd"
        self._runner.start(label, text, self._settings.command_timeout_s * 1000, lambda result: self._done(result, up))

    def _done(self, result: Result, up: bool) -> None:
        self._running = False
        if up == self._ordered_up and not self._cancelled:
            self._judge(result, up)
        self._next()
        self._on_change()

    def _judge(self, result: Result, up: bool) -> None:
        if not result.succeeded:
            self.failure = result.describe()
            self._retry_at_ns = boottime_ns() + COMMAND_RETRY_NS
        if up and self.failure:
            self._queue = []  # all of it comes with the next attempt
        if self._queue:
            return
        self._up = None if self.failure else up
        self.traces = up or bool(self.failure)


def _say_failure(result: Result) -> None:
    if not result.succeeded:
        _log.warning("%s", result.describe())
