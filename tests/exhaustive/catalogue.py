"""The small models, each a question about one part of the protocol.

`depth` is what CI searches: deep enough to see the number of `holders`, leaders with an open gate, that a model asks
for, and at most about a million states. `make exhaustive DEEPER=2` looks further.
"""

from __future__ import annotations

from tests.exhaustive.model import Model, Start
from tests.exhaustive.node import Rate

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events as ev

# The bound on clock rates, used up: the leader's L * (1 - rho) lasts exactly as long as the L of the voters.
FAST = Rate(100, 99)

MODELS = (
    Model(
        "founding",
        "blank nodes find one another, one founds while the operator of another one ends the waiting, one is elected",
        Start.BLANK,
        depth=11,
        operations=((2, ev.Bootstrap(1)),),
        witnesses=(3,),
    ),
    Model(
        "election",
        "three candidates at once",
        Start.STANDBY,
        depth=11,
        holders=3,
    ),
    Model(
        "candidate",
        "two candidates and a witness; one of the candidates crashes before, between or after its writes",
        Start.STANDBY,
        depth=13,
        crashes=1,
        crashing=(1,),
        witnesses=(3,),
    ),
    Model(
        "two crashes",
        "two candidates and a witness; any two crashes, also of one node twice, at any write",
        Start.STANDBY,
        depth=12,
        crashes=2,
        witnesses=(3,),
    ),
    Model(
        "lease",
        "a leader renews or is cut off, its lease runs out, a second leader is elected",
        Start.LED,
        depth=17,
        witnesses=(3,),
    ),
    Model(
        "clocks",
        "the same, with a leader whose clock is slow by the whole bound",
        Start.LED,
        depth=18,
        witnesses=(3,),
        rates=(Rate(), FAST, FAST),
    ),
    Model(
        "reordered",
        "the same, and of each kind two messages are on a link, so that the older may come after the newer",
        Start.LED,
        depth=15,
        kept=2,
        witnesses=(3,),
    ),
    Model(
        "late",
        "the same, with a process that is stopped and goes on: it misses an instant that it wanted to wake at",
        Start.LED,
        depth=13,
        lates=2,
        witnesses=(3,),
    ),
    Model(
        "resume",
        "a new leader crashes at any write, starts again and resumes its term",
        Start.ELECTED,
        depth=15,
        crashes=1,
        crashing=(1,),
        witnesses=(3,),
    ),
    Model(
        "restart",
        "a voter crashes at any write and starts again, having forgotten its promises",
        Start.ELECTED,
        depth=15,
        crashes=1,
        crashing=(3,),
        witnesses=(3,),
    ),
    Model(
        "challenged",
        "a new leader hears of a higher term and has itself elected again while its lease runs",
        Start.ELECTED,
        depth=14,
        witnesses=(3,),
        terms=(1, 1, 5),
    ),
    Model(
        "stop",
        "a voter stops cleanly and starts again",
        Start.ELECTED,
        depth=15,
        operations=((3, ev.Stop(StopMode.FAST)),),
        witnesses=(3,),
    ),
    Model(
        "hand-over",
        "an operator asks for another leader; any one message is taken twice, so also the release",
        Start.LED,
        depth=13,
        doubles=1,
        operations=((1, ev.SwitchOver(1, 2)),),
        witnesses=(3,),
        peers=Health.ALIVE,
    ),
    Model(
        "voters",
        "a voter is removed while it is cut off, and stands with the old document",
        Start.LED,
        depth=18,
        operations=((1, ev.ChangeVoters(1, 0, 3)),),
        witnesses=(2,),
        peers=Health.ALIVE,
    ),
    Model(
        "joining",
        "a node joins as a voter while the leader is cut off, and stands at once",
        Start.LED,
        depth=17,
        operations=((1, ev.ChangeVoters(1, 3, 0)),),
        witnesses=(2,),
        voters=(1, 2),
        peers=Health.ALIVE,
    ),
)
