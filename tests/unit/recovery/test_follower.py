"""A node that is told to hold: one recovery at a time, never beyond its limit, and the kernel's no becomes a report."""

from __future__ import annotations

import errno
from typing import cast

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.netlink import KernelRefusal
from pgvigil.watchdog.recovery.follower import LINGER_NS, Follower
from pgvigil.watchdog.recovery.hold import Hold, HoldState
from pgvigil.watchdog.recovery.plan import HOLD_MS, HoldOrder, HoldReport, Wish

LIMIT_NS = 10 * NS_PER_S


class Host:
    """The clock and the kernel of one host; `flushed` says that somebody removed the table."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.refusal: KernelRefusal | None = None
        self.flushed = False
        self.opened = 0
        self.done: list[str] = []
        self.follower = Follower(self.open_hold, lambda: self.now_ns)

    def open_hold(self) -> Hold:
        self.opened += 1
        return cast(Hold, FakeHold(self))

    def tell(self, wish: Wish, number: int, cause: int = 7, sender: int = 1) -> HoldReport | None:
        return self.follower.take(sender, HoldOrder(cause, number, wish, HOLD_MS if wish is Wish.HOLD else 0))

    def told(self, wish: Wish, number: int, cause: int = 7) -> HoldReport:
        report = self.tell(wish, number, cause)
        assert report is not None
        return report


class FakeHold:
    """What `Hold` keeps, without a kernel."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.state = HoldState()

    def prepare(self) -> None:
        self._act("prepare")

    def hold(self, cause: int, for_ms: int) -> HoldState:
        self._act("hold")
        host = self._host
        limit_ns = self.state.limit_ns or host.now_ns + LIMIT_NS
        until_ns = min(host.now_ns + for_ms * NS_PER_MS, limit_ns)
        self.state = HoldState(until_ns, limit_ns, self.state.breaks + int(host.flushed))
        host.flushed = False
        return self.state

    def release(self) -> None:
        self._act("release")
        self.state = HoldState()

    def close(self) -> None:
        self._host.done.append("close")

    def _act(self, what: str) -> None:
        self._host.done.append(what)
        if self._host.refusal is not None:
            raise self._host.refusal


def test_it_is_asked_holds_renews_and_lets_go() -> None:
    host = Host()
    assert host.told(Wish.READY, 1) == HoldReport(7, 1, True, 0, 0, 0, "")
    assert not host.follower.is_held(host.now_ns)
    first = host.told(Wish.HOLD, 2)
    assert (first.held_ms, first.hold_id, first.breaks) == (HOLD_MS, host.now_ns + LIMIT_NS, 0)
    assert host.follower.is_held(host.now_ns) and host.opened == 1
    host.now_ns += NS_PER_S
    assert host.told(Wish.HOLD, 3).hold_id == first.hold_id
    assert host.told(Wish.RELEASE, 4) == HoldReport(7, 4, True, 0, 0, 0, "")
    assert not host.follower.is_held(host.now_ns) and not host.follower.is_holding
    assert host.done == ["prepare", "hold", "hold", "release", "close"]


def test_a_false_alarm_is_no_beginning_of_the_limit() -> None:
    host = Host()
    host.told(Wish.HOLD, 1)
    host.now_ns += 5 * NS_PER_S
    assert host.told(Wish.READY, 2).able and not host.follower.is_held(host.now_ns)
    host.now_ns += 100 * NS_PER_S
    assert host.told(Wish.HOLD, 3).held_ms == HOLD_MS


def test_an_order_that_was_overtaken_does_nothing() -> None:
    host = Host()
    host.told(Wish.HOLD, 2)
    host.told(Wish.RELEASE, 3)
    assert host.tell(Wish.HOLD, 2) is None and host.tell(Wish.HOLD, 3) is None
    assert not host.follower.is_holding


def test_one_recovery_at_a_time() -> None:
    host = Host()
    host.told(Wish.HOLD, 5)
    other = host.tell(Wish.HOLD, 1, cause=8, sender=3)
    assert other is not None and not other.able and other.trouble == "holds for a recovery that node 1 coordinates"
    assert host.tell(Wish.RELEASE, 2, cause=8, sender=3) is not None
    assert host.follower.is_held(host.now_ns)
    host.now_ns += HOLD_MS * NS_PER_MS
    assert host.told(Wish.HOLD, 3, cause=8).able


def test_nothing_is_held_beyond_the_limit_and_the_report_says_why() -> None:
    host = Host()
    host.told(Wish.HOLD, 1)
    host.now_ns += 7 * NS_PER_S
    assert host.told(Wish.HOLD, 2).held_ms == 3000
    host.now_ns += 4 * NS_PER_S
    last = host.told(Wish.HOLD, 3)
    assert last.held_ms == 0 and last.trouble.startswith("hold_limit_s is reached")


def test_what_somebody_flushed_is_reported_as_a_break() -> None:
    host = Host()
    host.told(Wish.HOLD, 1)
    host.flushed = True
    assert [host.told(Wish.HOLD, number).breaks for number in (2, 3)] == [1, 1]


def test_what_the_kernel_refuses_becomes_a_report_and_is_tried_again() -> None:
    host = Host()
    host.refusal = KernelRefusal("nftables table pgvigil_hold", errno.EPERM)
    report = host.told(Wish.READY, 1)
    assert not report.able and "EPERM" in report.trouble and not host.follower.is_holding
    host.refusal = None
    assert host.told(Wish.READY, 2).able and host.opened == 2


def test_when_nobody_renews_nothing_is_left_behind() -> None:
    host = Host()
    host.told(Wish.HOLD, 1)
    host.now_ns += HOLD_MS * NS_PER_MS
    host.follower.expire(host.now_ns)
    assert host.follower.is_holding  # an order that comes late still has to find out that it was open
    host.now_ns += LINGER_NS
    host.follower.expire(host.now_ns)
    assert host.done[-2:] == ["release", "close"] and not host.follower.is_holding


def test_a_table_that_cannot_be_removed_is_left_to_its_time_out() -> None:
    host = Host()
    host.told(Wish.HOLD, 1)
    host.refusal = KernelRefusal("nftables table pgvigil_hold", errno.EBUSY)
    assert host.told(Wish.RELEASE, 2).able
    assert host.done[-1] == "close" and not host.follower.is_holding
