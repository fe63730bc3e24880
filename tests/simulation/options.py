"""What one run is made of: cluster, timings, clocks, network, disks. All drawn from the seed, all printed with a
failure.

Timings keep the rules of the configuration (lease_ms >= 3 * renew_ms, deadtime_ms >= 3 * interval_ms, limits of
the schema); intervals grow with the lease time, so a cluster-hour with a long lease is cheap, and everything that
lasts is measured in leases.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core.base import CoreCommand, CoreConsensus, CoreNode, CoreSettings
from pgvigil.watchdog.core.record import QuorumRule

SIZES = (1, 2, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7, 9)
LEASES_MS = (300, 1000, 1000, 5000, 20_000, 60_000, 60_000, 60_000)
HALF_SHARE = 0.15
BACKENDS_SHARE = 0.1
WITHIN_PPM = 4900  # two such clocks differ by less than 1 %
SLOW_DISKS = 0.08  # of the seeds: each of the two fsyncs of a write takes 50 to 150 ms for an L of a second
PROFILES = (
    "mixed",
    "mixed",
    "election",
    "restart",
    "gate",
    "handover",
    "membership",
    "network",
    "links",
    "quiet",
    "resume",
    "deaf",
    "witnesses",
    "commands",
    "amnesia",
)


@dataclass(frozen=True)
class Options:
    """One run. Lengths of time that grow with L are in leases, others carry their unit."""

    seed: int
    profile: str
    size: int
    witnesses: tuple[int, ...]
    priorities: tuple[int, ...]
    preempt: bool
    policy: str
    lease_ms: int
    renew_ms: int
    interval_ms: int
    deadtime_ms: int
    repeat_ms: int
    rates_ppm: tuple[int, ...]
    counts_pause: bool
    delay_us: tuple[int, int]
    tail_permille: int
    tail_us: int
    loss_permille: int
    double_permille: int
    disk_us: tuple[int, int]
    removal_us: int
    slow_node: int
    slow_us: int
    windows: bool
    codec: bool
    calm_start: bool
    storm_leases: int
    mean_leases: float
    heal_all: bool
    brief: bool = False
    slow_disks: bool = False
    backends: int = 0
    consensus: CoreConsensus = field(default_factory=CoreConsensus)
    backend_policy: str = "once"

    @property
    def lease_ns(self) -> int:
        """L as the files propose it at first."""
        return self.lease_ms * NS_PER_MS

    @property
    def storm_ns(self) -> int:
        """Length of phase one."""
        return self.storm_leases * self.lease_ns

    def nodes(self) -> tuple[CoreNode, ...]:
        """The configured nodes."""
        return tuple(
            CoreNode(node, f"n{node}", node in self.witnesses, self.priorities[node - 1])
            for node in range(1, self.size + 1)
        )

    def settings(self, node_id: int, lease_ms: int, quorum: str = "", tie_breaker: str = "10.0.0.254") -> CoreSettings:
        """What the core of a node is told; without `quorum` what the profile begins with."""
        command = CoreCommand("escalation", self.policy)
        rule = QuorumRule(quorum or ("half" if self.profile == "half" else "majority"))
        settings = CoreSettings(node_id, self.nodes(), lease_ms, self.renew_ms, self.preempt, (command,))
        if self.backends:
            names = ("failover", "failback", "follow_primary")
            commands = tuple(CoreCommand(name, self.backend_policy) for name in names)
            settings = replace(settings, commands=(command, *commands), consensus=self.consensus)
        return replace(settings, quorum=rule, tie_breaker=tie_breaker if rule is QuorumRule.HALF else "")

    def describe(self) -> str:
        """One line, for the first line of a failure."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def draw(seed: int, profile: str = "", brief: bool = False) -> Options:
    """The options of a seed; a given profile replaces the drawn one.

    `brief` is for mutants and quick tests: small clusters, short leases, a short and dense storm.
    """
    source = random.Random(f"{seed} options")
    drawn = source.choice(PROFILES)
    own = random.Random(f"{seed} half")  # the draws of the other profiles stay what they were
    if own.random() < HALF_SHARE:
        drawn = "half"
    pools = random.Random(f"{seed} backends")  # likewise
    if pools.random() < BACKENDS_SHARE:
        drawn = "backends"
    size = source.choice(SIZES)
    witnesses = tuple(sorted(source.sample(range(2, size + 1), source.randint(0, (size - 1) // 2))))
    equal = source.random() < 0.7
    lease_ms = source.choice(LEASES_MS)
    renew_ms = max(20, lease_ms // source.choice((3, 4, 5, 5, 5, 8)))
    interval_ms = min(10_000, renew_ms)
    bad = source.random() ** 2
    slow = source.random() < 0.1
    options = Options(
        seed=seed,
        profile=profile or drawn,
        size=size,
        witnesses=witnesses,
        priorities=tuple(1 if equal else source.randint(1, 2) for _ in range(size)),
        preempt=source.random() < 0.3,
        policy=source.choice(("once", "retry")),
        lease_ms=lease_ms,
        renew_ms=renew_ms,
        interval_ms=interval_ms,
        deadtime_ms=min(120_000, max(3 * interval_ms, lease_ms * source.choice((1, 1, 2)), 100)),
        repeat_ms=1400 if lease_ms <= 5000 else 2900,
        rates_ppm=_rates(source, size),
        counts_pause=source.random() < 0.7,
        delay_us=(100, source.choice((500, 2000, renew_ms * 1000 // 16))),
        tail_permille=source.choice((0, 2, 20)),
        tail_us=lease_ms * source.choice((200, 1000, 3000)),
        loss_permille=int(bad * 150),
        double_permille=int(bad * 100),
        disk_us=(100, min(source.choice((1000, 20_000)), renew_ms * 1000 // 16)),
        removal_us=source.choice((0, 0, 300, 3000)),
        slow_node=source.randint(1, size) if slow else 0,
        slow_us=renew_ms * 1000 // 20,
        windows=source.random() < 0.5,
        codec=source.random() < 0.15,
        calm_start=source.random() < 0.85,
        storm_leases=source.choice((60, 120, 240)),
        mean_leases=source.choice((0.4, 1.0, 3.0)),
        heal_all=source.random() < 0.4,
    )
    if options.profile == "quiet":
        options = replace(options, mean_leases=30.0, storm_leases=600)
    if options.profile == "deaf":
        options = replace(options, heal_all=False)
    if options.profile == "witnesses":
        options = _with_witnesses(options, 3 if size <= 4 else 5)
    if options.profile == "half":
        options = _even(options, own.choice((2, 2, 2, 4, 4, 6)))
    if options.profile == "backends":
        options = _with_backends(options, pools)
    if brief:
        return _brief(options)
    return with_slow_disks(options) if random.Random(f"{seed} disks").random() < SLOW_DISKS else options


def with_slow_disks(options: Options) -> Options:
    """All disks so slow that a round of R is never long enough, but L is: two writes and four ways fit into it."""
    return replace(options, slow_disks=True, disk_us=(options.lease_ms * 100, options.lease_ms * 300))


def _with_witnesses(options: Options, size: int) -> Options:
    """As many witnesses as a cluster may have: only one of the others has what a witness has."""
    witnesses = tuple(range(size // 2 + 2, size + 1))
    priorities = (options.priorities * size)[:size]
    rates = (options.rates_ppm * size)[:size]
    return replace(options, size=size, witnesses=witnesses, priorities=priorities, rates_ppm=rates, heal_all=False)


def _with_backends(options: Options, source: random.Random) -> Options:
    """Backends behind every member's pgpool-II. Asks and views live for seconds, so leases are short here."""
    lease_ms = source.choice((300, 1000, 1000, 1000, 5000))
    renew_ms = max(20, lease_ms // 5)
    rule = CoreConsensus(
        required=source.random() < 0.85,
        half_votes=source.random() < 0.3,
        several_from_node=source.random() < 0.1,
        timeout_ms=source.choice((2000, 4000)),
    )
    return replace(
        options,
        lease_ms=lease_ms,
        renew_ms=renew_ms,
        interval_ms=renew_ms,
        deadtime_ms=max(3 * renew_ms, lease_ms),
        repeat_ms=1400,
        delay_us=(100, min(options.delay_us[1], renew_ms * 1000 // 16)),
        tail_us=lease_ms * (options.tail_us // options.lease_ms),
        disk_us=(100, min(options.disk_us[1], renew_ms * 1000 // 16)),
        slow_us=renew_ms * 50,
        mean_leases=max(options.mean_leases, 1.0) * max(1000 // lease_ms, 1),
        storm_leases=max(60_000 // lease_ms, 40) * source.choice((1, 2)),
        backends=source.choice((2, 3, 3)),
        consensus=rule,
        backend_policy=source.choice(("once", "once", "retry")),
    )


def _even(options: Options, size: int) -> Options:
    """`quorum = "half"` is for an even number of nodes."""
    witnesses = tuple(node for node in options.witnesses if node <= size)[: (size - 1) // 2]
    rates = (options.rates_ppm * size)[:size] if size > 1 else options.rates_ppm
    rates = tuple(rate if node % 2 else -rate for node, rate in enumerate(rates))
    priorities = (options.priorities * size)[:size]
    return replace(
        options, size=size, witnesses=witnesses, priorities=priorities, rates_ppm=rates,
        slow_node=min(options.slow_node, size), mean_leases=max(options.mean_leases, 1.0),
    )  # fmt: skip


def _brief(options: Options) -> Options:
    size = min(options.size, 4 if options.profile == "half" else 5)
    renew_ms = 1000 * options.renew_ms // options.lease_ms
    return replace(
        options,
        brief=True,
        size=size,
        witnesses=tuple(node for node in options.witnesses if node <= size)[: (size - 1) // 2],
        lease_ms=1000,
        renew_ms=renew_ms,
        interval_ms=renew_ms,
        deadtime_ms=1000,
        delay_us=(100, min(options.delay_us[1], 2000)),
        disk_us=(100, min(options.disk_us[1], 10_000)),
        tail_us=1000 * (options.tail_us // options.lease_ms),
        slow_us=renew_ms * 50,
        slow_node=min(options.slow_node, size),
        storm_leases=60 if options.backends else 80,
        mean_leases=min(options.mean_leases, 1.0),
    )


def _rates(source: random.Random, size: int) -> tuple[int, ...]:
    """Clock rates: the extremes often, because that is where the bound is."""
    extreme = source.random() < 0.5
    return tuple(
        source.choice((-WITHIN_PPM, WITHIN_PPM)) if extreme else source.randint(-WITHIN_PPM, WITHIN_PPM)
        for _ in range(size)
    )
