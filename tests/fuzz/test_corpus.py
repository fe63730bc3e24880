"""Every decoder against the committed corpus and all valid samples, without a fuzzer: what was mended stays mended."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
from tests.fuzz import corpus, samples, session
from tests.fuzz.targets import TARGETS, NotTheSameError, Target, signed, summed

from pgvigil.heartbeat.packet import HEADER_BYTES, MAC_BYTES
from pgvigil.ipc import codec, frames
from pgvigil.watchdog import store
from pgvigil.watchdog.config import source

pytestmark = pytest.mark.timeout(60)

NAMES = sorted(TARGETS)


def peak_of(target: Target, data: bytes) -> int:
    """The most memory that taking these bytes needs, in bytes."""
    tracemalloc.start()
    try:
        target.take(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_harms_nobody(name: str) -> None:
    inputs = corpus.inputs_of(name)
    assert len(inputs) >= 20
    for data in inputs.values():
        TARGETS[name].take(data)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_is_small(name: str) -> None:
    inputs = corpus.inputs_of(name)
    assert len(inputs) <= corpus.MAX_FILES
    assert max(map(len, inputs.values())) <= corpus.MAX_FILE_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_taken_and_every_prefix_refused(name: str) -> None:
    target = TARGETS[name]
    accepted = [target.take(data) for data in target.samples()]
    if name == "config":  # two of its samples are not for the made-up machine
        assert accepted[:2] == [1, 1]
        return
    assert accepted == [1] * len(accepted)
    for data in target.samples():
        assert all(target.take(data[:length]) == 0 for length in range(1, len(data), 1 + len(data) // 40))


def bombs(target: Target) -> list[bytes]:
    """The largest inputs of kinds that are dear to somebody who builds lists, texts or tables from them."""
    size = target.max_bytes
    heads = (b"\x91", b"\xdc\x01\x00", b"\x93\xdc\x01\x00", b"\xdd\x00\x00\x01\x00", b"\xa1a", b"\xcb12345678", b"\x90")
    full = b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x91\xc0" * 256) * 256
    texts = (
        b"a.",
        b"[a.",
        b"[[a]]\n",
        b"a=[",
        b'a="',
        b"a={b=",
        b"'",
        b'"""',
        b"[node]\n",
        b"#",
        b"\n",
        b"a=1\n",
        b"\xff",
    )
    numbered = b"".join(b"x%x=1\n" % number for number in range(size // 8))
    return [(head * size)[:size] for head in (*heads, *texts)] + [full[:size], numbered[:size], bytes(size)]


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_bounded(name: str) -> None:
    target = TARGETS[name]
    for data in (*bombs(target), *corpus.inputs_of(name).values()):
        assert peak_of(target, data) <= target.peak_bytes, data[:40]
        for start in (b"\x01", b"\x0f"):
            assert peak_of(target, start + data) <= target.peak_bytes, data[:40]


# --- the instruments -----------------------------------------------------------------------------------------------


def test_the_wrappers_are_what_the_product_writes() -> None:
    for heartbeat_bytes in TARGETS["heartbeat"].samples()[:3]:
        assert signed(heartbeat_bytes[HEADER_BYTES:-MAC_BYTES]) == heartbeat_bytes
    for one in samples.records():
        assert summed(codec.encode(one)) == store.pack(one)


def test_a_decoder_that_crashes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that the corpus keeps: a list spelled out in an error nested deeper than Python recurses."""
    monkeypatch.setattr(codec, "_shown", repr)
    for name in ("frame", "heartbeat", "message", "record"):
        with pytest.raises(RecursionError):
            TARGETS[name].take(corpus.inputs_of(name)["nested-1000-deep"])


def test_a_decoder_that_loses_something_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    other, data = samples.records()[1], TARGETS["record"].samples()[2]
    monkeypatch.setattr(store, "pack", lambda record: summed(codec.encode(other)))
    with pytest.raises(NotTheSameError):
        TARGETS["record"].take(data)


def test_a_decoder_that_wants_much_memory_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = frames.unpack
    monkeypatch.setattr(frames, "unpack", lambda data: (bytearray(17 * 1024 * 1024), original(data))[1])
    assert peak_of(TARGETS["frame"], b"") > TARGETS["frame"].peak_bytes


def test_a_key_of_many_parts_would_need_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_DEEP_KEY", re.compile("(?!)"))
    target = TARGETS["config"]
    assert peak_of(target, b"a." * 3000 + b"a=1") > target.peak_bytes


def test_only_small_inputs_are_kept_and_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    found = [bytes(length) for length in range(0, 3000, 7)]
    assert corpus.keep("some", found) == corpus.MAX_FILES
    assert corpus.keep("some", found) == 0
    assert max(map(len, corpus.inputs_of("some").values())) <= corpus.MAX_FILE_BYTES


LIBFUZZER = """
#524288 pulse  cov: 111 ft: 200 corp: 40/3Kb lim: 4096 exec/s: 65536 rss: 70Mb
#600000 DONE   cov: 112 ft: 202 corp: 41/3Kb lim: 4096 exec/s: 75000 rss: 70Mb
stat::number_of_executed_units: 600000
stat::average_exec_per_sec:     75000
stat::peak_rss_mb:              70
"""


def test_a_session_says_what_it_did_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WORK", tmp_path)
    summary = session.summary_of("frame", LIBFUZZER, 77, (tmp_path / "crash-1",))
    assert (summary.executions, summary.per_second, summary.edges, summary.features) == (600_000, 75_000, 112, 202)
    assert "crash-1" in str(summary)
    assert "0 executions" in str(session.summary_of("frame", "No module named atheris", 1, ()))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SystemExit):
        session.main(["nothing"])
