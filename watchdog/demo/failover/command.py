"""The real failover, failback and follow_primary commands of the lab, as a site would have scripts.

pgvigil runs them on its leader. They write every start and end into the ledger, so that it can be counted what ran and
how often. They are as naive as most scripts of sites: nothing here prevents a second promotion.

    python -m pgvigil.watchdog.demo.failover.command NAME LEDGER %d %h %p %D %m %H %M %P %r %R %N %S
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.failover.agent import order
from pgvigil.watchdog.demo.failover.ledger import Ledger, origin_of

PAUSE_FILE = "pause"
"""Beside the ledger; holds the seconds that a failover waits before it promotes, for scenes that strike then."""
PLACEHOLDERS = "%d %h %p %D %m %H %M %P %r %R %N %S"


@dataclass(frozen=True, slots=True)
class Call:
    """What pgpool-II's placeholders said, in the order of `PLACEHOLDERS`."""

    failed_id: str
    failed_host: str
    failed_port: str
    failed_data: str
    main_id: str
    """The new main backend; for follow_primary the new primary. -1 if none is left."""
    main_host: str
    old_main_id: str
    old_primary_id: str
    main_port: str
    main_data: str
    old_primary_host: str
    old_primary_port: str


def failover(call: Call, ledger: Ledger, origin: dict[str, str]) -> str:
    """Promote the new main backend if it was the primary that failed; returns what was done."""
    if call.failed_id != call.old_primary_id:
        return f"backend {call.failed_id} was a standby, nothing to promote"
    if call.main_id == "-1":
        return "no backend is left to promote"
    time.sleep(_pause_s(ledger))
    return f"backend {call.main_id}: {order(call.main_host, 'promote', origin)}"


def _pause_s(ledger: Ledger) -> float:
    path = ledger.path.parent / PAUSE_FILE
    return float(path.read_text(encoding="ascii")) if path.exists() else 0.0


def failback(call: Call, ledger: Ledger, origin: dict[str, str]) -> str:
    """Nothing to do: the backend was made a standby before it was attached."""
    return f"backend {call.failed_id} is back"


def follow_primary(call: Call, ledger: Ledger, origin: dict[str, str]) -> str:
    """Make a standby of the old primary one of the new; a host that is off cannot, and is told so."""
    if call.failed_id == call.old_primary_id:
        return f"backend {call.failed_id} is the old primary, it is brought back by hand"
    how = order(call.failed_host, "follow", {"primary": call.main_host})
    return f"backend {call.failed_id} follows backend {call.main_id}: {how}"


COMMANDS = {"failover": failover, "failback": failback, "follow_primary": follow_primary}


def main(arguments: list[str]) -> int:
    name, path, *placeholders = arguments
    node = "n" + os.environ["PGVIGIL_NODE_ID"]
    ledger, origin = Ledger(Path(path)), origin_of(dict(os.environ))
    ledger.add("start", name, node, origin, " ".join(placeholders))
    try:
        said, code = COMMANDS[name](Call(*placeholders), ledger, origin), 0
    except PgvigilError as error:
        said, code = str(error), 1
    ledger.add("end", name, node, origin, said)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
