"""The table of `core.vip.decide`: one row per situation, one sentence each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgvigil.watchdog.core.vip import Action, Desired, GateState, Observed, Probe, Wanted, decide

A, G, P = Action, GateState, Probe
NOW, END = 1_000_000_000, 2_000_000_000
REST = Observed(
    now_ns=NOW,
    gate=G.CLOSED,
    armed_for_ns=0,
    present=False,
    missing=True,
    misplaced=False,
    lifetime_ends_ns=0,
    announced=False,
    probe=P.UNASKED,
    busy=False,
)
UP = replace(
    REST,
    gate=G.OPEN,
    armed_for_ns=END,
    present=True,
    missing=False,
    lifetime_ends_ns=END + 10**9,
    announced=True,
    probe=P.FREE,
)

Row = tuple[str, Wanted, int, bool, Observed, tuple[Action, ...]]
ROWS: tuple[Row, ...] = (
    ("at rest there is nothing to do", Wanted.DOWN, 0, True, REST, ()),
    ("a gate left open is closed, then the address goes", Wanted.DOWN, 0, True, UP, (A.CLOSE_GATE, A.REMOVE)),
    ("a command at work is waited for", Wanted.DOWN, 0, True, replace(UP, busy=True), (A.CLOSE_GATE,)),
    (
        "an address in the wrong place goes",
        Wanted.DOWN,
        0,
        True,
        replace(REST, misplaced=True),
        (A.REMOVE_MISPLACED,),
    ),
    ("a missing gate is put back at rest too", Wanted.DOWN, 0, True, replace(REST, gate=G.MISSING), (A.RESTORE_GATE,)),
    ("keep leaves everything to the kernel", Wanted.KEEP, 0, True, UP, ()),
    ("keep puts a missing gate back", Wanted.KEEP, 0, True, replace(UP, gate=G.MISSING), (A.RESTORE_GATE,)),
    ("somebody else is asked first", Wanted.UP, END, True, REST, (A.ASK,)),
    ("nothing is raised while asking", Wanted.UP, END, True, replace(REST, probe=P.ASKING), ()),
    ("nothing is raised over a stranger", Wanted.UP, END, True, replace(REST, probe=P.TAKEN), ()),
    ("the address comes before the gate opens", Wanted.UP, END, True, replace(REST, probe=P.FREE), (A.RAISE, A.ARM)),
    ("all is well", Wanted.UP, END, True, UP, ()),
    ("a renewal arms", Wanted.UP, END + 1, True, UP, (A.ARM,)),
    ("a lease that ends earlier shortens the gate", Wanted.UP, END - 1, True, UP, (A.ARM,)),
    (
        "a lifetime that runs short is renewed",
        Wanted.UP,
        END,
        True,
        replace(UP, lifetime_ends_ns=END + 499_999_999),
        (A.EXTEND,),
    ),
    ("commands know no lifetime", Wanted.UP, END, True, replace(UP, lifetime_ends_ns=None), ()),
    ("what is up and unsaid is announced", Wanted.UP, END, True, replace(UP, announced=False), (A.ANNOUNCE,)),
    (
        "nothing is announced behind a closed gate",
        Wanted.UP,
        END,
        True,
        replace(UP, gate=G.CLOSED, armed_for_ns=0, announced=False),
        (A.ARM,),
    ),
    ("after the lease nothing is raised", Wanted.UP, NOW, True, replace(REST, probe=P.FREE), ()),
    ("after the lease the gate is closed", Wanted.UP, NOW, True, UP, (A.CLOSE_GATE,)),
    ("a removed address is restored", Wanted.UP, END, True, replace(UP, present=False, missing=True), (A.RAISE,)),
    (
        "without a gate the address goes where a gate is required",
        Wanted.UP,
        END,
        True,
        replace(UP, gate=G.MISSING, armed_for_ns=0),
        (A.RESTORE_GATE, A.REMOVE),
    ),
    (
        "without a gate the address stays where none is required",
        Wanted.UP,
        END,
        False,
        replace(UP, gate=G.MISSING, armed_for_ns=0),
        (A.RESTORE_GATE,),
    ),
    (
        "without a gate nothing is raised where a gate is required",
        Wanted.UP,
        END,
        True,
        replace(REST, gate=G.MISSING, probe=P.FREE),
        (A.RESTORE_GATE,),
    ),
)


@pytest.mark.parametrize(("wanted", "end", "required", "observed", "actions"), [row[1:] for row in ROWS])
def test_table(wanted: Wanted, end: int, required: bool, observed: Observed, actions: tuple[Action, ...]) -> None:
    assert decide(Desired(wanted, end, required), observed) == actions


def test_every_row_has_its_own_sentence() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS)
