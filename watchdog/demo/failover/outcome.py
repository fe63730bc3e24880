"""What one play of a failover showed: promotions, the client's writes, pgbench, and whether the pgpool-IIs agree.

Pure judging, so that a test can feed it every picture. Promotions are counted in three independent ways, and the
largest count is believed: what the hosts wrote down, how many timelines PostgreSQL went on by, and how many of the
servers that were standbys are writable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.demo.failover.pgbench import Run
from pgvigil.watchdog.demo.records import Record, longest_gap_ns


@dataclass(frozen=True, slots=True)
class Promotions:
    """Three counts of the same thing."""

    written_down: int
    timelines: int
    writable: int
    """Servers that were standbys and are primaries now."""

    @property
    def seen(self) -> int:
        return max(self.written_down, self.timelines, self.writable)

    @property
    def agree(self) -> bool:
        return self.written_down == self.timelines == self.writable


@dataclass(frozen=True, slots=True)
class Writes:
    """How the client's writes went in one window."""

    gap_s: float
    """Longest time without an acknowledgement."""
    failed: int
    asked: int
    backends: tuple[int, ...]
    """Hosts whose PostgreSQL acknowledged, in order of asking; one that comes twice took turns with another."""

    @property
    def never_mixed(self) -> bool:
        return len(self.backends) == len(set(self.backends))


def writes_in(records: Iterable[Record], start_ns: int, end_ns: int) -> Writes:
    """Judge the writes that were begun from `start_ns` to `end_ns`; the window's edges count as acknowledgements."""
    window = sorted((r for r in records if start_ns <= r.asked_at_ns <= end_ns), key=lambda r: r.asked_at_ns)
    good = [record for record in window if record.answered_at_ns]
    acknowledged = sorted(record.answered_at_ns for record in good)
    return Writes(
        gap_s=longest_gap_ns(acknowledged, start_ns, end_ns) / NS_PER_S,
        failed=len(window) - len(good),
        asked=len(window),
        backends=tuple(who - FIRST_ADDRESS for who, _ in groupby(record.who for record in good)),
    )


FIRST_ADDRESS = 10
"""The last byte of the address of host n1 is one more."""


BEFORE_NS = 10 * NS_PER_S
"""The runs of pgbench in this time before a fault are what it did before."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How pgbench went on in one window."""

    before_per_s: float
    """Transactions per second."""
    after_per_s: float
    """The same once all pgpool-IIs agree; 0 if it does not go on."""
    failed: int
    """Runs with an error between the fault and the first good run after all agreed."""
    back_s: float
    """From the fault to the begin of the first run after the last one with an error; 0 if none had one."""
    said: str = ""
    """What the last run with an error complained of."""

    @property
    def goes_on(self) -> bool:
        return self.after_per_s > 0

    def __str__(self) -> str:
        if not self.goes_on:
            return f"pgbench: {self.before_per_s:.0f} transactions/s before, does not go on: {self.said or 'no run'}"
        back = f"first run without errors {self.back_s:.1f} s after the fault" if self.failed else "no run with errors"
        return f"pgbench: {self.before_per_s:.0f} transactions/s before, {self.after_per_s:.0f} after, {back}"


def bench_in(runs: Iterable[Run], fault_ns: int, agreed_ns: int) -> Bench:
    """Judge the runs around a fault; what went on counts from `agreed_ns` on, when the cluster is as it should be."""
    ordered = sorted(runs, key=lambda one: one.began_at_ns)
    before = [one for one in ordered if one.is_good and fault_ns - BEFORE_NS <= one.ended_at_ns <= fault_ns]
    after = [one for one in ordered if one.is_good and one.began_at_ns >= agreed_ns]
    struck = [one for one in ordered if one.ended_at_ns > fault_ns]
    if after:  # a run that began later than the first good one is none of this fault's business
        struck = [one for one in struck if one.began_at_ns <= after[0].began_at_ns]
    wrong = [one for one in struck if not one.is_good]
    good = [one for one in struck if one.is_good and wrong and one.began_at_ns > wrong[-1].began_at_ns]
    return Bench(
        before_per_s=_per_second(before),
        after_per_s=_per_second(after),
        failed=len(wrong),
        back_s=(good[0].began_at_ns - fault_ns) / NS_PER_S if good else 0.0,
        said=wrong[-1].said if wrong else "",
    )


def _per_second(runs: Sequence[Run]) -> float:
    took_s = sum(one.took_s for one in runs)
    return sum(one.transactions for one in runs) / took_s if took_s else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measured part of a play."""

    scenario: str
    promotions: int
    wanted_promotions: int
    gap_s: float
    agree: int
    of: int
    """How many pgpool-IIs there are."""
    wrong: tuple[str, ...]
    """What else did not hold, in words."""
    bench: Bench
    details: str = ""

    @property
    def holds(self) -> bool:
        return not self.wrong


def judge(
    scenario: str, wanted_promotions: int, promotions: Promotions, writes: Writes, bench: Bench, agree: int, of: int,
    others: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    """Put together what was seen; `others` are mistakes that only the play itself can see."""
    wrong = list(others)
    if promotions.seen != wanted_promotions or not promotions.agree:
        wrong.append(f"{promotions}, expected {wanted_promotions} of each")
    if not writes.never_mixed:
        wrong.append(f"backends took turns in acknowledging writes: {writes.backends}")
    if agree != of:
        wrong.append(f"{agree} of {of} pgpool-IIs agree")
    if not bench.goes_on:
        wrong.append("pgbench does not go on")
    places = ">".join(f"n{who}" for who in writes.backends)
    details = f"writes went to {places}, {writes.failed} of {writes.asked} failed; {bench}"
    return Outcome(scenario, promotions.seen, wanted_promotions, writes.gap_s, agree, of, tuple(wrong), bench, details)
