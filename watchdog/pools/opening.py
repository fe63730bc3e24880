"""Whether this node watches its pgpool-II's backends, and what stands in its place if it does not.

The modules that talk to pgpool-II are imported only where they are wanted: they cost memory in every process that is
forked from the parent. Without `pcp_user` and `pcp_password_file` nothing is watched, nothing is ordered, and nothing
that pgpool-II reports is taken for a person's doing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.record import DecisionKind
from pgvigil.watchdog.settings import Settings

if TYPE_CHECKING:
    from pgvigil.watchdog.pools.driver import Core, OwnView, Pools

DRIVER = "pgvigil.watchdog.pools.driver"
NOT_WATCHED = "its pgpool-II's backends are not watched: set pcp_user and pcp_password_file in [pgpool]"


def wanted(settings: Settings) -> bool:
    """Whether there is a pgpool-II beside this node and a user to ask it as."""
    pgpool, node = settings.pgpool, settings.node
    has_pgpool = not node.witness or settings.lifecheck.pgpool_pid_file is not None
    return bool(pgpool.pcp_user and pgpool.pcp_password_file) and has_pgpool


def preload(settings: Settings) -> None:
    """Import in the parent what watchdog main will need, so that both share it."""
    if wanted(settings):
        importlib.import_module(DRIVER)


def open_pools(
    settings: Settings,
    loop: Loop,
    core: Core,
    dispatch: Callable[[events.Event], None],
    note: Callable[[events.Level, str], None],
) -> Pools | Unwatched:
    """The driver of this node's pgpool-II, or its place-holder."""
    if not wanted(settings):
        return Unwatched()
    from pgvigil.watchdog.pools.driver import Pools

    return Pools(settings, loop, core, dispatch, note)


class Unwatched:
    """No pgpool-II is watched; costs nothing."""

    link = None
    """Nobody can be asked."""

    def look(self, views: events.Views | None = None) -> None:
        """Nothing to compare."""

    def answer(self, answer: events.Answer) -> bool:
        """No request is ours."""
        return False

    def call_started(self, kind: DecisionKind, backend_id: int) -> None:
        """Nothing is ordered that could get in the way of the call."""

    def call_ended(self, kind: DecisionKind, backend_id: int) -> None:
        """As `call_started`."""

    def outdated(self, kind: DecisionKind, backend_id: int) -> bool:
        """There are no orders of ours."""
        return False

    def still_down(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Nobody knows, so it is not repeated."""
        on_known(False, f"watchdog main was restarted meanwhile, and {NOT_WATCHED}")

    def cut_off(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Nobody knows, so it counts."""
        on_known(False, NOT_WATCHED)

    def classify(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Nobody knows, so it has failed."""
        on_known(False, NOT_WATCHED)

    def own(self) -> OwnView | None:
        """For status: nothing."""
        return None

    def close(self) -> None:
        """Nothing to give back."""
