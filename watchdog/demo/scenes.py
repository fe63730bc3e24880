"""The rows of the acceptance table, each as a function that makes the fault and measures it.

A scene finds a settled cluster with all instruments running, breaks one thing, waits until the service is back, and
judges what the client and the observer saw. It leaves the mending of hosts and processes to `Stage.mend`. Limits are
those of the issue; "nothing" means that not one question of the 2 ms probe went unanswered.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.lab import Host
from pgvigil.watchdog.demo.records import Outage, first_answer_after
from pgvigil.watchdog.demo.run import send_signal
from pgvigil.watchdog.demo.stage import Measured, Stage

TAKEOVER_LIMIT_S = 20.0
"""How long a scene waits for an answer before it gives up; far above every limit, so that the miss is measured."""
PAUSE_S = 20.0
QUIET_S = 3.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One window of a scene with what it may cost; a limit of 0 means that nothing may be lost."""

    name: str
    limit_ms: float
    measured: Measured
    at_pool: bool = False
    """Judge by pgpool-II's port instead of the responder's."""

    @property
    def seen(self) -> Outage:
        return self.measured.pool if self.at_pool else self.measured.light

    @property
    def outage_ms(self) -> float:
        """The longest time without an answer; 0 when every question was answered and nothing may be lost."""
        return 0.0 if self.limit_ms == 0 and self.seen.lost == 0 else self.seen.gap_ms

    @property
    def measures(self) -> bool:
        """False when a miss is the prober's own: it asked nothing for most of the time without an answer."""
        return self.outage_ms <= self.limit_ms or self.seen.prober_gap_ms < self.outage_ms / 2

    @property
    def holds(self) -> bool:
        moved = self.limit_ms == 0 and len(self.measured.light.owners) != 1
        heard = self.measured.arp_answers > 0
        return self.outage_ms <= self.limit_ms and not moved and heard and self.measured.never_two


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a scene showed."""

    fault: str
    limit_ms: float
    outage_ms: float
    two_answering_ms: float
    verdict: str
    """The word `holds`, or what went wrong."""
    details: str = ""
    phases: tuple[Phase, ...] = field(default=(), repr=False)

    @property
    def holds(self) -> bool:
        return self.verdict == "holds"


def judge(fault: str, phases: list[Phase], note: str = "") -> Result:
    """A scene holds if every phase of it does. The first phase is the fault itself."""
    first = phases[0]
    wrong = [reason for phase in phases for reason in reasons(phase)]
    details = "; ".join([*(describe(phase) for phase in phases), *([note] if note else [])])
    return Result(
        fault=fault,
        limit_ms=first.limit_ms,
        outage_ms=first.outage_ms,
        two_answering_ms=max(phase.measured.two_ms for phase in phases),
        verdict="holds" if not wrong else ", ".join(wrong),
        details=details,
        phases=tuple(phases),
    )


def reasons(phase: Phase) -> list[str]:
    """Why a phase does not hold, in words; empty if it does."""
    seen = phase.measured
    found = []
    if phase.outage_ms > phase.limit_ms:
        found.append(f"{phase.name}: {phase.outage_ms:.0f} ms without an answer")
    for what, view in seen.views.items():
        if not view.never:
            span = f"{view.overlap_ms:.0f} ms, {view.doubled} questions"
            found.append(f"{phase.name}: two nodes answered {what} ({span})")
    if phase.limit_ms == 0 and len(seen.light.owners) != 1:
        found.append(f"{phase.name}: the VIP moved {'>'.join(map(str, seen.light.owners))}")
    if seen.arp_answers == 0:
        found.append(f"{phase.name}: the ARP sampler heard nobody")
    return found


def describe(phase: Phase) -> str:
    seen = phase.measured
    owners = ">".join(f"n{number}" for number in seen.light.owners)
    return (
        f"{phase.name}: {owners}, light {seen.light.gap_ms:.1f} ms ({seen.light.lost} lost), "
        f"pgpool-II {seen.pool.gap_ms:.1f} ms, prober late {seen.light.prober_gap_ms:.1f} ms"
    )


# building blocks


def moved(stage: Stage, leader: Host, name: str, limit_ms: float, fault: Callable[[], object]) -> Phase:
    """Make a fault after which another node must answer."""
    start_ns = stage.begin()
    fault()
    _await(lambda: stage.wait_owner(stage.lab.others(leader), TAKEOVER_LIMIT_S))
    return Phase(name, limit_ms, stage.measure(start_ns, stage.calm()))


def quiet(stage: Stage, name: str, limit_ms: float, act: Callable[[], object], lasts_s: float = QUIET_S) -> Phase:
    """Do something and watch for a while."""
    start_ns = stage.begin()
    act()
    time.sleep(lasts_s)
    return Phase(name, limit_ms, stage.measure(start_ns, stage.calm()))


def _await(condition: Callable[[], object]) -> None:
    """Wait for an answer; a wait in vain is no error of the lab: the measured window shows it."""
    try:
        condition()
    except CommandError:
        pass


# the rows of the table


def switchover(stage: Stage, leader: Host) -> Result:
    phase = moved(stage, leader, "switchover", 50, lambda: stage.cluster.switchover(leader).checked())
    return judge("switchover", [phase])


def smart_stop(stage: Stage, leader: Host) -> Result:
    phase = moved(stage, leader, "stop", 50, lambda: stage.cluster.stop(leader))
    back = quiet(stage, "start again", 0, lambda: stage.cluster.start([leader]))
    return judge("smart stop of the leader", [phase, back])


def kill_main(stage: Stage, leader: Host) -> Result:
    return kill_one(stage, leader, "watchdog main", 0)


def kill_one(stage: Stage, leader: Host, kind: str, limit_ms: float) -> Result:
    """kill -9 of every process of the leader with this kind of title (one, with one path interface)."""
    pids = stage.cluster.processes(leader, kind)
    if not pids:
        raise CommandError(f"no process `pgvigil: {kind}` on {leader.name}: {stage.lab.pgvigil(leader)}")
    phase = quiet(stage, "kill -9", limit_ms, lambda: send_signal(pids, signal.SIGKILL))
    return judge(f"kill -9 of {kind}", [phase])


def kill_supervisor(stage: Stage, leader: Host) -> Result:
    return kill_one(stage, leader, "supervisor", 50)


def kill_lifecheck(stage: Stage, leader: Host) -> Result:
    return kill_one(stage, leader, "lifecheck", 50)


def kill_heartbeat_sender(stage: Stage, leader: Host) -> Result:
    return kill_one(stage, leader, "heartbeat sender", 50)


def kill_heartbeat_receiver(stage: Stage, leader: Host) -> Result:
    return kill_one(stage, leader, "heartbeat receiver", 50)


def kill_all(stage: Stage, leader: Host) -> Result:
    """All at one instant, the address stays configured; then pgvigil is started again beside its own leavings."""
    phase = moved(stage, leader, "kill -9", 1500, lambda: stage.cluster.kill_all(leader))
    back = quiet(stage, "start again", 0, lambda: stage.cluster.start([leader]))
    return judge("kill -9 of all of the leader", [phase, back])


def stop_and_continue(stage: Stage, leader: Host) -> Result:
    """SIGSTOP for 20 s. The window of the pause ends just before SIGCONT."""
    start_ns = stage.begin()
    stopped_at_ns = boottime_ns()
    stage.cluster.pause_all(leader)
    time.sleep(max(0.0, PAUSE_S - (boottime_ns() - stopped_at_ns) / NS_PER_S))
    end_ns = boottime_ns()
    back = quiet(stage, "SIGCONT", 0, lambda: stage.cluster.resume_all(leader))
    pause = Phase("SIGSTOP", 1500, stage.measure(start_ns, end_ns))
    return judge(f"SIGSTOP of all of the leader for {PAUSE_S:.0f} s", [pause, back])


def link_cut(stage: Stage, leader: Host) -> Result:
    phase = moved(stage, leader, "cut", 1500, lambda: stage.lab.cut(leader))
    back = quiet(stage, "restore", 0, lambda: stage.lab.restore(leader))
    return judge("link of the leader cut", [phase, back])


def partition(stage: Stage, leader: Host) -> Result:
    others = stage.lab.others(leader)
    phase = moved(stage, leader, "partition", 1500, lambda: stage.lab.partition([leader], others))
    back = quiet(stage, "heal", 0, stage.lab.heal)
    return judge("partition: leader alone", [phase, back])


def pgpool_killed(stage: Stage, leader: Host) -> Result:
    phase = moved(stage, leader, "kill -9", 3000, stage.pools[leader].kill9)
    return judge("kill -9 of the leader's pgpool-II", [Phase(phase.name, 3000, phase.measured, at_pool=True)])


def host_off(stage: Stage, leader: Host) -> Result:
    """The whole host vanishes (not in the issue's table; the demo shows it)."""
    phase = moved(stage, leader, "power off", 1500, lambda: stage.lab.power_off(leader))
    return judge("the leader's host switched off", [phase])


def cold_start(stage: Stage, leader: Host) -> Result:
    """Stop everything, forget everything, start three nodes: a cluster is founded."""
    return _cold_start(stage, "cold start, new cluster", forget=True)


def cold_start_after_power_loss(stage: Stage, leader: Host) -> Result:
    """The durable records are there, promises are not: nodes must wait for what they may have promised (P14)."""
    return _cold_start(stage, "cold start after loss of power", forget=False)


COLD_START_LIMIT_MS = 2000


def _cold_start(stage: Stage, fault: str, forget: bool) -> Result:
    """From before the launch of the three commands to the first answer; commands and Python included."""
    for node in stage.lab.nodes:
        if forget:
            stage.cluster.stop(node, "fast")
            stage.cluster.forget(node)
        else:
            stage.lab.power_off(node)
            stage.bring_back(node)
    stage.begin()
    launched_at_ns = boottime_ns()
    stage.cluster.start(stage.lab.nodes)
    _await(lambda: stage.wait_owner(stage.lab.nodes, TAKEOVER_LIMIT_S))
    measured = stage.measure(launched_at_ns, stage.calm())
    first = first_answer_after(stage.records("light", launched_at_ns), launched_at_ns)
    outage_ms = (first.answered_at_ns - launched_at_ns) / NS_PER_MS if first else TAKEOVER_LIMIT_S * 1000
    phase = Phase("start", COLD_START_LIMIT_MS, measured)
    wrong = [] if measured.never_two else reasons(phase)
    if outage_ms > COLD_START_LIMIT_MS:
        wrong.append(f"first answer after {outage_ms:.0f} ms")
    verdict = ", ".join(wrong) or "holds"
    two_ms = measured.two_ms
    return Result(fault, COLD_START_LIMIT_MS, outage_ms, two_ms, verdict, describe(phase), (phase,))


Scene = Callable[[Stage, Host], Result]

SCENES: dict[str, Scene] = {
    "switchover": switchover,
    "smart-stop": smart_stop,
    "kill-main": kill_main,
    "kill-supervisor": kill_supervisor,
    "kill-lifecheck": kill_lifecheck,
    "kill-sender": kill_heartbeat_sender,
    "kill-receiver": kill_heartbeat_receiver,
    "kill-all": kill_all,
    "stop-cont": stop_and_continue,
    "link-cut": link_cut,
    "partition": partition,
    "pgpool-killed": pgpool_killed,
    "host-off": host_off,
    "cold-start": cold_start,
    "cold-start-power-loss": cold_start_after_power_loss,
}
