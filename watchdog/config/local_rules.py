"""Rules about this machine: its own paths and the interface of the virtual IP.

Checked on the node that reads the file and for that node only; what other machines carry is theirs to judge.
"""

from __future__ import annotations

import ipaddress
import shlex
import shutil

from pgvigil.lifecheck.settings import split_upstream
from pgvigil.watchdog.config.local import LocalNetwork
from pgvigil.watchdog.config.problems import Problems
from pgvigil.watchdog.config.reader import Draft, NodeDraft, Section

AUTO = "auto"


def own_paths_are_here(problems: Problems, node: NodeDraft, local: LocalNetwork) -> None:
    """A path that is not here cannot be bound."""
    for path in node.paths:
        address, interface = path.get("address"), path.get("interface")
        if address is None or interface is None:
            continue
        if interface != AUTO and interface not in local.interfaces:
            problems.mistake(path.at("interface"), "this machine has no such interface", _one_of(local.interfaces))
            continue
        carrier = local.carrier(address)
        key = "address" if "address" in path.given else "host"
        if carrier is None:
            wrong = f"this machine is node {node.section.get('id')} and does not have this address"
            problems.mistake(path.at(key), wrong, "expected an address of this machine, or another --node-id")
        elif interface not in (AUTO, carrier):
            problems.mistake(path.at("interface"), f"{address} is on {carrier}", f'expected "{carrier}"')


def tie_breaker_is_elsewhere(problems: Problems, draft: Draft, own: NodeDraft, local: LocalNetwork) -> None:
    """What this machine has answers always; only where all nodes live on the loopback, so may the tie-breaker."""
    cluster = draft["cluster"]
    given = cluster.get("tie_breaker")
    if given is None:
        return
    address = split_upstream(given)[0]
    apart = all(_is_loopback(path.get("address")) for path in own.paths) and _is_loopback(address)
    told = any(path.get("address") == address for path in own.paths)  # by the rule about nodes' own addresses
    carrier = None if apart or told else local.carrier(address)
    if carrier:
        problems.mistake(cluster.at("tie_breaker"), f"is on {carrier} of this machine", "expected an address upstream")


def _is_loopback(address: str | None) -> bool:
    return address is not None and ipaddress.ip_address(address).is_loopback


def path_interface(path: Section, own: bool, local: LocalNetwork) -> str:
    """The interface's name for titles and status; on other nodes "auto" where the file does not say."""
    interface = str(path.get("interface"))
    if interface != AUTO or not own:
        return interface
    return local.carrier(path.get("address")) or AUTO


def vip_interface(problems: Problems, draft: Draft, local: LocalNetwork) -> str:
    """The interface that carries the virtual IP on this node; empty if there is none to carry."""
    vip = draft["vip"]
    addresses, given = vip.get("addresses") or (), vip.get("interface")
    must = vip.get("driver") == "netlink"
    if given is not None and given != AUTO and addresses and given not in local.interfaces and must:
        problems.mistake(vip.at("interface"), "this machine has no such interface", _one_of(local.interfaces))
        return ""
    chosen = "" if given in (None, AUTO) else str(given)
    for item in addresses:
        around = local.around(item.partition("/")[0])
        if not around and must:
            problems.mistake(
                vip.at("addresses"),
                f"{item} is in no network of this machine's interfaces",
                "expected an address of a network that an interface has",
            )
        elif around and not chosen:
            chosen = around[0]
        elif around and chosen not in around and must:
            problems.mistake(
                vip.at("interface" if "interface" in vip.given else "addresses"),
                f"{item} is not in a network of {chosen}, but of {around[0]}",
                "expected all virtual addresses on one interface",
            )
    return chosen


def commands_can_run(problems: Problems, draft: Draft, commands: dict[str, str]) -> None:
    """A command that is not there would be found missing at the worst moment."""
    vip = draft["vip"]
    for name, text in commands.items():
        try:
            words = shlex.split(text)
        except ValueError as error:
            problems.mistake(vip.at(name), f"cannot be split into words: {error}", "expected balanced quotes")
            continue
        if words and shutil.which(words[0]) is None:
            problems.mistake(vip.at(name), f"{words[0]} is not here or not executable", "expected a program")


def _one_of(names: tuple[str, ...]) -> str:
    return "expected one of " + ", ".join(names[:12])
