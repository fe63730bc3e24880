"""`pgvigil demo --scenario failover`: a primary dies, and the cluster goes on by itself.

The plays of the failover table, one of each, told as they happen. Exit code 0 only if every step held.
"""

from __future__ import annotations

import threading

from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.demo import Step, hold, summary
from pgvigil.watchdog.demo.failover.ground import Ground
from pgvigil.watchdog.demo.failover.ledger import Line
from pgvigil.watchdog.demo.failover.outcome import FIRST_ADDRESS, Outcome
from pgvigil.watchdog.demo.failover.plays import PLAYS, Play
from pgvigil.watchdog.demo.lab import VIP, Lab
from pgvigil.watchdog.demo.machine import describe_machine
from pgvigil.watchdog.demo.watch import Screen, say_changes, titles_of

LOOK_EVERY_S = 0.2
STORY = {
    "kill-primary": "kill -9 of the primary; later the old primary is made a standby and attached again",
    "kill-leader-in-command": "kill -9 of the primary, and of all of the leader's pgvigil while failover_command runs",
    "partition": "the host of leader and primary is cut off from the other two",
}


class Watcher:
    """Says every change: pgvigil's titles, the backends in the eyes of each pgpool-II, commands, who takes writes."""

    def __init__(self, ground: Ground, screen: Screen) -> None:
        self._ground = ground
        self._screen = screen
        self._leave = threading.Event()
        self._last: dict[str, str] = {}
        self._told_ns = boottime_ns()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._leave.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._leave.wait(LOOK_EVERY_S):
            try:
                now = self._seen()
                say_changes(self._screen, self._last, now)
                self._last = now
                self._say_commands()
            except CommandError as error:
                self._screen.say(f"not seen: {error}", "red")

    def _seen(self) -> dict[str, str]:
        lab = self._ground.lab
        now = {key: text for node in lab.nodes for key, text in titles_of(lab, node).items()}
        for node, picture in self._ground.pictures().items():
            key = f"pgpool-II of {node.name}"
            now[key] = f"{key}: {picture}" if picture else self._last.get(key, f"{key}: does not answer yet")
        who = self._ground.newest_writer()
        now["client"] = f"client: writes go to n{who - FIRST_ADDRESS}" if who else "client: writes fail"
        if run := self._ground.newest_run():
            now["pgbench"] = "pgbench: runs without errors" if run.is_good else "pgbench: its run ends with an error"
        return now

    def _say_commands(self) -> None:
        for line in self._ground.ledger.lines(self._told_ns + 1):
            self._screen.say(_told(line), "bold")
            self._told_ns = line.at_ns


def _told(line: Line) -> str:
    if line.what == "promoted":
        return f"{line.node}: PostgreSQL was promoted ({line.event}, token {line.token})"
    text = f": {line.text}" if line.what == "end" else ""
    return f"{line.node}: {line.command} command {line.what}s ({line.event}, token {line.token}){text}"


class Story:
    """The plays in their order, with a verdict for each."""

    def __init__(self, ground: Ground, screen: Screen) -> None:
        self._ground = ground
        self._screen = screen
        self._watcher = Watcher(ground, screen)
        self.steps: list[Step] = []

    def run(self) -> None:
        """All steps; one that ends in an error ends the story, not the summary."""
        try:
            self._tell()
        except PgvigilError as error:
            self._note(Step("the story", False, str(error)))
            self._screen.block(self._ground.log_tails(12))
        finally:
            self._watcher.stop()

    def _tell(self) -> None:
        self._screen.say(
            "starting pgvigil on n1, n2 and n3; a client writes 20 times a second, and runs pgbench", "bold"
        )
        self._watcher.start()
        self._ground.start()
        leader, primary = self._ground.wait_settled()
        self._note(Step("a cluster of three", True, f"{leader.name} leads and has {VIP}, {primary.name} is primary"))
        self._screen.say(f"pgvigil backend list, asked on {leader.name}:", "bold")
        self._screen.block(self._ground.cluster.pgvigil(leader, "backend", "list").checked().out)
        for name, text in STORY.items():
            self._play(PLAYS[name], text)

    def _play(self, play: Play, text: str) -> None:
        self._screen.say(text, "bold red")
        for outcome in play(self._ground):
            self._note(Step(outcome.scenario, outcome.holds, _result(outcome)))
        self._screen.say("putting everything in order again", "bold")
        self._ground.mend()

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        verdict, style = ("held", "bold green") if step.holds else ("FAILED", "bold red")
        self._screen.say(f"{verdict}: {step.name}: {step.result}", style)


def _result(outcome: Outcome) -> str:
    promotions = "1 promotion" if outcome.promotions == 1 else f"{outcome.promotions} promotions"
    figures = f"{promotions}, {outcome.gap_s:.1f} s without a write, {outcome.agree} of {outcome.of} pgpool-IIs agree"
    told = f"{figures}; {outcome.bench}"
    return f"{told}; wrong: {'; '.join(outcome.wrong)}" if outcome.wrong else told


def play_story(lab: Lab, screen: Screen, hold_open: bool) -> int:
    """Exit code 0 if every step held."""
    screen.say(f"a lab on {describe_machine()}")
    screen.say("three hosts with PostgreSQL and pgpool-II each: one primary, two streaming standbys")
    ground = Ground(lab)
    ground.set_up()
    story = Story(ground, screen)
    story.run()
    print()
    print(summary(story.steps), flush=True)
    if hold_open:
        hold(lab, ground.cluster, screen)
    screen.say("cleaning up")
    return 0 if all(step.holds for step in story.steps) else 1
