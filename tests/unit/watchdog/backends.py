"""Documents with agreed backends."""

from __future__ import annotations

from collections.abc import Collection

from pgvigil.watchdog.core.record import (
    Backend,
    BackendRole,
    BackendStatus,
    Decision,
    DecisionKind,
    Document,
    Intent,
    Stamp,
    Voter,
)

HOSTS = ("pg-a", "pg-b", "pg-c", "pg-c")
"""Hosts of backends 0 to 3, of ports 5432, 5433, ...; the last two share one."""

FAILOVER = Decision(5, DecisionKind.DOWN, 2, False, 1, "its pgpool-II reports a failure")


def document(
    down: Collection[int] = (), count: int = 3, primary: int = 0, intents: tuple[Intent, ...] = ()
) -> Document:
    """Backends 0 to count - 1, of which `primary` is the primary, and one decision."""
    backends = tuple(
        Backend(
            number,
            HOSTS[number],
            5432 + number,
            BackendStatus.DOWN if number in down else BackendStatus.UP,
            BackendRole.PRIMARY if number == primary else BackendRole.STANDBY,
            "its pgpool-II reports a failure" if number in down else "",
            5 if number in down else 0,
        )
        for number in range(count)
    )
    return Document(
        Stamp(1, 1), 1, (Voter(1, 1),), 1000, False, intents, backends=backends, decided=5, decisions=(FAILOVER,)
    )
