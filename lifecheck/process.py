"""The lifecheck process: heartbeats and probes in, verdicts for watchdog main out.

It repeats everything it knows about once a second, at once when something changed, and again and again until it is
taken when watchdog main was away, so that a restarted watchdog main knows the cluster within milliseconds. It decides
nothing about leadership, and judges peers only by what `lifecheck.core` makes of the evidence.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from pgvigil.heartbeat.shell import Shell
from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import Inbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.ready import Link
from pgvigil.lifecheck.core.judge import Judge, Late, Outcome
from pgvigil.lifecheck.probes.pgpool import CHECK_INTERVAL_NS, PgpoolProbe, Reading
from pgvigil.lifecheck.settings import LifecheckSettings, TieBreakerSettings, split_upstream

if TYPE_CHECKING:
    from pgvigil.lifecheck.core.series import Seen
    from pgvigil.lifecheck.probes.tie_breaker import TieBreakerProbe

logger = logging.getLogger("pgvigil")

REPEAT_NS = 1400 * NS_PER_MS
EAGER_FOR_NS = NS_PER_S
EAGER_REPEAT_NS = 50 * NS_PER_MS
RETRY_NS = 20 * NS_PER_MS
PULSE_NS = CHECK_INTERVAL_NS
# Each wake-up costs: what is due soon is done when heartbeats have woken us, every 400 to 500 ms.
PULSE_SLACK_NS = 250 * NS_PER_MS
REPORT_SLACK_NS = 400 * NS_PER_MS
TROUBLE_VALID_NS = 15 * NS_PER_S
MAX_TROUBLES = 64
MAX_REASON = 400  # all of them have to fit into one frame


class Reporter:
    """When to send `Verdicts`: on news, eagerly after a start or a refusal, and every `REPEAT_NS` at the latest."""

    def __init__(self, started_at_ns: int) -> None:
        self.due_ns = started_at_ns
        self._eager_until_ns = started_at_ns + EAGER_FOR_NS

    def news(self, now_ns: int) -> None:
        """Send in this round of the loop."""
        self.due_ns = min(self.due_ns, now_ns)

    def sent(self, taken: bool, now_ns: int) -> None:
        """Plan the next report."""
        if not taken:
            self._eager_until_ns = now_ns + EAGER_FOR_NS
            self.due_ns = now_ns + RETRY_NS
        else:
            self.due_ns = now_ns + (EAGER_REPEAT_NS if now_ns < self._eager_until_ns else REPEAT_NS)


class TroubleTable:
    """What heartbeat processes complain about; forgotten when it is taken back or no longer repeated."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int, int], tuple[int, frames.PathTrouble]] = {}

    def take(self, sender: str, trouble: frames.PathTrouble, now_ns: int) -> None:
        """Keep, replace, or drop if the reason is empty."""
        key = (sender, trouble.path, trouble.node_id)
        if not trouble.reason:
            self._entries.pop(key, None)
        elif key in self._entries or len(self._entries) < MAX_TROUBLES:
            self._entries[key] = (now_ns, replace(trouble, reason=trouble.reason[:MAX_REASON]))

    def current(self, now_ns: int) -> tuple[frames.PathTrouble, ...]:
        """Those that were repeated lately, in the order of their first appearance."""
        for key, (at_ns, _) in list(self._entries.items()):
            if now_ns - at_ns >= TROUBLE_VALID_NS:
                del self._entries[key]
        return tuple(trouble for _, trouble in self._entries.values())


