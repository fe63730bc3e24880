"""Asks and votes about backends (P23 b and c), rule by rule. `backend_mutants.py` proves that each test bites."""

from __future__ import annotations

from tests.unit.core.backend_bench import (
    DOWN,
    KIND_UP,
    LEADERS,
    PRIMARY,
    SEEN_DOWN,
    UP,
    BackendBench,
    agreed,
    asked_of,
    decided_by_two,
    down_document,
    following,
    look,
)

from pgvigil.watchdog.core.base import CoreConsensus
from pgvigil.watchdog.core.messages import Outcome, Seen, TellBackend
from pgvigil.watchdog.core.record import Intent, Stamp

# --- b: asks ----------------------------------------------------------------------------------------


def test_p23b_an_ask_is_repeated_until_it_is_answered() -> None:
    bench = following()
    effects = bench.wants() + bench.wait_until(250)
    assert [(ask.decision, ask.boot) for ask in asked_of(effects)] == [(1, 5), (1, 5)]
    bench.hear(260, LEADERS, TellBackend(5, 1, Outcome.BUSY, "waits for consensus: 1 of 2"))
    bench.hear(261, LEADERS, TellBackend(5, 1, Outcome.BUSY, "waits for consensus: 1 of 2"))
    bench.hear(270, LEADERS, TellBackend(5, 1, Outcome.DONE, "decision 2"))
    assert [(item.final, item.accepted) for item in bench.answers] == [(False, False), (True, True)]
    assert asked_of(bench.wait_until(900)) == []


def test_p23b_an_ask_keeps_the_number_under_which_it_was_asked() -> None:
    bench = following()
    bench.wants()
    bench.follow(down_document(stamp=Stamp(3, 3)), 2)
    assert [ask.decision for ask in asked_of(bench.wait_until(250))] == [1]


def test_p23b_an_answer_to_an_earlier_life_is_dropped() -> None:
    bench = following()
    bench.wants()
    bench.hear(10, LEADERS, TellBackend(4, 1, Outcome.DONE, "decision 2"))
    assert bench.answers == []


def test_p23b_every_ask_ends_at_its_time() -> None:
    alone = BackendBench()
    alone.start()
    for bench, said in ((following(), "unknown"), (alone, "refused")):
        bench.wants(until_ms=700)
        bench.wait_until(700)
        assert bench.answers
        last = bench.answers[-1]
        assert (last.final, last.accepted, last.text.split(":")[0]) == (True, False, said)
        assert bench.core.wanted == {}


def stay_alone(bench: BackendBench, until_ms: int) -> None:
    """Ten steps a second, and nobody says anything."""
    for at_ms in range(int(bench.now_ms) + 100, until_ms + 1, 100):
        bench.at(at_ms)


def test_p23b_a_report_does_not_wait_long_for_a_leader() -> None:
    alone, cut_off = BackendBench(), following()
    alone.start()
    for bench, said in ((alone, "refused"), (cut_off, "unknown")):
        bench.wants(until_ms=120_000)
        bench.wants(number=2, operator=True, until_ms=120_000)
        bench.wants(KIND_UP, number=3, until_ms=120_000)
        stay_alone(bench, 9_900)
        assert [item for item in bench.answers if item.final] == []
        stay_alone(bench, 15_000)
        ended = [item for item in bench.answers if item.final]
        assert [(last.request_id, last.accepted, last.text.split(":")[0]) for last in ended] == [(1, False, said)]
        assert "stays down on this pgpool-II alone" in ended[0].text
        bench.wants(number=4, until_ms=120_000)
        stay_alone(bench, 15_100)
        assert bench.answers[-1].request_id == 4 and bench.answers[-1].final  # the next one does not wait again


def test_p23b_a_report_waits_while_there_is_a_leader() -> None:
    bench = following()
    bench.wants(until_ms=120_000)
    for number in range(2, 80):
        bench.wait_until(bench.now_ms + 200)
        bench.follow(agreed(stamp=Stamp(3, 2)), number)
    assert bench.now_ms > 15_000 and [item for item in bench.answers if item.final] == []


