"""Which backends take part, in which batches, and which wishes are refused with which reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.rolling.cluster import down, pools, primary_and, up

from pgvigil.ipc.errors import CommandError, ConfigError, PeerError
from pgvigil.watchdog.rolling.cluster import Backend, PoolView, Seen, seen_of
from pgvigil.watchdog.rolling.plan import Phase, Plan, Rules, draw_up, resumed

RULES = Rules("true", "half")


def batches(plan: Plan) -> list[list[int]]:
    return [[m.backend_id for m in plan.working if m.batch == number] for number in range(1, plan.batches + 1)]


@pytest.mark.parametrize(
    ("batch", "count", "expected"),
    [
        ("half", 4, [[1, 2], [3, 4]]),
        ("half", 3, [[1, 2], [3]]),
        ("half", 1, [[1]]),
        ("1", 3, [[1], [2], [3]]),
        ("2", 5, [[1, 2], [3, 4], [5]]),
        ("9", 3, [[1, 2, 3]]),
    ],
)
def test_batches(batch: str, count: int, expected: list[list[int]]) -> None:
    plan = draw_up("ab", Rules("true", batch), primary_and(count))
    assert batches(plan) == expected
    assert plan.member(0).phase is Phase.SKIPPED and plan.member(0).note == "it is the primary"


def test_without_a_primary_everybody_takes_part() -> None:
    seen = (up(0, "main"), up(1, "replica"), up(2, "replica"), up(3, "unknown"))
    assert batches(draw_up("ab", RULES, seen)) == [[0, 1], [2, 3]]


def test_what_is_not_attached_everywhere_is_left_out() -> None:
    quarantined = replace(up(2), pools=(PoolView("n1", "up"), PoolView("n2", "up", quarantined=True)))
    unheard = replace(up(3), pools=(PoolView("n1", "up"), PoolView("n2", "up", age_ms=40_000)))
    plan = draw_up("ab", Rules("true", "1"), (up(0), down(1, "disk died"), quarantined, unheard, up(4)))
    assert batches(plan) == [[0], [4]]
    notes = {member.backend_id: member.note for member in plan.members}
    assert "db1:5432 is down (disk died)" in notes[1]
    assert "n2 says up (quarantined)" in notes[2] and "n2 is not known (not heard for 10 s)" in notes[3]


@pytest.mark.parametrize(
    ("rules", "seen", "said"),
    [
        (RULES, (), "knows no backends yet"),
        (RULES, (up(0, "primary"), down(1, "broken")), "no backend to work on: db0:5432: it is the primary; db1"),
        (Rules("true", "half", keep=3), primary_and(3), r"half is 2; attached now: 4, to stay so: 3 \(--keep\)"),
        (Rules("true", "half", keep=3), primary_and(3), "expected --batch 1 or fewer"),
        (Rules("true", "1"), (up(0),), "0 may go at once; attach another backend first"),
        (RULES, (up(0), up(1), down(2, "rolling 77")), r"db2:5432 is detached by another run \(rolling 77\)"),
        (Rules("true", "1", include_primary=True), primary_and(1), "is a failover: pgpool-II would take db1:5432"),
    ],
)
def test_refusals(rules: Rules, seen: Seen, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        draw_up("ab", rules, seen)


def test_a_backend_counts_only_if_every_pgpool_says_so() -> None:
    for views, is_up in (
        ((), False),
        (pools("up"), True),
        ((PoolView("n1", "up"), PoolView("n2", "waiting")), True),
        ((PoolView("n1", "up"), PoolView("n2", "down")), False),
        ((PoolView("n1", "up"), PoolView("n2", "up", failed=True)), False),
        ((PoolView("n1", "up", age_ms=None),), False),
    ):
        assert replace(up(1), pools=views).is_up is is_up
    assert replace(down(1, ""), pools=(PoolView("n1", "down"), PoolView("n2", "unused"))).is_down
    assert not replace(down(1, ""), pools=pools("up")).is_down


def test_a_new_session_takes_up_what_was_cut_short() -> None:
    plan = draw_up("ab", Rules("true", "5"), primary_and(5))
    phases = (Phase.RUNNING, Phase.DETACHED, Phase.FAILED, Phase.RAN, Phase.ATTACHING)
    plan = plan.put(
        *(
            replace(
                member,
                phase=phase,
                attempts=1,
                succeeded=phase in (Phase.RAN, Phase.ATTACHING),
                error="bad",
                process="x",
            )
            for member, phase in zip(plan.working, phases, strict=True)
        )
    )
    again = resumed(replace(plan, sentence="stopped"))
    after = [(member.phase, member.succeeded, member.error, member.process) for member in again.working]
    assert after == [
        (Phase.DETACHING, False, "", ""),
        (Phase.DETACHING, False, "", ""),
        (Phase.DETACHING, False, "", ""),
        (Phase.RAN, True, "", ""),
        (Phase.ATTACHING, True, "", ""),
    ]
    assert again.working[0].note == "its command was cut short, it runs again" and again.sentence == ""


def test_the_list_of_backends() -> None:
    view = {"node": 2, "label": "", "status": "down", "quarantined": False, "age_ms": None}
    other = {"node": 1, "label": "pg01", "status": "up", "quarantined": True, "failed": True, "age_ms": 7}
    first = {"id": 0, "host": "pg01", "port": 5432, "status": "up", "role": "primary", "reason": "", "pools": [other]}
    second = {
        "id": 1, "host": "pg02\x1b[2J", "port": 5432, "status": "down", "role": "standby", "reason": "rolling ab",
        "decision": 3, "pools": [view],
    }  # fmt: skip
    pools = [
        {"node": 1, "label": "pg01", "age_ms": 7, "problem": ""},
        {"node": 2, "label": "pg02", "problem": "no PCP"},
    ]
    value = {"agreed": True, "decided": 3, "backends": [second, first], "pools": pools}
    assert seen_of(value) == (
        Backend(0, "pg01", 5432, "up", "primary", "",
                (PoolView("pg01", "up", True, True, 7), PoolView("pg02", "", age_ms=None, problem="no PCP"))),
        Backend(1, "pg02?[2J", 5432, "down", "standby", "rolling ab",
                (PoolView("2", "down", age_ms=None, problem="no PCP"),
                 PoolView("pg01", "", age_ms=None, problem="it does not list it"))),
    )  # fmt: skip
    with pytest.raises(CommandError, match="does not know what the cluster agrees on"):
        seen_of(value | {"agreed": False})
    nonsenses: tuple[object, ...] = (None, [], {}, {"backends": {}}, {"backends": [1]}, {"backends": [{"id": True}]},
        {"backends": [{"id": 1, "host": 5}]}, {"backends": [{"id": 1, "host": "a", "port": -1}]},
        {"backends": [{"id": 1, "host": "a", "port": 1, "status": "up", "role": "x", "pools": 1}]},
        {"backends": [first] * 129}, {"backends": [], "pools": 1}, {"backends": [first], "pools": [{"node": "1"}]},
    )  # fmt: skip
    for nonsense in nonsenses:
        with pytest.raises(PeerError):
            seen_of({"agreed": True} | nonsense if isinstance(nonsense, dict) else nonsense)
