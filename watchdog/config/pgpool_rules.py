"""What must hold where pgpool-II's own watchdog leads (`[pgpool] watchdog = "external"`).

Then pgvigil is its lifecheck and nothing more: no virtual IP, no command of a leader, no port of the other's.
"""

from __future__ import annotations

import os

from pgvigil.ipc import endpoints
from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config import keys
from pgvigil.watchdog.config.problems import Problems
from pgvigil.watchdog.config.reader import Draft, Section

_OF_PGPOOL = {
    "escalation": "wd_escalation_command",
    "de_escalation": "wd_de_escalation_command",
    "failover": "failover_command",
    "failback": "failback_command",
    "follow_primary": "follow_primary_command",
}


def pgpool_watchdog_leads_alone(problems: Problems, draft: Draft) -> None:
    """Nothing of pgvigil may act as if it led."""
    pgpool = draft["pgpool"]
    if pgpool.get("watchdog") != "external":
        return
    _nothing_of_a_leader(problems, draft)
    _ports_differ(problems, draft)
    if pgpool.whole("watchdog_authkey_file"):
        try:
            keys.read_text(pgpool.get("watchdog_authkey_file"))
        except ConfigError as error:
            wrong, _, expected = str(error).partition("; ")
            problems.mistake(pgpool.at("watchdog_authkey_file"), wrong, expected)
    if pgpool.whole("watchdog_socket_dir", "watchdog_port"):
        path = pgpool_socket(pgpool)
        if len(os.fsencode(path)) > endpoints.MAX_PATH_BYTES:
            expected = f"expected a path of at most {endpoints.MAX_PATH_BYTES} bytes, not {path}"
            problems.mistake(pgpool.at("watchdog_socket_dir"), "is too long for the socket in it", expected)


def _nothing_of_a_leader(problems: Problems, draft: Draft) -> None:
    if draft["vip"].get("addresses"):
        problems.mistake(
            draft["vip"].at("addresses"),
            "pgpool-II's own watchdog carries the virtual IP (pgpool.watchdog), and two that move it would fight",
            "expected no addresses here, and delegate_ip in pgpool.conf",
        )
    for name in draft.commands:
        problems.mistake(
            ("commands", name),
            "pgpool-II's own watchdog decides who leads (pgpool.watchdog), and it may be another node",
            f"expected {_OF_PGPOOL[name]} in pgpool.conf",
        )


def _ports_differ(problems: Problems, draft: Draft) -> None:
    pgpool = draft["pgpool"]
    port = pgpool.get("watchdog_port")
    clashing = [str(node.section.get("id")) for node in draft.nodes if port and node.section.get("port") == port]
    if clashing:
        problems.mistake(
            pgpool.at("watchdog_port"),
            f"is also the port of pgvigil on node {', '.join(clashing)}, and pgpool-II binds its own on all addresses",
            "expected wd_port of pgpool.conf, and another port in [[node]]",
        )


def pgpool_socket(pgpool: Section) -> str:
    """The command socket of pgpool-II's own watchdog (`wd_ipc_conn.c`; the documentation forgets the first dot)."""
    return os.path.join(pgpool.get("watchdog_socket_dir"), f".s.PGPOOLWD_CMD.{pgpool.get('watchdog_port')}")