def test_p23b_at_most_64_asks_wait_on_a_node() -> None:
    bench = following()
    for number in range(65):
        bench.wants(number=number + 1)
    assert [item.request_id for item in bench.answers if item.final] == [65]
    assert "64 asks wait" in bench.answers[-1].text


def test_p23b_a_report_of_a_failure_is_answered_by_the_decision_that_others_brought_about() -> None:
    bench = decided_by_two(BackendBench().leads())
    bench.asks(2, number=2)
    bench.wants()
    bench.commit()
    bench.ends()
    assert bench.outcomes(2)[-1] is Outcome.DONE and [item.final for item in bench.answers] == [False, True]
    assert [item.number for item in bench.doc.decisions] == [2]


def test_p23b_a_late_copy_decides_nothing_again() -> None:
    bench = BackendBench(commands=()).leads()
    bench.asks(2, operator=True)
    bench.commit()
    bench.asks(2, KIND_UP, operator=True, decision=2, number=2)
    bench.commit()
    bench.asks(2, operator=True)
    bench.asks(2, operator=True, number=7)
    bench.commit()
    assert (bench.doc.decided, bench.state_of(0)) == (3, (UP, PRIMARY))
    assert bench.outcomes(2)[-1] is Outcome.DONE  # it was done, by decision 2


def test_p23b_the_next_leader_answers_from_the_document() -> None:
    intent = Intent("failover", "decision 2", "once", 1, 1, 1, "failed", (), "exit status 3")
    bench = BackendBench(doc=down_document(intents=(intent,))).leads()
    bench.asks(3)
    assert bench.outcomes(3) == [Outcome.REFUSED] and bench.text(3).endswith("exit status 3")
    assert bench.doc.decided == 2


def test_p23b_old_news_is_refused() -> None:
    bench = BackendBench(doc=down_document()).leads()
    bench.asks(3, KIND_UP, operator=True, decision=1)
    assert bench.outcomes(3) == [Outcome.REFUSED] and "outdated" in bench.text(3)
    assert bench.state_of(0) == (DOWN, PRIMARY)


BAD: tuple[tuple[dict[str, object], str], ...] = (
    ({"backend_id": 9}, "expected one of 0, 1, 2"),
    ({"backend_id": -1}, "expected 0 to 1023"),
    ({"decision": 77}, "decision 77 has never been made"),
    ({"decision": -1}, "expected 0 or more"),
    ({"arguments": ("d=0",) * 21}, "at most 20"),
    ({"arguments": ("h=" + "x" * 1100,)}, "1024 bytes"),
    ({"reason": "x" * 500}, "400 bytes"),
)


def test_p23b_bad_content_is_refused_with_a_sentence() -> None:
    bench = BackendBench().leads()
    before = bench.doc
    for number, (changes, said) in enumerate(BAD):
        bench.asks(2, operator=True, number=number, **changes)  # type: ignore[arg-type]
        assert bench.outcomes(2) == [Outcome.REFUSED] * (number + 1) and said in bench.text(2)
        assert bench.doc == before


def test_p23b_a_node_that_does_not_lead_decides_nothing() -> None:
    bench = following()
    bench.asks(3, operator=True)
    assert bench.outcomes(3) == [Outcome.BUSY] and bench.state_of(0) == (UP, PRIMARY)


def test_p23b_asks_of_the_leaders_own_node_go_the_same_way() -> None:
    bench = BackendBench(commands=()).leads()
    bench.wants()
    bench.asks(2)
    bench.commit()
    assert [(item.final, item.accepted) for item in bench.answers] == [(False, False), (True, True)]


def test_p23b_a_node_that_stops_answers_first() -> None:
    bench = following()
    bench.wants()
    bench.stay_stopping()
    assert [item.final for item in bench.answers] == [True] and "being stopped" in bench.answers[0].text


# --- c: consensus -----------------------------------------------------------------------------------


def test_p23c_two_of_three_decide() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    assert bench.state_of(0) == (UP, PRIMARY) and bench.text(2) == "waits for consensus: 1 of 2"
    bench.asks(3)
    assert bench.state_of(0) == (DOWN, PRIMARY)


