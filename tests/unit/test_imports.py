"""Nothing heavy is imported by the way, for it costs memory in every node; what is left out is not missed."""

from __future__ import annotations

import subprocess
import sys

from pgvigil.watchdog.demo.bench import EVERYTHING

HEAVY = ("ast", "asyncio", "dis", "inspect", "pyroute2", "importlib.metadata")


def _run(code: str) -> str:
    command = (sys.executable, "-P", "-c", code)
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=60).stdout


def test_a_node_imports_nothing_heavy() -> None:
    code = f"import sys, {', '.join(EVERYTHING)}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    assert _run(code).split() == []


def test_a_dataclass_without_docstring_is_as_ever_and_inspect_is_the_real_one() -> None:
    code = (
        "import pgvigil, dataclasses, sys; before = 'ast' in sys.modules\n"
        "kind = dataclasses.make_dataclass('Kind', [('size', int)])\n"
        "import inspect; print(before, 'ast' in sys.modules, type(inspect).__name__, kind.__doc__)"
    )
    assert _run(code).split(maxsplit=3) == ["False", "True", "module", "Kind(size: int)\n"]
