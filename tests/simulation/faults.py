"""The schedule of faults: drawn by the seed before the run begins, so that it can be printed, repeated and reduced.

A fault is plain data. Every fault that lasts ends by itself after its span. Traps spring at the n-th action of a
kind, which puts a crash, a stop or a pause between any two effects; profiles aim at one part of the protocol each.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.options import Options

ACTIONS = (
    "persist", "send Renew", "send Ack", "send PreVote", "send Vote", "send Granted", "send Refused", "send Release",
    "send Hello", "send Found", "hold", "arm", "armed", "close", "drop", "keep", "command", "stepped", "",
)  # fmt: skip
ENDS: tuple[str, ...] = ("kill", "kill", "crash", "stop", "pause")

# kind -> weight, by profile; "mixed" stands for what is not named elsewhere.
MIXED = {
    "kill": 4, "kill helper": 1, "crash": 2, "all": 1, "stop": 4, "stop helper": 1, "pause": 1, "stall": 2, "trap": 8,
    "cut": 4, "isolate": 4, "split": 3, "flap": 2, "lossy": 2, "replay": 3, "pgpool": 2, "fence": 1, "stick": 1,
    "lose": 0.5, "switch": 3, "leave": 3, "reload": 1, "bootstrap": 1, "remove": 2, "add": 2,
}  # fmt: skip
WEIGHTS: dict[str, dict[str, float]] = {
    "mixed": MIXED,
    "quiet": MIXED,
    "election": {"trap": 14, "kill": 6, "isolate": 4, "split": 4, "stop": 3, "cut": 4, "replay": 3, "stall": 3},
    "restart": {"kill": 10, "crash": 5, "all": 4, "trap": 10, "leave": 6, "isolate": 4, "reload": 3, "replay": 2},
    "gate": {"trap gate": 14, "stop": 8, "isolate": 5, "cut": 3, "kill": 3, "stall": 1, "pause": 1},
    "handover": {"switch": 14, "leave": 6, "trap": 6, "stick": 3, "stop": 3, "isolate": 3, "pgpool": 4, "replay": 4},
    "membership": {"remove": 10, "add": 10, "switch": 3, "kill": 3, "split": 3, "isolate": 3, "trap": 4, "reload": 4},
    "network": {"replay": 12, "flap": 4, "lossy": 6, "cut": 6, "switch": 3, "kill": 3, "stop": 4, "isolate": 3},
    "resume": {"kill": 10, "trap": 12, "replay": 10, "isolate": 4, "stop": 3, "switch": 2, "cut": 2},
    "witnesses": {"isolate": 8, "split": 6, "cut": 4, "kill": 6, "switch": 4, "trap": 6, "crash": 3, "reload": 1},
    "commands": {"trap": 12, "kill": 6, "stop": 4, "stall": 4, "switch": 6, "isolate": 4, "pgpool": 2, "cut": 2},
    "amnesia": {"lose": 6, "kill": 4, "isolate": 5, "split": 3, "switch": 4, "trap": 4, "remove": 3, "add": 4},
    "deaf": {"deafen": 12, "kill": 12, "trap": 5, "switch": 2, "crash": 2, "stop": 1},
    "half": {
        "split": 8, "isolate": 6, "cut": 5, "deafen": 2, "flap": 2, "lossy": 1, "kill": 3, "crash": 4, "stop": 4,
        "stop helper": 1, "kill helper": 1, "trap": 5, "refile": 6, "reload": 1, "add": 3, "remove": 3, "switch": 2,
        "pause": 1, "replay": 2, "all": 0.5, "pgpool": 2, "lose": 0.3, "stall": 1,
    },
    "backends": {
        "backend": 12, "backend cut": 8, "operator": 6, "promote": 3, "kill": 4, "crash": 2, "stop": 3, "trap": 8,
        "isolate": 3, "split": 2, "cut": 3, "switch": 3, "replay": 6, "leave": 2, "stall": 1, "lossy": 1, "pgpool": 1,
    },
    "links": {"cut": 12, "isolate": 5, "split": 5, "flap": 4, "lossy": 2},
}  # fmt: skip
AIMED = {
    "election": ("persist", "send Vote", "send Granted", "send Ack", "send PreVote"),
    "restart": ("send Ack", "send Renew", "persist", "keep"),
    "handover": ("send Release", "persist", "close", "drop", "send Renew"),
    "membership": ("persist", "send Renew", "send Ack", "command"),
    "deaf": ("send Renew", "keep", "send Vote"),
    "resume": ("send Renew", "hold", "keep", "send Ack", "armed"),
    "witnesses": ("persist", "send Renew", "send Vote", "send Ack"),
    "commands": ("command", "command", "persist", "send Renew", "stepped"),
    "amnesia": ("persist", "send Ack", "send Granted"),
    "backends": ("command", "command", "persist", "send Renew", "send TellBackend", "send AskBackend", "stepped"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`node` is hit (0: the leader of that instant); `other`, `number` and `detail` mean what the kind needs."""

    at_ns: int
    kind: str
    node: int
    other: int
    span_ns: int
    number: int
    detail: str

    def __str__(self) -> str:
        text = f"{self.at_ns / 1e6:.3f} ms {self.kind} node={self.node or 'leader'} other={self.other}"
        return f"{text} span={self.span_ns / 1e6:.1f} ms number={self.number} detail={self.detail!r}"


def schedule(options: Options) -> tuple[Fault, ...]:
    """All faults of a run, by time."""
    source = random.Random(f"{options.seed} faults")
    weights = WEIGHTS[options.profile]
    kinds, shares = list(weights), list(weights.values())
    at_ns = 0
    faults: list[Fault] = []
    while True:
        at_ns += int(source.expovariate(1 / options.mean_leases) * options.lease_ns)
        if at_ns >= options.storm_ns:
            return tuple(faults)
        kind = source.choices(kinds, shares)[0]
        if kind == "all":
            faults.extend(_salvo(source, options, at_ns))
        else:
            faults.append(_fault(source, options, at_ns, kind))


def _salvo(source: random.Random, options: Options, at_ns: int) -> list[Fault]:
    """Every node is hit by the same, at once or nearly so."""
    ends = source.choice(("kill", "crash", "leave"))
    spread_ns = int(options.lease_ns * source.choice((0.0, 0.3)))
    return [
        _fault(source, options, at_ns + int(spread_ns * source.random()), ends, node)
        for node in range(1, options.size + 1)
    ]


def _fault(source: random.Random, options: Options, at_ns: int, kind: str, node: int = -1) -> Fault:
    if node < 0:
        node = 0 if source.random() < 0.4 else source.randint(1, options.size)
    other = source.randint(1, options.size)
    long = options.profile == "half" and source.random() < 0.5  # an election by half takes many leases
    span = source.choice((0.02, 0.1, 0.3, 0.6, 1.0, 1.3, 2.5, 5.0)) * (0.8 + 0.4 * source.random()) * (6 if long else 1)
    number, detail = source.randrange(1 << 16), ""
    if kind in ("trap", "trap gate"):
        detail = source.choice(AIMED.get(options.profile, ACTIONS) if source.random() < 0.8 else ACTIONS)
        ends = ENDS
        if kind == "trap gate":
            detail, ends = source.choice(("arm", "arm", "armed", "hold", "close")), ("stop", "stop, then kill", "kill")
        detail = f"{source.choice(ends)} at {detail}"
        number = source.choice((1, 1, 1, 2, 3, 8))
    elif kind == "leave":
        detail = source.choice(("smart", "smart", "fast"))
    return Fault(at_ns, kind.removesuffix(" gate"), node, other, int(span * options.lease_ns), number, detail)
