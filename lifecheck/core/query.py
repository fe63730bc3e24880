"""The query method's memory of one pgpool-II: life points, the verdict, and since when.

pgpool-II's own watchdog never takes a verdict back; here one answer is enough. What is not the proxy's fault takes no
life point: no backend, a wrong password, a trouble of ours. A pgpool-II that answers but gives no result is guilty only
if another one gives results at the same time, because a backend that hangs makes all of them silent.
"""

from __future__ import annotations

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.answers import Answer, Outcome

NS_PER_MS = 1_000_000
GUILTY = (Answer.REFUSED, Answer.FULL, Answer.HANGS)
INNOCENT = (Answer.FINE, Answer.NO_BACKEND, Answer.SILENT_BEHIND)


class QueriedPgpool:
    """`health`, `since_ns` and `evidence` of one pgpool-II; `take` is told each outcome."""

    def __init__(self, life_points: int, started_at_ns: int) -> None:
        self._life_points = life_points
        self._failures = 0
        self._failing_since_ns = started_at_ns
        self.answered: tuple[int, int] | None = None
        """When the last question that had a result was asked, and when it was answered."""
        self.health = Health.UNKNOWN
        self.since_ns = started_at_ns
        self.evidence = "not queried yet"

    def take(self, outcome: Outcome, asked_at_ns: int, now_ns: int, others_answer: bool) -> bool:
        """`others_answer`: another pgpool-II has answered a later question. True if the health is another one now."""
        if outcome.answer is Answer.FINE:
            self.answered = asked_at_ns, now_ns
        guilty = outcome.answer in GUILTY or (outcome.answer is Answer.SILENT_BEHIND and others_answer)
        if guilty:
            return self._take_guilty(outcome, asked_at_ns, now_ns)
        self._failures = 0
        if outcome.answer is Answer.SILENT_BEHIND:
            return self._conclude(Health.ALIVE, f"{outcome.evidence}; no other does, so a backend hangs", now_ns)
        return self._conclude(Health.ALIVE if outcome.answer in INNOCENT else Health.UNKNOWN, outcome.evidence, now_ns)

    @property
    def failing(self) -> bool:
        """Whether the last question failed."""
        return self._failures > 0

    def _take_guilty(self, outcome: Outcome, asked_at_ns: int, now_ns: int) -> bool:
        if self._failures == 0:
            self._failing_since_ns = asked_at_ns
        self._failures += 1
        words = outcome.evidence
        if outcome.answer is Answer.SILENT_BEHIND:
            words += ", while others do"
        for_ms = (now_ns - self._failing_since_ns) // NS_PER_MS
        if self._failures < self._life_points:
            words += f" ({self._failures} of {self._life_points} failures that make it dead)"
            return self._conclude(self.health, words, now_ns)
        return self._conclude(Health.DEAD, f"{words} ({self._failures} failures in a row, for {for_ms} ms)", now_ns)

    def _conclude(self, health: Health, evidence: str, now_ns: int) -> bool:
        self.evidence = evidence
        if health is self.health:
            return False
        self.health, self.since_ns = health, now_ns
        return True
