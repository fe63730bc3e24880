"""When a pgpool-II is freed, and from what: each rule on its own, and what it must not touch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from tests.unit.pools.bench import agreed_backend, document
from tests.unit.pools.bench import seen as pool_backend

from pgvigil.watchdog.core.lease import NS_PER_S
from pgvigil.watchdog.core.record import BackendStatus
from pgvigil.watchdog.pools.freeing import (
    AGAIN_NS,
    GIVEN_UP_NS,
    LIVES_AGAIN_NS,
    OVERDUE_NS,
    PATIENCE_NS,
    Duty,
    Place,
    PoolProcess,
    Silences,
    Suspicion,
    duty_of,
    given_up,
    sentence,
    stuck,
)
from pgvigil.watchdog.pools.plan import Facts, Known, Memory, Ordered, OrderKind
from pgvigil.watchdog.pools.view import Incarnation, View

S = NS_PER_S
NOW = 1000 * S
LIFE = Incarnation(100, 5)
PLACE = Place(0, "10.77.0.11", 5432)
OTHER = Place(1, "10.77.0.12", 5432)


# --- who ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "duty"),
    [
        ("pgpool: PCP: wait for connection request", Duty.PCP),
        ("pgpool: worker process", Duty.REPLICATION),
        ("pgpool: health check process(0)", Duty.HEALTH),
        ("pgpool: health check process(12)", Duty.HEALTH),
        ("pgpool: wait for connection request", None),
        ("pgpool: postgres postgres 10.77.0.1(4711) idle", None),
        # A client chooses its user and its database: these two are "worker" and "PCP:".
        ("pgpool: worker process 10.77.0.1(4711) idle", None),
        ("pgpool: PCP: wait 10.77.0.1(4711) SELECT", None),
        ("pgpool: health check process(0) 10.77.0.1(4711) idle", None),
        ("postgres: worker process", None),
        ("pgpool -n -f /etc/pgpool2/pgpool.conf", None),
        ("", None),
    ],
)
def test_only_what_serves_no_client_has_a_duty(title: str, duty: Duty | None) -> None:
    assert duty_of(title) is duty


# --- when to ask ----------------------------------------------------------------------------------


def order(at_ns: int, awaited: bool = True) -> Mapping[int, Ordered]:
    return {0: Ordered(OrderKind.ATTACH, at_ns, 1, awaited)}


def suspects(
    now_ns: int,
    incarnation: Incarnation | None = LIFE,
    view: View | None = None,
    ordered: Mapping[int, Ordered] | None = None,
    node_dead: bool = False,
) -> bool:
    """Of a pgpool-II that has been known since 900 s."""
    suspicion = Suspicion()
    assert not suspicion.holds(900 * S, LIFE, None, {}, False)
    return suspicion.holds(now_ns, incarnation, view, ordered or {}, node_dead)


def seen(ago_ns: int, incarnation: Incarnation | None = LIFE) -> View:
    return View(NOW - ago_ns, incarnation, ())


def test_a_pgpool_that_answers_is_not_suspected() -> None:
    assert not suspects(NOW, view=seen(OVERDUE_NS - 1))


def test_one_that_has_not_answered_for_3_s_longer_than_usual_is() -> None:
    assert OVERDUE_NS == 5 * S
    assert suspects(NOW, view=seen(OVERDUE_NS))


def test_one_that_has_never_answered_is_after_the_same_time() -> None:
    suspicion = Suspicion()
    assert not suspicion.holds(NOW, LIFE, None, {}, False)
    assert not suspicion.holds(NOW + OVERDUE_NS - 1, LIFE, None, {}, False)
    assert suspicion.holds(NOW + OVERDUE_NS, LIFE, None, {}, False)


def test_a_restart_begins_the_time_anew_and_a_view_of_the_life_before_counts_for_nothing() -> None:
    again = Incarnation(200, 9)
    suspicion = Suspicion()
    suspicion.holds(900 * S, LIFE, None, {}, False)
    assert not suspicion.holds(NOW, again, seen(2 * OVERDUE_NS), {}, False)
    assert suspicion.holds(NOW + OVERDUE_NS, again, seen(-OVERDUE_NS), {}, False)


def test_an_order_without_effect_for_5_s_is_suspicious() -> None:
    assert not suspects(NOW, view=seen(0), ordered=order(NOW - 5 * S + 1))
    assert suspects(NOW, view=seen(0), ordered=order(NOW - 5 * S))
    assert not suspects(NOW, view=seen(0), ordered=order(NOW - 5 * S, awaited=False))


def test_a_dead_node_is_suspicious_but_not_without_a_pgpool_here() -> None:
    assert suspects(NOW, view=seen(0), node_dead=True)
    assert not suspects(NOW, None, None, order(0), True)


# --- who is silent --------------------------------------------------------------------------------


def silences(*asked_s: float, silent: bool = True) -> Silences:
    made = Silences()
    for at_s in asked_s:
        made.asked(PLACE, NOW + int(at_s * S))
        made.answered(PLACE, NOW + int(at_s * S), silent)
    return made


def test_three_times_in_a_row_over_three_seconds_is_silence() -> None:
    assert silences(0, 1, 2).silent_ns(PLACE, NOW + 3 * S) == 3 * S
    assert silences(0, 1, 2).silent_ns(OTHER, NOW + 3 * S) is None


def test_less_often_is_none_however_long() -> None:
    assert silences(0, 2).silent_ns(PLACE, NOW + 60 * S) is None


def test_less_long_is_none_however_often() -> None:
    assert silences(0, 0.1, 0.2, 0.3, 0.4).silent_ns(PLACE, NOW + 3 * S - 1) is None


def test_a_sign_of_life_ends_it() -> None:
    made = silences(0, 1, 2, 3)
    made.answered(PLACE, NOW + 4 * S, False)
    assert made.silent_ns(PLACE, NOW + 5 * S) is None
    for at_s in (5, 6):
        made.answered(PLACE, NOW + at_s * S, True)
    assert made.silent_ns(PLACE, NOW + 9 * S) is None
    made.answered(PLACE, NOW + 7 * S, True)
    assert made.silent_ns(PLACE, NOW + 8 * S) == 3 * S


def test_it_is_acted_on_again_after_2_s_while_it_lasts() -> None:
    made = silences(0, 1, 2)
    made.freed(PLACE, NOW + 3 * S)
    made.answered(PLACE, NOW + 3 * S, True)
    assert AGAIN_NS == 2 * S
    assert made.silent_ns(PLACE, NOW + 5 * S - 1) is None
    assert made.silent_ns(PLACE, NOW + 5 * S) == 5 * S


def test_it_is_asked_once_a_second_and_less_often_once_it_has_answered() -> None:
    made = Silences()
    assert made.due(PLACE, NOW)
    made.asked(PLACE, NOW)
    assert not made.due(PLACE, NOW + S - 1) and made.due(PLACE, NOW + S) and made.due(PLACE, NOW + S - 1, 1)
    made.answered(PLACE, NOW, False)
    assert not made.due(PLACE, NOW + LIVES_AGAIN_NS - 1) and made.due(PLACE, NOW + LIVES_AGAIN_NS)


def test_a_name_that_gets_another_address_is_silent_anew() -> None:
    made = Silences()
    for at_s, address in enumerate(("10.77.0.11", "10.77.0.11", "10.77.0.21", "10.77.0.21")):
        made.asked(PLACE, NOW + at_s * S, address)
        made.answered(PLACE, NOW + at_s * S, True)
        assert made.address(PLACE) == address
    assert made.silent_ns(PLACE, NOW + 5 * S) is None
    made.asked(PLACE, NOW + 4 * S, "10.77.0.21")
    made.answered(PLACE, NOW + 4 * S, True)
    assert made.silent_ns(PLACE, NOW + 5 * S) == 3 * S
    made.answered(PLACE, NOW + 5 * S, False)
    assert made.address(PLACE) == "10.77.0.21"


@pytest.mark.parametrize("host", ["", "/var/run/postgresql"])
def test_a_unix_socket_is_never_asked(host: str) -> None:
    assert not Silences().due(replace(PLACE, host=host), NOW)


def test_once_all_is_well_again_everything_is_forgotten() -> None:
    made = silences(0, 1, 2)
    made.keep([PLACE])
    assert made.silent_ns(PLACE, NOW + 3 * S) == 3 * S
    made.keep([])
    assert made.silent_ns(PLACE, NOW + 3 * S) is None


# --- what is ended --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    inode: int
    remote: str = PLACE.host
    remote_port: int = PLACE.port
    quiet_ms: int | None = 3000
    begun: bool = False


WORKER = PoolProcess(11, Duty.PCP_WORKER, frozenset({1, 2}))
MAIN = PoolProcess(10, Duty.MAIN, frozenset({2, 3}))
HEALTH = PoolProcess(12, Duty.HEALTH, frozenset({4}))
SESSION = PoolProcess(13, Duty.SESSION, frozenset({5, 6}))
RECOVERY = PoolProcess(14, Duty.RECOVERY, frozenset({7}))


def inodes(*listed: Listed, silent_ns: int = 4 * S) -> list[int]:
    found = stuck([WORKER, MAIN, HEALTH, SESSION, RECOVERY], listed, PLACE.host, PLACE.port, silent_ns)
    return [one.connection.inode for one in found]


def test_what_its_own_processes_read_from_is_ended_once() -> None:
    assert inodes(Listed(1), Listed(2), Listed(3)) == [1, 2, 3]


def test_what_another_process_holds_is_not() -> None:
    assert inodes(Listed(9), Listed(0)) == []


def test_what_leads_elsewhere_is_not() -> None:
    assert inodes(Listed(1, remote="10.77.0.12"), Listed(2, remote_port=5433)) == []


def test_what_the_host_has_answered_on_lately_is_not() -> None:
    assert inodes(Listed(1, quiet_ms=2999), Listed(2, quiet_ms=None)) == []


def test_a_health_check_has_a_limit_of_its_own_and_is_left_to_it() -> None:
    assert inodes(Listed(4), silent_ns=PATIENCE_NS - 1) == []
    assert inodes(Listed(4), silent_ns=PATIENCE_NS) == [4]


def test_an_online_recovery_outlives_a_network_that_is_away_for_a_while() -> None:
    """It waits for the copy of the primary, over a connection that says nothing for hours."""
    assert inodes(Listed(7, quiet_ms=3_600_000), silent_ns=PATIENCE_NS - 1) == []
    assert inodes(Listed(7, quiet_ms=3_600_000), silent_ns=PATIENCE_NS) == [7]


def test_a_connection_that_is_only_being_made_is_ended_where_a_session_waits_for_it() -> None:
    """pgpool-II's own processes have a time limit for that; nothing was ever heard over it."""
    assert inodes(Listed(1, begun=True), Listed(3, begun=True), Listed(4, begun=True), silent_ns=PATIENCE_NS) == []
    assert inodes(Listed(5, begun=True, quiet_ms=None), Listed(6), Listed(5, quiet_ms=2999)) == [5, 6]


