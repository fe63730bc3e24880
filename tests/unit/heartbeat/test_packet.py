"""The datagram: hostile bytes, other keys, and the size limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.heartbeat.packet import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    Heartbeat,
    OtherKeyError,
    PacketError,
    Rejection,
    Signer,
)
from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Beat, Health, Role

KEY = bytes(range(32))
INT = st.integers(0, 2**63 - 1)
BEATS = st.builds(
    Beat,
    st.sampled_from(Role),
    INT,
    st.booleans(),
    st.sampled_from(Health),
    INT,
    INT,
    st.lists(INT, max_size=16).map(tuple),
    INT,
)
HEARTBEATS = st.builds(Heartbeat, *[INT] * 10, BEATS)
PLAIN = Heartbeat(2, 3, 0, 77, 11, 12, 13, 14, 0, 0, Beat(Role.LEADER, 7, True, Health.ALIVE, 1, 5000, (2, 3), 10))


@given(HEARTBEATS)
def test_round_trip(heartbeat: Heartbeat) -> None:
    signer = Signer(KEY)
    datagram = signer.encode(heartbeat)
    assert len(datagram) <= MAX_DATAGRAM_BYTES
    assert signer.decode(datagram) == heartbeat


@given(st.binary(max_size=1300))
def test_hostile_bytes_raise_only_packet_errors(data: bytes) -> None:
    with pytest.raises(PacketError):
        Signer(KEY).decode(data)


@given(st.binary(max_size=600))
def test_signed_rubbish_raises_only_packet_errors(body: bytes) -> None:
    signer = Signer(KEY)
    signed = signer._header + body
    with pytest.raises(PacketError) as raised:
        signer.decode(signed + signer._mac(signed))
    assert raised.value.rejection is Rejection.MALFORMED


@given(st.integers(0, 8 * len(Signer(KEY).encode(PLAIN)) - 1))
def test_no_bit_can_be_flipped(bit: int) -> None:
    signer = Signer(KEY)
    datagram = bytearray(signer.encode(PLAIN))
    datagram[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PacketError):
        signer.decode(bytes(datagram))


@given(st.integers(0, 300))
def test_no_byte_can_be_cut_off_or_added(size: int) -> None:
    signer = Signer(KEY)
    datagram = signer.encode(PLAIN)
    if size != len(datagram):
        with pytest.raises(PacketError):
            signer.decode(datagram[:size].ljust(size, b"\0"))


def test_another_key_is_named_by_its_id_and_never_shown() -> None:
    ours, theirs = Signer(KEY), Signer(bytes(32))
    with pytest.raises(OtherKeyError) as raised:
        ours.decode(theirs.encode(PLAIN))
    assert raised.value.theirs == theirs.key_id
    assert raised.value.rejection is Rejection.OTHER_KEY
    assert len(ours.key_id) == 16
    assert ours.key_id not in KEY.hex()


@pytest.mark.parametrize(
    ("datagram", "rejection"),
    [
        (b"", Rejection.FOREIGN),
        (b"pgvH", Rejection.FOREIGN),
        (b"x" * 200, Rejection.FOREIGN),
        (b"x" * (MAX_DATAGRAM_BYTES + 1), Rejection.OVERSIZE),
        (b"pgvH\x01" + b"x" * 60, Rejection.VERSION),
        (Signer(KEY).encode(PLAIN)[:-1] + b"\0", Rejection.FORGED),
        (Signer(KEY).encode(PLAIN)[:HEADER_BYTES] + b"\0" * 16, Rejection.FORGED),
    ],
)
def test_the_class_of_a_rejection(datagram: bytes, rejection: Rejection) -> None:
    with pytest.raises(PacketError) as raised:
        Signer(KEY).decode(datagram)
    assert raised.value.rejection is rejection


def test_what_does_not_fit_is_our_own_mistake() -> None:
    beat = Beat(Role.LEADER, 1, True, Health.ALIVE, 1, 1, tuple(range(2**62, 2**62 + 200)), 0)
    with pytest.raises(InvariantError, match="1200"):
        Signer(KEY).encode(Heartbeat(1, 2, 0, 1, 1, 1, 1, 1, 0, 0, beat))


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_key_of_the_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(InvariantError, match="key"):
        Signer(bytes(size))


@given(st.integers(0, 255), st.sampled_from([1, 200, 70_000, 2**40]), st.integers(0, 300))
def test_what_was_read_can_be_written(count: int, node_id: int, small: int) -> None:
    """Also if others write numbers shorter than we do: the receiver makes a template of what it believes."""
    signer = Signer(KEY)
    hears = (node_id,) * count
    beat = Beat(Role.LEADER, 7, True, Health.ALIVE, 1, small, hears, small)
    signed = signer._header + codec.encode(Heartbeat(2, 3, 0, 77, 11, 12, small, small, small, small, beat))
    try:
        heartbeat = signer.decode(signed + signer._mac(signed))
    except PacketError:
        assert len(signed) + 6 * 8 + 16 > MAX_DATAGRAM_BYTES
        return
    assert signer.decode(signer.encode(heartbeat)) == heartbeat


def test_numbers_written_short_do_not_make_a_datagram_too_long() -> None:
    signer = Signer(KEY)
    beat = Beat(Role.LEADER, 7, True, Health.ALIVE, 1, 0, (70_000,) * 220, 0)
    signed = signer._header + codec.encode(Heartbeat(2, 3, 0, 77, 11, 12, 0, 0, 0, 0, beat))
    datagram = signed + signer._mac(signed)
    assert MAX_DATAGRAM_BYTES - 48 < len(datagram) <= MAX_DATAGRAM_BYTES
    with pytest.raises(PacketError, match="in full width") as raised:
        signer.decode(datagram)
    assert raised.value.rejection is Rejection.MALFORMED
