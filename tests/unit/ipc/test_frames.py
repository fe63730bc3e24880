"""Frames: every kind survives the trip, and nothing else gets through."""

from __future__ import annotations

import typing

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipc import values

from pgvigil.ipc import codec, frames
from pgvigil.ipc.errors import InvariantError, PeerError

ANY_FRAME = st.sampled_from(sorted(frames.KINDS)).flatmap(lambda number: values.of(frames.KINDS[number]))


@pytest.mark.parametrize("kind", frames.KINDS.values(), ids=lambda kind: kind.__name__)
@given(st.data())
def test_every_kind_survives_the_trip(kind: type[frames.Frame], data: st.DataObject) -> None:
    frame = data.draw(values.of(kind))
    received = frames.unpack(frames.pack(frame, "lifecheck", 7, 99))
    assert received == frames.Received(frame, "lifecheck", 7, 99)
    assert type(received.frame) is kind


def test_every_kind_has_one_number() -> None:
    assert set(frames.KINDS.values()) == set(typing.get_args(frames.Frame))
    assert len(frames.NUMBERS) == len(frames.KINDS)


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_only_peer_errors(data: bytes) -> None:
    with pytest.raises(PeerError):
        frames.unpack(data)


@given(ANY_FRAME, st.data())
def test_a_damaged_frame_raises_only_peer_errors(frame: frames.Frame, data: st.DataObject) -> None:
    packed = bytearray(frames.pack(frame, "x", 1, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        frames.unpack(bytes(packed))
    except PeerError:
        pass


@given(st.sampled_from(sorted(frames.KINDS)), values.PLAIN)
def test_a_hostile_payload_raises_only_peer_errors(kind: int, plain: object) -> None:
    payload = msgpack.packb(plain)
    try:
        frames.unpack(codec.encode(frames.Envelope(frames.SCHEMA, kind, "x", 1, 1, payload)))
    except PeerError:
        pass


def test_other_schemas_and_kinds_are_named() -> None:
    payload = codec.encode(frames.Ready("x"))
    with pytest.raises(PeerError, match="schema 2, expected 1"):
        frames.unpack(codec.encode(frames.Envelope(2, 1, "x", 1, 1, payload)))
    with pytest.raises(PeerError, match="kind 99, expected one of 1 to"):
        frames.unpack(codec.encode(frames.Envelope(1, 99, "x", 1, 1, payload)))


def test_only_registered_frames_are_packed() -> None:
    with pytest.raises(InvariantError, match="no registered frame"):
        frames.pack(frames.Beat, "x", 1, 1)  # type: ignore[arg-type]
