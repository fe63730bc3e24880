"""Did somebody detach this backend by hand, or has it failed? Asked while pgpool-II is inside its failover_command.

pgpool-II calls the same command for both and does not say why. Taken for a person's doing only if everything speaks for
it: PostgreSQL answers this node, pgpool-II's health check of it has not failed since a while before the call, and
nothing else there could have detached it. Any doubt makes it a failure, which takes the votes of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_S
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.records import HealthStats, Parameter
from pgvigil.watchdog.pools.link import Answer, Link
from pgvigil.watchdog.pools.plan import Probed
from pgvigil.watchdog.pools.probe import Prober
from pgvigil.watchdog.pools.view import Incarnation, PoolBackend, View

COUNT_AGAIN_NS = 30 * NS_PER_S
OLD_ENOUGH_NS = 10 * NS_PER_S
"""A failed check is counted some time before the failover that it causes."""
KEPT_COUNTS = 3
LIMIT_MS = 2000
OTHER_CAUSES = ("failover_on_backend_error", "failover_on_backend_shutdown", "detach_false_primary")
"""Settings by which pgpool-II detaches a backend although its health check has not failed."""
OFF = ("0", "off")

OnKnown = Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class Count:
    """How often health checks of a backend had failed at an instant, in one life of pgpool-II."""

    at_ns: int
    incarnation: Incarnation | None
    failed: int


class Classifier:
    """Counts failed health checks beforehand, because afterwards nobody knows how many there had been."""

    def __init__(self, link: Link, prober: Prober, clock: Callable[[], int]) -> None:
        self._link = link
        self._prober = prober
        self._clock = clock
        self._counts: dict[int, deque[Count]] = {}
        self._counted_ns = -COUNT_AGAIN_NS
        self._left: list[PoolBackend] = []
        """Of the round that is on its way: one question at a time, because orders wait in the same queue."""

    def count(self, view: View, now_ns: int) -> None:
        """Read the counters again, if it is time and the last round is over."""
        if self._left or now_ns < self._counted_ns + COUNT_AGAIN_NS:
            return
        self._counted_ns = now_ns
        self._left = list(view.backends)
        self._count_next(view.incarnation)

    def _count_next(self, incarnation: Incarnation | None) -> None:
        if not self._left:
            return
        backend = self._left[0]

        def got(answer: Answer[HealthStats]) -> None:
            if answer.value is not None:
                kept = self._counts.setdefault(backend.backend_id, deque(maxlen=KEPT_COUNTS))
                kept.append(Count(self._clock(), incarnation, answer.value.fail))
            del self._left[0]
            self._count_next(incarnation)

        self._link.ask(requests.health_stats(backend.backend_id), got, LIMIT_MS)

    def classify(self, backend: PoolBackend, incarnation: Incarnation | None, on_known: OnKnown) -> None:
        """Find out within two seconds; `on_known` is called once, with true for a person's doing, and why."""
        now_ns = self._clock()
        kept = [one for one in self._counts.get(backend.backend_id, ()) if one.at_ns + OLD_ENOUGH_NS <= now_ns]
        known = [one for one in kept if one.incarnation == incarnation and incarnation is not None]
        if not known:
            on_known(False, "its health checks have not been watched for long enough")
            return
        _Case(self._link, self._prober, backend, known[-1].failed, on_known).begin()


class _Case:
    """One question: three answers that all must be yes; the first no settles it."""

    def __init__(self, link: Link, prober: Prober, backend: PoolBackend, failed: int, on_known: OnKnown) -> None:
        self._link, self._prober, self._backend = link, prober, backend
        self._failed = failed
        self._on_known = on_known
        self._open = 3

    def begin(self) -> None:
        backend = self._backend
        self._prober.ask(backend.backend_id, backend.host, backend.port, self._probed)
        self._link.ask(requests.health_stats(backend.backend_id), self._counted, LIMIT_MS)
        self._link.ask(requests.pool_status(), self._configured, LIMIT_MS)

    def _probed(self, probed: Probed) -> None:
        self._step(probed.answers is True, f"PostgreSQL: {probed.evidence}")

    def _counted(self, answer: Answer[HealthStats]) -> None:
        if answer.value is None:
            self._step(False, answer.problem)
        else:
            self._step(answer.value.fail == self._failed, "its health check has failed")

    def _configured(self, answer: Answer[tuple[Parameter, ...]]) -> None:
        if answer.value is None:
            self._step(False, answer.problem)
            return
        causes = other_causes(answer.value)
        self._step(not causes, f"{' and '.join(causes)} may have detached it, too")

    def _step(self, by_hand: bool, why_not: str) -> None:
        if self._open == 0:
            return
        self._open = self._open - 1 if by_hand else 0
        if self._open == 0:
            self._on_known(by_hand, "PostgreSQL answers and its health check has not failed" if by_hand else why_not)


def other_causes(parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """The settings in force by which pgpool-II itself may have detached a backend that works.

    One that it does not list may be something that it always does: 4.2 always obeyed the end of a backend.
    """
    values = {one.name: one.value for one in parameters}
    return tuple(name for name in OTHER_CAUSES if values.get(name, "unknown").lower() not in OFF)
