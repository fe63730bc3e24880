"""The lifecheck process: heartbeats and probes in, verdicts for watchdog main out.

It repeats everything it knows about once a second, at once when something changed, and again and again until it is
taken when watchdog main was away, so that a restarted watchdog main knows the cluster within milliseconds. It decides
nothing about leadership, and judges peers only by what `lifecheck.core` makes of the evidence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pgvigil.heartbeat.shell import Shell
from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import Inbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.ready import Link
from pgvigil.lifecheck.core import sentence
from pgvigil.lifecheck.core.judge import Judge, Late, Outcome, Told
from pgvigil.lifecheck.core.own import PGPOOL_METHODS, OwnVerdict, judge_own
from pgvigil.lifecheck.core.path import Fixed, Patience
from pgvigil.lifecheck.outside import Outside
from pgvigil.lifecheck.probes.peers import PeersProbe
from pgvigil.lifecheck.probes.pgpool import CHECK_INTERVAL_NS, PgpoolProbe
from pgvigil.lifecheck.probes.reading import Probe, Reading
from pgvigil.lifecheck.settings import LifecheckSettings, TieBreakerSettings, split_upstream

if TYPE_CHECKING:
    from pgvigil.lifecheck.core.series import Seen
    from pgvigil.lifecheck.probes.links import LinkProbe
    from pgvigil.lifecheck.probes.query import QueryProbe
    from pgvigil.lifecheck.probes.tie_breaker import TieBreakerProbe
    from pgvigil.lifecheck.probes.upstream import UpstreamProbe

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
        if settings.query is not None:
            # libpq's 20 MiB and 0.2 s are for those who ask for them; the time must not count against peers.
            import pgvigil.lifecheck.probes.query  # noqa: F401
        now_ns = boottime_ns()
        self._settings = settings
        self._shell = shell
        self._labels = {peer.node_id: peer.label for peer in settings.peers}
        self._interval_ns = settings.interval_ms * NS_PER_MS
        deadtime_ns = settings.deadtime_ms * NS_PER_MS
        self._judge = Judge(
            self._labels, settings.interfaces, settings.methods, patience(settings), self._interval_ns, now_ns
        )
        self._troubles = TroubleTable()
        self._reporter = Reporter(now_ns)
        self._outbox = shell.outbox(endpoints.watchdog_endpoint(settings.run_dir), self._on_watchdog)
        self._pulse_due_ns = now_ns + PULSE_NS
        self._question: frames.AskTieBreaker | None = None
        self._tie_breaker: TieBreakerProbe | None = None
        self._late_times = 0
        self._probes: list[Probe] = []
        self._own = OwnVerdict(frames.Health.ALIVE, now_ns, "pgpool-II is not checked")
        if settings.checks_pgpool:
            self._own = OwnVerdict(frames.Health.UNKNOWN, now_ns, "not looked at yet")
        if settings.pgpool_pid_file is not None and "process" in settings.methods:
            pid_file, loop = settings.pgpool_pid_file, shell.loop
            self._probes.append(PgpoolProbe(pid_file, deadtime_ns, loop, self._on_change("process"), now_ns))
        self._query, self._peers = self._start_query(now_ns)
        self._links: LinkProbe | None = None
        self._upstream: UpstreamProbe | None = None
        self._watch_host(now_ns)
        loop, change, news = shell.loop, self._on_change, lambda: self._reporter.news(boottime_ns())
        self._outside = Outside(settings, self._judge, self._probes, loop, change, news, now_ns)
        for probe in self._probes:
            probe.tick(now_ns)
        self._judge_own(now_ns)
        self.show()

    def _start_query(self, now_ns: int) -> tuple[QueryProbe | None, PeersProbe | None]:
        settings = self._settings
        if settings.query is None:
            return None, None
        from pgvigil.lifecheck.probes.query import QueryProbe

        loop, on_change = self._shell.loop, self._on_change("query")
        query = QueryProbe(settings.query, settings.peers, loop, on_change, self._on_peer_query, now_ns)
        self._probes.append(query)
        if not settings.query.host:
            return query, None  # no pgpool-II here that a peer could miss
        # Two time-outs: their words take a while to arrive, too.
        round_ns = (settings.query.interval_ms + 2 * settings.query.timeout_ms) * NS_PER_MS
        peers = PeersProbe(settings.node_id, self._labels, self._on_change("peers"), now_ns, round_ns)
        self._probes.append(peers)
        return query, peers

    def _watch_host(self, now_ns: int) -> None:
        """What is not configured is not even imported."""
        links, upstream, loop = self._settings.links, self._settings.upstream, self._shell.loop
        if links.interfaces or links.vip_interface:
            from pgvigil.lifecheck.probes.links import LinkProbe

            self._links = LinkProbe(links, loop, self._on_change("links"), now_ns)
            self._probes.append(self._links)
        if upstream is not None:
            from pgvigil.lifecheck.probes.upstream import UpstreamProbe

            self._upstream = UpstreamProbe(upstream, loop, self._on_change("upstream"), self._report_at_once, now_ns)
            self._probes.append(self._upstream)

    def describe(self) -> str:
        """The title, and what the sign of life tells."""
        alive = self._judge.count(frames.Health.ALIVE)
        pgpool = self._own.health.value if self._settings.checks_pgpool else "not checked"
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

            elif isinstance(frame, frames.OutsideReports) and self._outside.take(frame, now_ns):
                self._conclude(self._judge.step(now_ns, Told()), now_ns)
                self._reporter.news(now_ns)

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
        self._report_at_once()

    def _report_at_once(self) -> None:
        self._reporter.news(boottime_ns())

    def _on_change(self, method: str) -> Callable[[Reading], None]:
        """What to do when a probe's verdict is another one."""

        def changed(reading: Reading) -> None:
            known = reading.health is not frames.Health.UNKNOWN
            what = "pgpool" if method in PGPOOL_METHODS and known else f"the check {method}"
            logger.log(_level(reading.health), "%s is %s: %s", what, reading.health.value, reading.evidence)
            self._judge_own(boottime_ns())
            self._reporter.news(boottime_ns())
            self.show()

        return changed

    def _on_peer_query(self, node_id: int, health: frames.Health, evidence: str) -> None:
        logger.log(_level(health), "pgpool of %s is %s from here: %s", self._labels[node_id], health.value, evidence)
        self._reporter.news(boottime_ns())

    def _verdicts(self, now_ns: int) -> tuple[frames.NodeVerdict, ...]:
        """On all peers, with what the query found; what they say of our pgpool-II is taken on the way."""
        verdicts = self._judge.verdicts(now_ns)
        if self._query is None:
            return verdicts
        if self._peers is not None:
            self._peers.hear(verdicts, self._query.failing(), now_ns)
        return tuple(self._with_query(verdict) for verdict in verdicts)

    def _with_query(self, verdict: frames.NodeVerdict) -> frames.NodeVerdict:
        asked = None if self._query is None else self._query.peer(verdict.node_id)
        if asked is None:
            return verdict
        return replace(verdict, query=asked.health, query_evidence=asked.evidence)

    def _checks(self) -> tuple[frames.Check, ...]:
        return tuple(probe.reading.check(probe.method) for probe in self._probes)

    def _judge_own(self, now_ns: int) -> None:
        checks = self._checks()
        self._own = judge_own(checks, self._own, now_ns)
        self._outside.inform(self._own, checks, now_ns)

    def _conclude(self, outcome: Outcome, now_ns: int) -> None:
        for verdict in outcome.changed:
            logger.log(_level(verdict.health), "%s", sentence.of_verdict(self._with_query(verdict), self._labels))
        for change in outcome.paths:
            level = logging.WARNING if change.silent else logging.INFO
            logger.log(level, "%s", sentence.of_path(change, self._labels[change.node_id]))
        if outcome.changed:
            self.show()
        if outcome.news:
            if self._peers is not None:
                self._verdicts(now_ns)
            self._judge_own(now_ns)
            self._reporter.news(now_ns)

    def _notice_lateness(self, now_ns: int) -> None:
        """What the pulse is late by was our own standstill."""
        lateness_ns = now_ns - self._pulse_due_ns
        if lateness_ns <= self._interval_ns:
            return
        reason = (
            f"lifecheck was late by {lateness_ns // NS_PER_MS} ms, so silence of that time is not held against peers; "
            "is the host overloaded?"
        )
        logger.warning("%s", reason)
        self._late_times += 1
        own = frames.PathTrouble(0, self._settings.node_id, self._late_times, reason)
        self._troubles.take("lifecheck", own, now_ns)
        self._pulse_due_ns = now_ns + PULSE_NS
        for probe in self._probes:
            probe.late(lateness_ns)
        self._conclude(self._judge.step(now_ns, Late(lateness_ns)), now_ns)

    # --- deadlines --------------------------------------------------------------------------------

    def wake(self) -> int | None:
        deadlines = [self._reporter.due_ns, self._pulse_due_ns, self._judge.wake()]
        deadlines += [probe.wake() for probe in self._probes]
        return min(at for at in deadlines if at is not None)

    def tick(self, now_ns: int) -> None:
        self._notice_lateness(now_ns)
        if (at := self._judge.wake()) is not None and now_ns >= at:
            self._conclude(self._judge.step(now_ns), now_ns)
        horizon_ns = now_ns + PULSE_SLACK_NS
        if horizon_ns >= self._pulse_due_ns:
            self._pulse_due_ns = now_ns + PULSE_NS
        for probe in self._probes:
            at = probe.wake()
            if at is not None and horizon_ns >= at:
                probe.tick(now_ns)
        if now_ns + REPORT_SLACK_NS >= self._reporter.due_ns:
            taken = self._outbox.send(self._report(now_ns))
            for frame in self._outside.frames(now_ns):
                taken = self._outbox.send(frame) and taken
            self._reporter.sent(taken, now_ns)

    def _report(self, now_ns: int) -> frames.Verdicts:
        peers = self._verdicts(now_ns)
        self._judge_own(now_ns)
        own = self._own
        troubles = self._troubles.current(now_ns)
        return frames.Verdicts(
            now_ns,
            own.health,
            own.since_ns,
            own.evidence,
            peers,
            troubles,
            self._checks(),
            own.unfit,
            vip_cut=self._links is not None and self._links.vip_cut,
            wavering=self._upstream is not None and self._upstream.wavering,
        )


def patience(settings: LifecheckSettings) -> Patience:
    """The detector of the configuration."""
    ceiling_ns = settings.deadtime_ms * NS_PER_MS
    if not settings.adaptive:
        return Fixed(ceiling_ns)
    from pgvigil.lifecheck.core.accrual import Accrual  # costs nothing where it is not chosen

    return Accrual(settings.interval_ms * NS_PER_MS, settings.deadtime_min_ms * NS_PER_MS, ceiling_ns)


def _level(health: frames.Health) -> int:
    return logging.WARNING if health is frames.Health.DEAD else logging.INFO


def run(settings: LifecheckSettings, link: Link, life_interval_ns: int) -> int:
    """The process; returns its exit code."""
    shell = Shell("lifecheck", link)
    lifecheck = Lifecheck(settings, shell)
    shell.inbox(endpoints.lifecheck_endpoint(settings.run_dir), lifecheck.on_frames)
    shell.loop.join(lifecheck)
    return shell.run(lifecheck.describe, life_interval_ns)
