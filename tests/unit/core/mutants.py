"""How the core is broken to prove that a test bites; what is broken stands in `rule_mutants` and the tables beside it.

A mutant replaces one exact piece of one module's source. Nothing is written to disk: the core and the tests of the
rules are loaded anew, with the changed source, beside the real ones.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pgvigil.watchdog
import pgvigil.watchdog.core.engine

CORE = "pgvigil.watchdog.core"
FOLDER = Path(pgvigil.watchdog.core.engine.__file__).parent
TESTS = "tests.unit.core"
RULES = tuple(f"{TESTS}.{name}" for name in ("test_rules", "test_election_rules", "test_voter_rules"))
RELOADED = (CORE, f"{TESTS}.bench", *RULES)


@dataclass(frozen=True)
class Mutant:
    """`old` stands exactly once in `module`; with `new` in its place `test` must fail."""

    test: str
    module: str
    old: str
    new: str

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.test[5:]}-{self.module}-{self.old.split(chr(10))[0].strip()[:40]}"


class _Source(MetaPathFinder, Loader):
    """Finds the one module that is changed, and compiles the changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self.fullname = f"{CORE}.{mutant.module}"
        self.path = FOLDER / f"{mutant.module}.py"
        source = self.path.read_text()
        if source.count(mutant.old) != 1:
            raise LookupError(f"{mutant.module}.py has {source.count(mutant.old)} times: {mutant.old!r}")
        self.source = source.replace(mutant.old, mutant.new)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only for the changed module."""
        return ModuleSpec(fullname, self, origin=str(self.path)) if fullname == self.fullname else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def found_in(modules: Sequence[ModuleType], prefix: str) -> dict[str, ModuleType]:
    """In which module each test of these rules is; `LookupError` if two have one name."""
    found: dict[str, ModuleType] = {}
    for module in modules:
        for name in vars(module):
            if name.startswith(prefix) and found.setdefault(name, module) is not module:
                raise LookupError(f"{name} is in {found[name].__name__} and in {module.__name__}, expected one")
    return found


@contextmanager
def rules_under(mutant: Mutant, module: str, reloaded: tuple[str, ...] = RELOADED) -> Iterator[ModuleType]:
    """A module of the rule tests, or another one, loaded against the changed core."""
    finder = _Source(mutant)
    mine = [name for name in sys.modules if name.startswith(reloaded)]
    kept = {name: sys.modules.pop(name) for name in mine}
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module(module)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(reloaded)]:
            del sys.modules[name]
        sys.modules.update(kept)
        for name, old in kept.items():  # whoever imports by way of the folder must not get the changed one
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, old)


def mutant(test: str, module: str, old: str, new: str = "pass") -> Mutant:
    """As a line of a table: the test without its "test_"."""
    return Mutant("test_" + test, module, old, new)
