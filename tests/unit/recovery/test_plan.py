"""The coordinator's half: what is ordered when, what is believed for how long, and that silence releases."""

from __future__ import annotations

import pytest

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.recovery.plan import (
    ABANDONED_NS,
    FAREWELL_NS,
    HOLD_MS,
    NS_PER_MS,
    RENEW_NS,
    STALE_NS,
    HoldOrder,
    HoldReport,
    Plan,
    Stand,
    Wish,
    pack,
    unpack,
)

CAUSE = 77
T0 = 10**12
LIMIT_ID = 5


def holding(order: HoldOrder, held_ms: int = HOLD_MS, hold_id: int = LIMIT_ID, breaks: int = 0) -> HoldReport:
    """What a node says that does as it is told."""
    held = held_ms if order.wish is Wish.HOLD else 0
    return HoldReport(order.cause, order.number, True, held, hold_id, breaks, "")


def unable(order: HoldOrder) -> HoldReport:
    return HoldReport(order.cause, order.number, False, 0, 0, 0, "no nftables here")


def plan_wanting(wish: Wish, now_ns: int = T0) -> tuple[Plan, dict[int, HoldOrder]]:
    """A plan of two others, and its first orders."""
    plan = Plan(CAUSE, (2, 3), 100)
    plan.wants(now_ns, wish)
    return plan, dict(plan.orders(now_ns))


def stands(plan: Plan, now_ns: int) -> list[Stand]:
    return [one.stand for one in plan.standings(now_ns)]


def test_everybody_is_asked_at_once_and_nobody_holds_yet() -> None:
    plan, orders = plan_wanting(Wish.READY)
    assert orders == {node: HoldOrder(CAUSE, 101, Wish.READY, 0) for node in (2, 3)}
    assert stands(plan, T0) == [Stand.SILENT, Stand.SILENT]
    plan.report(T0 + 5, 2, holding(orders[2]))
    plan.report(T0 + 5, 3, unable(orders[3]))
    assert stands(plan, T0 + 5) == [Stand.READY, Stand.UNABLE]
    assert plan.standings(T0 + 5)[1].trouble == "no nftables here"


def test_another_wish_is_said_at_once_and_the_same_every_second() -> None:
    plan, _ = plan_wanting(Wish.READY)
    plan.wants(T0 + 10, Wish.HOLD)
    assert plan.wake() == T0 + 10
    assert dict(plan.orders(T0 + 10))[2] == HoldOrder(CAUSE, 102, Wish.HOLD, HOLD_MS)
    plan.wants(T0 + 20, Wish.HOLD)
    assert plan.orders(T0 + 20) == [] and plan.wake() == T0 + 10 + RENEW_NS
    assert [order.number for _, order in plan.orders(T0 + 10 + RENEW_NS)] == [103, 103]


def test_a_hold_counts_from_the_sending_of_its_order() -> None:
    """The answer comes late; the other kernel began to count in between, and we must not believe it for longer."""
    plan, orders = plan_wanting(Wish.HOLD)
    plan.report(T0 + 2000 * NS_PER_MS, 2, holding(orders[2]))
    (two, three) = plan.standings(T0 + 2000 * NS_PER_MS)
    assert two.stand is Stand.HOLDS and two.left_ms == HOLD_MS - HOLD_MS // 100 - 2000
    assert three.stand is Stand.SILENT


def test_a_hold_that_ran_out_is_none_although_its_node_just_spoke() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    late_ns = T0 + HOLD_MS * NS_PER_MS
    plan.report(late_ns, 2, holding(orders[2]))
    assert stands(plan, late_ns)[0] is Stand.READY


def test_a_node_that_says_nothing_any_more_is_silent_whatever_it_said() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    plan.report(T0, 2, holding(orders[2]))
    assert stands(plan, T0 + STALE_NS - 1)[0] is Stand.HOLDS
    assert stands(plan, T0 + STALE_NS)[0] is Stand.SILENT