def test_p23c_a_vote_that_is_not_repeated_dies() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    bench.stay(bench.now_ms + 3100)
    bench.asks(3)
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_a_vote_under_another_number_counts_for_nothing() -> None:
    bench = BackendBench(doc=agreed(decided=4)).leads()
    bench.sees(2, look(0, SEEN_DOWN, failed=True, decision=4))
    bench.sees(3, look(0, SEEN_DOWN, failed=True, decision=4))
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_what_most_hold_in_quarantine_is_down() -> None:
    bench = BackendBench().leads()
    bench.sees(2, look(0, SEEN_DOWN, failed=True))
    bench.sees(3, look(0, SEEN_DOWN))
    assert bench.state_of(0) == (UP, PRIMARY)
    bench.sees(3, look(0, SEEN_DOWN, failed=True))
    assert bench.state_of(0) == (DOWN, PRIMARY)
    bench.commit()
    assert bench.started[0].intent.arguments[:3] == ("H=db1", "M=0", "N=db0")


def test_p23c_what_was_seen_long_ago_is_no_vote() -> None:
    bench = BackendBench().leads()
    bench.sees(2, look(0, SEEN_DOWN, failed=True))
    bench.stay(bench.now_ms + 3100)
    bench.sees(3, look(0, SEEN_DOWN, failed=True))
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_a_pgpool_that_is_not_known_is_no_vote() -> None:
    bench = BackendBench().leads()
    bench.sees(2, look(0, SEEN_DOWN, failed=True))
    bench.sees(3, look(0, SEEN_DOWN, failed=True), problem="pgpool-II does not answer")
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_an_older_view_does_not_replace_a_newer_one() -> None:
    bench = BackendBench().leads()
    bench.hear(bench.now_ms, 2, Seen(4, 9, (look(0),), ""))
    bench.hear(bench.now_ms, 2, Seen(4, 8, (look(0, SEEN_DOWN, failed=True),), ""))
    bench.sees(3, look(0, SEEN_DOWN, failed=True))
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_a_node_counts_once() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    bench.asks(2, number=2)
    bench.sees(2, look(0, SEEN_DOWN, failed=True))
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_a_lost_record_has_no_vote() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    bench.asks(3, record_id=999)
    bench.sees(3, look(0, SEEN_DOWN, failed=True), record_id=999)
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_a_witness_has_no_vote() -> None:
    bench = BackendBench(witnesses=(3,)).leads()
    bench.asks(2)
    bench.asks(3)
    assert bench.state_of(0) == (UP, PRIMARY)
    bench.wants()
    assert bench.state_of(0) == (DOWN, PRIMARY)


def test_p23c_without_consensus_the_report_ends_in_quarantine() -> None:
    bench = BackendBench(rule=CoreConsensus(timeout_ms=2000)).leads()
    for at_ms in (0, 1000, 1900):
        bench.stay(max(at_ms, bench.now_ms + 1))
        bench.asks(2)
    assert bench.outcomes(2)[-1] is Outcome.BUSY
    bench.stay(2200)
    assert bench.outcomes(2)[-1] is Outcome.REFUSED and "no consensus: 1 of 2" in bench.text(2)
    assert bench.state_of(0) == (UP, PRIMARY)


def test_p23c_an_operator_needs_no_consensus() -> None:
    bench = BackendBench().leads()
    bench.asks(2, operator=True)
    assert bench.state_of(0) == (DOWN, PRIMARY) and bench.doc.decisions[-1].operator


def test_p23c_the_word_of_an_operator_is_no_vote() -> None:
    bench = BackendBench().leads()
    bench.asks(2)
    bench.asks(3, operator=True)
    assert bench.doc.decisions[-1].operator


def test_p23c_a_backend_of_one_pgpool_alone_is_failed_over_where_no_consensus_is_required() -> None:
    bench = BackendBench(rule=CoreConsensus(required=False)).leads()
    bench.asks(2)
    assert bench.state_of(0) == (DOWN, PRIMARY) and not bench.doc.decisions[-1].operator
