"""Broken copies of the core that the search must find something wrong with.

`MUTANTS` of the rule tests says how each is broken; here stands which model finds it, and within how many steps.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pgvigil.watchdog
from tests.unit.core.mutants import CORE, MUTANTS, Mutant, _Source

MINE = (CORE, "tests.exhaustive", "tests.unit.core.bench")


@contextmanager
def core_under(mutant: Mutant) -> Iterator[None]:
    """Within it, the modules of the search are loaded anew, against the changed core."""
    finder = _Source(mutant)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(MINE)}
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(MINE)]:
            del sys.modules[name]
        sys.modules.update(kept)
        pgvigil.watchdog.core = kept[CORE]
