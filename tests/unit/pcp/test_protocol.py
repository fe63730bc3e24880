"""Bytes and values: the vectors of the study, the orders of fields of every version, and what breaks the format."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pcp import fake
from tests.unit.pcp.conversation import Refused, asked, broken, value_of

from pgvigil.ipc.errors import ConfigError, PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.digest import digest, stored
from pgvigil.watchdog.pcp.protocol import Request, report
from pgvigil.watchdog.pcp.records import BackendStatus, Report, Role

# --- vectors ----------------------------------------------------------------------------------------------------


def test_the_proof_of_a_password() -> None:
    assert stored(b"postgres") == b"e8a48653851e28c69d0506508fb27fc5"
    assert digest(b"pgpool", b"postgres", bytes([1, 2, 3, 4])) == b"8e60ae5116b1a5aabcca6a28f29935f1"


@pytest.mark.parametrize(
    ("request_", "wire"),
    [
        (requests.node_info(), b"I\0\0\0\x07-1\0"),
        (requests.node_count(), b"L\0\0\0\x04"),
        (requests.node_info(0), b"I\0\0\0\x060\0"),
        (requests.health_stats(12), b"H\0\0\0\x0712\0"),
        (requests.process_count(), b"N\0\0\0\x04"),
        (requests.process_info(), b"P\0\0\0\x060\0"),
        (requests.process_info(4711), b"P\0\0\0\x094711\0"),
        (requests.pool_status(), b"B\0\0\0\x04"),
        (requests.watchdog_info(), b"W\0\0\0\x07-1\0"),
        (requests.attach(1), b"C\0\0\0\x061\0"),
        (requests.detach(1), b"D\0\0\0\x061\0"),
        (requests.detach(1, graceful=True), b"d\0\0\0\x061\0"),
        (requests.promote(1), b"J\0\0\0\x081 \0n"),
        (requests.promote(10, graceful=True, switchover=True), b"j\0\0\0\x0910 \0s"),
        (requests.recovery(2), b"O\0\0\0\x062\0"),
        (requests.stop(), b"T\0\0\0\x05s"),
        (requests.stop("immediate", cluster=True), b"t\0\0\0\x05i"),
        (requests.reload(), b"Z\0\0\0\x05l"),
        (requests.reload(cluster=True), b"Z\0\0\0\x05c"),
        (requests.log_rotate(), b"V\0\0\0\x05l"),
        (requests.invalidate_cache(), b"G\0\0\0\x04"),
        (requests.set_messages("debug1"), b"A\0\0\0\x1fclient_min_messages\0debug1\0"),
        (requests.no_operation(), b"F\0\0\0\x04"),
    ],
    ids=lambda value: value.name if isinstance(value, Request) else "",
)
def test_requests_as_bytes(request_: Request[Any], wire: bytes) -> None:
    assert request_.encoded() == wire


def test_arguments_are_checked_before_atoi_reads_them() -> None:
    for make, wrong in (
        (lambda: requests.attach(-1), "backend -1, expected 0 to 127"),
        (lambda: requests.node_info(128), "backend 128, expected -1 to 127"),
        (lambda: requests.process_info(-5), "process -5"),
        (lambda: requests.stop("slow"), "mode 'slow', expected one of smart, fast, immediate"),
        (lambda: requests.set_messages("a\0b"), "NUL"),
        (lambda: requests.set_messages("x" * 300).encoded(), "expected at most 255"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            make()


# --- what each version says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_node_info(version: str) -> None:
    if version == "4.2":
        found = [*value_of(asked(requests.node_info(0), fake.node_rows(version, fake.NODES[:1])))]
        found += value_of(asked(requests.node_info(1), fake.node_rows(version, fake.NODES[1:])))
    else:
        found = [*value_of(asked(requests.node_info(), fake.node_rows(version, fake.NODES)))]
    first, second = found
    assert (first.node_id, first.host, first.port, first.status) == (0, "10.0.0.1", 5432, BackendStatus.UP)
    assert (first.weight, first.role, first.quarantined, first.changed_at_s) == (0.5, Role.PRIMARY, False, 1700000000)
    assert (second.node_id, second.host, second.status) == (1, "/var/run/postgresql", BackendStatus.DOWN)
    assert (second.role, second.quarantined, second.delay) == (Role.STANDBY, True, 2500000)
    assert (second.replication_state, second.replication_sync_state) == ("streaming", "async")
    assert (second.pg_status, second.pg_role) == ((None, None) if version == "4.2" else ("down", "standby"))
    assert second.delay_in_time is (None if version in ("4.2", "4.3") else True)


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_process_info(version: str) -> None:
    slot, empty = value_of(asked(requests.process_info(), fake.process_rows(version, fake.PROCESSES)))
    assert (slot.pid, slot.database, slot.user, slot.backend_id, slot.backend_pid) == (4711, "shop", "ann", 1, 815)
    assert (slot.protocol_major, slot.use_count, slot.connected, empty.connected) == (3, 2, True, False)
    assert slot.started_at == "2026-01-02 03:04:05 (4:01 before process restarting)"
    assert slot.backend_connected_at == "2026-01-02 03:05:00"
    assert (slot.pool_id, slot.client_connections) == ((None, None) if version == "4.2" else (3, 12))
    assert (slot.status, slot.client_idle) == ((None, None) if version == "4.2" else ("Idle", "7"))
    assert slot.load_balance_node == ("1" if version in ("4.5", "4.6", "4.7") else None)
    newest = (slot.client_host, slot.client_port, slot.statement)
    assert newest == (("10.0.0.9", "40000", "select 1") if version == "4.7" else (None, None, None))


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_watchdog_info(version: str) -> None:
    info = value_of(asked(requests.watchdog_info(), fake.watchdog_answer(version)))
    assert (info.remote_nodes, info.alive_remote_nodes, info.quorum, info.escalated) == (2, 1, 1, True)
    assert (info.leader_host, len(info.nodes)) == ("10.0.0.1", 1)
    assert info.needed_for_quorum == (None if version == "4.2" else 2)
    node = info.nodes[0]
    assert (node.state_name, node.watchdog_port, node.delegate_ip, node.priority) == ("LEADER", 9000, "10.0.0.100", 1)
    assert node.membership_name == (None if version == "4.2" else "MEMBER")


def test_answers_that_are_the_same_in_every_version() -> None:
    assert value_of(asked(requests.node_count(), fake.frame("l", "CommandComplete", "3"))) == 3
    assert value_of(asked(requests.process_count(), fake.pid_list((5, 6, 0)))) == (5, 6, 0)
    assert value_of(asked(requests.process_count(), fake.pid_list(()))) == ()
    parameters = value_of(asked(requests.pool_status(), fake.parameter_rows(fake.PARAMETERS)))
    assert [(one.name, one.value, one.description) for one in parameters] == list(fake.PARAMETERS)
    stats = value_of(asked(requests.health_stats(0), fake.frame("h", "CommandComplete", *fake.HEALTH)))
    assert (stats.total, stats.fail, stats.average_retry, stats.max_duration_ms) == (10, 1, 0.2, 30)
    assert (stats.average_duration_ms, stats.last_skip, stats.last_failure) == (4.5, "", "2026-01-02 03:08:00")


@pytest.mark.parametrize("nothing", ["-nan", "nan", "inf", "-inf"])
def test_the_average_of_no_health_check_is_none(nothing: str) -> None:
    fields = [*fake.HEALTH]
    fields[11] = fields[15] = nothing  # pgpool-II divides by the number of checks
    stats = value_of(asked(requests.health_stats(0), fake.frame("h", "CommandComplete", *fields)))
    assert (stats.average_retry, stats.average_duration_ms) == (None, None)


def test_a_health_check_during_which_the_wall_clock_was_set_back_hides_nothing() -> None:
    """Its duration is negative and stays the shortest one: status and role come in the same answer."""
    fields = [*fake.HEALTH]
    fields[13], fields[14] = "-2147483648", "-812"
    stats = value_of(asked(requests.health_stats(0), fake.frame("h", "CommandComplete", *fields)))
    assert (stats.status, stats.max_duration_ms, stats.min_duration_ms) == ("up", -(2**31), -812)


def test_text_that_is_no_utf_8_is_spelled_out() -> None:
    said = fake.process_rows("4.3", [fake.PROCESS]).replace(b"shop", b"sh\xf6p", 1)
    said = said.replace(b"Idle\0", b"Idle\0", 1)
    (slot,) = value_of(asked(requests.process_info(), said))
    assert slot.database == "sh\\xf6p"


def test_fewer_slots_than_announced_are_how_pgpool_is() -> None:
    assert len(value_of(asked(requests.process_info(), fake.process_rows("4.3", fake.PROCESSES, 64)))) == 2


# --- errors -----------------------------------------------------------------------------------------------------


def test_an_error_report() -> None:
    (event,) = asked(requests.attach(7), fake.report(message="no such node", D="node 7", H="look at pgpool.conf"))
    assert isinstance(event, Refused) and event.request is not None
    assert event.report == Report("ERROR", "XX000", "no such node", "node 7", "look at pgpool.conf")
    assert str(event.report) == "ERROR: no such node (node 7); look at pgpool.conf"


def test_a_text_that_pgpool_has_cut_is_followed_by_a_stray_byte() -> None:
    """As 4.3.5 sends it: 255 bytes of text, NUL, a byte of whatever lay there, and the next field."""
    for stray in (b"p", b"\0", b"S", b"\xff"):
        body = b"SERROR\0CXX000\0M" + b"x" * 255 + b"\0" + stray + b"Dwhy\0Frecovery.c\0L348\0\0"
        found = report(body)
        assert (found.severity, found.message, found.detail) == ("ERROR", "x" * 255, "why"), stray
    found = report(b"SERROR\0M" + b"x" * 255 + b"\0Hdo that\0Dwhy\0\0")
    assert (found.hint, found.detail) == ("do that", "why")


def test_an_error_report_without_severity_or_message_is_none() -> None:
    for body in (b"", b"\0", b"Mno\0\0", b"SERROR\0\0", b"SERROR\0Mno", b"S\0M\0\0", b"Q\0" * 40):
        with pytest.raises(PeerError, match="expected"):
            report(body)


# --- a server that breaks the format ------------------------------------------------------------------------------

ROW = fake.ordered(fake.NODE_ORDER["4.3"], fake.NODES[0])
ONE = fake.frame("i", "ArraySize", "1")
END = fake.frame("i", "CommandComplete")
SLOT = fake.ordered(fake.PROCESS_ORDER["4.3"], fake.PROCESS)


def changed(row: list[str], place: int, value: str) -> list[str]:
    return [*row[:place], value, *row[place + 1 :]]


@pytest.mark.parametrize(
    ("request_", "said", "words"),
    [
        (requests.node_count(), b"l\0\0\0\x03", "length is 3, expected at least 4"),
        (requests.node_count(), b"l\x7f\xff\xff\xff", "frame 'l' of 2147483648 bytes, expected at most 262144"),
        (requests.node_count(), fake.raw("l", b"CommandComplete\x003"), "expected a NUL byte"),
        (requests.node_count(), fake.raw("l", b""), "expected a NUL byte"),
        (requests.node_count(), fake.frame("l", "CommandComplete", "3", "4"), "has 3 items, expected at most 2"),
        (requests.node_count(), fake.frame("l", "CommandComplete"), "of 0 fields, expected 1"),
        (requests.node_count(), fake.frame("l", "CommandComplete", "99999999999"), "is 99999999999, expected 0 to 128"),
        (requests.node_count(), fake.frame("l", "CommandComplete", "1e3"), "is '1e3', expected a number"),
        (requests.node_count(), fake.frame("l", "CommandComplete", "9" * 5000), "expected a number"),
        (requests.node_count(), fake.frame("l", "CommandComplete", "-1"), "is -1, expected 0 to 128"),
        (requests.node_count(), fake.frame("l", "Complete", "3"), "begins with 'Complete'"),
        (requests.node_count(), fake.frame("i", "CommandComplete", "3"), "frame 'i', expected 'l'"),
        (requests.node_info(), fake.frame("i", "ArraySize", "100000"), "100000 rows announced, expected 0 to 128"),
        (requests.node_info(), fake.frame("i", "ArraySize", "-1"), "-1 rows announced"),
        (requests.node_info(), fake.frame("i", "ArraySize"), "expected 'ArraySize' and a count"),
        (requests.node_info(), fake.frame("i", "NodeInfo", *ROW), "expected 'ArraySize' and a count"),
        (requests.node_info(), ONE + END, "0 rows, expected the announced 1"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *ROW) * 2, "one more row, expected the announced 1"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *ROW[:-1]), "of 11 fields, expected 12 or 13"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *ROW, *ROW), "expected at most 14"),
        (requests.node_info(), ONE + fake.frame("i", "Surprise", *ROW), "expected 'NodeInfo' or 'CommandComplete'"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 2, "9")), "status of backend 0 is 9"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 6, "4")), "role of backend 0 is 4"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 3, "2")), "quarantine of backend 0"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 5, "nan")), "weight of backend 0"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 5, "1_0")), "weight of backend 0"),
        (requests.node_info(), ONE + fake.frame("i", "NodeInfo", *changed(ROW, 1, "70000")), "port of backend 0"),
        (requests.node_info(), fake.node_rows("4.2", fake.NODES[:1]), "expected 'ArraySize' and a count"),
        (requests.node_info(1), fake.node_rows("4.3", fake.NODES), "2 rows announced, expected 0 to 1"),
        (requests.health_stats(1), fake.frame("h", "CommandComplete", *fake.HEALTH), "stats is 0, expected 1"),
        (requests.process_info(), fake.frame("p", "ArraySize", "40000"), "expected 0 to 32768"),
        (requests.process_info(), fake.frame("p", "ArraySize", "1") + fake.frame("p", "ProcessInfo", *SLOT[:16]), "16"),
        (requests.process_count(), fake.frame("n", "CommandComplete", "3", "1", "2"), "expected the announced 3"),
        (requests.process_count(), fake.frame("n", "CommandComplete"), "without a count"),
        (requests.pool_status(), fake.raw("b", b"ArraySize\0\0\0\1"), "a count of 3 bytes, expected 4"),
        (requests.pool_status(), fake.raw("b", b"ArraySize\0\xff\xff\xff\xff"), "-1 rows announced"),
        (requests.pool_status(), fake.raw("b", b"ArraySize\0\x7f\xff\xff\xff"), "expected 0 to 8192"),
        (requests.pool_status(), fake.frame("b", "Array"), "expected 'ArraySize' and a count"),
        (requests.watchdog_info(), fake.frame("w", "CommandComplete", "{"), "expected JSON"),
        (requests.watchdog_info(), fake.frame("w", "CommandComplete", "[" * 50_000), "expected JSON"),
        (requests.watchdog_info(), fake.frame("w", "CommandComplete", "[]"), "is a list, expected an object"),
        (requests.watchdog_info(), fake.frame("w", "CommandComplete", "{}"), "no list of nodes"),
        (requests.watchdog_info(), fake.frame("w", "CommandComplete", '{"WatchdogNodes":[]}'), "RemoteNodeCount of"),
        (requests.attach(0), fake.frame("c", "CommandComplete", "more"), "expected 'CommandComplete'"),
        (requests.attach(0), fake.raw("E", b"what"), "expected a NUL byte"),
    ],
)  # fmt: skip
def test_what_breaks_the_format_is_named(request_: Request[Any], said: bytes, words: str) -> None:
    text = broken(asked(request_, said))
    assert words in text and "expected" in text
    assert len(text) < 300


def test_an_answer_has_a_limit_as_a_whole() -> None:
    """An endless answer of small frames ends as well as one of a huge frame."""
    row = fake.frame("p", "ProcessInfo", *changed(SLOT, 5, "x" * 4000))
    text = broken(asked(requests.process_info(), fake.frame("p", "ArraySize", "30000") + row * 2100))
    assert "limit 8388608 bytes for the answer to proc-info" in text
    notice = fake.report("N", "NOTICE", "x" * 200)
    assert "limit 262144 bytes for the answer to attach" in broken(asked(requests.attach(1), notice * 2000))
