"""Floods of garbage against the leader of a lab, measured.

    python -m pgvigil.watchdog.demo.hostile [--rate 20000] [--seconds 30] [--only NAME ...]

A scene sends so much a second from a host that is no node, and compares before and after: nobody may have died, led
or grown, and the client must have noticed nothing. The report names the rate that the machine managed. Exit code 0
only if every scene held.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.acceptance import running_stage
from pgvigil.watchdog.demo.config import log_path
from pgvigil.watchdog.demo.flood import Report, read_report
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.run import wait_until
from pgvigil.watchdog.demo.scenes import Phase, describe, reasons
from pgvigil.watchdog.demo.services import require_services
from pgvigil.watchdog.demo.stage import Stage

BEAT_PORT, CLUSTER_PORT = 9694, 9000
RATE_PER_S, SECONDS = 20_000, 30.0
CONNECTIONS_PER_S = 300
GRACE_S = 30.0
RECORD_S = 2.0
UNNOTICED_MS = 50.0
"""As long as a planned switchover may take: a client's connection pool does not see it."""
MAX_GROWTH_MB = 16.0
MAX_LOG_LINES = 40
SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of garbage to one port: a share of the wanted rate, or `per_s` where that is no rate of packets."""

    kind: str
    port: int
    share: float = 1.0
    per_s: int = 0
    from_peer: bool = False
    """From the host of a configured node: whose datagrams get a closer look, and whose address may be forged."""

    def rate(self, wanted: int) -> int:
        return self.per_s or int(wanted * self.share)


CONNECTIONS = Stream("connections", CLUSTER_PORT, per_s=CONNECTIONS_PER_S)
SCENES: dict[str, tuple[Stream, ...]] = {
    "heartbeat-port": (Stream("datagrams", BEAT_PORT),),
    "heartbeat-port-from-a-peer": (Stream("datagrams", BEAT_PORT, from_peer=True),),
    "cluster-port": (Stream("segments", CLUSTER_PORT), CONNECTIONS),
    "both-ports": (
        Stream("datagrams", BEAT_PORT, 0.5, from_peer=True),
        Stream("segments", CLUSTER_PORT, 0.5),
        CONNECTIONS,
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What must be the same before and after."""

    leader: str
    terms: dict[str, int]
    pids: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Result:
    """What one flood did."""

    name: str
    reports: tuple[Report, ...]
    phase: Phase
    broken: tuple[str, ...]
    """What slowness does not excuse: a VIP that moved, a term, a death, memory, a log that grew."""
    grown_mb: float
    log_lines: int
    udp: dict[str, int] = field(default_factory=dict)
    """What the leader's kernel counted meanwhile: datagrams taken, and those that found the buffer full."""

    @property
    def noticed(self) -> bool:
        """Whether a client saw it; a gap in which the prober itself asked nothing is the machine's."""
        seen = self.phase.measured.light
        return (self.phase.measures and self.phase.outage_ms > self.phase.limit_ms) or seen.lost * 1000 > seen.asked

    @property
    def holds(self) -> bool:
        return not self.broken and not self.noticed

    def __str__(self) -> str:
        sent = ", ".join(f"{one.kind} {one.sent} at {one.per_s:.0f}/s of {one.wanted_per_s}/s" for one in self.reports)
        taken, lost = self.udp.get("InDatagrams", 0), self.udp.get("RcvbufErrors", 0)
        noticed = [*reasons(self.phase), f"{self.phase.measured.light.lost} questions lost"] if self.noticed else []
        verdict = ", ".join([*self.broken, *noticed]) or "holds"
        return (
            f"{self.name}: {verdict}\n    sent: {sent}\n"
            f"    leader: {taken} datagrams taken, {lost} lost to a full buffer, grew {self.grown_mb:.1f} MB, "
            f"{self.log_lines} log lines\n"
            f"    client: {describe(self.phase)}, {self.phase.measured.light.asked} asked"
        )


def look(stage: Stage) -> Seen:
    """Leader, terms and processes, as they are now."""
    nodes = stage.lab.nodes
    views = {node.name: stage.cluster.status(node) for node in nodes}
    leaders = [name for name, view in views.items() if view.role == "leader"]
    return Seen(
        leader=",".join(leaders),
        terms={name: view.term for name, view in views.items()},
        pids={node.name: tuple(sorted(stage.lab.pgvigil(node))) for node in nodes},
    )


def differences(before: Seen, after: Seen) -> list[str]:
    """In words; empty if nothing has changed."""
    found = []
    if before.leader != after.leader:
        found.append(f"the leader was {before.leader or 'nobody'} and is {after.leader or 'nobody'}")
    if before.terms != after.terms:
        found.append(f"the terms were {before.terms} and are {after.terms}")
    if before.pids != after.pids:
        found.append(f"the processes were {before.pids} and are {after.pids}")
    return found


