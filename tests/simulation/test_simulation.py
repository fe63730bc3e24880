"""A small sample of what `make simulate` runs for hours, and the simulator's own promises: to repeat and to shrink."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.simulation import batch
from tests.simulation.faults import Fault, schedule
from tests.simulation.mutant_table import MUTANTS
from tests.simulation.mutants import Mutant, changed
from tests.simulation.options import LEASES_MS, PROFILES, Options, draw, with_slow_disks
from tests.simulation.run import Result, Run
from tests.simulation.shrink import Shrinker
from tests.simulation.summary import Summary

# The rules of PROTOCOL.md marked (!), by number; 2 is the clock that is read for each message.
MARKED = {"2", "P2", "P3", "P4", "P5", "P6", "P8", "P11", "P12", "P14", "P15", "P16", "P17", "P18", "P20"}


@pytest.mark.parametrize("first", range(1, 17, 4))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Four brief seeds each."""
    for seed in range(first, first + 4):
        result = Run(draw(seed, brief=True)).run()
        if result.checker:
            pytest.fail(result.report(), pytrace=False)


@pytest.mark.parametrize("profile", sorted({*PROFILES, "half", "backends"}))
def test_no_profile_breaks_a_promise(profile: str) -> None:
    """Each kind of aim once, with faults that really happen."""
    result = Run(draw(101, profile, brief=True)).run()
    if result.checker:
        pytest.fail(result.report(), pytrace=False)
    assert result.counts["faults"] > 0 and result.counts["elections"] > 0


def test_half_comes_back_without_the_other_half() -> None:
    """P22: with the others off and a tie-breaker that answers, the VIP is back within the bound, by half."""
    for seed in range(1, 41):
        result = Run(draw(seed, "half", brief=True)).run()
        assert result.checker == "", result.report()
        if result.counts["recoveries by half"]:
            return
    pytest.fail("in none of 40 seeds half of the voters was healed alone")


def test_backends_are_decided_on_and_come_to_one_table() -> None:
    """P23: pgpool-IIs that see servers fail, operators, commands; every run ends with one table on all nodes."""
    decisions = 0
    for seed in range(1, 7):
        result = Run(draw(seed, "backends", brief=True)).run()
        assert result.checker == "", result.report()
        decisions += result.counts["decisions"]
    assert decisions > 60


def test_slow_disks_break_no_promise_and_keep_no_cluster_down() -> None:
    """Writes that take longer than R; some seeds of every run of hours have them."""
    assert {draw(seed).slow_disks for seed in batch.seeds_for(100)} == {True, False}
    for seed in range(1, 9):
        options = with_slow_disks(draw(seed, brief=True))
        result = Run(options).run()
        if result.checker:
            pytest.fail(result.report(), pytrace=False)
        assert result.counts["elections"] > 0


def test_a_seed_repeats_exactly() -> None:
    """Story and counters."""
    one, other = (Run(draw(7, brief=True)).run() for _ in range(2))
    assert (one.digest, one.counts, one.lines) == (other.digest, other.counts, other.lines)


@pytest.mark.timeout(400)
def test_a_seed_repeats_under_any_hash_seed() -> None:
    """The digest does not depend on the order of sets and of dictionaries of strings."""
    printed = set()
    for hash_seed in ("0", "1", "4242"):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "11", "--brief", "--lines", "5"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        printed.add(ended.stdout)
    assert len(printed) == 1 and "digest" in printed.pop()


def test_different_seeds_differ() -> None:
    """Else the digest would prove nothing."""
    assert Run(draw(3, brief=True)).run().digest != Run(draw(4, brief=True)).run().digest


