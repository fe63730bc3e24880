"""The gate as the holder uses it: never raises, remembers why it is missing, puts it back, says who changed it.

`Gate` speaks with the kernel and raises; this keeps its state and its excuses. It decides nothing about the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.netlink import KernelRefusal
from pgvigil.watchdog.core.vip import GateState
from pgvigil.watchdog.vip.gate import TABLE, Gate
from pgvigil.watchdog.vip.netlink import Address
from pgvigil.watchdog.vip.nft import NfEvents

RETRY_NS = 200 * NS_PER_MS

_log = logging.getLogger("pgvigil")


class GateKeeper:
    """Keeps one gate. `problem` says why it is missing; empty while it is there."""

    def __init__(self, loop: Loop, addresses: tuple[Address, ...], on_touched: Callable[[], None]) -> None:
        """`on_touched` is called after somebody else changed the tables, whether or not they could be put back."""
        self._loop = loop
        self._addresses = addresses
        self._on_touched = on_touched
        self._gate: Gate | None = None
        self._events: NfEvents | None = None
        self._retry_at_ns = 0
        self.problem = "not loaded yet"

    def open_sockets(self) -> Gate | None:
        """The gate, or None with `problem` set where there is no netfilter or no privilege."""
        if self._gate is not None:
            return self._gate
        gate = None
        try:
            gate = Gate(self._addresses)
            self._events = NfEvents(gate.port)
        except (OSError, KernelRefusal) as error:
            if gate is not None:
                gate.close_sockets()
            self._fail(error)
            return None
        self._gate = gate
        self._loop.watch(self._events.fd, self._touched)
        return gate

    def state(self, now_ns: int) -> GateState:
        """What the kernel does at this instant, as far as known."""
        if self.problem or self._gate is None:
            return GateState.MISSING
        return GateState.OPEN if self._gate.until_ns > now_ns else GateState.CLOSED

    @property
    def until_ns(self) -> int:
        """End of what was armed; 0 if closed."""
        return self._gate.until_ns if self._gate is not None and not self.problem else 0

    def load(self, why: str = "") -> bool:
        """Make the tables right and keep open what may be open; at most every `RETRY_NS` after a refusal."""
        gate = self.open_sockets() if boottime_ns() >= self._retry_at_ns else None
        if gate is None:
            return False
        try:
            changed = gate.load()
        except KernelRefusal as refusal:
            self._fail(refusal)
            return False
        if changed and why:
            _log.warning("%s (%s); put the gate back", why, changed)
        elif self.problem:
            _log.info("the gate is %s", "loaded" if changed else "there already")
        self.problem = ""
        return True

    def arm(self, lease_end_ns: int) -> bool:
        """Open it for the rest of the lease; False if nothing was left or the kernel refused (see `problem`)."""
        if self._gate is None or self.problem:
            return False
        try:
            return self._gate.arm(lease_end_ns)
        except KernelRefusal as refusal:
            self._fail(refusal)
            return False

    def close(self) -> bool:
        """Close it; if the tables are damaged, replace them by closed ones. False if nothing closes it."""
        if self._gate is None or self.problem:
            return False
        try:
            self._gate.close()
            return True
        except KernelRefusal as refusal:
            _log.warning("cannot close the gate (%s); replaces the tables", refusal)
        try:
            self._gate.reset()
            return True
        except KernelRefusal as refusal:
            self._fail(refusal)
            return False

    def check(self) -> None:
        """The slow look: put back what is not right, whoever did it and whatever event was lost."""
        if self._gate is None or self.problem:
            self.load()
            return
        try:
            fault = self._gate.fault()
        except KernelRefusal as refusal:
            self._fail(refusal)
            return
        if fault:
            self.load("somebody changed the gate's tables")

    def close_sockets(self) -> None:
        """Give the descriptors back; the tables stay."""
        if self._gate is not None and self._events is not None:
            self._loop.unwatch(self._events.fd)
            self._events.close()
            self._gate.close_sockets()
            self._gate = self._events = None

    def _touched(self) -> None:
        if self._events is None or self._gate is None:
            return
        strangers = self._events.strangers(TABLE)
        if not strangers or self.problem:
            return
        self._gate.distrust()
        try:
            fault = self._gate.fault()
        except KernelRefusal as refusal:
            self._fail(refusal)
        else:
            if not fault:
                return
            self.load(f"{', '.join(dict.fromkeys(strangers))} changed the gate's tables")
        self._on_touched()

    def _fail(self, error: OSError | KernelRefusal) -> None:
        reason = f"there is no gate: {error}; needs nftables in the kernel and CAP_NET_ADMIN"
        self._retry_at_ns = boottime_ns() + RETRY_NS
        if reason != self.problem:
            self.problem = reason
            _log.error("%s", reason)
