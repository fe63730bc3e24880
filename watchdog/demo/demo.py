"""`pgvigil demo`: three hosts, real pgpool-II and PostgreSQL, a dead leader, and a VIP that comes back.

Everything happens in network namespaces that vanish afterwards. Each step ends with a verdict, and the demo with exit
code 0 only if every step held. It shows what the acceptance runner measures; it does not replace it.
"""

from __future__ import annotations

import argparse
import select
import signal
import sys
from dataclasses import dataclass
from types import FrameType

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.demo.cluster import Cluster
from pgvigil.watchdog.demo.lab import VIP, Host, Lab
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.run import Finished
from pgvigil.watchdog.demo.scenes import Phase, Result, judge, moved, quiet, reasons
from pgvigil.watchdog.demo.services import VIP_TARGET, psql_through_vip, query, require_services
from pgvigil.watchdog.demo.stage import Stage
from pgvigil.watchdog.demo.watch import Screen, Watcher

HOST_OFF_LIMIT_MS = 1500
SWITCHOVER_LIMIT_MS = 50
LEADER, FAILOVER = "leader", "failover"
"""What may be played."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the summary."""

    name: str
    holds: bool
    result: str


class Demo:
    """The story, told on a stage."""

    def __init__(self, stage: Stage, screen: Screen, slack_ms: int = 0) -> None:
        """`slack_ms` is added to the time limits, for a machine that others use too."""
        self._stage = stage
        self._slack_ms = slack_ms
        self._screen = screen
        self._watcher = Watcher(stage, screen)
        self.steps: list[Step] = []

    def run(self) -> None:
        """All steps, one after the other; a step that fails ends the story, not the summary."""
        try:
            self._story()
        except PgvigilError as error:
            self._note("the story", False, str(error))
            for node in self._stage.lab.nodes:
                self._screen.say(f"last lines of {node.name}'s log", "red")
                self._screen.block(self._stage.cluster.log_tail(node, 12))
        finally:
            self._watcher.stop()

    def _story(self) -> None:
        self._start_cluster()
        leader = self._stage.cluster.wait_settled()
        self._look_around(leader)
        heir = self._kill_host(leader)
        self._return_host(leader)
        self._switch_over(heir)
        self._note("queries through the VIP all the time", *self._fate_of_queries())

    def _fate_of_queries(self) -> tuple[bool, str]:
        """psql waits up to 2 s for a connection, so a take-over makes a query slow rather than fail."""
        seen = self._watcher
        slowest = f"the slowest took {seen.slowest_query_ms:.0f} ms"
        return seen.queries_good > 0, f"{seen.queries_good} answered, {seen.queries_bad} failed, {slowest}"

    def _start_cluster(self) -> None:
        self._screen.say("starting pgvigil on n1, n2 and n3", "bold")
        self._watcher.start()
        self._stage.cluster.start(self._stage.lab.nodes)
        leader = self._stage.cluster.wait_settled()
        self._stage.wait_owner([leader], 10)
        self._note("three nodes elect one leader", True, f"{leader.name} leads and carries {VIP}")

    def _look_around(self, leader: Host) -> None:
        self._screen.say(f"pgvigil status, asked on {leader.name}:", "bold")
        self._screen.block(self._stage.cluster.pgvigil(leader, "status").checked().out)
        self._query("psql through the VIP works", "select version()")

    def _query(self, name: str, sql: str) -> None:
        answer = query(self._stage.lab, self._stage.lab.client, VIP_TARGET, sql)
        self._note(name, answer.code == 0, _short(answer))

    def _kill_host(self, leader: Host) -> Host:
        self._screen.say(f"switching off the whole host {leader.name}", "bold red")
        lab = self._stage.lab
        limit_ms = HOST_OFF_LIMIT_MS + self._slack_ms
        phase = moved(self._stage, leader, "host off", limit_ms, lambda: lab.power_off(leader))
        heir = self._stage.wait_owner(lab.others(leader), 10)
        self._judge("the leader's host dies", judge("host off", [phase]), f"VIP moved to {heir.name}")
        self._query("psql works through the new leader", "select 'still here'")
        return heir

    def _return_host(self, node: Host) -> None:
        self._screen.say(f"switching {node.name} on again", "bold")
        phase = quiet(self._stage, "host back", 0, lambda: self._bring_back(node), 1.0)
        leader = self._stage.cluster.wait_settled()
        self._judge("the host comes back as standby", judge("host back", [phase]), f"{leader.name} still leads")

    def _bring_back(self, node: Host) -> None:
        self._stage.bring_back(node)
        self._stage.cluster.start([node])

    def _switch_over(self, leader: Host) -> None:
        self._screen.say(f"planned switchover, asked on {leader.name}", "bold")
        cluster = self._stage.cluster
        limit_ms = SWITCHOVER_LIMIT_MS + self._slack_ms
        phase = moved(self._stage, leader, "switchover", limit_ms, lambda: cluster.switchover(leader).checked())
        heir = cluster.wait_settled()
        self._judge("planned switchover", judge("switchover", [phase]), f"VIP moved to {heir.name}")

    def _judge(self, name: str, result: Result, note: str) -> None:
        phase: Phase = result.phases[0]
        figures = f"{phase.measured.light.gap_ms:.0f} ms without an answer"
        if phase.limit_ms:
            figures += f" (at most {phase.limit_ms:.0f})"
        two = "never two nodes answering" if phase.measured.never_two else "TWO NODES ANSWERED"
        wrong = "; ".join(reasons(phase))
        self._note(name, result.holds, f"{note}, {figures}, {two}" + (f": {wrong}" if wrong else ""))

    def _note(self, name: str, holds: bool, result: str) -> None:
        self.steps.append(Step(name, holds, result))
        self._screen.say(f"{'held' if holds else 'FAILED'}: {name}: {result}", "bold green" if holds else "bold red")


