from __future__ import annotations

import errno
import os
import select
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc import codec
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError, InvariantError, PeerError
from pgvigil.ipc.hashing import blake2b
from pgvigil.watchdog import store as store_module
from pgvigil.watchdog.core.record import (
    RECORD_FORMAT,
    Backend,
    BackendRole,
    BackendStatus,
    Cause,
    Document,
    Intent,
    QuorumRule,
    Record,
    Removed,
    Stamp,
    Voter,
    blank_record,
)
from pgvigil.watchdog.process import raised_boot
from pgvigil.watchdog.store import MAX_PENDING, Store, Writer, holder, pack, unpack

BLANK = blank_record("test", 1, 77)
OLD = replace(BLANK, boot=4, term=7, voted_for=2, kernel_boot_id="abc")
NEW = replace(OLD, term=8, document=Document(Stamp(8, 1), 1, (Voter(1, 77), Voter(2, 78)), 1000, False, ()))
WRITE_CALLS = ("open", "write", "fsync", "close", "rename", "fsync")


def summed(number: int, content: bytes) -> bytes:
    """A record file of a format with a right checksum."""
    header = struct.pack(">II", number, len(content))
    return (
        store_module.MAGIC + header + blake2b(store_module.MAGIC + header + content, digest_size=32).digest() + content
    )


class Crash(BaseException):
    """The machine stops here."""


