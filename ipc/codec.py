"""Dataclasses to msgpack and back, strictly.

One codec serves the frames between processes, the messages between nodes, the heartbeat's content and the
durable record. It knows policy of none of them. Bytes become a value only if every field is there, has
its declared type and lies within the limits; anything else raises `PeerError` that names the field, and nothing else is
ever raised on bad input. Unknown fields are refused too: a newer peer must use a new schema version.

Supported field types: int (0 <= n < 2**63), bool, str, bytes, an Enum, another dataclass, tuple[T, ...], T | None.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, TypeVar

import msgpack

from pgvigil.ipc.errors import InvariantError, PeerError

T = TypeVar("T")

MAX_FRAME_BYTES = 64 * 1024
MAX_STR_BYTES = 8192
MAX_BIN_BYTES = 60 * 1024
MAX_ITEMS = 256
MAX_INT = 2**63 - 1

Reader = Callable[[object], Any]
Writer = Callable[[Any], object]

# One function per type that was ever met; types are declared in code, so these do not grow.
_WRITERS: dict[Any, Writer] = {}
_READERS: dict[Any, Reader] = {}


class _Invalid(Exception):
    """A value that does not fit; each level that it passes adds its own name to the path."""

    def __init__(self, value: object, expected: str) -> None:
        text = repr(value)
        shown = text if len(text) <= 60 else text[:57] + "..."
        self.reason = f"{shown}, expected {expected}"
        self.path: list[str] = []


def encode(value: object) -> bytes:
    """The msgpack bytes of a dataclass: an array of its fields, in the order of their declaration."""
    packed: bytes = msgpack.packb(_writer(type(value))(value), use_bin_type=True)
    if len(packed) > MAX_FRAME_BYTES:
        raise InvariantError(
            f"{type(value).__name__} is {len(packed)} bytes long, at most {MAX_FRAME_BYTES} may be sent"
        )
    return packed


def encode_each(*values: object) -> bytes:
    """Fields one after the other, as they stand in the array of a dataclass."""
    return b"".join(msgpack.packb(_writer(type(value))(value), use_bin_type=True) for value in values)


def decode(kind: type[T], data: bytes, limit: int = MAX_FRAME_BYTES) -> T:
    """A value of the dataclass `kind`, or `PeerError`."""
    return from_plain(kind, unpack(data, limit))


def unpack(data: bytes, limit: int = MAX_FRAME_BYTES) -> object:
    """Untyped msgpack within the limits, or `PeerError`."""
    if len(data) > limit:
        raise PeerError(f"{len(data)} bytes, expected at most {limit}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            max_str_len=MAX_STR_BYTES,
            max_bin_len=MAX_BIN_BYTES,
            max_array_len=MAX_ITEMS,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, TypeError, OverflowError, RecursionError) as error:
        raise PeerError(f"not a valid msgpack frame: {type(error).__name__}: {str(error)[:120]}") from None


def from_plain(kind: type[T], plain: object) -> T:
    """A dataclass from unpacked msgpack, or `PeerError` that names the field."""
    try:
        value: T = _reader(typing.cast(Any, kind))(plain)
    except _Invalid as error:
        where = kind.__name__ + "".join(reversed(error.path))
        raise PeerError(f"{where}: {error.reason}") from None
    return value


def prepare(kinds: Iterable[type]) -> None:
    """Make all that reading and writing these dataclasses needs; before a fork, all children share it."""
    for kind in kinds:
        _reader(kind)
    for made in [*_READERS, tuple]:
        if isinstance(made, type):
            _writer(made)


# --- writing ------------------------------------------------------------------------------------------


def _writer(kind: Any) -> Writer:
    """A function that turns a value of this class into what msgpack takes."""
    made = _WRITERS.get(kind)
    if made is None:
        made = _WRITERS[kind] = _make_writer(kind)
    return made


def _make_writer(kind: Any) -> Writer:
    if issubclass(kind, enum.Enum):
        return attrgetter("value")
    if issubclass(kind, tuple):
        return lambda items: [_writer(type(item))(item) for item in items]
    if dataclasses.is_dataclass(kind):
        return _dataclass_writer(kind)
    return lambda value: value


def _dataclass_writer(kind: Any) -> Writer:
    names = [field.name for field in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind)
    if not names:
        return lambda value: []
    if len(names) == 1:
        get_one = attrgetter(names[0])
        return lambda value: [_writer(type(field := get_one(value)))(field)]
    get = attrgetter(*names)
    others = [place for place, name in enumerate(names) if hints[name] not in _SCALARS]
    if not others:
        return get

    def write_dataclass(value: Any) -> object:
        fields = list(get(value))
        for place in others:
            field = fields[place]
            fields[place] = _writer(type(field))(field)
        return fields

    return write_dataclass


# --- reading ------------------------------------------------------------------------------------------


def _reader(annotation: Any) -> Reader:
    """A function that checks and converts one value of the annotated type."""
    made = _READERS.get(annotation)
    if made is None:
        made = _READERS[annotation] = _make_reader(annotation)
    return made


def _make_reader(annotation: Any) -> Reader:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _optional_reader(annotation)
    if origin is tuple:
        return _tuple_reader(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum_reader(annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass_reader(annotation)
    raise InvariantError(f"the codec has no rule for fields of type {annotation!r}")


def _read_int(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise _Invalid(value, "an integer of 0 to 2**63 - 1")
    return value


def _read_bool(value: object) -> bool:
    if type(value) is not bool:
        raise _Invalid(value, "true or false")
    return value


def _read_str(value: object) -> str:
    if type(value) is not str:
        raise _Invalid(value, "text")
    return value


def _read_bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise _Invalid(value, "bytes")
    return value


_SCALARS: dict[Any, Reader] = {int: _read_int, bool: _read_bool, str: _read_str, bytes: _read_bytes}


def _optional_reader(annotation: Any) -> Reader:
    inner = [item for item in typing.get_args(annotation) if item is not type(None)]
    if len(inner) != 1:
        raise InvariantError(f"the codec reads only T | None, not {annotation!r}")
    read = _reader(inner[0])
    return lambda value: None if value is None else read(value)


def _tuple_reader(annotation: Any) -> Reader:
    arguments = typing.get_args(annotation)
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise InvariantError(f"the codec reads only tuple[T, ...], not {annotation!r}")
    read = _reader(arguments[0])

    def read_tuple(value: object) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise _Invalid(value, "a list")
        items: list[Any] = []
        try:
            for item in value:
                items.append(read(item))
        except _Invalid as error:
            error.path.append(f"[{len(items)}]")
            raise
        return tuple(items)

    return read_tuple


def _enum_reader(kind: type[enum.Enum]) -> Reader:
    by_value = {member.value: member for member in kind}
    expected = f"one of {', '.join(map(str, by_value))}"

    def read_enum(value: object) -> enum.Enum:
        if type(value) not in (int, str) or value not in by_value:
            raise _Invalid(value, expected)
        return by_value[value]

    return read_enum


def _dataclass_reader(kind: type) -> Reader:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    readers = [_reader(hints[name]) for name in names]

    def read_dataclass(value: object) -> Any:
        if type(value) is not tuple or len(value) != len(readers):
            raise _Invalid(value, f"a list of {len(readers)} fields")
        fields: list[Any] = []
        try:
            for read, item in zip(readers, value, strict=True):
                fields.append(read(item))
        except _Invalid as error:
            error.path.append(f".{names[len(fields)]}")
            raise
        return kind(*fields)

    return read_dataclass