def _short(answer: Finished) -> str:
    text = (answer.out if answer.code == 0 else answer.err).strip()
    return text.splitlines()[0][:70] if text else "no output"


def summary(steps: list[Step]) -> str:
    """The table at the end."""
    width = max(len(step.name) for step in steps)
    return "\n".join(f"{'held  ' if step.holds else 'FAILED'}  {step.name:<{width}}  {step.result}" for step in steps)


def guide(lab: Lab, cluster: Cluster) -> str:
    """Commands to look around with while the lab is held."""
    node = lab.nodes[0]
    inside = f"ip netns exec {node.namespace}"
    return "\n".join(
        [
            "status:       " + " ".join([inside, *cluster.command(node, "status")]),
            "live status:  " + " ".join([inside, *cluster.command(node, "status", "--watch")]),
            "switchover:   " + " ".join([inside, *cluster.command(node, "switchover")]),
            "query:        " + " ".join(psql_through_vip(lab)),
            f"processes:    ps -o pid,args -p $(ip netns pids {node.namespace} | paste -sd,)",
            f"cut a cable:  ip -n {lab.switch} link set {node.port} down    (mend it with: up)",
            f"files:        {lab.root}/n1 (configuration, log, run and state folder), n2, n3",
        ]
    )


def hold(lab: Lab, cluster: Cluster, screen: Screen) -> None:
    """Leave everything running until Enter, or a signal where there is no terminal."""
    typed = sys.stdin is not None and sys.stdin.isatty()
    end = "press Enter to end it" if typed else "send SIGINT or SIGTERM to end it"
    with _signals_as_interrupt():
        try:
            # Whoever reads the guide may send the signal at once.
            screen.say(f"everything goes on running; {end}")
            screen.block(guide(lab, cluster))
            if typed:
                select.select([sys.stdin], [], [])
            else:
                signal.pause()
        except KeyboardInterrupt:
            pass


class _signals_as_interrupt:
    """Turns SIGTERM and SIGINT into KeyboardInterrupt while the lab is held: a wish to end, not a failure."""

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run_demo(hold_open: bool = False, slack_ms: int = 0, scenario: str = LEADER) -> int:
    """Exit code 0 if every step held, 1 if not or if the demo cannot run here (said on stderr)."""
    screen = Screen()
    try:
        require_services()
        with Lab() as lab:
            if scenario == FAILOVER:
                from pgvigil.watchdog.demo.failover.story import play_story

                return play_story(lab, screen, hold_open)
            return _on_stage(lab, screen, hold_open, slack_ms)
    except PgvigilError as error:
        print(f"pgvigil demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pgvigil demo: interrupted, everything is cleaned up", file=sys.stderr)
        return 130


def _on_stage(lab: Lab, screen: Screen, hold_open: bool, slack_ms: int) -> int:
    screen.say(f"a lab on {describe_machine()}")
    screen.say("three hosts, a client and a database on one switch; starting PostgreSQL and three pgpool-IIs")
    stage = Stage(lab)
    stage.set_up()
    stage.start_instruments()
    demo = Demo(stage, screen, slack_ms)
    demo.run()
    print()
    print(summary(demo.steps), flush=True)
    if hold_open:
        hold(lab, stage.cluster, screen)
    screen.say("cleaning up")
    return 0 if all(step.holds for step in demo.steps) else 1


def main() -> int:
    """For the tests, which judge everything but speed: `--slack-ms N`. Operators use `pgvigil demo`."""
    parser = argparse.ArgumentParser(prog="pgvigil-demo")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--slack-ms", type=int, default=0)
    chosen = parser.parse_args()
    return run_demo(chosen.hold, chosen.slack_ms)


if __name__ == "__main__":
    sys.exit(main())
