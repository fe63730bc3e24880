"""Troubles are counted for ever, said once a minute, told once a second, and taken back."""

from __future__ import annotations

import pytest

from pgvigil.heartbeat.keywatch import OTHER_KEY_INTERVAL_NS, OTHER_KEY_OVER_NS, KeyWatch
from pgvigil.heartbeat.receiver import draw_nonce
from pgvigil.heartbeat.session import MAX_NONCE
from pgvigil.heartbeat.trouble import SAY_INTERVAL_NS, Retry, Troubles
from pgvigil.ipc.frames import PathTrouble

S = 1_000_000_000
MS = 1_000_000


def test_the_log_gets_one_line_a_minute_for_each_class() -> None:
    said: list[str] = []
    troubles = Troubles(0, 1, said.append)
    for second in range(61):
        troubles.add(2, "FORGED", f"forged {second}", second * S)
        troubles.add(2, "FOREIGN", "foreign", second * S)
    assert said == [
        "forged 0",
        "foreign",
        "forged 60 (60 times since the last line)",
        "foreign (60 times since the last line)",
    ]
    assert troubles.total == 122


def test_lifecheck_is_told_once_a_second_while_it_changes() -> None:
    troubles = Troubles(3, 1, lambda _reason: None)
    told: list[PathTrouble] = []
    for tenth in range(10, 31):
        troubles.add(2, "FORGED", f"forged {tenth}", tenth * S // 10)
        told += troubles.due(tenth * S // 10)
    assert [(trouble.path, trouble.node_id, trouble.rejected, trouble.reason) for trouble in told] == [
        (3, 2, 1, "forged 10"),
        (3, 2, 11, "forged 20"),
        (3, 2, 21, "forged 30"),
    ]


def test_a_trouble_is_repeated_while_it_lasts_and_then_taken_back() -> None:
    troubles = Troubles(0, 1, lambda _reason: None)
    troubles.add(None, "socket", "no address", 10 * S)
    told = [(second, trouble) for second in range(10, 60) for trouble in troubles.due(second * S)]
    assert [second for second, _ in told] == [10, 15, 20, 25, 30, 35, 40]
    assert told[0][1] == PathTrouble(0, 1, 1, "no address")
    assert told[-1][1] == PathTrouble(0, 1, 1, "")


def test_what_is_resolved_is_taken_back_at_once() -> None:
    troubles = Troubles(0, 1, lambda _reason: None)
    troubles.add(2, "key", "another key", 10 * S)
    assert len(troubles.due(10 * S)) == 1
    troubles.resolve(2)
    troubles.resolve(9)
    assert troubles.due(11 * S) == [PathTrouble(0, 2, 1, "")]
    assert troubles.due(30 * S) == []


def test_retries_back_off() -> None:
    retry = Retry()
    pauses = []
    for _ in range(7):
        retry.failed("why", 0)
        pauses.append(retry.due_ns // 1_000_000)
    assert pauses == [200, 400, 800, 1600, 3200, 5000, 5000]
    assert retry.succeeded() and not retry.succeeded()


def test_another_key_is_said_once_an_hour_and_its_end_once() -> None:
    watch = KeyWatch()
    assert not watch.our_key("pg02", 0)
    assert [watch.other_key("pg02", at * S) for at in (0, 1, 3599)] == [True, False, False]
    assert watch.other_key("pg03", 5 * S)
    assert watch.other_key("pg02", OTHER_KEY_INTERVAL_NS)
    over_ns = OTHER_KEY_INTERVAL_NS + OTHER_KEY_OVER_NS
    assert not watch.our_key("pg02", over_ns - 1)
    assert watch.our_key("pg02", over_ns) and not watch.our_key("pg02", over_ns)
    assert not watch.other_key("pg02", over_ns + 1)
    assert not watch.our_key("pg02", over_ns + OTHER_KEY_OVER_NS + 1)
    assert watch.other_key("pg02", OTHER_KEY_INTERVAL_NS + SAY_INTERVAL_NS)


@pytest.mark.parametrize("pause_ms", [1, 200, 4900, 5100, 61_000])
def test_forged_addresses_do_not_fill_the_log_by_turns_with_right_ones(pause_ms: int) -> None:
    watch, lines = KeyWatch(), 0
    for now_ms in range(0, 3_500_000, 50):
        if now_ms % pause_ms < 50:
            lines += watch.other_key("pg02", now_ms * MS)
        lines += watch.our_key("pg02", now_ms * MS)
    assert lines == 1 if pause_ms * MS < OTHER_KEY_OVER_NS else lines <= 2 * 60


def test_nonces_fit_the_codec_and_differ() -> None:
    nonces = {draw_nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert all(0 < nonce <= MAX_NONCE for nonce in nonces)
