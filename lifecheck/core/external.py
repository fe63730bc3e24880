"""The method external: what somebody outside has said of a node (`pgvigil inform`), and for how long it counts.

A report is a word, not a measurement, so it must be repeated: the newest on each node counts until its own end, and
then the node is unknown again, never what it was. The method keeps the last report to say how long nobody has spoken.
It refuses reports of the future and those older than the one it has, so the same report may arrive many times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgvigil.ipc.frames import Health, OutsideReport
from pgvigil.lifecheck.core.verdict import Opinion

NS_PER_S = 1_000_000_000
NOBODY_YET = "nobody has reported yet"


@dataclass(slots=True)
class _Said:
    """A report, and its end moved by the time in which our own loop stood still."""

    report: OutsideReport
    until_ns: int
    ended: bool = False


class ExternalMethod:
    """The nodes that it is asked about; times are CLOCK_BOOTTIME in ns."""

    def __init__(self, node_ids: tuple[int, ...]) -> None:
        self._said: dict[int, _Said | None] = dict.fromkeys(node_ids)

    def take(self, reports: Iterable[OutsideReport], now_ns: int) -> tuple[OutsideReport, ...]:
        """The reports of these that are new; all others are known, older, of the future, or about strangers."""
        return tuple(report for report in reports if self._take(report, now_ns))

    def _take(self, report: OutsideReport, now_ns: int) -> bool:
        if report.node_id not in self._said or report.health is Health.UNKNOWN or report.said_at_ns > now_ns:
            return False
        known = self._said[report.node_id]
        if known is not None and known.report.said_at_ns >= report.said_at_ns:
            return False
        self._said[report.node_id] = _Said(report, report.until_ns)
        return True

    def current(self, now_ns: int) -> tuple[OutsideReport, ...]:
        """The reports that count."""
        return tuple(
            said.report
            for said in self._said.values()
            if said is not None and not said.ended and now_ns < said.until_ns
        )

    def late(self, lateness_ns: int) -> None:
        """A report that waits in our inbox must not come too late because of us."""
        for said in self._said.values():
            if said is not None and not said.ended:
                said.until_ns += lateness_ns

    def health(self, node_id: int, now_ns: int) -> Health | None:
        """What counts of a node; UNKNOWN if nothing does. That a report has ended is remembered."""
        if node_id not in self._said:
            return None
        said = self._said[node_id]
        if said is None:
            return Health.UNKNOWN
        said.ended = said.ended or now_ns >= said.until_ns
        return Health.UNKNOWN if said.ended else said.report.health

    def opinion(self, node_id: int, now_ns: int) -> Opinion | None:
        """`health` with its evidence."""
        health = self.health(node_id, now_ns)
        if health is None:
            return None
        said = self._said[node_id]
        if said is None:
            return Opinion(health, NOBODY_YET)
        if health is Health.UNKNOWN:
            return Opinion(health, f"nobody has reported for {(now_ns - said.report.said_at_ns) // NS_PER_S} s")
        return Opinion(health, describe(said.report))

    def wake(self) -> int | None:
        """When the next report ends."""
        return min((said.until_ns for said in self._said.values() if said is not None and not said.ended), default=None)


def describe(report: OutsideReport) -> str:
    """The sentence of a report that counts."""
    reason = f": {report.reason}" if report.reason else ""
    return f"reported {report.health.value} by {report.reporter}{reason}"
