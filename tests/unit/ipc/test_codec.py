"""The codec: strict, and never anything but `PeerError` on what comes from outside."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipc import values

from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError, PeerError


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass(frozen=True, slots=True)
class Inner:
    number: int
    flag: bool


@dataclass(frozen=True, slots=True)
class Outer:
    text: str
    data: bytes
    colour: Colour
    inner: Inner
    many: tuple[Inner, ...]
    maybe: Inner | None


@dataclass(frozen=True)
class Unsupported:
    ratio: float


GOOD: list[object] = ["t", b"d", "red", [1, True], [[2, False]], None]


@given(values.of(Outer))
def test_round_trip(value: Outer) -> None:
    assert codec.decode(Outer, codec.encode(value)) == value


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_only_peer_errors(data: bytes) -> None:
    try:
        codec.decode(Outer, data)
    except PeerError:
        pass


@given(values.PLAIN)
def test_hostile_msgpack_raises_only_peer_errors(plain: object) -> None:
    try:
        value = codec.decode(Outer, msgpack.packb(plain))
    except PeerError:
        return
    assert isinstance(value, Outer)


@given(st.integers(0, 5), values.PLAIN)
def test_any_field_can_be_hostile(index: int, plain: object) -> None:
    fields = list(GOOD)
    fields[index] = plain
    try:
        codec.decode(Outer, msgpack.packb(fields))
    except PeerError as error:
        assert len(str(error)) < 400


@given(st.binary(min_size=1, max_size=40), st.data())
def test_truncated_and_extended_frames_are_refused(tail: bytes, data: st.DataObject) -> None:
    packed = msgpack.packb(GOOD)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(PeerError):
        codec.decode(Outer, packed[:cut])
    with pytest.raises(PeerError):
        codec.decode(Outer, packed + tail)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (["t"], "Outer: .*expected a list of 6 fields"),
        ([*GOOD, 1], "expected a list of 6 fields"),
        ([1, *GOOD[1:]], "Outer.text: 1, expected text"),
        (["t", "d", *GOOD[2:]], "Outer.data"),
        (["t", b"d", "green", *GOOD[3:]], "Outer.colour: 'green', expected one of red, 2"),
        (["t", b"d", True, *GOOD[3:]], "Outer.colour"),
        (["t", b"d", "red", [-1, True], [], None], "Outer.inner.number: -1, expected an integer of 0"),
        (["t", b"d", "red", [2**63, True], [], None], "Outer.inner.number"),
        (["t", b"d", "red", [True, True], [], None], "Outer.inner.number: True"),
        (["t", b"d", "red", [1, 1], [], None], "Outer.inner.flag"),
        (["t", b"d", "red", [1, True], [[1, True], [1]], None], r"Outer.many\[1\]"),
        (["t", b"d", "red", [1, True], "x", None], "Outer.many"),
        (["t", b"d", "red", [1, True], [], 5], "Outer.maybe"),
    ],
)
def test_an_error_names_the_field_and_what_was_expected(fields: list[object], named: str) -> None:
    with pytest.raises(PeerError, match=named):
        codec.decode(Outer, msgpack.packb(fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 3000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xa2\xff\xfe",
        msgpack.packb({"a": 1}),
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb(["x"] * (codec.MAX_ITEMS + 1)),
        msgpack.packb("x" * (codec.MAX_STR_BYTES + 1)),
        msgpack.packb(b"x" * (codec.MAX_BIN_BYTES + 1)),
        b"\xd6\xff\x00\x00\x00\x00",
    ],
)
def test_bombs_and_foreign_types_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        codec.decode(Outer, data)


@pytest.mark.parametrize("depth", [100, 980, 1000, 1024, 1025, 5000])
@pytest.mark.parametrize("index", [None, 0, 3, 4, 5])
def test_deep_nesting_is_refused_wherever_it_stands(depth: int, index: int | None) -> None:
    deep = b"\x91" * depth + b"\xc0"
    parts = [msgpack.packb(field) for field in GOOD]
    if index is not None:
        parts[index] = deep
    with pytest.raises(PeerError) as raised:
        codec.decode(Outer, deep if index is None else b"\x96" + b"".join(parts))
    assert len(str(raised.value)) < 400


def test_the_limit_is_checked_before_the_bytes_are_read() -> None:
    with pytest.raises(PeerError, match="65537 bytes, expected at most 65536"):
        codec.decode(Outer, b"\xc1" * (codec.MAX_FRAME_BYTES + 1))
    with pytest.raises(PeerError, match="11 bytes, expected at most 10"):
        codec.decode(Outer, b"\xc1" * 11, limit=10)


def test_sending_too_much_and_undeclarable_types_are_our_own_mistakes() -> None:
    value = Outer("t", b"d" * (codec.MAX_FRAME_BYTES + 1), Colour.RED, Inner(1, True), (), None)
    with pytest.raises(InvariantError, match="at most 65536"):
        codec.encode(value)
    with pytest.raises(InvariantError, match="no rule"):
        codec.decode(Unsupported, msgpack.packb([1.0]))
