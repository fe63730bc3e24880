"""The agreed table: every change of a state has a new number, and the document never outgrows a message."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.backend_bench import (
    DOWN,
    KIND_DOWN,
    KIND_UP,
    PRIMARY,
    PROMOTE,
    STANDBY,
    UP,
    agreed,
    down_document,
    look,
    table,
)

from pgvigil.ipc import codec
from pgvigil.watchdog.core.backends import (
    FOLLOWS,
    MAX_BACKENDS,
    arguments_for,
    arguments_to_follow,
    corrected_roles,
    decided,
    first_table,
    followers,
    id_of,
    number_of,
    settled,
    short,
    tended_table,
    unlisted,
    with_intent,
    with_primary,
)
from pgvigil.watchdog.core.consensus import MAX_ARGUMENT_BYTES, MAX_HOST_BYTES
from pgvigil.watchdog.core.messages import Renew, SeenStatus
from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    Decision,
    DecisionKind,
    Document,
    Intent,
    Record,
    blank_record,
)

STEPS = st.lists(st.tuples(st.sampled_from([KIND_DOWN, KIND_UP, PROMOTE]), st.integers(0, 2)), max_size=30)


def decision(document: Document, kind: DecisionKind = KIND_DOWN, backend_id: int = 0) -> Decision:
    """The next one."""
    return Decision(document.decided + 1, kind, backend_id, True, 1, "why")


@given(steps=STEPS)
def test_p23d_every_change_of_a_state_has_a_number_of_its_own(steps: list[tuple[DecisionKind, int]]) -> None:
    document = agreed()
    for kind, backend_id in steps:
        after = decided(document, decision(document, kind, backend_id))
        if kind is PROMOTE:
            after = with_primary(after, backend_id, after.decided, True)
        for old, new in zip(document.backends, after.backends, strict=True):
            assert (new.status is old.status or new.decision == after.decided) and new.decision >= old.decision
        assert sum(item.role is PRIMARY for item in after.backends) <= 1
        assert len(after.decisions) <= 16 and after.decided == document.decided + 1
        document = after


def test_p23d_followers_wait_until_they_follow() -> None:
    document = decided(agreed(), decision(agreed()))
    document = with_primary(document, 1, 2, True)
    assert [item.backend_id for item in followers(document)] == [2]
    assert with_primary(decided(agreed(), decision(agreed())), 1, 2, False).backends[2].status is UP


def test_p23d_followers_of_a_primary_that_failed_follow_the_next_one() -> None:
    four = replace(agreed(), backends=(*table(), replace(table()[2], backend_id=3, host="db3")))
    document = with_primary(decided(four, decision(four)), 1, 2, True)
    document = decided(document, decision(document, KIND_UP, 2))  # it has followed; backend 3 still waits
    document = with_primary(decided(document, decision(document, KIND_DOWN, 1)), 2, 4, True)
    assert [(item.backend_id, item.decision) for item in followers(document)] == [(3, 4)]


def test_p23d_an_operators_reason_makes_nobody_a_follower() -> None:
    document = decided(agreed(), replace(decision(agreed()), reason=FOLLOWS))
    assert followers(document) == ()


def test_p23d_a_failover_whose_new_main_is_down_changes_no_role() -> None:
    intent = Intent("failover", "decision 2", "once", 1, 1, 1, "pending", ("d=0", "m=1"))
    document = down_document(intents=(intent,))
    document = replace(document, backends=(document.backends[0], replace(table()[1], status=DOWN), table()[2]))
    after = settled(document, intent, "done", "", True, 1)
    assert after.backends == document.backends and after.intents[0].state == "done"


def test_arguments_are_those_of_the_asker_and_what_is_missing_from_the_table() -> None:
    document = decided(agreed(), decision(agreed()))
    asked = ("d=0", "m=2", "D=/data", "R=/d2")
    found = arguments_for(document, document.decisions[-1], asked)
    assert set(found) == {
        "d=0", "h=db0", "p=5432", "D=/data", "m=2", "H=db2", "r=5432", "R=/d2", "P=0", "N=db0", "S=5432", "M=0",
    }  # fmt: skip


def test_the_table_knows_the_primary_better_than_a_pgpool_that_still_looks_for_it() -> None:
    document = decided(agreed(), decision(agreed()))
    asked = ("d=0", "h=db0", "p=5432", "D=/data", "m=1", "H=db1", "r=5432", "R=/d1", "P=1", "N=db1", "S=5432", "M=1")
    found = arguments_for(document, document.decisions[-1], asked)
    assert {"P=0", "N=db0", "S=5432", "M=0", "d=0", "m=1", "D=/data", "R=/d1"} <= set(found) and len(found) == 12


def test_without_a_primary_in_the_table_that_of_the_asker_counts() -> None:
    unknown = replace(agreed(), backends=tuple(replace(item, role=BackendRole.UNKNOWN) for item in agreed().backends))
    document = decided(unknown, decision(unknown))
    found = arguments_for(document, document.decisions[-1], ("P=2", "N=db2", "S=5432"))
    assert {"P=2", "N=db2", "S=5432"} <= set(found)


@pytest.mark.parametrize("asked", [("m=0",), ("m=-1",), ("m=7",), ("m=x",), ()])
def test_a_new_main_node_that_cannot_be_is_replaced(asked: tuple[str, ...]) -> None:
    document = decided(agreed(), decision(agreed()))
    found = arguments_for(document, document.decisions[-1], asked)
    assert id_of(found, "m") == 1 and "H=db1" in found


@pytest.mark.parametrize(
    ("asked", "doubted", "main"),
    [((), (1,), 2), (("m=1", "R=/d1"), (1,), 2), (("m=2",), (1,), 2), (("m=2",), (1, 2), 2), ((), (1, 2), 1)],
)
def test_a_doubted_backend_is_the_new_main_node_only_if_all_are(
    asked: tuple[str, ...], doubted: tuple[int, ...], main: int
) -> None:
    document = decided(agreed(), decision(agreed()))
    found = arguments_for(document, document.decisions[-1], asked, doubted)
    assert id_of(found, "m") == main and f"H=db{main}" in found and "R=/d1" not in found


def test_without_any_backend_left_there_is_no_main_node() -> None:
    document = replace(agreed(), backends=table()[:1])
    document = decided(document, decision(document))
    assert {"m=-1", "H=", "d=0"} <= set(arguments_for(document, document.decisions[-1], ()))


def test_a_follower_is_told_the_new_primary_and_the_old_one() -> None:
    document = with_primary(decided(agreed(), decision(agreed())), 1, 2, True)
    found = arguments_to_follow(document, followers(document)[0], document.backends[1])
    assert {"d=2", "h=db2", "m=1", "H=db1", "P=0", "N=db0"} <= set(found)


def test_the_first_table_is_what_most_views_agree_on() -> None:
    views = {
        1: (look(0), look(1, SeenStatus.DOWN), look(2)),
        2: (look(0), look(1, SeenStatus.DOWN)),
        3: (look(0, role=STANDBY), look(1), look(9, SeenStatus.UNUSED)),
    }
    found = first_table(views, 1)
    assert [(item.backend_id, item.status, item.role) for item in found] == [(0, UP, PRIMARY), (1, UP, STANDBY)]


def test_a_backend_that_moved_is_another_one() -> None:
    document = agreed()
    moved = tuple(replace(look(item), host="new") if item == 2 else look(item) for item in range(3))
    views = {1: moved, 2: moved, 3: moved}
    assert unlisted(document, views) == (2,)
    assert tended_table(document, views, 3, ()) is document
    after = tended_table(document, views, 3, (2,))
    assert [(item.host, item.decision) for item in after.backends][2] == ("new", 2)


def test_a_minority_adds_nothing_and_corrects_nothing() -> None:
    views = {1: (look(0, role=STANDBY), look(1, role=PRIMARY), look(2), look(3))}
    assert tended_table(agreed(), views, 3, ()) == agreed()
    assert corrected_roles(agreed(), views, 3).backends == table()


def test_a_primary_that_is_agreed_to_be_down_is_not_taken_over() -> None:
    document = down_document(backends=(replace(table()[0], role=STANDBY, status=DOWN), *table()[1:]))
    views = {node: (look(0), look(1), look(2)) for node in (1, 2, 3)}
    assert corrected_roles(document, views, 3).backends == document.backends


def test_a_new_backend_is_no_second_primary() -> None:
    document = agreed()
    views = {node: (look(0, SeenStatus.DOWN), look(1), look(2), look(3, role=PRIMARY)) for node in (1, 2, 3)}
    tended = tended_table(document, views, 3, ())
    assert [item.backend_id for item in tended.backends if item.role is PRIMARY] == [0]
    corrected = corrected_roles(tended, views, 3)
    assert [item.backend_id for item in corrected.backends if item.role is PRIMARY] == [3]


def test_pending_commands_are_never_forgotten() -> None:
    document = agreed()
    for number in range(40):
        state = "pending" if number % 3 == 0 else "done"
        document = with_intent(document, Intent("failover", f"decision {number}", "once", 1, 1, number, state))
    assert [item.event for item in document.intents if item.state == "pending"] == [
        f"decision {number}" for number in range(0, 40, 3)
    ]


def test_the_newest_of_each_name_is_never_forgotten() -> None:
    document = with_intent(agreed(), Intent("escalation", "term 4", "once", 4, 1, 1, "done"))
    for number in range(40):
        document = with_intent(document, Intent("failover", f"decision {number}", "once", 4, 1, 2 + number, "done"))
    assert document.intents[0].event == "term 4" and len(document.intents) == 16


def test_the_largest_document_fits_into_a_message() -> None:
    long = short("x" * 1000)
    host = "h" * MAX_HOST_BYTES
    backends = tuple(Backend(number, host, 65535, DOWN, BackendRole.STANDBY, long, 2**40) for number in range(64))
    decisions = tuple(Decision(2**40 + number, PROMOTE, 1, True, 9, long) for number in range(16))
    filled = replace(agreed(), backends=(replace(table()[0], host=host), replace(table()[1], host=host)))
    asked = ("a" * MAX_ARGUMENT_BYTES,)
    arguments = arguments_for(filled, decision(filled), asked)
    assert sum(map(len, arguments)) > MAX_ARGUMENT_BYTES + 3 * MAX_HOST_BYTES
    intents = tuple(
        Intent("follow_primary", "decision 1099511627776 backend 63", "retry", 9, 9, 9, "pending", arguments, long)
        for _ in range(16)
    )
    document = replace(agreed(size=9), backends=backends, decided=2**41, decisions=decisions, intents=intents)
    record = replace(blank_record("c", 1, 1), document=document)
    assert len(backends) == MAX_BACKENDS and codec.decode(Record, codec.encode(record)) == record
    renewal = Renew(2**40, 2**40, 2**40, 60_000, document.stamp, document, document.stamp)
    assert len(codec.encode(renewal)) <= codec.MAX_BIN_BYTES


def test_backends_that_wait_to_follow_keep_their_decision() -> None:
    standbys = tuple(replace(table(2)[1], backend_id=number) for number in range(1, 30))
    document = replace(agreed(), backends=(table()[0], *standbys))
    document = decided(document, decision(document, PROMOTE, 1))
    document = with_primary(document, 1, document.decided, follow=True)
    assert len(followers(document)) == 28
    for done in range(28):
        first = followers(document)[0]
        document = decided(document, decision(document, KIND_UP, first.backend_id))
        assert len(followers(document)) == 27 - done
        assert len(document.decisions) <= 17


@pytest.mark.parametrize(("event", "number"), [("decision 7", 7), ("decision 7 backend 2", 7), ("term 7", 0), ("", 0)])
def test_events_tell_their_decision(event: str, number: int) -> None:
    assert number_of(event) == number


def test_short_texts_are_one_line_of_so_many_bytes() -> None:
    assert short("a\n b\tc") == "a b c" and len(short("é" * 300).encode()) == 200
    assert short("\ud800x") == "?x"
