"""Hypothesis strategies for everything that the codec can carry, made from the declared types."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from hypothesis import strategies as st

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**63 - 1),
    bool: st.booleans(),
    str: st.text(max_size=40),
    bytes: st.binary(max_size=40),
}


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type."""
    if annotation in SCALARS:
        return SCALARS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return st.none() | st.one_of(*(of(item) for item in arguments if item is not type(None)))
    if origin is tuple:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    hints = typing.get_type_hints(annotation)
    return st.builds(annotation, *(of(hints[field.name]) for field in dataclasses.fields(annotation)))


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)
