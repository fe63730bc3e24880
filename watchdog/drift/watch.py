"""What ties the comparison of settings to watchdog main: clock, side messages, the core's obstacle and the log.

Nothing here compares or decides. It is called once a second and for every message, and never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pgvigil.ipc.clock import boottime_ns
from pgvigil.watchdog.asides import Asides
from pgvigil.watchdog.core.events import Event, Note, Obstacle
from pgvigil.watchdog.core.messages import Aside
from pgvigil.watchdog.drift.exchange import Effect, Exchange, Send
from pgvigil.watchdog.drift.facts import Facts
from pgvigil.watchdog.drift.messages import TOPIC
from pgvigil.watchdog.settings import Settings

if TYPE_CHECKING:
    from pgvigil.watchdog.drift.question import Asker, Question

OBSTACLE = "drift"


class DriftWatch:
    """`tick` once a second. With an `asker` the settings of the local pgpool-II are compared, too."""

    def __init__(
        self,
        settings: Settings,
        asides: Asides,
        dispatch: Callable[[Event], None],
        note: Callable[[Note], None],
        asker: Asker | None = None,
    ) -> None:
        labels = {node.id: node.host for node in settings.nodes}
        self.exchange = Exchange(settings.node_id, labels, dict(settings.compared))
        self._asides, self._dispatch, self._note = asides, dispatch, note
        self._question = None if asker is None else self._question_for(asker)
        asides.on(TOPIC, self._take)

    def _question_for(self, asker: Asker) -> Question:
        # What talks to pgpool-II is imported only where there is one to talk to: it costs memory in every process.
        from pgvigil.watchdog.drift.question import Question

        return Question(asker, boottime_ns, self._of_pgpool)

    def tick(self, now_ns: int, leader: int, voters: tuple[int, ...]) -> None:
        """`leader` is 0 while none is known."""
        self._carry(self.exchange.tick(now_ns, leader, voters))
        if self._question is not None:
            self._question.tick(now_ns)

    def _of_pgpool(self, facts: Facts) -> None:
        self._carry(self.exchange.set_part("pgpool", facts, boottime_ns()))

    def _take(self, sender: int, aside: Aside) -> None:
        self._carry(self.exchange.take(sender, aside.boot, aside.number, aside.body, boottime_ns()))

    def _carry(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._asides.say(effect.to, TOPIC, effect.body)
            elif isinstance(effect, Note):
                self._note(effect)
            else:
                self._dispatch(Obstacle(OBSTACLE, effect.reason))
