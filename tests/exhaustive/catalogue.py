"""The small models, each a question about one part of the protocol that the search can answer completely."""

from __future__ import annotations

from tests.exhaustive.model import Model, Start
from tests.exhaustive.node import Rate

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events as ev

# The bound on clock rates, used up: the leader's L * (1 - rho) lasts exactly as long as the L of the voters.
FAST = Rate(100, 99)

MODELS = (
    Model("election", "three candidates, a crash before, between and after any writes", Start.STANDBY, 12, crashes=1),
    Model(
        "candidate",
        "two candidates and a witness, one candidate crashes",
        Start.STANDBY,
        14,
        crashes=1,
        crashing=(1,),
        witnesses=(3,),
    ),
    Model("two crashes", "two candidates and a witness, two crashes", Start.STANDBY, 12, crashes=2, witnesses=(3,)),
    Model("lease", "a leader renews or is cut off, a second one is elected", Start.LED, 14, witnesses=(3,)),
    Model(
        "clocks",
        "the same, and the leader's clock is slow by the whole bound",
        Start.LED,
        14,
        witnesses=(3,),
        rates=(Rate(), FAST, FAST),
    ),
    Model("resume", "a leader crashes and resumes", Start.ELECTED, 14, crashes=1, crashing=(1,), witnesses=(3,)),
    Model("restart", "a voter crashes and starts again", Start.ELECTED, 14, crashes=1, crashing=(3,), witnesses=(3,)),
    Model(
        "hand-over",
        "a hand-over with a late, lost or doubled release",
        Start.LED,
        14,
        doubles=1,
        operations=((1, ev.SwitchOver(1, 2)),),
        witnesses=(3,),
        peers=Health.ALIVE,
    ),
    Model(
        "voters",
        "a voter is removed while another node is elected",
        Start.LED,
        14,
        operations=((1, ev.ChangeVoters(1, 0, 3)),),
        witnesses=(2,),
        peers=Health.ALIVE,
    ),
    Model(
        "stop",
        "a voter stops cleanly and starts again",
        Start.ELECTED,
        14,
        operations=((3, ev.Stop(StopMode.FAST)),),
        witnesses=(3,),
    ),
    Model("late", "processes that are stopped and go on", Start.LED, 14, lates=2, witnesses=(3,)),
    Model("founding", "blank nodes find one another, with a crash", Start.BLANK, 12, crashes=1),
)
