"""Valid values of every kind that a decoder of pgvigil knows, made from the declared types.

A kind or a field that is added later is in the samples at once: nobody has to remember the fuzzer. Each type gives
an empty, a usual and a crowded value.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from tests.unit.config.helpers import GOOD

from pgvigil.watchdog.core.record import RECORD_FORMAT, Record

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
SIZES = (0, 1, 3)
"""How much an optional field or a list holds in the three samples of a type."""
_SCALARS: dict[Any, tuple[object, object, object]] = {
    int: (0, 7, 2**63 - 1),
    bool: (False, True, True),
    str: ("", "pg02", 'é"\n\\ü' * 20),
    bytes: (b"", b"\x93\x01\x02\x03", bytes(range(256))),
}


def samples_of(kind: type[T]) -> list[T]:
    """An empty, a usual and a crowded value of a dataclass."""
    return [_sample(kind, size) for size in range(len(SIZES))]


def _sample(annotation: Any, size: int) -> Any:
    if annotation in _SCALARS:
        return _SCALARS[annotation][size]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = next(item for item in arguments if item is not type(None))
        return _sample(inner, size) if SIZES[size] else None
    if origin is tuple:
        return tuple(_sample(arguments[0], size) for _ in range(SIZES[size]))
    if issubclass(annotation, enum.Enum):
        return list(annotation)[size % len(annotation)]
    hints = typing.get_type_hints(annotation)
    return annotation(*(_sample(hints[field.name], size) for field in dataclasses.fields(annotation)))


def records() -> list[Record]:
    """Records of this format."""
    return [dataclasses.replace(record, format=RECORD_FORMAT) for record in samples_of(Record)]


def configurations() -> list[bytes]:
    """The shortest good file, the commented one, and one with ten mistakes."""
    paths = (REPOSITORY / "conf" / "pgvigil.toml", REPOSITORY / "tests" / "unit" / "config" / "ten_mistakes.toml")
    return [GOOD.encode(), *(path.read_bytes() for path in paths)]