def test_the_shrinker_finds_the_faults_that_matter() -> None:
    """Two faults of a long schedule break a promise; nothing else may be left."""
    options = draw(9, brief=True)
    faults = schedule(options)
    guilty = {faults[len(faults) // 3], faults[-2]}

    def run(options: Options, tried: Sequence[Fault]) -> Result:
        return Result(options, tuple(tried), "gates" if guilty <= set(tried) else "", "it is broken")

    shrinker = Shrinker(run(options, faults), run)
    best = shrinker.shrink()
    assert set(best.faults) == guilty and best.checker == "gates"
    assert (best.options.loss_permille, best.options.tail_permille, best.options.codec) == (0, 0, False)


@pytest.mark.timeout(400)
def test_the_shrinker_reduces_a_real_failure() -> None:
    """Clocks outside the bound break promises; what is left of the schedule still breaks the same one."""
    failing = None
    for seed in range(1, 30):
        options = draw(seed, "links", brief=True)
        rates = tuple(60_000 if node % 2 else -60_000 for node in range(options.size))
        result = Run(replace(options, rates_ppm=rates)).run()
        if result.checker and len(result.faults) > 4:
            failing = result
            break
    assert failing is not None, "clocks 12 % apart broke nothing"
    best = Shrinker(failing, most_runs=25).shrink()
    assert best.checker == failing.checker and len(best.faults) < len(failing.faults)
    assert Run(best.options, best.faults).run().digest == best.digest
    assert best.report().startswith(f"seed {failing.options.seed}: ")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_each_mutant_changes_something(mutant: Mutant) -> None:
    """Its pieces are in the source exactly once, and the broken source is still a program."""
    if not mutant.pieces:
        assert mutant.rate_ppm
        return
    path = mutant.module.removeprefix("pgvigil.").replace(".", "/") + ".py"
    with open(path, encoding="utf-8") as file:
        source = file.read()
    broken = changed(mutant, source)
    assert broken != source
    compile(broken, path, "exec")


def test_every_marked_rule_has_a_mutant() -> None:
    """At least 25 of them, and no two of one name."""
    named = {rule for mutant in MUTANTS for rule in mutant.rule.split(", ")}
    assert named >= MARKED
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


@pytest.mark.timeout(400)
def test_a_mutant_is_caught_in_a_process_of_its_own() -> None:
    """The way `make mutants` does it, for one that is caught at once."""
    from tests.simulation.hunt import hunt_in_process, row, verdict

    vote = next(mutant for mutant in MUTANTS if mutant.name == "vote not persisted")
    caught = hunt_in_process(vote)
    assert (verdict(vote, caught), caught.checker) == ("", "vote"), row(vote, caught)


def test_hours_choose_their_seeds_without_running_them() -> None:
    """The same hours take the same seeds, and more hours more of them."""
    seeds = batch.seeds_for(20)
    assert seeds == batch.seeds_for(20) and len(batch.seeds_for(40)) > len(seeds)
    assert {draw(seed).lease_ms for seed in batch.seeds_for(500)} == set(LEASES_MS)


def test_the_summary_counts_what_was_run() -> None:
    """Hours by class of timings, and violations by seed."""
    summary = Summary()
    summary.add(Result(draw(1), (), hours=2.0, recovery_leases=0.5))
    summary.add(Result(draw(2), (), "gates", "gates: two gates are open", hours=1.0))
    assert "2 seeds, 3.0 cluster-hours" in summary.line() and "1 violations" in summary.line()
    assert "VIOLATION seed 2: gates: two gates are open" in summary.text()


def test_options_keep_the_rules_of_the_configuration() -> None:
    """Whatever the seed draws could stand in a configuration file."""
    for seed in range(1, 400):
        options = draw(seed)
        assert 300 <= options.lease_ms <= 60_000 and 20 <= options.renew_ms <= 20_000
        assert options.lease_ms >= 3 * options.renew_ms and options.deadtime_ms >= 3 * options.interval_ms
        assert 20 <= options.interval_ms <= 10_000 and 100 <= options.deadtime_ms <= 120_000
        assert 1 <= options.size <= 9 and len(options.witnesses) < options.size
        assert len(options.rates_ppm) == len(options.priorities) == options.size
