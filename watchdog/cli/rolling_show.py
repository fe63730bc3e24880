"""How a rolling run is told while it goes on: a live table on a terminal, lines in a pipe, JSON lines for programs.

A reader that has gone must not end a run in the middle of a batch: from then on nothing is told, and the run is asked
to stop in order.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog.cli import render, rolling_render
from pgvigil.watchdog.rolling.decide import Stopping
from pgvigil.watchdog.rolling.plan import Plan


class Teller(ABC):
    """Tells to standard output; `gone` when nobody reads it any more."""

    def __init__(self) -> None:
        self.gone = False
        self._begun_ns = boottime_ns()

    def note(self, plan: Plan, text: str) -> None:
        """Something happened."""
        self._tell(lambda: self._note(plan, text))

    def tick(self, plan: Plan) -> None:
        """Nothing happened for a moment."""
        self._tell(lambda: self._tick(plan))

    def wish(self, plan: Plan, stopping: Stopping) -> None:
        """The operator wants it to stop."""
        more = "; once more: end its commands" if stopping is Stopping.AFTER_BATCH else ", its commands are being ended"
        self.note(plan, f"stopping after this batch{more}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._tell(sys.stdout.flush)

    def _tell(self, tell: Callable[[], None]) -> None:
        if self.gone:
            return
        try:
            tell()
            sys.stdout.flush()
        except OSError:  # a closed pipe, or a terminal that has gone
            self.gone = True

    @property
    def after_ms(self) -> int:
        return (boottime_ns() - self._begun_ns) // NS_PER_MS

    @abstractmethod
    def _note(self, plan: Plan, text: str) -> None:
        """Print it; may raise `OSError`."""

    @abstractmethod
    def _tick(self, plan: Plan) -> None:
        """Bring what is shown up to date; may raise `OSError`."""


class Lines(Teller):
    """For a pipe or a log."""

    def _note(self, plan: Plan, text: str) -> None:
        print(f"{self.after_ms / 1000:>8.1f} s  {text}")

    def _tick(self, plan: Plan) -> None:
        """A line stays as it is."""


class JsonLines(Teller):
    """For programs."""

    def _note(self, plan: Plan, text: str) -> None:
        phases = {member.backend_id: member.phase.value for member in plan.members}
        print(json.dumps({"after_ms": self.after_ms, "run": plan.run_id, "text": text, "phases": phases}))

    def _tick(self, plan: Plan) -> None:
        """A line stays as it is."""


class Table(Teller):
    """For a terminal: what happened scrolls, below it stands the table."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._colour = render.wants_colour(sys.stdout)
        self._console = Console(no_color=not self._colour, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)

        self._tell(self._live.start)

    def close(self) -> None:
        self._tell(self._live.stop)

    def _note(self, plan: Plan, text: str) -> None:
        self._console.print(f"{self.after_ms / 1000:>8.1f} s  {text}", markup=False)
        self._tick(plan)

    def _tick(self, plan: Plan) -> None:
        from rich.text import Text

        head = f"{rolling_render.headline(plan, 1).rpartition(', ')[0]}, for {render.duration(self.after_ms)}"
        page = "\n".join(
            ["", render.paint(head, render.BOLD, self._colour), *rolling_render.backends(plan, self._colour)]
        )
        self._live.update(Text.from_ansi(page, no_wrap=True, overflow="ellipsis"), refresh=True)


@contextmanager
def telling(as_json: bool) -> Iterator[Teller]:
    """The one that fits standard output."""
    teller = JsonLines() if as_json else Table() if sys.stdout.isatty() else Lines()
    try:
        yield teller
    finally:
        teller.close()
