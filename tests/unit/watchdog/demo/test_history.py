"""The history checker on histories that are known to be good or bad: each verdict must be able to fire."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.demo.matrix.history import (
    History,
    Judgement,
    Wrong,
    both_held_ms,
    contradictions,
    holders_at,
    judge,
    proven,
)
from pgvigil.watchdog.demo.records import Record

MS = NS_PER_MS
END_MS = 4000


def answers(who: int, first_ms: int, last_ms: int, every_ms: int = 2) -> list[Record]:
    """A node that answers regularly, half a millisecond after each question."""
    return [Record(at * MS, at * MS + MS // 2, who) for at in range(first_ms, last_ms, every_ms)]


def losses(first_ms: int, last_ms: int, every_ms: int = 2) -> list[Record]:
    return [Record(at * MS, 0, 0) for at in range(first_ms, last_ms, every_ms)]


def comes(at_ms: int) -> Record:
    return Record(at_ms * MS, at_ms * MS + 1, 0)


def goes(at_ms: int) -> Record:
    return Record(at_ms * MS, 0, 0)


def history(
    tcp: Sequence[Record],
    arp: Sequence[Record] | None = None,
    packets: Sequence[Record] | None = None,
    held: dict[int, list[Record]] | None = None,
    settled: bool = True,
    rest_ms: int = END_MS + 1000,
) -> History:
    """A window of four seconds; what is not given is what a healthy node 1 would leave."""
    views = {
        "TCP": tcp,
        "ARP": answers(1, 0, rest_ms, 5) if arp is None else arp,
        "packets": answers(1, 0, rest_ms, 10) if packets is None else packets,
    }
    return History(0, END_MS * MS, rest_ms * MS, settled, views, {1: [comes(0)]} if held is None else held)


def moved(gone_ms: int, back_ms: int) -> History:
    """Node 1 answers, then nobody, then node 2, in all views."""
    tcp = answers(1, 0, gone_ms) + losses(gone_ms, back_ms) + answers(2, back_ms, END_MS)
    arp = answers(1, 0, gone_ms, 5) + answers(2, back_ms, END_MS, 5)
    packets = answers(1, 0, gone_ms, 10) + answers(2, back_ms, END_MS, 10)
    return history(tcp, arp, packets, {1: [comes(0), goes(gone_ms + 5)], 2: [comes(back_ms - 1)]})


def kinds(found: Judgement) -> set[Wrong]:
    return {fault.kind for fault in found.faults}


def test_a_quiet_history_holds() -> None:
    found = judge(history(answers(1, 0, END_MS)), 0)
    assert found.holds and found.verdict == "holds"
    assert (found.outage_ms, found.lost, found.two_instants, found.owners, found.holders) == (0, 0, 0, (1,), (1,))


def test_a_move_within_the_limit_holds_and_its_outage_is_told() -> None:
    found = judge(moved(1000, 2200), 1500)
    assert found.holds, found.verdict
    assert found.outage_ms == pytest.approx(1202, abs=2)
    assert (found.owners, found.holders) == ((1, 2), (2,))


def test_a_gap_that_is_too_long_is_slow_and_nothing_else() -> None:
    found = judge(moved(1000, 2700), 1500)
    assert kinds(found) == {Wrong.SLOW}
    assert "1702 ms without an answer" in found.verdict


def test_one_lost_question_is_too_much_where_nothing_may_be_lost() -> None:
    tcp = answers(1, 0, 1000) + losses(1000, 1002) + answers(1, 1002, END_MS)
    found = judge(history(tcp), 0)
    assert kinds(found) == {Wrong.SLOW}
    assert judge(history(tcp), 50).holds


def test_a_fast_move_where_nothing_may_move_is_told_although_no_question_was_lost() -> None:
    found = judge(moved(1000, 1000), 0)
    assert kinds(found) == {Wrong.MOVED}
    assert "n1>n2" in found.verdict


def test_a_service_that_never_comes_back_is_told() -> None:
    found = judge(history(answers(1, 0, 1000) + losses(1000, END_MS), settled=False), 1500)
    assert kinds(found) == {Wrong.GONE, Wrong.UNREST, Wrong.SLOW}


def test_a_service_that_comes_back_and_goes_again_is_told() -> None:
    tcp = answers(1, 0, 1000) + losses(1000, 1500) + answers(1, 1500, 3000) + losses(3000, END_MS)
    assert kinds(judge(history(tcp), 1500)) == {Wrong.GONE}


def test_a_history_without_any_question_is_blind_and_not_good() -> None:
    found = judge(history([]), 1500)
    assert Wrong.BLIND in kinds(found) and not found.holds


def test_a_sampler_that_heard_nobody_proves_nothing() -> None:
    assert kinds(judge(history(answers(1, 0, END_MS), arp=[]), 0)) == {Wrong.BLIND}
    assert kinds(judge(history(answers(1, 0, END_MS), packets=losses(0, END_MS, 10)), 0)) == {Wrong.BLIND}


def test_a_prober_that_slept_is_blamed_itself() -> None:
    found = judge(history(answers(1, 0, 1000) + losses(2000, 2010) + answers(1, 2010, END_MS)), 500)
    assert kinds(found) == {Wrong.LATE, Wrong.SLOW}


@pytest.mark.parametrize("view", ["TCP", "ARP", "packets"])
def test_two_answering_in_any_view_is_found(view: str) -> None:
    extra = answers(2, 1000, 1100, 10)
    views = {"tcp": answers(1, 0, END_MS), "arp": answers(1, 0, END_MS, 5), "packets": answers(1, 0, END_MS, 10)}
    views[view.lower()] = views[view.lower()] + extra
    found = judge(history(views["tcp"], views["arp"], views["packets"]), 0)
    assert found.shows(Wrong.TWO) and found.two_instants >= 1


def test_two_answering_across_views_is_found() -> None:
    """Clients that reach node 1 by an old neighbour entry, while ARP already names node 2."""
    arp = answers(1, 0, 2000, 5) + answers(2, 2000, 2100, 5) + answers(1, 2100, END_MS, 5)
    found = judge(history(answers(1, 0, END_MS), arp=arp), 1500)
    assert kinds(found) == {Wrong.TWO}
    assert found.two_instants >= 20


def test_one_single_answer_beside_another_node_is_found() -> None:
    packets = [*answers(1, 0, END_MS, 10), Record(2001 * MS, 2001 * MS + MS // 4, 3)]
    found = judge(history(answers(1, 0, END_MS), packets=packets), 1500)
    assert (found.two_instants, kinds(found)) == (1, {Wrong.TWO})


def test_two_answering_while_the_cluster_settles_counts_too() -> None:
    late = answers(1, 0, END_MS + 1000, 5) + answers(2, END_MS + 500, END_MS + 600, 5)
    found = judge(history(answers(1, 0, END_MS), arp=late), 0)
    assert found.shows(Wrong.TWO)


def test_a_hand_over_without_any_pause_is_no_contradiction() -> None:
    assert judge(moved(1000, 1000), 50).two_instants == 0


def test_a_late_answer_proves_nothing_about_the_instant_of_its_question() -> None:
    """Asked while node 1 answered, held up, and answered by node 2 after the move."""
    held_up = Record(1000 * MS, 1400 * MS, 2)
    assert contradictions([*answers(1, 0, 1100), held_up, *answers(2, 1200, 2000)]) == []


def test_an_address_on_two_nodes_at_rest_is_left_behind() -> None:
    found = judge(history(answers(1, 0, END_MS), held={1: [comes(0)], 3: [comes(900)]}), 0)
    assert kinds(found) == {Wrong.LEFT}
    assert found.holders == (1, 3)
    assert found.both_held_ms == END_MS + 1000 - 900


def test_an_address_on_no_node_at_rest_is_told() -> None:
    found = judge(history(answers(1, 0, END_MS), held={1: [comes(0), goes(4500)]}), 0)
    assert kinds(found) == {Wrong.LEFT}
    assert "nobody" in found.verdict


def test_an_address_behind_a_closed_gate_is_allowed_but_told() -> None:
    held = {1: [comes(0), goes(1500)], 2: [comes(1000)]}
    found = judge(history(answers(2, 0, END_MS), answers(2, 0, 5000, 5), answers(2, 0, 5000, 10), held), 1500)
    assert found.holds, found.verdict
    assert found.both_held_ms == 500


def test_holders_follow_the_changes() -> None:
    held = {1: [comes(10), goes(20)], 2: [comes(30)], 3: []}
    assert [holders_at(held, at * MS) for at in (5, 15, 25, 35)] == [(), (1,), (), (2,)]
    assert both_held_ms(held, 0, 40 * MS) == 0


def test_a_pause_in_the_answers_ends_what_is_proven() -> None:
    records = answers(1, 0, 100) + answers(1, 500, 600)
    assert proven(records) == [(MS // 2, 98 * MS), (500 * MS + MS // 2, 598 * MS)]
    assert proven(records[:1]) == []


@given(turns=st.lists(st.integers(60, 300), min_size=1, max_size=8), delay_us=st.integers(1, 20_000))
def test_nodes_that_take_turns_never_look_like_two(turns: list[int], delay_us: int) -> None:
    """Whatever the delays: each question is answered by whoever has the address at some time before the answer."""
    records: list[Record] = []
    at_ms = 0
    for index, length_ms in enumerate(turns):
        for asked_ms in range(at_ms, at_ms + length_ms, 2):
            served_ns = min(asked_ms * MS + delay_us * 1000, (at_ms + length_ms) * MS - 1)
            records.append(Record(asked_ms * MS, max(served_ns, asked_ms * MS + 1), index % 3 + 1))
        at_ms += length_ms
    assert contradictions(records) == []


@given(start_ms=st.integers(100, 3000), length_ms=st.integers(1, 200))
def test_every_second_answerer_is_found_however_short(start_ms: int, length_ms: int) -> None:
    second = [Record(at * MS + 1, at * MS + 1000, 2) for at in range(start_ms, start_ms + length_ms)]
    found = contradictions(answers(1, 0, 3500) + second)
    # What is asked and answered between two answers of node 1 is proof. Those right at its edges are none.
    assert len(found) >= length_ms - 1
