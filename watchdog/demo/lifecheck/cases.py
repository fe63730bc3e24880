"""The table itself: every fault that lifecheck must see, and two conditions in which it must see nothing.

The sentences are looked for by the words that an operator would look for.
"""

from __future__ import annotations

import os

from pgvigil.watchdog.demo.choosing import choose
from pgvigil.watchdog.demo.lifecheck import faults
from pgvigil.watchdog.demo.lifecheck.case import Case, Move, Says, Speaker
from pgvigil.watchdog.demo.lifecheck.ground import Setting
from pgvigil.watchdog.demo.matrix import faults_machine as machine
from pgvigil.watchdog.demo.matrix import faults_network as network
from pgvigil.watchdog.demo.matrix import limits
from pgvigil.watchdog.demo.matrix.case import Limit, Role

LIFE_S = 5.0
"""Longer than the life points of a query last: a verdict that must not come has had its time."""
MOST_S = 3600
"""A load ends by itself after that, whatever happens to the lab."""
BURNERS = 2 * (os.cpu_count() or 1)
"""Busy processes of the usual priority, two for each core."""
HANDED_OVER = Limit(500, "a hand-over; `make matrix` judges how fast it is")
LINK_LOST = Limit(1000, "a link has to be down for 100 ms before it counts; then a hand-over on the other path")
LOSSY = Limit(20_000, "TCP's own retries outlast many a lease; nothing but the verdicts is judged here")
ILL = r"^{struck}: pgpool is dead: |: pgpool of {struck} is dead from here: "
"""What everybody may say of a pgpool-II that is ill."""
CUT_OFF = r"^{struck}: |\b{struck} (is )?dead"
"""What may be said by and about a node that is cut off."""


def _pgpool_cases() -> list[Case]:
    died = Says(Speaker.STRUCK, r"pgpool is dead: .*has ended")
    stopped = Says(Speaker.STRUCK, r"pgpool is dead: .*stopped by a signal for \d+ ms")
    hangs = Says(Speaker.STRUCK, r"pgpool is dead: .*query")
    return [
        Case("pgpool-killed", Role.LEADER, faults.kill_pgpool, died, Move.MUST, HANDED_OVER, ILL),
        Case("pgpool-killed", Role.STANDBY, faults.kill_pgpool, died, Move.NEVER, limits.UNNOTICED, ILL),
        Case("pgpool-stopped", Role.LEADER, faults.stop_pgpool, stopped, Move.MUST, HANDED_OVER, ILL),
        Case("children-stopped", Role.LEADER, faults.stop_children, hangs, Move.MUST, HANDED_OVER, ILL),
        Case("out-of-connections", Role.LEADER, faults.use_up_connections, hangs, Move.MUST, HANDED_OVER, ILL),
        Case(
            "firewalled-from-peers",
            Role.LEADER,
            faults.firewall_pgpool,
            Says(Speaker.STRUCK, r"pgpool is dead: .*2 of 2 peers cannot query it"),
            Move.MUST,
            HANDED_OVER,
            ILL,
        ),
    ]


def _innocent_cases() -> list[Case]:
    """Not the proxy's fault: said, and nothing is moved."""
    no_backend = Says(Speaker.STRUCK, r"found no backend", in_status=True)
    hangs = Says(Speaker.STRUCK, r"no other does, so a backend hangs", in_status=True)
    rejected = Says(Speaker.STRUCK, r"not judged by query: .*password")
    table = [
        ("backend-down", faults.database_down, no_backend),
        ("backend-hangs", faults.database_hangs, hangs),
        ("wrong-password", faults.change_password, rejected),
    ]
    closed = Says(Speaker.STRUCK, r"cannot be queried by .*, but nor can theirs by most others", in_status=True)
    return [
        *(
            Case(name, Role.LEADER, fault, says, Move.NEVER, limits.UNNOTICED, hold_s=15, short_s=LIFE_S)
            for name, fault, says in table
        ),
        Case("closed-between-all", Role.ALL, faults.close_port, closed, Move.NEVER, limits.UNNOTICED, ILL),
    ]


def _network_cases() -> list[Case]:
    return [
        Case(
            "one-path-cut",
            Role.LEADER,
            network.peers(True, True, path=1),
            Says(Speaker.OTHER, r"path eth1 to {struck} dead: silent for \d+ ms"),
            Move.NEVER,
            limits.UNNOTICED,
        ),
        Case(
            "both-paths-cut",
            Role.LEADER,
            network.peers(True, True),
            Says(Speaker.OTHER, r"node {struck} dead: silent on eth0 for \d+ ms and on eth1 for \d+ ms"),
            Move.MUST,
            limits.LOST,
            CUT_OFF,
        ),
        Case(
            "link-down",
            Role.LEADER,
            network.unplug(path=0),
            Says(Speaker.STRUCK, r"interface eth0 is down"),
            Move.MUST,
            LINK_LOST,
            CUT_OFF,
        ),
        Case(
            "upstream-gone",
            Role.LEADER,
            faults.silence_upstream,
            Says(Speaker.STRUCK, r"none of .* has answered"),
            Move.MUST,
            HANDED_OVER,
        ),
    ]


def _conditions() -> list[Case]:
    """Minutes in which nobody may be called dead."""
    load = machine.busy(BURNERS, limit_s=MOST_S)
    loss = network.loss(30, between_nodes=True)
    return [
        Case("full-load", Role.ALL, load, None, Move.MAY, limits.SWAMPED),
        Case("loss-30", Role.ALL, loss, None, Move.MAY, LOSSY, setting=Setting.LOSSY),
    ]


def all_cases() -> list[Case]:
    """The whole table; cases of one setting follow one another."""
    return [*_pgpool_cases(), *_innocent_cases(), *_network_cases(), *_conditions()]


def select(pattern: str) -> list[Case]:
    """Those of the table that are asked for."""
    return choose(all_cases(), pattern)
