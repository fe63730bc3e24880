"""Which cases of a table to play: parts of names, or shell patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pgvigil.ipc.errors import ConfigError


class Named(Protocol):
    """A case, as far as choosing goes."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


def choose(cases: Sequence[C], pattern: str) -> list[C]:
    """The cases whose name matches one of the patterns (shell style, or any part of the name); all for ""."""
    words = pattern.split()
    found = [case for case in cases if not words or any(_matches(case.name, word) for word in words)]
    if not found:
        raise ConfigError(f"no case is called {pattern!r}, expected a part of a name such as {cases[0].name!r}")
    return found


def _matches(name: str, word: str) -> bool:
    return word in name or fnmatch.fnmatchcase(name, word)


def chosen_names(names: Iterable[str], pattern: str) -> list[str]:
    """The same for cases that are nothing but names."""
    return [case.name for case in choose([_Name(name) for name in names], pattern)]


@dataclass(frozen=True, slots=True)
class _Name:
    name: str