class Lifecheck:
    """A participant of the loop that joins judge, probe and reports."""

    slack_ns = REPORT_SLACK_NS

    def __init__(self, settings: LifecheckSettings, shell: Shell) -> None:
        now_ns = boottime_ns()
        self._settings = settings
        self._shell = shell
        self._labels = {peer.node_id: peer.label for peer in settings.peers}
        self._interval_ns = settings.interval_ms * NS_PER_MS
        deadtime_ns = settings.deadtime_ms * NS_PER_MS
        self._judge = Judge(tuple(self._labels), settings.interfaces, settings.methods, deadtime_ns, now_ns)
        self._troubles = TroubleTable()
        self._reporter = Reporter(now_ns)
        self._outbox = shell.outbox(endpoints.watchdog_endpoint(settings.run_dir), self._on_watchdog)
        self._pulse_due_ns = now_ns + PULSE_NS
        self._probe: PgpoolProbe | None = None
        self._unchecked = frames.Health.ALIVE, now_ns, "pgpool-II is not checked"
        if settings.pgpool_pid_file is not None and settings.checks_pgpool:
            self._probe = PgpoolProbe(settings.pgpool_pid_file, deadtime_ns, shell.loop, self._on_pgpool, now_ns)
            self._probe.tick(now_ns)
        self._question: frames.AskTieBreaker | None = None
        self._tie_breaker: TieBreakerProbe | None = None
        self.show()

    def describe(self) -> str:
        """The title, and what the sign of life tells."""
        alive = self._judge.count(frames.Health.ALIVE)
        pgpool = self._pgpool()[0].value if self._settings.checks_pgpool else "not checked"
        return f"lifecheck ({alive}/{len(self._labels)} peers alive, pgpool {pgpool})"

    def show(self) -> None:
        """Bring the title up to date."""
        self._shell.set_title(self.describe())

    # --- events -----------------------------------------------------------------------------------

    def on_frames(self, inbox: Inbox) -> None:
        """Heartbeats and complaints of the heartbeat processes."""
        self._notice_lateness(boottime_ns())
        for received in inbox.receive():
            frame, now_ns = received.frame, boottime_ns()
            if isinstance(frame, frames.HeardTogether):
                self._conclude(self._judge.step(now_ns, frame), now_ns)
            elif isinstance(frame, frames.Heard):
                self._conclude(self._judge.step(now_ns, frames.HeardTogether((frame,))), now_ns)
            elif isinstance(frame, frames.PathTrouble):
                self._troubles.take(received.sender, frame, now_ns)
            elif isinstance(frame, frames.AskTieBreaker) and frame != self._question:
                self._ask(frame, now_ns)

    def _ask(self, question: frames.AskTieBreaker, now_ns: int) -> None:
        """Another tie-breaker, or none (P22 a): whatever the last one answered is no series of this one."""
        self._question = question
        if self._tie_breaker is not None:
            self._shell.loop.leave(self._tie_breaker)
            self._tie_breaker.close()
            self._tie_breaker = None
        if not question.address:
            return
        from pgvigil.lifecheck.probes.tie_breaker import TieBreakerProbe  # few clusters have a tie-breaker

        try:
            settings = TieBreakerSettings(*split_upstream(question.address), question.interval_ms, question.gap_ms)
            self._tie_breaker = TieBreakerProbe(settings, self._shell.loop, self._on_tie_breaker, now_ns)
        except ValueError as error:
            logger.error("cannot ask the tie-breaker %s of the cluster's document: %s", question.address, error)
            return
        self._shell.loop.join(self._tie_breaker)

    def _on_tie_breaker(self, seen: Seen) -> None:
        """Each answer counts for less than a lease, so each is told; one that is missed is followed by more."""
        address = "" if self._question is None else self._question.address
        self._outbox.send(frames.TieBreakerSeen(address, boottime_ns(), seen.asked_at_ns, seen.since_ns, seen.evidence))

    def _on_watchdog(self) -> None:
        """Watchdog main was started (again)."""
        self._reporter.news(boottime_ns())

    def _on_pgpool(self, reading: Reading) -> None:
        logger.log(_level(reading.health), "pgpool is %s: %s", reading.health.value, reading.evidence)
        self._reporter.news(boottime_ns())
        # Without a probe yet this is its first reading, and __init__ shows it.
        if self._probe is not None:
            self.show()

    def _conclude(self, outcome: Outcome, now_ns: int) -> None:
        for verdict in outcome.changed:
            label = self._labels[verdict.node_id]
            logger.log(_level(verdict.health), "%s is %s: %s", label, verdict.health.value, verdict.evidence)
        if outcome.changed:
            self.show()
        if outcome.news:
            self._reporter.news(now_ns)

    def _notice_lateness(self, now_ns: int) -> None:
        """What the pulse is late by was our own standstill."""
        lateness_ns = now_ns - self._pulse_due_ns
        if lateness_ns <= self._interval_ns:
            return
        logger.warning(
            "lifecheck was late by %d ms, so silence of that time is not held against peers; is the host overloaded?",
            lateness_ns // NS_PER_MS,
        )
        self._pulse_due_ns = now_ns + PULSE_NS
        if self._probe is not None:
            self._probe.late(lateness_ns)
        self._conclude(self._judge.step(now_ns, Late(lateness_ns)), now_ns)

    # --- deadlines --------------------------------------------------------------------------------

    def wake(self) -> int | None:
        deadlines = [self._reporter.due_ns, self._pulse_due_ns, self._judge.wake()]
        if self._probe is not None:
            deadlines.append(self._probe.wake())
        return min(at for at in deadlines if at is not None)

    def tick(self, now_ns: int) -> None:
        self._notice_lateness(now_ns)
        if (at := self._judge.wake()) is not None and now_ns >= at:
            self._conclude(self._judge.step(now_ns), now_ns)
        horizon_ns = now_ns + PULSE_SLACK_NS
        if horizon_ns >= self._pulse_due_ns:
            self._pulse_due_ns = now_ns + PULSE_NS
        if self._probe is not None and horizon_ns >= (self._probe.wake() or 0):
            self._probe.tick(now_ns)
        if now_ns + REPORT_SLACK_NS >= self._reporter.due_ns:
            self._reporter.sent(self._outbox.send(self._report(now_ns)), now_ns)

    def _report(self, now_ns: int) -> frames.Verdicts:
        health, since_ns, evidence = self._pgpool()
        peers = self._judge.verdicts(now_ns)
        return frames.Verdicts(now_ns, health, since_ns, evidence, peers, self._troubles.current(now_ns))

    def _pgpool(self) -> tuple[frames.Health, int, str]:
        if self._probe is None:
            return self._unchecked
        reading = self._probe.reading
        return reading.health, reading.since_ns, reading.evidence


def _level(health: frames.Health) -> int:
    return logging.WARNING if health is frames.Health.DEAD else logging.INFO


def run(settings: LifecheckSettings, link: Link, life_interval_ns: int) -> int:
    """The process; returns its exit code."""
    shell = Shell("lifecheck", link)
    lifecheck = Lifecheck(settings, shell)
    shell.inbox(endpoints.lifecheck_endpoint(settings.run_dir), lifecheck.on_frames)
    shell.loop.join(lifecheck)
    return shell.run(lifecheck.describe, life_interval_ns)
