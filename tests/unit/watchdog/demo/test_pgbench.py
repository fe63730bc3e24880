"""pgbench beside the failovers: what it says about a run, and what its runs say about a fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.demo.failover import pgbench
from pgvigil.watchdog.demo.failover.outcome import Bench, bench_in
from pgvigil.watchdog.demo.failover.pgbench import Run
from pgvigil.watchdog.demo.run import Finished

# As PostgreSQL 15 writes it.
HEAD = """pgbench (15.8)
transaction type: <builtin: simple update>
scaling factor: 1
query mode: simple
number of clients: 2
number of threads: 1
maximum number of tries: 1
duration: 1 s
"""
WHOLE = f"""{HEAD}number of transactions actually processed: 21
number of failed transactions: 0 (0.000%)
latency average = 3.417 ms
latency stddev = 1.120 ms
rate limit schedule lag: avg 0.184 (max 1.003) ms
initial connection time = 4.712 ms
tps = 20.883101 (without initial connection time)
"""
BROKEN = f"""{HEAD}number of transactions actually processed: 7
number of failed transactions: 0 (0.000%)
latency average = 3.417 ms
initial connection time = 4.712 ms
tps = 19.2 (without initial connection time)
"""
LOST = """pgbench: error: client 1 aborted in command 5 (SQL) of script 0; perhaps the backend died while processing
pgbench: error: client 0 aborted in command 5 (SQL) of script 0; perhaps the backend died while processing
pgbench: error: Run was aborted; the above results are incomplete.
"""
READ_ONLY = """pgbench: error: client 0 script 0 aborted in command 5 query 0: ERROR:  cannot execute UPDATE
pgbench: error: Run was aborted; the above results are incomplete.
"""
REFUSED = """pgbench: error: connection to server at "10.77.0.100", port 9999 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?
pgbench: error: could not create connection for setup
"""


def said(code: int, out: str = "", err: str = "") -> Run:
    return pgbench.parse(Finished(("pgbench",), code, out, err), NS_PER_S, 2 * NS_PER_S)


def ran(began_s: float, transactions: int = 20, took_s: float = 1.0, complaint: str = "") -> Run:
    """A run of a second, good unless it complained."""
    began_ns = int(began_s * NS_PER_S)
    code, count = (2, 0) if complaint else (0, transactions)
    return Run(began_ns, began_ns + int(took_s * NS_PER_S), count, 0, 0, code, complaint)


# what pgbench says


def test_a_whole_run_is_good() -> None:
    done = said(0, WHOLE)
    assert done == Run(NS_PER_S, 2 * NS_PER_S, 21, 0, 0, 0) and done.is_good and done.took_s == 1.0


def test_the_output_of_a_version_that_counts_no_failed_transactions_is_read() -> None:
    done = said(
        0, "number of transactions actually processed: 18/20\ntps = 18.0 (excluding connections establishing)\n"
    )
    assert (done.transactions, done.failed, done.is_good) == (18, 0, True)


def test_clients_that_lose_their_session_end_a_run_with_an_error() -> None:
    done = said(2, BROKEN, LOST)
    assert (done.transactions, done.aborted, done.code, done.is_good) == (7, 2, 2, False)
    assert done.said == LOST.splitlines()[0]
    assert said(2, BROKEN, READ_ONLY).aborted == 1


def test_a_run_that_does_not_connect_did_nothing() -> None:
    done = said(1, "pgbench (15.8)\n", REFUSED)
    assert (done.transactions, done.aborted, done.is_good) == (0, 0, False) and "refused" in done.said


@pytest.mark.parametrize(
    "out",
    [
        "",
        WHOLE.replace("processed: 21", "processed: 0"),
        WHOLE.replace("failed transactions: 0", "failed transactions: 3"),
    ],
)
def test_a_run_without_a_transaction_or_with_one_rolled_back_is_not_good(out: str) -> None:
    assert not said(0, out).is_good


def test_a_complaint_is_kept_short() -> None:
    assert len(said(1, "", "x" * 5000).said) == pgbench.MAX_SAID + 3


# one run after the other


def test_a_run_is_carried_out_and_read() -> None:
    text = "echo number of transactions actually processed: 5; echo client 1 aborted >&2; exit 2"
    done = pgbench.carry_out(("sh", "-c", text))
    assert (done.transactions, done.aborted, done.code, done.said) == (5, 1, 2, "client 1 aborted")
    assert done.ended_at_ns > done.began_at_ns


def test_a_run_that_hangs_is_ended_and_one_that_cannot_start_is_told() -> None:
    hung = pgbench.carry_out(("sleep", "60"), limit_s=0.2)
    assert (hung.code, hung.is_good) == (-1, False) and "was not done after 0.2 s" in hung.said
    missing = pgbench.carry_out(("/nowhere/pgbench",))
    assert missing.code == -1 and "cannot be started" in missing.said


def test_a_session_whose_peer_has_vanished_is_not_waited_for() -> None:
    words = pgbench.target("10.77.0.100", 9999).split()
    assert words[:2] == ["host=10.77.0.100", "port=9999"]
    assert {"connect_timeout=2", "keepalives_idle=1", "tcp_user_timeout=3000"} <= set(words)


# the file of runs


def written(path: Path, runs: list[Run], rest: bytes = b"") -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for one in runs:
            pgbench.note(descriptor, one)
        os.write(descriptor, rest)
    finally:
        os.close(descriptor)
    return path


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [ran(1), ran(2, complaint="gone\nfor ever"), ran(3)]
    path = written(tmp_path / "runs", runs, rest=b'{"began_at_ns": 4')
    assert pgbench.read_runs(path) == runs == pgbench.newest_runs(path)
    assert pgbench.read_runs(path, since_ns=3 * NS_PER_S) == runs[1:]


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    runs = [ran(second) for second in range(100)]
    newest = pgbench.newest_runs(written(tmp_path / "runs", runs))
    assert newest and newest == runs[-len(newest) :] and len(newest) < len(runs)


def test_a_file_that_is_not_there_yet_has_no_runs(tmp_path: Path) -> None:
    assert pgbench.read_runs(tmp_path / "runs") == [] == pgbench.newest_runs(tmp_path / "runs")


# what the runs say about a fault


def seen(runs: list[Run], fault_s: float, agreed_s: float) -> Bench:
    return bench_in(runs, int(fault_s * NS_PER_S), int(agreed_s * NS_PER_S))


def test_pgbench_that_goes_on_after_a_fault() -> None:
    lost = [ran(22.5, took_s=0.8, complaint="lost"), ran(23.5, took_s=0.1, complaint="refused")]
    bench = seen([ran(1, 500), ran(20), ran(21.5, 40), *lost, ran(27.5), ran(29, 30), ran(30.5, 10)], 23, 28)
    assert (bench.before_per_s, bench.after_per_s, bench.failed, bench.back_s) == (30, 20, 2, 4.5)
    assert bench.goes_on and bench.said == "refused"
    expected = "pgbench: 30 transactions/s before, 20 after, first run without errors 4.5 s after the fault"
    assert str(bench) == expected


def test_pgbench_that_notices_nothing() -> None:
    bench = seen([ran(20), ran(21), ran(22), ran(23)], 21.5, 22.5)
    assert (bench.failed, bench.back_s, bench.goes_on) == (0, 0, True)
    assert str(bench) == "pgbench: 20 transactions/s before, 20 after, no run with errors"


def test_a_good_run_before_the_cluster_is_in_order_is_not_going_on() -> None:
    runs = [ran(20), ran(21, complaint="lost"), ran(24), *(ran(second, complaint="refused") for second in (25, 26, 27))]
    bench = seen(runs, 21.5, 25)
    assert not bench.goes_on and bench.failed == 4
    assert str(bench) == "pgbench: 20 transactions/s before, does not go on: refused"


def test_a_pgbench_that_ended_itself_does_not_go_on() -> None:
    assert str(seen([ran(20)], 21.5, 25)) == "pgbench: 20 transactions/s before, does not go on: no run"


def test_an_error_later_than_the_first_good_run_is_of_another_time() -> None:
    bench = seen([ran(20), ran(21, complaint="lost"), ran(25), ran(26, complaint="another fault")], 21.5, 24)
    assert (bench.failed, bench.back_s, bench.said, bench.goes_on) == (1, 3.5, "lost", True)
