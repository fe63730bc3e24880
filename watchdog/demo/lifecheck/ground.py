"""The hosts that the cases are played on: every method of lifecheck switched on, on two paths; and a lossy network.

All intervals, dead times and life points are the defaults, so that the times of the table are those of a new
installation; what a setting changes stands here and nowhere else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgvigil.watchdog.demo.lab import CLIENT_ADDRESS, DATABASE_ADDRESS, Lab
from pgvigil.watchdog.demo.matrix import ground as matrix
from pgvigil.watchdog.demo.matrix.ground import Ground
from pgvigil.watchdog.demo.stage import Stage

USER = "lifecheck"
PASSWORD = "the right one"
OTHER_PASSWORD = "another one"
GIVEN_UP_S = 2
"""How long a child of pgpool-II waits for a client that went with the VIP: nobody ends its half of that connection."""
UPSTREAM = (CLIENT_ADDRESS, DATABASE_ADDRESS)
"""Hosts that are always there: they answer echo requests."""


class Setting(enum.Enum):
    """What is special about the hosts."""

    PLAIN = "two paths, every method, fixed dead time"
    LOSSY = "one path, adaptive detector, no queries"


@contextmanager
def fresh_ground(setting: Setting) -> Iterator[Ground]:
    """A settled ground of its own."""
    with Lab(paths=2 if setting is Setting.PLAIN else 1) as lab:
        ground = Ground(lab, matrix.Setting.TWO_PATHS if setting is Setting.PLAIN else matrix.Setting.PLAIN)
        _furnish(ground.stage, setting)
        ground.start()
        yield ground


def _furnish(stage: Stage, setting: Setting) -> None:
    """A database user with a password, pgpool-IIs that pass it on, and a configuration that uses it all."""
    stage.postgres.access = (f"host all {USER} 10.77.0.0/24 scram-sha-256",)
    stage.postgres.statements = (f"create role {USER} login password '{PASSWORD}'",)
    for pool in stage.pools.values():
        pool.options |= {"allow_clear_text_frontend_auth": "on", "authentication_timeout": GIVEN_UP_S}
    password_file = stage.lab.root / "query-password"
    password_file.touch(mode=0o600)
    password_file.write_text(f"{PASSWORD}\n", encoding="ascii")
    lifecheck: dict[str, Any] = {
        "methods": ["heartbeat", "process", "query", "upstream"],
        "query_user": USER,
        "query_password_file": str(password_file),
        "upstream_servers": list(UPSTREAM),
        "interfaces": [f"eth{path}" for path in range(stage.lab.paths)],
    }
    stage.cluster.changes = {"lifecheck": lifecheck}
    if setting is Setting.LOSSY:
        # The floor is for the onset: a path that was perfect until then is trusted with three heartbeats by default.
        dead_times = {"deadtime_min_ms": 1400, "deadtime_ms": 5000}
        stage.cluster.changes["heartbeat"] = {"detector": "adaptive", **dead_times}
        # With every third packet lost, TCP itself stalls for longer than ten seconds again and again.
        lifecheck["methods"].remove("query")
