"""Which monitored interfaces are down, and whether that makes this node unfit to lead.

A link counts as down, or as up again, once it has been so for the whole debounce time: a flap moves no virtual IP. What
is seen first counts at once, because there is nothing before it to defend. The virtual IP's interface counts alone,
the monitored ones only all together: a node that others still reach need not hand over. It is told what was
seen and when, and refuses to know sockets and clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.verdict import Opinion

NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Link:
    """One interface: `trouble` as seen last, why it is down ("" if it is up); `counts` is what is believed."""

    trouble: str
    seen_since_ns: int
    counts: str
    down_since_ns: int


class LinksMethod:
    """All monitored interfaces; times are CLOCK_BOOTTIME in ns."""

    def __init__(self, interfaces: tuple[str, ...], vip_interface: str, debounce_ns: int) -> None:
        """`interfaces` count together, `vip_interface` (may be empty) alone."""
        self.names = tuple(dict.fromkeys((*interfaces, vip_interface) if vip_interface else interfaces))
        self._together = interfaces
        self._alone = vip_interface
        self._debounce_ns = debounce_ns
        self._links: dict[str, _Link] = {}

    def seen(self, name: str, trouble: str, now_ns: int) -> None:
        """An interface is up (`trouble` empty), or down with the reason."""
        link = self._links.get(name)
        if link is None:
            self._links[name] = _Link(trouble, now_ns, trouble, now_ns)
            return
        if bool(trouble) is not bool(link.trouble):
            link.seen_since_ns = now_ns
        link.trouble = trouble
        if trouble and link.counts:
            link.counts = trouble  # no carrier first, removed then: it stays down, for the newest reason

    def step(self, now_ns: int) -> bool:
        """Let count what has lasted; whether anything that counts has changed."""
        changed = False
        for link in self._links.values():
            if self._pending(link) and now_ns >= link.seen_since_ns + self._debounce_ns:
                if link.trouble:
                    link.down_since_ns = link.seen_since_ns
                link.counts = link.trouble
                changed = True
        return changed

    def wake(self) -> int | None:
        """When the next change counts unless it is taken back."""
        pending = [link.seen_since_ns for link in self._links.values() if self._pending(link)]
        return min(pending) + self._debounce_ns if pending else None

    def vip_cut(self) -> bool:
        """Whether the interface of the virtual IP is down."""
        link = self._links.get(self._alone)
        return link is not None and bool(link.counts)

    def any_down(self) -> bool:
        """Whether an interface is down, whatever follows from that."""
        return any(link.counts for link in self._links.values())

    def opinion(self, now_ns: int) -> Opinion:
        """DEAD: this node should not lead."""
        if len(self._links) < len(self.names):
            return Opinion(Health.UNKNOWN, "not looked at yet")
        down = [name for name in self.names if self._links[name].counts]
        reasons = " and ".join(self._sentence(name, now_ns) for name in down)
        all_of_them = bool(self._together) and all(name in down for name in self._together)
        if all_of_them or self._alone in down:
            return Opinion(Health.DEAD, reasons)
        up = [name for name in self.names if name not in down]
        sentence = f"{' and '.join(up)} {'is' if len(up) == 1 else 'are'} up"
        return Opinion(Health.ALIVE, f"{sentence}; {reasons}" if down else sentence)

    @staticmethod
    def _pending(link: _Link) -> bool:
        return bool(link.trouble) is not bool(link.counts)

    def _sentence(self, name: str, now_ns: int) -> str:
        link = self._links[name]
        return f"interface {name} is down for {(now_ns - link.down_since_ns) // NS_PER_MS} ms ({link.counts})"
