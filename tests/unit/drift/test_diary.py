"""What the log is told of differences: each once, its end once, and nothing that ends within the time of a reload."""

from __future__ import annotations

from pgvigil.watchdog.core.events import Note
from pgvigil.watchdog.drift.compare import Difference
from pgvigil.watchdog.drift.diary import GRACE_NS, LINES, Diary
from pgvigil.watchdog.drift.messages import State

LABELS = {1: "pg01", 2: "pg02", 3: "pg03"}
MILD, OTHER = Difference("vip.driver", "netlink", "command"), Difference("vip.driver", "netlink", "third")
FATAL = Difference("nodes", "1 2", "1 2 3")


def texts(notes: list[Note]) -> list[str]:
    return [f"{note.level.value}: {note.text}" for note in notes]


def state(*told: Difference, differing: int = 0) -> State:
    return State(1, bytes(16), bytes(16), b"", 1, differing or len(told), told)


def test_a_mild_one_is_told_once_after_the_grace() -> None:
    diary = Diary(LABELS)
    assert diary.own((MILD,), 1, 0) == []
    assert diary.own((MILD,), 1, GRACE_NS - 1) == []
    expected = ["warning: differs from the leader pg01: vip.driver: here netlink, leader command"]
    assert texts(diary.own((MILD,), 1, GRACE_NS)) == expected
    assert diary.own((MILD,), 1, 2 * GRACE_NS) == []
    assert diary.since_ns(MILD) == 0
    assert texts(diary.own((), 1, 3 * GRACE_NS)) == ["info: no longer differs from the leader: vip.driver"]
    assert diary.since_ns(MILD) is None


def test_one_that_ends_in_time_is_never_told() -> None:
    diary = Diary(LABELS)
    assert diary.own((MILD,), 1, 0) == diary.own((), 1, GRACE_NS - 1) == diary.own((), 1, 2 * GRACE_NS) == []


def test_another_value_is_another_difference() -> None:
    diary = Diary(LABELS)
    diary.own((MILD,), 1, 0)
    diary.own((MILD,), 1, GRACE_NS)
    assert diary.own((OTHER,), 1, GRACE_NS + 1) == []
    assert texts(diary.own((OTHER,), 1, 2 * GRACE_NS + 1)) == [
        "warning: differs from the leader pg01: vip.driver: here netlink, leader third"
    ]


def test_a_fatal_one_is_told_at_once_with_its_consequence() -> None:
    assert texts(Diary(LABELS).own((FATAL, MILD), 1, 0)) == [
        "warning: differs from the leader pg01: nodes: here 1 2, leader 1 2 3; this node does not lead until they agree"
    ]


def test_agreement_is_told_once_after_a_start_if_there_is_a_leader() -> None:
    diary = Diary(LABELS)
    assert diary.own((), 0, 0) == []
    assert texts(diary.own((), 2, 1)) == ["info: its settings agree with those of the leader pg02"]
    assert diary.own((), 2, 2) == diary.own((), 3, 3) == []


def test_of_many_differences_the_first_are_told_and_the_rest_counted() -> None:
    for more, said in ((3, "3 more settings differ"), (1, "1 more setting differs")):
        found = [Difference(f"node.{number}.host", "a", "b") for number in range(LINES + more)]
        notes = texts(Diary(LABELS).own(found, 1, 0))
        assert len(notes) == LINES + 1 and notes[-1] == f"warning: {said} from those of pg01"


def test_the_leader_tells_of_a_node_once_and_when_it_says_no_more() -> None:
    diary = Diary(LABELS)
    assert diary.others({2: state(MILD)}, 0) == []
    assert texts(diary.others({2: state(MILD), 3: state(FATAL, MILD, differing=5)}, GRACE_NS)) == [
        "warning: pg02 differs from this leader in 1 setting: vip.driver: here netlink, leader command",
        "warning: pg03 differs from this leader in 5 settings, which keeps it out of the succession: nodes: here 1 2, "
        "leader 1 2 3; vip.driver: here netlink, leader command",
    ]
    assert diary.others({2: state(OTHER), 3: state(FATAL, MILD)}, 2 * GRACE_NS) == []
    assert texts(diary.others({2: state(OTHER)}, 3 * GRACE_NS)) == [
        "info: pg03 does not report differences from this leader any more"
    ]


def test_a_new_leader_says_nothing_of_the_end_of_what_was_told_before() -> None:
    diary = Diary(LABELS)
    diary.own((FATAL,), 1, 0)
    diary.others({3: state(FATAL)}, 0)
    diary.new_leader(leads=True)
    assert diary.others({}, 1) == diary.own((), 1, 1)[1:] == []
    assert not any("no longer" in text for text in texts(diary.own((), 1, 2)))
