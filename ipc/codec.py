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
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgpack

from pgvigil.ipc.errors import InvariantError, PeerError

T = TypeVar("T")

MAX_FRAME_BYTES = 64 * 1024
MAX_STR_BYTES = 8192
MAX_BIN_BYTES = 60 * 1024
MAX_ITEMS = 256
MAX_INT = 2**63 - 1

Reader = Callable[[object, str], Any]


def encode(value: object) -> bytes:
    """The msgpack bytes of a dataclass: an array of its fields, in the order of their declaration."""
    packed: bytes = msgpack.packb(_plain(value), use_bin_type=True)
    if len(packed) > MAX_FRAME_BYTES:
        raise InvariantError(
            f"{type(value).__name__} is {len(packed)} bytes long, at most {MAX_FRAME_BYTES} may be sent"
        )
    return packed


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
    """A dataclass from unpacked msgpack, or `PeerError`."""
    reader = _reader(typing.cast(Any, kind))
    value: T = reader(plain, kind.__name__)
    return value


def _plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, name)) for name in _field_names(type(value))]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@lru_cache(maxsize=256)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@lru_cache(maxsize=256)
def _reader(annotation: Any) -> Reader:
    """A function that checks and converts one value of the annotated type."""
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


def _read_int(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise PeerError(f"{where}: {_show(value)}, expected an integer of 0 to 2**63 - 1")
    return value


def _read_bool(value: object, where: str) -> bool:
    if type(value) is not bool:
        raise PeerError(f"{where}: {_show(value)}, expected true or false")
    return value


def _read_str(value: object, where: str) -> str:
    if type(value) is not str:
        raise PeerError(f"{where}: {_show(value)}, expected text")
    return value


def _read_bytes(value: object, where: str) -> bytes:
    if type(value) is not bytes:
        raise PeerError(f"{where}: {_show(value)}, expected bytes")
    return value


_SCALARS: dict[Any, Reader] = {int: _read_int, bool: _read_bool, str: _read_str, bytes: _read_bytes}


def _optional_reader(annotation: Any) -> Reader:
    inner = [item for item in typing.get_args(annotation) if item is not type(None)]
    if len(inner) != 1:
        raise InvariantError(f"the codec reads only T | None, not {annotation!r}")
    read = _reader(inner[0])
    return lambda value, where: None if value is None else read(value, where)


def _tuple_reader(annotation: Any) -> Reader:
    arguments = typing.get_args(annotation)
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise InvariantError(f"the codec reads only tuple[T, ...], not {annotation!r}")
    read = _reader(arguments[0])

    def read_tuple(value: object, where: str) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise PeerError(f"{where}: {_show(value)}, expected a list")
        return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(value))

    return read_tuple


def _enum_reader(kind: type[enum.Enum]) -> Reader:
    by_value = {member.value: member for member in kind}

    def read_enum(value: object, where: str) -> enum.Enum:
        if type(value) not in (int, str) or value not in by_value:
            raise PeerError(f"{where}: {_show(value)}, expected one of {', '.join(map(str, by_value))}")
        return by_value[value]

    return read_enum


def _dataclass_reader(kind: type) -> Reader:
    hints = typing.get_type_hints(kind)
    fields = [(name, _reader(hints[name])) for name in _field_names(kind)]

    def read_dataclass(value: object, where: str) -> Any:
        if type(value) is not tuple or len(value) != len(fields):
            raise PeerError(f"{where}: {_show(value)}, expected a list of {len(fields)} fields")
        return kind(*(read(item, f"{where}.{name}") for (name, read), item in zip(fields, value, strict=True)))

    return read_dataclass


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
