"""What the rest of pgvigil may know about the virtual IP of this host. Plain values; nothing here acts."""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.watchdog.settings import VipAddress


@dataclass(frozen=True, slots=True)
class VipStatus:
    """`wanted`: up, down, keep. `gate`: open, closed, missing; `gate_until_ns` (CLOCK_BOOTTIME) while it is open."""

    wanted: str
    addresses: tuple[tuple[VipAddress, bool], ...]
    gate: str
    gate_until_ns: int | None
    fence_problems: tuple[str, ...]
    conflict: str
    interface: str
    can_hold: bool