class TracedOs:
    """`os` that notes the calls which change the disk, and stops or fails at the chosen one."""

    def __init__(self, stop_after: int = 10**6, fail: str = "", code: int = 0, short: bool = False) -> None:
        self.calls: list[str] = []
        self.details: list[tuple[str, object]] = []
        self._stop_after, self._fail, self._code, self._short = stop_after, fail, code, short

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._traced(name, real) if name in {"open", "write", "fsync", "close", "rename"} else real

    def _traced(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if len(self.calls) >= self._stop_after:
                raise Crash
            self.calls.append(name)
            self.details.append((name, arguments[0]))
            if name == self._fail:
                raise OSError(self._code, os.strerror(self._code))
            if name == "write" and self._short:
                return real(arguments[0], bytes(arguments[1])[:10])
            return real(*arguments, **keywords)

        return call


@contextmanager
def opened(folder: Path, cluster: str = "test", node_id: int = 1) -> Iterator[Store]:
    store = Store(str(folder), cluster, node_id)
    try:
        yield store
    finally:
        store.close()


def read_again(folder: Path) -> Record:
    with opened(folder) as store:
        return store.open("abc", 99)


def wait_for(writer: Writer, tickets: int) -> list[int]:
    """Tickets until there are so many or the writer has failed; never longer than five seconds."""
    got: list[int] = []
    deadline_ns = boottime_ns() + 5_000_000_000
    while len(got) < tickets and writer.failure is None:
        assert boottime_ns() < deadline_ns
        select.select([writer.fd], [], [], 1)
        got += writer.completed()
    return got


def test_missing_record_is_blank_and_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with opened(folder) as store:
        assert store.open("this boot", 77) == replace(BLANK, kernel_boot_id="this boot")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_saved_record_comes_back_and_is_private(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.save(OLD)
        store.save(NEW)
    assert read_again(tmp_path) == NEW
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["lock", "record"]


def test_second_opener_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(CommandError, match=rf"locked by another pgvigil \(process {os.getpid()}\)"):
        Store(str(tmp_path), "test", 1)
    with opened(tmp_path):
        pass


def test_the_holder_of_a_state_folder_is_named_without_opening_it(tmp_path: Path) -> None:
    assert holder(str(tmp_path / "missing")) is None
    store = Store(str(tmp_path), "c", 1)
    assert holder(str(tmp_path)) == str(os.getpid())
    store.close()
    assert holder(str(tmp_path)) is None
    Store(str(tmp_path), "c", 1).close()


def test_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot open the state folder"):
        Store(str(tmp_path / "file" / "state"), "test", 1)


@pytest.mark.parametrize("length", range(len(pack(NEW))))
def test_record_torn_at_any_byte_is_refused(length: int) -> None:
    with pytest.raises(PeerError):
        unpack(pack(NEW)[:length])


@given(st.integers(0, len(pack(NEW)) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(position: int, change: int) -> None:
    data = bytearray(pack(NEW))
    data[position] ^= change
    with pytest.raises(PeerError):
        unpack(bytes(data))


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    for candidate in (data, pack(NEW) + data + b"x", pack(NEW)[:55] + data):
        with pytest.raises(PeerError):
            unpack(candidate)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty, expected a record"),
        (pack(OLD)[:-1], "it is torn: .* bytes of content, expected"),
        (pack(OLD)[:20], "it is torn: 20 bytes, expected at least 56"),
        (pack(OLD) + bytes(100_000), "it is torn: .* bytes of content, expected"),
        (b"PK" + pack(OLD)[2:], "it starts with b'PK.*, expected b'pgvigil-record"),
        (pack(OLD)[:-1] + b"\xff", "it is torn or damaged: its checksum does not match its content"),
        (
            summed(RECORD_FORMAT + 1, codec.encode(OLD)),
            f"it has format {RECORD_FORMAT + 1}, expected {RECORD_FORMAT} or older: a newer pgvigil has written it",
        ),
        (summed(0, codec.encode(OLD)), f"it has format 0 outside and {OLD.format} inside, expected the same"),
        (summed(1, codec.encode(OLD)[:-1]), "not a valid msgpack frame"),
        (summed(1, b"\x91" * 1000 + b"\xc0"), "Record: a list of 1, expected a list of 13 fields"),
        (pack(replace(OLD, node_id=2)), "it belongs to node 2 of cluster 'test', expected node 1 of cluster 'test'"),
        (pack(replace(OLD, cluster="other")), "it belongs to node 1 of cluster 'other', expected node 1"),
        (pack(replace(OLD, format=RECORD_FORMAT + 1)), "or older: a newer pgvigil has written it"),
    ],
)
def test_refusal_names_file_and_reason_and_what_to_do(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "record").write_bytes(data)
    with pytest.raises(CommandError, match=reason) as caught:
        read_again(tmp_path)
    assert str(tmp_path / "record") in str(caught.value)
    assert "neither votes nor stands" in str(caught.value)
    assert "remove the file and let the cluster remove this node and add it again" in str(caught.value)
    assert (tmp_path / "record").read_bytes() == data


def test_record_of_somebody_else_is_never_written(tmp_path: Path) -> None:
    with opened(tmp_path) as store, pytest.raises(InvariantError, match="belongs to node 2"):
        store.save(replace(OLD, node_id=2))


def test_content_is_durable_before_its_name_and_the_name_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        traced = TracedOs()
        monkeypatch.setattr(store_module, "os", traced)
        store.save(NEW)
        assert tuple(traced.calls) == WRITE_CALLS
        (_, written), (_, first), (_, second) = (item for item in traced.details if item[0] in ("write", "fsync"))
        assert written == first != second
        assert stat.S_ISDIR(os.fstat(int(str(second))).st_mode)
        monkeypatch.undo()


@pytest.mark.parametrize("calls", range(len(WRITE_CALLS) + 1))
def test_crash_between_two_system_calls_leaves_the_old_or_the_new_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    with opened(tmp_path) as store:
        store.save(OLD)
        monkeypatch.setattr(store_module, "os", TracedOs(stop_after=calls))
        try:
            store.save(NEW)
        except Crash:
            pass
        monkeypatch.undo()
    assert read_again(tmp_path) == (NEW if calls >= 5 else OLD)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        monkeypatch.setattr(store_module, "os", TracedOs(short=True))
        store.save(NEW)
        monkeypatch.undo()
    assert read_again(tmp_path) == NEW


@pytest.mark.parametrize(
    ("call", "code"), [("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EROFS), ("open", errno.EDQUOT)]
)
def test_failed_write_is_reported_and_keeps_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    with opened(tmp_path) as store:
        store.save(OLD)
        monkeypatch.setattr(store_module, "os", TracedOs(fail=call, code=code))
        with pytest.raises(CommandError, match=os.strerror(code)):
            store.save(NEW)
        monkeypatch.undo()
    assert read_again(tmp_path) == OLD


def test_writer_completes_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        writer = Writer(store)
        tickets = [writer.submit(replace(OLD, term=term)) for term in range(10, 30)]
        assert wait_for(writer, len(tickets)) == tickets
        assert store.open("abc", 99).term == 29
        writer.close(1000)
        assert writer.failure is None


def test_ticket_completes_only_after_the_record_is_on_disk(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        writer = Writer(store)
        for term in range(10, 40):
            ticket = writer.submit(replace(OLD, term=term))
            assert wait_for(writer, 1) == [ticket]
            assert store.open("abc", 99).term == term
        writer.close(1000)


def test_close_finishes_what_was_submitted(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        writer = Writer(store)
        for term in range(10, 20):
            writer.submit(replace(OLD, term=term))
        writer.close(5000)
        with pytest.raises(InvariantError, match="closed writer"):
            writer.submit(OLD)
        assert store.open("abc", 99).term == 19


def test_after_a_failure_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        store.save(OLD)
        writer = Writer(store)
        monkeypatch.setattr(store_module, "os", TracedOs(fail="write", code=errno.ENOSPC))
        writer.submit(NEW)
        assert wait_for(writer, 1) == []
        assert "No space left on device" in str(writer.failure)
        monkeypatch.undo()
        writer.submit(NEW)
        writer.close(1000)
        assert store.open("abc", 99) == OLD


def test_too_many_pending_records_are_an_error_of_ours(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        writer = Writer(store)
        for _ in range(MAX_PENDING):
            writer.submit(OLD)
        with pytest.raises(InvariantError, match="64 records wait"):
            writer.submit(OLD)
        writer.close(10_000)


def test_slow_disk_does_not_hold_the_end_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()
    with opened(tmp_path) as store:
        monkeypatch.setattr(store, "write", lambda data: gate.wait(10))
        writer = Writer(store)
        writer.submit(OLD)
        with pytest.raises(CommandError, match="within 20 ms"):
            writer.close(20)
        gate.set()
        writer.close(5000)


def test_a_record_of_the_first_format_is_read_and_raised() -> None:
    """The last field of the document, `removed`, was not there; what is not used is not written."""
    plain = codec.unpack(codec.encode(NEW))
    assert isinstance(plain, tuple)
    old = (1, *plain[1:])
    assert isinstance(old[-1], tuple) and len(old[-1]) == 6
    record = codec.from_plain(Record, old)
    assert record == replace(NEW, format=1)
    assert raised_boot(record, "xyz").format == RECORD_FORMAT
    assert record.document is not None
    used = replace(NEW, document=record.document.without_voter(2, Cause.LOST))
    assert codec.decode(Record, codec.encode(used)) == used


def test_a_record_of_the_second_format_means_a_majority_and_half_is_kept() -> None:
    """The fields `quorum` and `tie_breaker` of the document were not there."""
    assert NEW.document is not None
    used = replace(NEW, document=replace(NEW.document, removed=(Removed(3, 79, Cause.LOST),)))
    plain = codec.unpack(codec.encode(used))
    assert isinstance(plain, tuple) and isinstance(plain[-1], tuple) and len(plain[-1]) == 7
    record = codec.from_plain(Record, (2, *plain[1:]))
    assert record.document is not None
    assert (record.document.quorum, record.document.tie_breaker) == (QuorumRule.MAJORITY, "")
    half = replace(NEW, document=replace(NEW.document, quorum=QuorumRule.HALF, tie_breaker="10.0.0.254"))
    assert unpack(pack(half)) == half


def test_a_record_of_the_third_format_has_no_backends_and_its_commands_no_arguments() -> None:
    """The fields `backends`, `decided` and `decisions` of the document, `arguments` and `detail` of an intent."""
    assert NEW.document is not None
    intent = Intent("escalation", "term 8", "once", 8, 4, 1, "done")
    half = replace(NEW.document, intents=(intent,), quorum=QuorumRule.HALF, tie_breaker="10.0.0.254")
    used = replace(NEW, document=half)
    plain = codec.unpack(codec.encode(used))
    assert isinstance(plain, tuple) and isinstance(plain[-1], tuple) and len(plain[-1]) == 9
    record = codec.from_plain(Record, (3, *plain[1:]))
    assert record == replace(used, format=3) and record.document is not None
    assert (record.document.backends, record.document.decided, record.document.intents[0].arguments) == ((), 0, ())
    assert raised_boot(record, "xyz").format == RECORD_FORMAT == 4
    down = Backend(0, "db0", 5432, BackendStatus.DOWN, BackendRole.PRIMARY, "it failed", 2)
    kept = replace(used, document=replace(half, backends=(down,), decided=2, intents=(replace(intent, detail="well"),)))
    assert unpack(pack(kept)) == kept
