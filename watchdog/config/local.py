"""What this machine's interfaces carry, as far as the configuration has to know.

Read once, with psutil; tests pass their own. Nothing is resolved and nothing is asked of the network.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of one interface, with its prefix length."""

    interface: str
    address: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """All interfaces of this machine, also those without an address."""

    interfaces: tuple[str, ...]
    addresses: tuple[LocalAddress, ...]

    def carrier(self, address: str) -> str | None:
        """The interface that has this very address; all of 127.0.0.0/8 is the loopback's."""
        for local in self.addresses:
            if local.address == address:
                return local.interface
        parsed = ipaddress.ip_address(address)
        if parsed.version == 4 and parsed.is_loopback:
            return self.around(address)[0] if self.around(address) else None
        return None

    def around(self, address: str) -> list[str]:
        """Interfaces with a network that contains the address, in the machine's order."""
        parsed = ipaddress.ip_address(address)
        found: list[str] = []
        for local in self.addresses:
            network = ipaddress.ip_network(f"{local.address}/{local.prefix_length}", strict=False)
            # A host's own /32 or /128 is the address itself, a virtual IP left over, and no network.
            if network.num_addresses > 1 and parsed in network and local.interface not in found:
                found.append(local.interface)
        return found


def local_network() -> LocalNetwork:
    """Ask the kernel."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    by_interface = psutil.net_if_addrs()
    addresses: list[LocalAddress] = []
    for interface, entries in by_interface.items():
        for entry in entries:
            if entry.family in families and entry.netmask and "%" not in entry.address:
                normal = str(ipaddress.ip_address(entry.address))
                addresses.append(LocalAddress(interface, normal, _prefix_length(entry.netmask)))
    # An interface that has never had an address is not in net_if_addrs of every psutil.
    names = dict.fromkeys([*by_interface, *(name for _, name in socket.if_nameindex())])
    return LocalNetwork(tuple(names), tuple(addresses))


def _prefix_length(netmask: str) -> int:
    return int(ipaddress.ip_address(netmask)).bit_count()
