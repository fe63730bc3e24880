"""The live view of a running lab: one line whenever something changed, with the time since the start.

What pgvigil says about itself is read from the process titles (free of charge, unlike a `status` command several
times a second), who answers from the probe. Threads do the looking, so the demo may wait and act meanwhile.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.services import VIP_TARGET, query
from pgvigil.watchdog.demo.stage import Stage

LOOK_EVERY_S = 0.1
QUERY_EVERY_S = 0.25
_SHOWN = re.compile(r"pgvigil: ((?:watchdog main|lifecheck).*)")


class Screen:
    """Prints lines with time stamps; colours only on a terminal."""

    def __init__(self) -> None:
        self._started_at_ns = boottime_ns()
        self._lock = threading.Lock()
        self._print: Callable[[str, str], None] = _plain
        if sys.stdout.isatty():
            self._print = _coloured()

    def say(self, text: str, style: str = "") -> None:
        """One line, stamped with the seconds since the start."""
        elapsed_s = (boottime_ns() - self._started_at_ns) / NS_PER_S
        with self._lock:
            self._print(f"{elapsed_s:7.2f}s  {text}", style)

    def block(self, text: str) -> None:
        """Text that brings its own shape, indented."""
        with self._lock:
            for line in text.rstrip().splitlines():
                self._print(f"          {line}", "")


def _plain(text: str, style: str) -> None:
    print(text, flush=True)


def _coloured() -> Callable[[str, str], None]:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return lambda text, style: console.print(text, style=style or None, markup=False)


class Watcher:
    """Says every change of titles, of the answering node and of the queries' fate."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._leave = threading.Event()
        self._last: dict[str, str] = {}
        self.queries_good = 0
        self.queries_bad = 0
        self.slowest_query_ms = 0.0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._look, self._ask)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join(10)

    def _look(self) -> None:
        while not self._leave.wait(LOOK_EVERY_S):
            lab = self._stage.lab
            now = {key: text for node in lab.nodes for key, text in titles_of(lab, node).items()}
            now["client"] = _answer(self._stage.owner())
            say_changes(self._screen, self._last, now)
            self._last = now

    def _ask(self) -> None:
        """A real query through the virtual IP, again and again."""
        while not self._leave.wait(QUERY_EVERY_S):
            asked_at_ns = boottime_ns()
            try:
                good = query(self._stage.lab, self._stage.lab.client, VIP_TARGET, "select 6 * 7").out == "42\n"
            except PgvigilError:
                good = False
            self.slowest_query_ms = max(self.slowest_query_ms, (boottime_ns() - asked_at_ns) / NS_PER_MS)
            if good:
                self.queries_good += 1
            else:
                self.queries_bad += 1


def say_changes(screen: Screen, last: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Say what is new or other than last time, and what is gone."""
    for key, text in now.items():
        if last.get(key) != text:
            screen.say(text, "bold green" if "leader" in text else "")
    for key in last.keys() - now.keys():
        screen.say(f"{key}: gone", "red")


def titles_of(lab: Lab, node: Host) -> Mapping[str, str]:
    """The telling titles of one node; that it is silent is news too."""
    titles = [match[1] for text in lab.pgvigil(node).values() if (match := _SHOWN.match(text))]
    return {f"{node.name} {text.split(' (')[0]}": f"{node.name} {text}" for text in titles}


def _answer(number: int) -> str:
    return f"client: n{number} answers at the VIP" if number else "client: nobody answers at the VIP"
