"""Deliberately broken copies of the rules, and how a process gets one of them instead of the real module.

A mutant replaces exact pieces of one module's source; nothing is written to disk. `install` has to run before the
module is first imported, so each mutant is tried in a process of its own. A mutant without pieces changes an
assumption instead (clocks outside the bound). The table itself is in `mutant_table`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Mutant:
    """`pieces` are (old, new), each old exactly once in `module`; caught within `limit` seeds of `profile`.

    A `harmless` mutant is one that no checker can catch, with the reason; it must not be caught within its limit.
    `rate_ppm` replaces the clock rates by this one and its opposite.
    """

    name: str
    rule: str
    module: str
    pieces: tuple[tuple[str, str], ...]
    profile: str
    limit: int
    harmless: str = ""
    rate_ppm: int = 0


class _Changed(MetaPathFinder, Loader):
    """Finds the one module that is changed, and compiles the changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only for the changed module."""
        if fullname != self._mutant.module:
            return None
        found = PathFinder.find_spec(fullname, path)
        if found is None or found.origin is None:
            raise LookupError(f"no module {fullname}, expected the one that mutant {self._mutant.name} changes")
        return ModuleSpec(fullname, self, origin=found.origin)

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        assert module.__spec__ is not None and module.__spec__.origin is not None
        origin = module.__spec__.origin
        exec(compile(changed(self._mutant, Path(origin).read_text()), origin, "exec"), module.__dict__)


def changed(mutant: Mutant, source: str) -> str:
    """The broken source; `LookupError` if a piece is not there exactly once."""
    for old, new in mutant.pieces:
        if source.count(old) != 1:
            raise LookupError(f"{mutant.module} has {source.count(old)} times, expected once: {old!r}")
        source = source.replace(old, new)
    return source


def install(mutant: Mutant) -> None:
    """From now on the import of its module gives the broken copy; too late if it is imported already."""
    if not mutant.pieces:
        return
    if mutant.module in sys.modules:
        raise LookupError(f"{mutant.module} is imported already, so mutant {mutant.name} would change nothing")
    sys.meta_path.insert(0, _Changed(mutant))
