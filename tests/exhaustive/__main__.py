"""`python -m tests.exhaustive`: search every small model and print what was found, one line a model.

The exit status is 0 if everything holds, 1 if an invariant is broken (then the shortest way to it is told), 2 if the
command line makes no sense. With `--mutants` the broken cores are searched instead, and each must be found out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from tests.exhaustive.catalogue import MODELS
from tests.exhaustive.mutants import CASES, find
from tests.exhaustive.runner import Order, Told, run
from tests.exhaustive.search import Finding

MOST_STATES = 20_000_000
HEAD = f"{'model':14}{'depth':>6}{'states':>12}{'transitions':>13}{'holders':>9}{'CPU s':>9}  verdict"


def judged(finding: Finding) -> tuple[bool, str]:
    """Whether the finding is good, in words too. A search that saw too few leaders has not asked its question."""
    model = next(model for model in MODELS if model.name == finding.model)
    if finding.wrong is None and finding.depth >= model.depth and finding.holders < model.holders:
        return False, f"SAW TOO LITTLE: {model.holders} holders of the VIP were to be seen"
    return finding.wrong is None, finding.verdict


def show(results: Iterable[Told]) -> bool:
    """Print one line a model as it is done; whether everything holds."""
    print(HEAD, flush=True)
    findings: list[Finding] = []
    sound = True
    for finding, told in results:
        holds, verdict = judged(finding)
        findings.append(finding)
        sound = sound and holds
        print(
            f"{finding.model:14}{finding.depth:>6}{finding.states:>12,}{finding.transitions:>13,}"
            f"{finding.holders:>9}{finding.seconds:>9.1f}  {verdict}",
            flush=True,
        )
        for line in told:
            print(f"    {line}", flush=True)
    states, transitions = sum(item.states for item in findings), sum(item.transitions for item in findings)
    print(f"{'all':14}{'':>6}{states:>12,}{transitions:>13,}{'':>9}{sum(item.seconds for item in findings):>9.1f}")
    return sound


def show_mutants(verbose: bool) -> bool:
    """Search every mutant with its model; whether each was found out."""
    missed = 0
    print(f"{'found by':14}{'steps':>6}{'states':>12}  what was broken, and how it showed", flush=True)
    for case in CASES:
        finding, told = find(case)
        missed += finding.wrong is None or case.wrong not in finding.wrong
        said = finding.wrong or "NOT FOUND"
        print(f"{case.model:14}{len(finding.path):>6}{finding.states:>12,}  {case.says}: {said}", flush=True)
        for line in told if verbose else ():
            print(f"    {line}", flush=True)
    return missed == 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__)
    names = [model.name for model in MODELS]
    parser.add_argument("models", nargs="*", help=f"which models; all if none is named: {', '.join(names)}")
    parser.add_argument("--depth", type=int, help="how many steps from the start, instead of what each model says")
    parser.add_argument("--deeper", type=int, default=0, help="so many steps more than each model says")
    parser.add_argument(
        "--states", type=int, default=MOST_STATES, help="go no deeper with so many (7 million fill a GB)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many models at the same time")
    parser.add_argument("--mutants", action="store_true", help="search the broken cores instead")
    parser.add_argument("--verbose", action="store_true", help="with --mutants: tell every counterexample")
    parser.add_argument("--list", action="store_true", help="say what the models are about")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.models if name not in names]
    if unknown:
        parser.error(f"no model is called {unknown[0]!r}; there are {', '.join(names)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    chosen = _arguments(arguments)
    models = [model for model in MODELS if not chosen.models or model.name in chosen.models]
    if chosen.list:
        for model in models:
            print(f"{model.name:14}{model.says}")
        return 0
    if chosen.mutants:
        return 0 if show_mutants(chosen.verbose) else 1
    orders = [Order(model.name, chosen.depth or model.depth + chosen.deeper, chosen.states) for model in models]
    return 0 if show(run(orders, chosen.jobs)) else 1


if __name__ == "__main__":
    sys.exit(main())
