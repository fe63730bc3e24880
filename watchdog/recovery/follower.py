"""The other half: a node that is told to hold, does so, and says what came of it.

It holds for one recovery at a time, never longer than its own configuration allows, and opens by its kernel if nobody
renews. What the kernel refuses becomes a report, never an error: the coordinator has to know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.recovery.hold import Hold
from pgvigil.watchdog.recovery.plan import MAX_TROUBLE, HoldOrder, HoldReport, Wish

logger = logging.getLogger("pgvigil")

LINGER_NS = 5 * NS_PER_S
"""How long the table outlives its use, so that an order that comes late finds out that the hold was open."""


class Follower:
    """The hold of this host, on behalf of other nodes. Made without a socket: most nodes never hold anything."""

    def __init__(self, open_hold: Callable[[], Hold], clock: Callable[[], int] = boottime_ns) -> None:
        self._open_hold = open_hold
        self._clock = clock
        self._hold: Hold | None = None
        self._cause = 0
        self._coordinator = 0
        self._newest = 0
        self._told_at_ns = 0

    def take(self, sender: int, order: HoldOrder) -> HoldReport | None:
        """Carry an order out; None for one that is older than what was done already."""
        now_ns = self._clock()
        other = self._cause not in (0, order.cause)
        if other and self.is_held(now_ns):
            return _unable(order, f"holds for a recovery that node {self._coordinator} coordinates")
        if order.cause != self._cause:
            self._cause, self._coordinator, self._newest = order.cause, sender, 0
        if order.number <= self._newest:
            return None
        self._newest, self._told_at_ns = order.number, now_ns
        try:
            return self._carry_out(sender, order)
        except (CommandError, OSError) as error:
            self._forget_socket()
            return _unable(order, str(error))

    def _carry_out(self, sender: int, order: HoldOrder) -> HoldReport:
        if order.wish is Wish.RELEASE:
            self.release(f"node {sender} says so")
            return HoldReport(order.cause, order.number, True, 0, 0, 0, "")
        if order.wish is Wish.READY and self.is_held(self._clock()):
            self.release(f"node {sender} does not need it yet")
        if self._hold is None:
            self._hold = self._open_hold()
        if order.wish is Wish.READY:
            self._hold.prepare()
            return HoldReport(order.cause, order.number, True, 0, 0, 0, "")
        return self._held(sender, order, self._hold)

    def _held(self, sender: int, order: HoldOrder, hold: Hold) -> HoldReport:
        was = hold.state
        arrived_ns = self._clock()
        state = hold.hold(order.cause, order.for_ms)
        if not was.until_ns:
            logger.warning("holds back new clients of pgpool-II: node %d coordinates an online recovery", sender)
        if state.breaks > was.breaks:
            logger.warning("the hold of new clients was open for a while: somebody removed it, or it was renewed late")
        held_ms = max(0, state.until_ns - arrived_ns) // NS_PER_MS
        trouble = "" if held_ms else "hold_limit_s is reached: new clients get through"
        return HoldReport(order.cause, order.number, True, held_ms, state.limit_ns, state.breaks, trouble)

    @property
    def is_holding(self) -> bool:
        """Whether there is something to look after."""
        return self._hold is not None

    def is_held(self, now_ns: int) -> bool:
        """Whether new clients are held back now, as far as this process knows."""
        return self._hold is not None and now_ns < self._hold.state.until_ns

    def expire(self, now_ns: int) -> None:
        """Once a second: nobody renews, so the kernel has opened it; nothing is left behind."""
        hold = self._hold
        if hold is not None and now_ns >= max(hold.state.until_ns, self._told_at_ns) + LINGER_NS:
            self.release("nobody has renewed it")

    def release(self, why: str) -> None:
        """Let everybody in."""
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            if hold.state.until_ns:
                logger.info("new clients of pgpool-II get through again: %s", why)
            hold.release()
        except CommandError as error:
            logger.warning("the hold of new clients ends by its time-out only: %s", error)
        finally:
            hold.close()

    def _forget_socket(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None


def _unable(order: HoldOrder, why: str) -> HoldReport:
    return HoldReport(order.cause, order.number, False, 0, 0, 0, why[:MAX_TROUBLE])
