"""The virtual IP let go of without a loop: by the supervisor when watchdog main is gone, and at the end of a clean
stop.

Runs in a short-lived process. It closes the gate first, then takes the addresses away, tries everything even if
something before it failed, and tells what it did in sentences. It holds nothing and raises nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.netlink import KernelRefusal
from pgvigil.watchdog.settings import VipSettings
from pgvigil.watchdog.vip.driver import PLACEHOLDER, ip
from pgvigil.watchdog.vip.gate import Gate
from pgvigil.watchdog.vip.netlink import Address, Addresses


def release_now(settings: VipSettings) -> list[str]:
    """Close the gate and remove the addresses; at most about `command_timeout_s` with commands, else milliseconds."""
    if not settings.addresses:
        return []
    addresses = tuple(ip(vip) for vip in settings.addresses)
    said = [_close_gate(addresses)]
    return said + (_run_down(settings) if settings.driver == "command" else remove_addresses(addresses))


def _close_gate(addresses: tuple[Address, ...]) -> str:
    try:
        gate = Gate(addresses)
    except OSError as error:
        return f"the gate cannot be closed: {error.strerror}"
    try:
        gate.close()
    except KernelRefusal as refusal:
        return "there is no gate" if refusal.code == errno.ENOENT else f"the gate cannot be closed: {refusal}"
    finally:
        gate.close_sockets()
    return "the gate is closed"


def remove_addresses(addresses: tuple[Address, ...]) -> list[str]:
    """Remove these addresses from every interface; one sentence for each that was there."""
    said = []
    netlink = Addresses()
    try:
        for host in netlink.dump():
            if host.address in addresses:
                said.append(_remove(netlink, host.address, host.prefix_length, host.index))
    except CommandError as error:
        said.append(f"the addresses cannot be read: {error}")
    finally:
        netlink.close()
    return said


def _remove(netlink: Addresses, address: Address, prefix_length: int, index: int) -> str:
    try:
        netlink.delete(address, prefix_length, index)
    except KernelRefusal as refusal:
        return f"{address} cannot be removed: {refusal}"
    return f"{address} is removed"


def _run_down(settings: VipSettings) -> list[str]:
    """if_down_cmd for all addresses side by side, with one time limit for all."""
    deadline_ns = boottime_ns() + settings.command_timeout_s * NS_PER_S
    started, said = [], []
    for vip in settings.addresses:
        command = settings.if_down_cmd.replace(PLACEHOLDER, vip.address)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            said.append(f"if_down_cmd for {vip.address} cannot be started: {error.strerror}")
            continue
        started.append((vip.address, process))
    return said + [_await_down(address, process, deadline_ns) for address, process in started]


def _await_down(address: str, process: subprocess.Popen[bytes], deadline_ns: int) -> str:
    try:
        status = process.wait(max(0.0, (deadline_ns - boottime_ns()) / NS_PER_S))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"if_down_cmd for {address} was killed at its time limit"
    return f"if_down_cmd for {address} ended with status {status}"


def remove_tables() -> list[str]:
    """Delete the gate's tables; only if no protected address is left. Returns what went wrong, in sentences."""
    try:
        gate = Gate(())
    except OSError:
        return []  # a kernel without netfilter has no tables
    try:
        left = _left_behind(gate.protected())
        if left:
            return [
                f"the gate stays, because {', '.join(left)} is still on this host; remove it, then `nft delete table`"
            ]
        gate.remove()
    except KernelRefusal as refusal:
        return [] if refusal.code in (errno.EPERM, errno.EOPNOTSUPP) else [f"the gate's tables stay: {refusal}"]
    finally:
        gate.close_sockets()
    return []


def _left_behind(protected: tuple[Address, ...]) -> list[str]:
    netlink = Addresses()
    try:
        return [str(host.address) for host in netlink.dump() if host.address in protected]
    finally:
        netlink.close()
