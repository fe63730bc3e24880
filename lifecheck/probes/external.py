"""The method external for this node itself: what somebody outside has said of the local pgpool-II.

It looks at nothing; `core.external` keeps the reports. When none counts any more, the reading is what it was before
anybody reported: unknown, or that nothing checks pgpool-II.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pgvigil.ipc.frames import Health, OutsideReport
from pgvigil.lifecheck.core.external import ExternalMethod
from pgvigil.lifecheck.probes.reading import Reading


class ExternalProbe:
    """`unchecked`: nothing else looks at pgpool-II, and without a report it is taken to be alive."""

    method = "external"

    def __init__(self, node_id: int, unchecked: bool, on_change: Callable[[Reading], None], now_ns: int) -> None:
        self._node_id = node_id
        self._unchecked = unchecked
        self._on_change = on_change
        self._method = ExternalMethod((node_id,))
        health, evidence = self._opinion(now_ns)
        self.reading = Reading(health, now_ns, evidence)

    def take(self, reports: Iterable[OutsideReport], now_ns: int) -> tuple[OutsideReport, ...]:
        """Those of the reports that are about this node and new."""
        taken = self._method.take(reports, now_ns)
        if taken:
            self.tick(now_ns)
        return taken

    def current(self, now_ns: int) -> tuple[OutsideReport, ...]:
        """The report that counts, if there is one."""
        return self._method.current(now_ns)

    def wake(self) -> int | None:
        return self._method.wake()

    def tick(self, now_ns: int) -> None:
        health, evidence = self._opinion(now_ns)
        changed = health is not self.reading.health
        self.reading = Reading(health, now_ns if changed else self.reading.since_ns, evidence)
        if changed:
            self._on_change(self.reading)

    def late(self, lateness_ns: int) -> None:
        self._method.late(lateness_ns)

    def close(self) -> None:
        """There is nothing to give back."""

    def _opinion(self, now_ns: int) -> tuple[Health, str]:
        opinion = self._method.opinion(self._node_id, now_ns)
        assert opinion is not None
        if opinion.health is Health.UNKNOWN and self._unchecked:
            return Health.ALIVE, "pgpool-II is not checked"
        return opinion.health, opinion.evidence
