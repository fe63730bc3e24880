"""What lifecheck hears from outside of pgvigil, and what it tells pgpool-II's own watchdog.

Reports of `pgvigil inform` become one more method, or the only one. Verdicts become wishes for pgpool-II's watchdog
where that leads (`watchdog = "external"`). Nothing is imported or made before it is needed: most clusters need neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_S
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.judge import Judge
from pgvigil.lifecheck.core.own import OwnVerdict
from pgvigil.lifecheck.probes.reading import Probe, Reading, Watcher
from pgvigil.lifecheck.settings import LifecheckSettings

if TYPE_CHECKING:
    from pgvigil.lifecheck.core.external import ExternalMethod
    from pgvigil.lifecheck.core.informing import Wish
    from pgvigil.lifecheck.probes.external import ExternalProbe
    from pgvigil.lifecheck.probes.pgpool_watchdog import PgpoolWatchdogProbe

logger = logging.getLogger("pgvigil")

CERTAIN_METHODS = ("process", "external")
"""Whose word that the own pgpool-II is dead is beyond doubt."""

OnChange = Callable[[str], Callable[[Reading], None]]


class Outside:
    """Adds its methods to `judge` and its probes to `probes` when they are needed."""

    def __init__(
        self,
        settings: LifecheckSettings,
        judge: Judge,
        probes: list[Probe],
        watcher: Watcher,
        on_change: OnChange,
        on_news: Callable[[], None],
        now_ns: int,
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._probes = probes
        self._on_change = on_change
        self._peers: ExternalMethod | None = None
        self._own: ExternalProbe | None = None
        self._pgpool: PgpoolWatchdogProbe | None = None
        self._seen_alive = False
        if settings.external_alone:
            self._begin_to_listen(now_ns)
        if settings.pgpool_watchdog is not None:
            from pgvigil.lifecheck.probes.pgpool_watchdog import PgpoolWatchdogProbe

            changed = on_change(PgpoolWatchdogProbe.method)
            self._pgpool = PgpoolWatchdogProbe(
                settings.pgpool_watchdog, settings.node_id, watcher, changed, on_news, now_ns
            )
            probes.append(self._pgpool)

    def _begin_to_listen(self, now_ns: int) -> tuple[ExternalMethod, ExternalProbe]:
        if self._peers is None or self._own is None:
            from pgvigil.lifecheck.core.external import ExternalMethod
            from pgvigil.lifecheck.probes.external import ExternalProbe

            settings = self._settings
            self._peers = ExternalMethod(tuple(peer.node_id for peer in settings.peers))
            self._judge.add(self._peers)
            changed = self._on_change(ExternalProbe.method)
            self._own = ExternalProbe(settings.node_id, not settings.checks_pgpool, changed, now_ns)
            self._probes.append(self._own)
        return self._peers, self._own

    # --- reports ----------------------------------------------------------------------------------

    def take(self, reports: frames.OutsideReports, now_ns: int) -> bool:
        """Keep what is new; whether anything is."""
        peers, own = self._begin_to_listen(now_ns)
        taken = (*peers.take(reports.reports, now_ns), *own.take(reports.reports, now_ns))
        for report in taken:
            logger.info(
                "%s is reported %s by %s for %d s: %s",
                self._label(report.node_id),
                report.health.value,
                report.reporter,
                (report.until_ns - report.said_at_ns) // NS_PER_S,
                report.reason or "without a reason",
            )
        return bool(taken)

    def _label(self, node_id: int) -> str:
        found = (peer.label for peer in self._settings.peers if peer.node_id == node_id)
        return next(found, "the pgpool-II of this node")

    # --- pgpool-II's own watchdog -----------------------------------------------------------------

    def inform(self, own: OwnVerdict, checks: Sequence[frames.Check], now_ns: int) -> None:
        """Tell pgpool-II's own watchdog what follows from the verdicts of now."""
        if self._pgpool is None:
            return
        from pgvigil.lifecheck.core.informing import Wish

        wishes = {verdict.node_id: self._wish(verdict, now_ns) for verdict in self._judge.verdicts(now_ns)}
        dead = {check.method for check in checks if check.health is Health.DEAD}
        self._seen_alive = self._seen_alive or own.health is Health.ALIVE
        # A wrong pid_file or query would else end a healthy pgpool-II at every start.
        trusted = own.health is not Health.DEAD or self._seen_alive or "external" in dead
        wishes[self._settings.node_id] = Wish(
            own.health if trusted else Health.UNKNOWN,
            f"this pgpool-II is {own.health.value}: {own.evidence}",
            bool(dead.intersection(CERTAIN_METHODS)),
        )
        self._pgpool.wish(wishes, now_ns)

    def _wish(self, verdict: frames.NodeVerdict, now_ns: int) -> Wish:
        """A peer is dead if it is silent; it is alive only if its pgpool-II is."""
        from pgvigil.lifecheck.core.informing import Wish

        health, beat = verdict.health, verdict.beat
        if (
            health is Health.ALIVE
            and not self._settings.external_alone
            and (beat is None or beat.pgpool is not Health.ALIVE)
        ):
            health = Health.UNKNOWN
        certain = self._peers is not None and self._peers.health(verdict.node_id, now_ns) is Health.DEAD
        return Wish(health, f"{self._label(verdict.node_id)} is {health.value}: {verdict.evidence}", certain)

    # --- for watchdog main ------------------------------------------------------------------------

    def frames(self, now_ns: int) -> tuple[frames.Frame, ...]:
        """What watchdog main should know beside the verdicts."""
        said: list[frames.Frame] = []
        if self._peers is not None and self._own is not None:
            said.append(frames.OutsideReports((*self._peers.current(now_ns), *self._own.current(now_ns))))
        if self._pgpool is not None:
            said.append(self._pgpool.report())
        return tuple(said)
