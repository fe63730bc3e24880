"""The instruments of the failover lab: what they count, and what they hold for wrong."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import BackendRole
from pgvigil.watchdog.demo.failover import command, writer
from pgvigil.watchdog.demo.failover.agent import Agent, order
from pgvigil.watchdog.demo.failover.ledger import Ledger, origin_of
from pgvigil.watchdog.demo.failover.outcome import Bench, Outcome, Promotions, Writes, judge, writes_in
from pgvigil.watchdog.demo.failover.pools import Picture, picture_of
from pgvigil.watchdog.demo.failover.server import Server
from pgvigil.watchdog.demo.failover.table import row_of, table
from pgvigil.watchdog.demo.records import Record
from pgvigil.watchdog.pools.view import PoolBackend

ONE = Promotions(1, 1, 1)
GOOD = Writes(gap_s=2.5, failed=20, asked=100, backends=(1, 2))
ON = Bench(before_per_s=20.3, after_per_s=19.8, failed=4, back_s=5.25)
STUCK = Bench(before_per_s=20.3, after_per_s=0.0, failed=40, back_s=0.0, said="connection refused")
ORIGIN = {"event": "decision 3", "term": "4", "token": "17"}


def record(asked_s: float, who: int, took_s: float = 0.01) -> Record:
    asked_ns = int(asked_s * NS_PER_S)
    return Record(asked_ns, asked_ns + int(took_s * NS_PER_S) if who else 0, who)


def outcome(promotions: int = 1, agree: int = 3, bench: Bench = ON) -> Outcome:
    return judge("killed", 1, Promotions(promotions, promotions, promotions), GOOD, bench, agree, 3)


# outcomes


def test_a_failover_with_one_promotion_holds() -> None:
    seen = judge("killed", 1, ONE, GOOD, ON, 3, 3)
    assert (seen.holds, seen.promotions, seen.gap_s, seen.wrong) == (True, 1, 2.5, ())
    assert seen.details == f"writes went to n1>n2, 20 of 100 failed; {ON}"


def test_a_failover_after_which_pgbench_does_not_go_on_does_not_hold() -> None:
    seen = judge("killed", 1, ONE, GOOD, STUCK, 3, 3)
    assert seen.wrong == ("pgbench does not go on",)
    assert "20 transactions/s before, does not go on: connection refused" in seen.details


@pytest.mark.parametrize(
    "promotions",
    [Promotions(2, 1, 1), Promotions(1, 2, 1), Promotions(1, 1, 2), Promotions(0, 0, 0), Promotions(1, 0, 1)],
)
def test_every_count_of_promotions_has_to_be_right(promotions: Promotions) -> None:
    seen = judge("killed", 1, promotions, GOOD, ON, 3, 3)
    assert not seen.holds and "expected 1 of each" in seen.wrong[0]
    assert seen.promotions == max(promotions.written_down, promotions.timelines, promotions.writable)


def test_backends_that_take_turns_and_pools_that_disagree_are_wrong() -> None:
    turns = Writes(gap_s=0.1, failed=0, asked=10, backends=(1, 2, 1))
    seen = judge("killed", 1, ONE, turns, ON, 2, 3, ["waited in vain"])
    assert len(seen.wrong) == 3 and seen.wrong[0] == "waited in vain"
    assert "took turns" in seen.wrong[1] and seen.wrong[2] == "2 of 3 pgpool-IIs agree"


def test_the_gap_is_the_longest_time_without_an_acknowledgement() -> None:
    records = [record(1, 11), record(2, 0), record(3, 0), record(4, 12, took_s=1.5), record(5.6, 12), record(20, 13)]
    seen = writes_in(records, 0, 7 * NS_PER_S)
    assert (round(seen.gap_s, 2), seen.failed, seen.asked, seen.backends) == (4.49, 2, 5, (1, 2))
    assert writes_in([], 0, 7 * NS_PER_S).gap_s == 7
    assert not writes_in([record(1, 11), record(2, 12), record(3, 11)], 0, 4 * NS_PER_S).never_mixed


# the table


def test_a_row_shows_the_worst_of_its_runs() -> None:
    row = row_of("killed", [outcome(), outcome(), outcome(promotions=2, agree=1)])
    assert (row.runs, row.promotions, row.agree, row.holds) == (3, "1 (2x), 2 (1x)", "1 of 3", False)
    assert "1 FAILED" in str(row) and row.pgbench == "yes"
    stuck = row_of("killed", [outcome(), outcome(bench=STUCK)])
    assert stuck.pgbench == "no (1x)" and not stuck.holds and "no (1x)" in str(stuck)
    text = table([outcome(), outcome(promotions=2)], ["run 7: no lab"])
    assert "promotions too many: in 1 of 2 runs" in text and "without an outcome: run 7: no lab" in text


# pictures


def node(node_id: int, status: SeenStatus, role: BackendRole, quarantined: bool = False) -> PoolBackend:
    return PoolBackend(node_id, "10.0.0.1", 5432, status, role, quarantined)


def test_a_picture_has_the_usable_backends_and_their_primary() -> None:
    up, down, primary = SeenStatus.UP, SeenStatus.DOWN, BackendRole.PRIMARY
    third = node(2, SeenStatus.WAITING, BackendRole.STANDBY)
    seen = picture_of((node(0, down, primary), node(1, up, primary), third))
    assert seen == Picture(frozenset({1, 2}), 1) and str(seen) == "up [1, 2], primary 1"
    two = picture_of((node(0, up, primary), node(1, up, primary)))
    assert two.primary is None
    alone = node(0, down, BackendRole.STANDBY, quarantined=True)
    assert picture_of((alone,)) == Picture(frozenset(), None, frozenset({0}))


# ledger, agent, command


class Standby(Server):
    """A server of which only the promotion counts."""

    def __init__(self, folder: Path) -> None:
        super().__init__("n2", "127.0.0.1", folder)
        self.standby = True

    def in_recovery(self) -> bool:
        return self.standby

    def promote(self) -> None:
        self.standby = False


def test_a_promotion_is_written_down_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    agent = Agent(Standby(tmp_path), ledger)
    line = json.dumps({"order": "promote", **ORIGIN}).encode()
    assert agent.carry_out(line) == {"done": True, "said": "promoted"}
    assert agent.carry_out(line) == {"done": True, "said": "is a primary already"}
    (written,) = ledger.promotions(0)
    assert (written.node, written.event, written.term, written.token) == ("n2", "decision 3", "4", "17")
    assert ledger.promotions(written.at_ns + 1) == []


@pytest.mark.parametrize("line", [b"", b"{}", b'{"order": "dance"}', b'{"order": "promote", "colour": "blue"}'])
def test_an_order_that_is_not_understood_is_answered(tmp_path: Path, line: bytes) -> None:
    answer = Agent(Standby(tmp_path), Ledger(tmp_path / "ledger")).carry_out(line)
    assert not answer["done"] and "not understood" in answer["said"]


def test_an_agent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no answer from the host's agent"):
        order(tmp_path / "agent", "ping")


def call(failed: str, old_primary: str, new: str = "1") -> command.Call:
    return command.Call(
        failed, "127.0.0.1", "5432", "/data", new, "127.0.0.2", "0", old_primary, "5432", "/data", "", ""
    )


def test_a_failover_of_a_standby_promotes_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert "nothing to promote" in command.failover(call("2", "0"), ledger, ORIGIN)
    assert "no backend is left" in command.failover(call("0", "0", "-1"), ledger, ORIGIN)


def test_a_command_writes_its_start_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for name, value in {"EVENT": "decision 3", "TERM": "4", "TOKEN": "17", "NODE_ID": "2"}.items():
        monkeypatch.setenv(f"PGVIGIL_{name}", value)
    words = ["2", "10.0.0.3", "5432", "/data", "1", "10.0.0.2", "0", "0", "5432", "/data", "", ""]
    assert command.main(["failback", str(ledger.path), *words]) == 0
    first, last = ledger.lines()
    assert (first.what, last.what, first.node, first.token) == ("start", "end", "n2", "17")
    assert ledger.starts(0, "failback") == [first] and ledger.starts(0, "failover") == []
    assert origin_of({}) == {"event": "", "term": "", "token": ""}


# the writer


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


READY = message(b"Z", b"I")
ROW = message(b"D", struct.pack("!HI", 1, 10) + b"10.77.0.12")


def test_a_write_is_acknowledged_when_the_server_is_ready_again() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session = writer.Session(ours, 0)
        assert not session.feed(message(b"R", struct.pack("!I", 0)) + READY[:3])
        assert not session.feed(READY[3:])
        assert theirs.recv(1024) == writer.simple_query(writer.WRITE)
        assert not session.feed(ROW + message(b"C", b"INSERT 0 1\0"))
        assert session.feed(READY) and session.written_by == 12
        with pytest.raises(PeerError, match="read-only"):
            session.feed(message(b"E", b"SERROR\0Mread-only transaction\0\0"))
