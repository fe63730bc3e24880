"""pgvigil: a watchdog for pgpool-II that never lets two hosts answer for one virtual IP.

The four folders `ipc`, `heartbeat`, `lifecheck` and `watchdog` are links to the top level of the
repository, so that nothing called `watchdog` is installed beside PyPI's distribution of that name.
Imports point one way only: `ipc <- heartbeat <- lifecheck <- watchdog`.
"""

import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


class _Inspect(ModuleType):
    """Stands for `inspect` inside `dataclasses` and becomes the real one when something of it is asked for.

    `dataclasses` needs it for classes without a docstring only, of which we have none; loaded, it and the compiler's
    modules that it brings take 0.8 MB of every node and 8 ms of every command.
    """

    def __getattr__(self, name: str) -> Any:
        import inspect

        return getattr(inspect, name)


def _import_dataclasses() -> None:
    if "inspect" not in sys.modules:
        sys.modules["inspect"] = _Inspect("inspect")
        try:
            import dataclasses  # noqa: F401
        finally:
            del sys.modules["inspect"]


_import_dataclasses()