def memory_of(since_ns: int) -> Memory:
    return Memory(known={0: Known(2, since_ns), 1: Known(2, since_ns)})


def lost(
    agreed_down: bool = True, seen_down: bool = True, since_ns: int = NOW, seen_at_all: bool = True
) -> tuple[int, ...]:
    status = BackendStatus.DOWN if agreed_down else BackendStatus.UP
    agreed = document(agreed_backend(0, status), agreed_backend(1))
    backends = (pool_backend(0, not seen_down), pool_backend(1)) if seen_at_all else (pool_backend(1),)
    return given_up(memory_of(since_ns), Facts(NOW + S, agreed, View(NOW, LIFE, backends), LIFE))


def test_a_backend_is_given_up_once_it_is_agreed_down_and_down_there() -> None:
    assert lost() == (0,)
    assert lost(agreed_down=False) == (), "quarantined, or reported and not decided"
    assert lost(seen_down=False) == (), "clients would come back to it at once"
    assert lost(seen_at_all=False) == ()


def test_after_a_while_nobody_can_be_waiting_for_it_any_more() -> None:
    assert lost(since_ns=NOW + S - GIVEN_UP_NS + 1) == (0,)
    assert lost(since_ns=NOW + S - GIVEN_UP_NS) == ()


def test_without_a_table_or_a_view_nothing_is_given_up() -> None:
    view = View(NOW, LIFE, (pool_backend(0, False),))
    assert given_up(memory_of(NOW), Facts(NOW, None, view, LIFE)) == ()
    assert given_up(memory_of(NOW), Facts(NOW, document(agreed_backend(0, BackendStatus.DOWN)), None, LIFE)) == ()


def test_the_log_says_how_many_whose_and_why() -> None:
    told = sentence(PLACE, [Duty.PCP_WORKER, Duty.PCP_WORKER, Duty.MAIN], 4 * S + 1)
    assert told == (
        "freed its pgpool-II from 3 connections to backend 0 (10.77.0.11:5432): that host has been silent for 4 s "
        "(PCP worker, main process)"
    )
    assert "from 1 connection to" in sentence(PLACE, [Duty.MAIN], 4 * S)