def record(stage: Stage, leader: Host, seconds: float = RECORD_S) -> Path:
    """What the leader receives in a while, in a file of its own."""
    path = leader.folder / "recorded.packets"
    path.unlink(missing_ok=True)
    listener = stage.lab.start_module(leader, "recording", ("listen", "eth0", str(path)), "recording.log")
    try:
        wait_until(path.exists, 10, "the recorder to begin")
        time.sleep(seconds)
    finally:
        listener.kill()
        listener.wait(5)
    return path


def flood(stage: Stage, leader: Host, name: str, rate: int, seconds: float) -> Result:
    """One scene against the leader of a settled cluster."""
    recording = record(stage, leader)
    before, log_size = look(stage), log_path(leader).stat().st_size
    grown = _Growth([*stage.lab.pgvigil(leader)])
    kernel = udp_counters(stage, leader)
    start_ns = stage.begin()
    running = [_start(stage, leader, stream, rate, seconds, recording) for stream in SCENES[name]]
    children = [child for child, _ in running]
    wait_until(lambda: grown.sample() and _all_ended(children), seconds + GRACE_S, "the flood to end", SAMPLE_S)
    phase = Phase(name, UNNOTICED_MS, stage.measure(start_ns, stage.calm()))
    after = look(stage)
    broken = differences(before, after) + [reason for reason in reasons(phase) if "without an answer" not in reason]
    if phase.measured.light.owners != (leader.number,):
        broken.append(f"the VIP was answered by {phase.measured.light.owners}, expected {leader.number} alone")
    lines = _lines_since(leader, log_size)
    if grown.most_mb > MAX_GROWTH_MB:
        broken.append(f"a process of the leader grew by {grown.most_mb:.1f} MB")
    if lines > MAX_LOG_LINES:
        broken.append(f"{lines} lines in the leader's log")
    counted = {key: value - kernel.get(key, 0) for key, value in udp_counters(stage, leader).items()}
    reports = tuple(_report(path) for _, path in running)
    return Result(name, reports, phase, tuple(broken), grown.most_mb, lines, counted)


def udp_counters(stage: Stage, node: Host) -> dict[str, int]:
    """The kernel's UDP counters of a host (proc(5), /proc/net/snmp)."""
    lines = stage.lab.run(node, ("cat", "/proc/net/snmp")).checked().out.splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp: "))
    return dict(zip(names, map(int, values), strict=True))


class _Growth:
    """The largest growth of any of some processes since it was made."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._first = {pid: _resident_mb(pid) for pid in pids}
        self.most_mb = 0.0

    def sample(self) -> bool:
        for pid, first_mb in self._first.items():
            self.most_mb = max(self.most_mb, _resident_mb(pid) - first_mb)
        return True


def _resident_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _start(
    stage: Stage, leader: Host, stream: Stream, rate: int, seconds: float, recording: Path
) -> tuple[subprocess.Popen[bytes], Path]:
    source = stage.lab.others(leader)[0] if stream.from_peer else stage.lab.database
    report = source.folder / f"flood-{stream.kind}.report"
    report.unlink(missing_ok=True)
    words = [stream.kind, source.address, leader.address, stream.port, stream.rate(rate), seconds, report]
    words += [recording] if stream.kind == "datagrams" else []
    return stage.lab.start_module(source, "flood", [str(word) for word in words], f"flood-{stream.kind}.log"), report


def _report(path: Path) -> Report:
    if not path.exists():
        raise CommandError(f"the flood left no report: {path.with_suffix('.log').read_text(errors='replace')[-1000:]}")
    return read_report(path)


def _all_ended(children: Sequence[subprocess.Popen[bytes]]) -> bool:
    return all(child.poll() is not None for child in children)


def _lines_since(node: Host, size: int) -> int:
    with open(log_path(node), "rb") as file:
        file.seek(size)
        return file.read().count(b"\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pgvigil-flood", description="garbage against the leader, measured")
    parser.add_argument("--rate", type=int, default=RATE_PER_S, help=f"packets a second (default {RATE_PER_S})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each scene (default {SECONDS:.0f})")
    parser.add_argument("--only", nargs="+", choices=sorted(SCENES), help="only these scenes")
    options = parser.parse_args(arguments)
    held = True
    try:
        require_services()
        with running_stage() as stage:
            for name in options.only or SCENES:
                result = flood(stage, stage.mend(), name, options.rate, options.seconds)
                held = held and result.holds
                print(result, flush=True)
    except PgvigilError as error:
        print(f"flood: {error}", file=sys.stderr)
        return 1
    print(f"measured on {describe_machine()}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
