"""Are the monitored interfaces up? The kernel tells of every change (rtnetlink); nothing is polled.

An event carries the whole state of its interface, so nothing is asked while events come. The kernel is asked at the
start, for an interface that was renamed or made anew, and for all when it had to drop events. What the states come to
is the affair of `core.links`. The probe refuses to say anything when the kernel does not tell: then nothing is held
against this node.

Sources: rtnetlink(7), linux/if.h, Documentation/networking/operstates.rst of the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.ipc.netlink import (
    NETLINK_ROUTE,
    RTM_DELLINK,
    RTM_NEWLINK,
    RTMGRP_LINK,
    KernelRefusal,
    Link,
    Message,
    NetlinkSocket,
    find_link,
    messages,
    parse_link,
)
from pgvigil.lifecheck.core.links import LinksMethod
from pgvigil.lifecheck.probes.reading import Reading, Watcher
from pgvigil.lifecheck.settings import LinkSettings

RETRY_NS = 5 * NS_PER_S
REFRESH_NS = NS_PER_S  # how old the words about a link that is down may become
WHY_DOWN = {3: "the interface below it is down", 4: "in a test", 5: "dormant"}  # IF_OPER_* of linux/if.h
NO_CARRIER, SWITCHED_OFF, MISSING = "no carrier", "switched off", "it does not exist"
ANY_FAMILY = bytes([0])  # AF_UNSPEC; a bridge tells of its ports in messages of the same kinds (AF_BRIDGE)


class LinkProbe:
    """The method links; `on_change` is called when an interface goes down or comes up for good."""

    method = "links"

    def __init__(
        self, settings: LinkSettings, watcher: Watcher, on_change: Callable[[Reading], None], now_ns: int
    ) -> None:
        self._links = LinksMethod(settings.interfaces, settings.vip_interface, settings.debounce_ms * NS_PER_MS)
        self._watcher = watcher
        self._on_change = on_change
        self._events: NetlinkSocket | None = None
        self._known: dict[str, tuple[int, str]] = {}
        """By configured name: the index, and the kernel's name, which is another one for an alternative name."""
        self._due_ns: int | None = now_ns
        self.reading = Reading(Health.UNKNOWN, now_ns, "not looked at yet")

    @property
    def vip_cut(self) -> bool:
        """Whether the interface of the virtual IP is down."""
        return self.reading.health is Health.DEAD and self._links.vip_cut()

    def wake(self) -> int | None:
        return min((at for at in (self._due_ns, self._links.wake()) if at is not None), default=None)

    def tick(self, now_ns: int) -> None:
        self._due_ns = None
        if self._events is None:
            self._start(now_ns)
        else:
            self._conclude(now_ns)

    def late(self, lateness_ns: int) -> None:
        """Nothing to forgive: events wait in the socket, and are read before a debounce time is judged."""

    def close(self) -> None:
        """Give the descriptor back."""
        if self._events is not None:
            self._watcher.unwatch(self._events.fd)
            self._events.close()
        self._events = None

    # --- reading ----------------------------------------------------------------------------------

    def _start(self, now_ns: int) -> None:
        """Listen first and ask then, so that no change falls between."""
        try:
            self._events = NetlinkSocket(NETLINK_ROUTE, RTMGRP_LINK)
        except OSError as error:
            self._blind(f"cannot listen to rtnetlink: {error.strerror}", now_ns)
            return
        self._watcher.watch(self._events.fd, self._readable)
        self._look(self._links.names, now_ns)

    def _readable(self) -> None:
        now_ns = boottime_ns()
        ask: set[str] = set()
        try:
            for data in self._events.available() if self._events is not None else ():
                for message in messages(data):
                    ask.update(self._take(message, now_ns))
        except KernelRefusal:  # ENOBUFS: some events were dropped
            ask.update(self._links.names)
        self._look(tuple(name for name in self._links.names if name in ask), now_ns)

    def _take(self, message: Message, now_ns: int) -> list[str]:
        """One event; returns the interfaces that the kernel must be asked about."""
        if message.kind not in (RTM_NEWLINK, RTM_DELLINK) or message.body[:1] != ANY_FAMILY:
            return []
        link = parse_link(message.body)
        ask: list[str] = []
        for name in self._links.names:
            index, real_name = self._known.get(name, (0, ""))
            if index == 0:
                ask.append(name)  # it may be this one that appears
            elif index == link.index and message.kind == RTM_DELLINK:
                del self._known[name]
                self._links.seen(name, MISSING, now_ns)
            elif index == link.index and real_name == link.name:
                self._links.seen(name, trouble_of(link), now_ns)
            elif index == link.index:
                ask.append(name)  # renamed
        return ask

    def _look(self, names: tuple[str, ...], now_ns: int) -> None:
        """Ask the kernel about these."""
        if names:
            try:
                self._ask(names, now_ns)
            except (OSError, CommandError) as error:
                self.close()
                self._blind(str(error), now_ns)
                return
        self._conclude(now_ns)

    def _ask(self, names: tuple[str, ...], now_ns: int) -> None:
        asker = NetlinkSocket(NETLINK_ROUTE)
        try:
            for name in names:
                self._known.pop(name, None)
                try:
                    link = find_link(asker, name)
                except KernelRefusal as refusal:
                    if refusal.code != errno.ENODEV:
                        raise
                    self._links.seen(name, MISSING, now_ns)
                else:
                    self._known[name] = (link.index, link.name)
                    self._links.seen(name, trouble_of(link), now_ns)
        finally:
            asker.close()

    # --- concluding -------------------------------------------------------------------------------

    def _conclude(self, now_ns: int) -> None:
        news = self._links.step(now_ns)
        opinion = self._links.opinion(now_ns)
        before = self.reading
        since_ns = before.since_ns if opinion.health is before.health else now_ns
        self.reading = Reading(opinion.health, since_ns, opinion.evidence)
        if self._links.any_down():
            self._due_ns = now_ns + REFRESH_NS
        if news or opinion.health is not before.health:
            self._on_change(self.reading)

    def _blind(self, why: str, now_ns: int) -> None:
        """The kernel does not tell; try again later."""
        self._due_ns = now_ns + RETRY_NS
        before, self.reading = self.reading, Reading(Health.UNKNOWN, now_ns, f"links are not watched: {why}")
        if before.evidence != self.reading.evidence:
            self._on_change(self.reading)


def trouble_of(link: Link) -> str:
    """Why an interface cannot carry anything; empty if it can."""
    if not link.up:
        return SWITCHED_OFF
    return "" if link.running else WHY_DOWN.get(link.oper_state, NO_CARRIER)
