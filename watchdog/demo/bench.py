"""What pgvigil costs when nothing happens: memory, CPU and context switches per node.

    python -m pgvigil.watchdog.demo.bench [--seconds 30] [--json]

No probe runs meanwhile. The nodes start from compiled bytecode, as those of an installed pgvigil do: compiling its own
sources costs each of them 2 MB. CPU is summed over all threads from the scheduler's own nanoseconds, because the ticks
of 10 ms in /proc/PID/stat see nothing of a process that wakes for 100 us.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.lab import Lab
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.memory import alone_mb, read_memory
from pgvigil.watchdog.demo.run import run
from pgvigil.watchdog.demo.services import require_services
from pgvigil.watchdog.demo.stage import Stage

TARGET_PSS_MB = 40.0
TARGET_CPU_PERCENT = 1.0
EVERYTHING = (
    "daemon",
    "encodings.idna",
    "pgvigil.heartbeat.receiver",
    "pgvigil.heartbeat.sender",
    "pgvigil.lifecheck.process",
    "pgvigil.watchdog.cli.__main__",
    "pgvigil.watchdog.cli.service",
    "pgvigil.watchdog.config.load",
    "pgvigil.watchdog.process",
    "pgvigil.watchdog.supervisor.daemon",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One node's or one process's steady state."""

    name: str
    processes: int
    pss_mb: float
    alone_mb: float
    """Without what it shares with other nodes of the lab: see `memory`."""
    cpu_percent: float
    """Of one core."""
    switches_per_s: float

    @property
    def holds(self) -> bool:
        return self.alone_mb <= TARGET_PSS_MB and self.cpu_percent <= TARGET_CPU_PERCENT


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one process at one instant."""

    cpu_ns: int
    switches: int


def read_counters(pid: int) -> Reading:
    """CPU time (schedstat, proc(5)) and context switches over all threads; zeros when it is gone."""
    threads = list(Path(f"/proc/{pid}/task").glob("*"))
    cpu_ns = sum(int(_read(thread / "schedstat").split()[0] or 0) for thread in threads if _read(thread / "schedstat"))
    return Reading(cpu_ns, sum(_switches(_read(thread / "status")) for thread in threads))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _switches(status: str) -> int:
    return sum(int(line.split()[1]) for line in status.splitlines() if "_ctxt_switches" in line)


def measure_node(titles: dict[int, str], before: dict[int, Reading], elapsed_ns: int) -> list[Cost]:
    """The cost of a node since `before`: the whole first, then each process."""
    memories = {pid: read_memory(pid) for pid in titles}
    costs = []
    for pid, text in titles.items():
        now, then = read_counters(pid), before.get(pid, Reading(0, 0))
        share = (now.cpu_ns - then.cpu_ns) / elapsed_ns * 100
        rate = (now.switches - then.switches) / (elapsed_ns / NS_PER_S)
        costs.append(Cost(text, 1, memories[pid].pss_mb, alone_mb([memories[pid]]), share, rate))
    return [total(costs, alone_mb(memories.values())), *costs]


def total(costs: Sequence[Cost], alone: float) -> Cost:
    return Cost(
        name="all processes",
        processes=len(costs),
        pss_mb=sum(cost.pss_mb for cost in costs),
        alone_mb=alone,
        cpu_percent=sum(cost.cpu_percent for cost in costs),
        switches_per_s=sum(cost.switches_per_s for cost in costs),
    )


def measure(stage: Stage, seconds: float) -> dict[str, list[Cost]]:
    """Per node: the costs of its processes over some seconds of a settled cluster."""
    titles = {node.name: stage.lab.pgvigil(node) for node in stage.lab.nodes}
    before = {pid: read_counters(pid) for node in titles.values() for pid in node}
    started_at_ns = boottime_ns()
    time.sleep(seconds)
    elapsed_ns = boottime_ns() - started_at_ns
    return {name: measure_node(node, before, elapsed_ns) for name, node in titles.items()}


def line(name: str, cost: Cost) -> str:
    memory = f"{cost.pss_mb:>7.1f} MB {cost.alone_mb:>7.1f} MB"
    return f"{name:<62.62} {cost.processes:>3} {memory} {cost.cpu_percent:>6.2f} % {cost.switches_per_s:>7.1f}/s"


def report(nodes: dict[str, list[Cost]], seconds: float) -> str:
    head = f"{'node or process':<62} {'n':>3} {'PSS':>10} {'alone':>10} {'CPU':>8} {'switches':>9}"
    lines = [head, "-" * len(head)]
    for name, (whole, *processes) in nodes.items():
        lines.append(line(name, whole))
        lines.extend(line(f"    {cost.name}", cost) for cost in processes)
    lines.append(f"over {seconds:.0f} s; CPU in % of one core; measured on {describe_machine()}")
    lines.append("alone: PSS if nothing but this line's processes shared their pages, as on a host of their own")
    targets = f"{TARGET_PSS_MB:.0f} MB alone, {TARGET_CPU_PERCENT:.0f} % of one core"
    return "\n".join([*lines, f"targets per node: {targets}: {verdict(nodes)}"])


def verdict(nodes: dict[str, list[Cost]]) -> str:
    missed = [name for name, (whole, *_) in nodes.items() if not whole.holds]
    return f"MISSED by {', '.join(missed)}" if missed else "held by all"


def compile_into(folder: Path) -> None:
    """Compile what a node imports and let the processes that are started from now on take the outcome from there."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    run((sys.executable, "-P", "-c", f"import {', '.join(EVERYTHING)}"), limit_s=60).checked()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-bench", description="the cost of a settled cluster")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure (default 30)")
    parser.add_argument("--json", action="store_true", help="a document instead of a table")
    options = parser.parse_args(arguments)
    try:
        require_services()
        with Lab() as lab:
            compile_into(lab.root / "bytecode")
            stage = Stage(lab)
            stage.set_up()
            stage.cluster.start(lab.nodes)
            stage.cluster.wait_settled()
            nodes = measure(stage, options.seconds)
    except PgvigilError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        costs = {name: [dataclasses.asdict(cost) for cost in costs] for name, costs in nodes.items()}
        print(json.dumps({"machine": describe_machine(), "seconds": options.seconds, "nodes": costs}, indent=2))
    else:
        print(report(nodes, options.seconds))
    return 0 if verdict(nodes).startswith("held") else 1


if __name__ == "__main__":
    sys.exit(main())