def test_old_reports_and_those_of_another_recovery_change_nothing() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    newer = dict(plan.orders(T0 + RENEW_NS))
    plan.report(T0 + RENEW_NS, 2, holding(newer[2]))
    for report in (unable(orders[2]), unable(HoldOrder(CAUSE + 1, 102, Wish.HOLD, HOLD_MS))):
        plan.report(T0 + RENEW_NS, 2, report)
    plan.report(T0 + RENEW_NS, 9, unable(newer[2]))
    plan.report(T0 + RENEW_NS, 2, holding(HoldOrder(CAUSE, 999, Wish.HOLD, HOLD_MS), hold_id=6))
    (two, _) = plan.standings(T0 + RENEW_NS)
    assert two.stand is Stand.HOLDS and two.unbroken == (LIMIT_ID, 0)


def test_a_break_and_a_new_beginning_can_be_seen() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    seen = []
    for report in (
        holding(orders[2]),
        holding(orders[2], breaks=1),
        holding(orders[2], hold_id=LIMIT_ID + 1),
    ):
        plan.report(T0, 2, report)
        seen.append(plan.standings(T0)[0].unbroken)
    assert len(set(seen)) == 3


def test_a_command_line_that_falls_silent_releases() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    plan.report(T0, 2, holding(orders[2]))
    end_ns = T0 + ABANDONED_NS
    for second in range(1, ABANDONED_NS // RENEW_NS):
        assert [order.wish for _, order in plan.orders(T0 + second * RENEW_NS)] == [Wish.HOLD] * 2
    assert plan.wake() <= end_ns
    assert [order.wish for _, order in plan.orders(end_ns)] == [Wish.RELEASE] * 2
    plan.wants(end_ns + 1, Wish.HOLD)
    assert plan.wish is Wish.RELEASE and not plan.is_over(end_ns + 1)


def test_a_release_is_repeated_to_those_who_have_not_confirmed_it() -> None:
    plan, orders = plan_wanting(Wish.HOLD)
    plan.wants(T0 + 1, Wish.RELEASE)
    released = dict(plan.orders(T0 + 1))
    assert set(released) == {2, 3}
    plan.report(T0 + 2, 3, holding(orders[3]))  # an answer to what was ordered before is no confirmation
    plan.report(T0 + 2, 2, holding(released[2]))
    assert [node for node, _ in plan.orders(T0 + 1 + RENEW_NS)] == [3]
    assert not plan.is_over(T0 + FAREWELL_NS)
    assert plan.is_over(T0 + 1 + FAREWELL_NS)


def test_a_release_that_all_have_confirmed_is_over() -> None:
    plan, _ = plan_wanting(Wish.HOLD)
    plan.wants(T0 + 1, Wish.RELEASE)
    for node, order in plan.orders(T0 + 1):
        plan.report(T0 + 2, node, holding(order))
    assert plan.is_over(T0 + 2)


def test_alone_there_is_nothing_to_wait_for() -> None:
    plan = Plan(CAUSE, (), 100)
    plan.wants(T0, Wish.HOLD)
    assert plan.orders(T0) == [] and plan.standings(T0) == () and not plan.is_over(T0)
    plan.wants(T0, Wish.RELEASE)
    assert plan.is_over(T0)


@pytest.mark.parametrize(
    "value", [HoldOrder(1, 2, Wish.HOLD, HOLD_MS), HoldReport(1, 2, False, 0, 0, 3, "the kernel says no")]
)
def test_what_is_packed_can_be_unpacked(value: HoldOrder | HoldReport) -> None:
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "begins with"),
        (b"x123", "begins with"),
        (b"o\xff\xff", "not a valid msgpack frame"),
        (pack(HoldReport(1, 2, True, 0, 0, 0, "x" * 201)), "201 characters"),
        (pack(HoldOrder(1, 2, Wish.HOLD, HOLD_MS + 1)), f"at most {HOLD_MS}"),
        (b"o" + pack(HoldReport(1, 2, True, 0, 0, 0, ""))[1:], "expected"),
    ],
)
def test_what_is_neither_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        unpack(body)
