"""A fuzzing session: libFuzzer, led by the coverage of pgvigil's own code (atheris), on one target or all in turn.

    python -m tests.fuzz.session --seconds 60 [--keep] [TARGET ...]

Each target runs in a process of its own, because libFuzzer ends its process. It starts from the committed corpus,
the valid samples and what earlier sessions found (`.fuzz/`, not committed). An input that takes 5 s, needs more than
512 MiB or leaves a decoder by another exception than the promised one ends the target; it is written to
`.fuzz/TARGET/` and named in the summary, and the exit code is 1. `--keep` copies what reached something new to the
corpus.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORK = Path(__file__).parents[2] / ".fuzz"
INPUT_LIMIT_S = 5
MEMORY_LIMIT_MIB = 512
LONGEST_INPUT_BYTES = 4096
GRACE_S = 120
DICTIONARIES = {"config": Path(__file__).with_name("toml.dict")}
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)
_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+)")


@dataclass(frozen=True, slots=True)
class Summary:
    """What one target's session came to."""

    target: str
    executions: int
    per_second: int
    edges: int
    features: int
    corpus: int
    findings: tuple[Path, ...]
    code: int
    tail: str = ""

    def __str__(self) -> str:
        found = ", ".join(map(str, self.findings)) or "none"
        return (
            f"{self.target:<10} {self.executions:>9} executions, {self.per_second:>6}/s, {self.edges} edges, "
            f"{self.features} features, {self.corpus} inputs, findings: {found}"
        )


def arguments_of(target: str, seconds: int, corpora: Sequence[Path], work: Path) -> list[str]:
    """What libFuzzer is told (llvm.org/docs/LibFuzzer.html)."""
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_LIMIT_S}",
        f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
        f"-max_len={LONGEST_INPUT_BYTES}",
        f"-artifact_prefix={work}/",
        "-print_final_stats=1",
    ]
    if target in DICTIONARIES:
        options.append(f"-dict={DICTIONARIES[target]}")
    return [*options, *map(str, corpora)]


def fuzz_in_this_process(target: str, arguments: Sequence[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pgvigil"]):
        from tests.fuzz.targets import TARGETS

    take = TARGETS[target].take

    def one(data: bytes) -> None:
        take(data)

    # libFuzzer starts itself again by its own name, through a shell, to reduce a corpus.
    atheris.Setup([f"{sys.executable} -m tests.fuzz.session --inside {target}", *arguments], one)
    atheris.Fuzz()


def session(target: str, seconds: int) -> Summary:
    """Fuzz one target for so long."""
    from tests.fuzz import corpus

    work = WORK / target
    found = work / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    before = _findings(work)
    committed = corpus.folder_of(target)
    committed.mkdir(parents=True, exist_ok=True)
    arguments = arguments_of(target, seconds, (found, _samples(target, work), committed), work)
    command = [sys.executable, "-m", "tests.fuzz.session", "--inside", target, *arguments]
    done = subprocess.run(
        command,
        cwd=WORK.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + GRACE_S,
        check=False,
    )
    return summary_of(target, done.stdout.decode(errors="replace"), done.returncode, tuple(_findings(work) - before))


def summary_of(target: str, output: str, code: int, findings: tuple[Path, ...]) -> Summary:
    """Read what libFuzzer printed."""
    statistics = {name: int(value) for name, value in _STATISTIC.findall(output)}
    edges, features = (int(number) for number in (_COVERAGE.findall(output) or [(0, 0)])[-1])
    return Summary(
        target,
        statistics.get("number_of_executed_units", 0),
        statistics.get("average_exec_per_sec", 0),
        edges,
        features,
        len(list((WORK / target / "corpus").glob("*"))),
        tuple(sorted(findings)),
        code,
        output[-3000:],
    )


def keep(target: str) -> int:
    """Reduce what was found to what reaches something new, and copy the small ones to the corpus."""
    from tests.fuzz import corpus

    reduced = WORK / target / "reduced"
    reduced.mkdir(parents=True, exist_ok=True)
    for old in reduced.iterdir():
        old.unlink()
    arguments = ["-merge=1", str(reduced), str(WORK / target / "corpus"), str(WORK / target / "samples")]
    command = [sys.executable, "-m", "tests.fuzz.session", "--inside", target, *arguments]
    subprocess.run(command, cwd=WORK.parent, capture_output=True, timeout=GRACE_S, check=True)
    return corpus.keep(target, [path.read_bytes() for path in sorted(reduced.iterdir())])


def _samples(target: str, work: Path) -> Path:
    """The valid samples as files, for libFuzzer to begin with."""
    from tests.fuzz.targets import TARGETS

    folder = work / "samples"
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(TARGETS[target].samples()):
        (folder / f"sample-{number}").write_bytes(data)
    return folder


def _findings(work: Path) -> set[Path]:
    return {path for kind in ("crash", "timeout", "oom", "slow-unit") for path in work.glob(f"{kind}-*")}


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--inside"]:
        fuzz_in_this_process(words[1], words[2:])
    parser = argparse.ArgumentParser(prog="fuzz", description="coverage-guided fuzzing of pgvigil's decoders")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--keep", action="store_true", help="copy what reached something new to the corpus")
    parser.add_argument("targets", nargs="*", help="default: all")
    options = parser.parse_args(words)
    from tests.fuzz.targets import TARGETS

    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"unknown target {', '.join(unknown)}; expected some of {', '.join(TARGETS)}")
    failed = False
    for target in options.targets or TARGETS:
        summary = session(target, options.seconds)
        print(summary, flush=True)
        if summary.code or summary.findings:
            failed = True
            print(summary.tail, file=sys.stderr)
        elif options.keep:
            print(f"{target:<10} {keep(target)} inputs added to the corpus", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
