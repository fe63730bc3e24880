"""Valid values, damaged: what comes out is another valid value or the promised error, whatever the damage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import corpus
from tests.fuzz.targets import SIGNER, TARGETS, signed, summed

from pgvigil.heartbeat.packet import MAC_BYTES, MAX_DATAGRAM_BYTES, PacketError
from pgvigil.ipc import codec
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog import store

pytestmark = pytest.mark.timeout(120)

Edit = tuple[str, int, int, bytes]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("write", "insert", "delete", "double", "swap", "length")),
        st.integers(0, 2**16),
        st.integers(1, 64),
        st.binary(min_size=1, max_size=9)
        | st.sampled_from((b"\xc0", b"\x91" * 64, b"\xdd\xff\xff\xff\xff", b"\n[", b"=")),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """The bytes after some damage; places count round and round."""
    for kind, place, length, news in edits:
        at = place % (len(data) + 1)
        if kind == "write":
            data = data[:at] + news + data[at + len(news) :]
        elif kind == "insert":
            data = data[:at] + news + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + length :]
        elif kind == "double":
            data = data[: at + length] + data[at:]
        elif kind == "swap":
            data = data[at:] + data[:at]
        elif data:
            at = place % len(data)
            data = data[:at] + bytes([(data[at] + length) % 256]) + data[at + 1 :]
    return data


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_samples(name: str) -> None:
    target = TARGETS[name]
    starts = [*target.samples(), *corpus.inputs_of(name).values()]

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.sampled_from(starts), EDITS)
    def take(start: bytes, edits: list[Edit]) -> None:
        target.take(edited(start, edits))

    take()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.binary(max_size=200))
    def take(data: bytes) -> None:
        target.take(data)

    take()


@settings(max_examples=200, deadline=None)
@given(EDITS)
def test_a_damaged_datagram_is_never_believed(edits: list[Edit]) -> None:
    whole = TARGETS["heartbeat"].samples()[1]
    damaged = edited(whole, edits)
    if damaged != whole:
        with pytest.raises(PacketError):
            SIGNER.decode(damaged)


@settings(max_examples=200, deadline=None)
@given(EDITS)
def test_a_damaged_record_is_never_believed(edits: list[Edit]) -> None:
    whole = TARGETS["record"].samples()[1]
    damaged = edited(whole, edits)
    if damaged != whole:
        with pytest.raises(PeerError):
            store.unpack(damaged)


@given(st.integers(0, 3 * MAX_DATAGRAM_BYTES))
def test_a_datagram_of_any_size_is_refused_by_its_size_first(size: int) -> None:
    with pytest.raises(PacketError) as raised:
        SIGNER.decode(signed(bytes(size)))
    too_large = size + len(signed(b"")) > MAX_DATAGRAM_BYTES
    assert (raised.value.rejection.name == "OVERSIZE") == too_large
    assert len(signed(b"")) > MAC_BYTES


@given(st.integers(codec.MAX_FRAME_BYTES + 1, codec.MAX_FRAME_BYTES + 1000))
def test_a_record_that_is_too_long_is_refused(size: int) -> None:
    with pytest.raises(PeerError, match="expected at most 65536"):
        store.unpack(summed(bytes(size)))
