"""Lifecheck and the heartbeat sender of one machine, simulated as one process with the real loop, judge and reporter.

Heartbeats arrive over the simulated network; the judge makes verdicts of them and the reporter decides when
watchdog main hears them. With long leases rounds that would only repeat the last words are left out or made cheap.
Keys and nonces are not simulated: nobody forges here, and a replayed heartbeat is tested with its codec.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from tests.simulation.clock import Clock
from tests.simulation.process import Process
from tests.simulation.wiring import Inlet
from tests.simulation.world import World

from pgvigil.heartbeat.sender import EXTRA_ROUND_NS, Words
from pgvigil.ipc import frames
from pgvigil.lifecheck.core.judge import Judge, Late
from pgvigil.lifecheck.core.series import Seen
from pgvigil.lifecheck.probes.tie_breaker import MakeWay, TieBreakerProbe
from pgvigil.lifecheck.process import EAGER_FOR_NS, REPEAT_NS, Reporter
from pgvigil.lifecheck.settings import TieBreakerSettings, split_upstream


class HelperSurroundings(Protocol):
    """What the helper finds on its machine."""

    @property
    def pgpool(self) -> frames.Health: ...
    @property
    def listening(self) -> bool: ...
    @property
    def main_frozen(self) -> bool: ...
    def beat(self, beat: frames.Beat) -> None: ...
    def report(self, verdicts: frames.Verdicts, repeated: bool) -> bool: ...
    def saw(self, seen: frames.TieBreakerSeen) -> None: ...
    def ways(self, process: Process) -> MakeWay: ...


class Helper:
    """One life of both processes."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        peers: tuple[int, ...],
        interval_ns: int,
        deadtime_ns: int,
        repeat_ns: int,
        around: HelperSurroundings,
        slow_ns: int,
    ) -> None:
        self.clock = clock
        self.around = around
        self.process = Process(world, clock, slow_ns)
        now_ns = clock.read()
        self._started_at_ns = now_ns
        self._judge = Judge(peers, ("path",), ("heartbeat",), deadtime_ns, now_ns)
        self._reporter = Reporter(now_ns)
        self._repeat_ns = repeat_ns
        self._interval_ns = interval_ns
        self._last_round_ns = now_ns
        self._round_due_ns = now_ns
        self._content: frames.BeatContent | None = None
        self._words = Words(now_ns)
        self._said: tuple[frames.NodeVerdict, ...] | None = None
        self._question: frames.AskTieBreaker | None = None
        self._tie_breaker: TieBreakerProbe | None = None
        self.beats: Inlet[tuple[int, frames.Beat]] = Inlet(self.process.poller, self.process.wake)
        self.process.loop.watch(self.beats, self._take_beats)
        self.process.loop.join(self)
        self.process.later(0, lambda: None)

    def speaks(self, content: frames.BeatContent) -> None:
        """Watchdog main says what to put into the next heartbeats."""
        self._content = content
        if self._words.take(content):
            self.process.later(0, self._hurry)

    def look_at_pgpool(self) -> None:
        """The probe has news."""
        self.process.later(0, lambda: self._news(self.clock.read()))

    def asks(self, question: frames.AskTieBreaker) -> None:
        """Watchdog main says whom the document tells to ask."""
        if question != self._question:
            self.process.later(0, lambda: self._ask(question))

    def _ask(self, question: frames.AskTieBreaker) -> None:
        if question == self._question:
            return
        self._question = question
        if self._tie_breaker is not None:
            self.process.loop.leave(self._tie_breaker)
            self._tie_breaker.close()
            self._tie_breaker = None
        if question.address:
            settings = TieBreakerSettings(*split_upstream(question.address), question.interval_ms, question.gap_ms)
            self._tie_breaker = TieBreakerProbe(
                settings, self.process.loop, self._on_tie_breaker, self.clock.read(), self.clock.read,
                self.around.ways(self.process),
            )  # fmt: skip
            self.process.loop.join(self._tie_breaker)

    def _on_tie_breaker(self, seen: Seen) -> None:
        address = "" if self._question is None else self._question.address
        told = frames.TieBreakerSeen(address, self.clock.read(), seen.asked_at_ns, seen.since_ns, seen.evidence)
        self.around.saw(told)

    def main_started(self) -> None:
        """Watchdog main was started: it is told everything at once."""
        self.process.later(0, lambda: self._news(self.clock.read()))

    def _beat(self, now_ns: int) -> frames.Beat:
        """The words of this instant.

        Where watchdog main keeps house less than once a second, it would have said the same again just now.
        """
        lazy = self._repeat_ns > REPEAT_NS and self.around.listening and not self.around.main_frozen
        if self._content is not None and lazy:
            self._words.take(replace(self._content, said_at_ns=now_ns))
        beat, up_for_ms, age_ms = self._words.now(now_ns)
        return replace(beat, up_for_ms=up_for_ms, content_age_ms=age_ms)

    def _news(self, now_ns: int) -> None:
        self._said = None
        self._reporter.news(now_ns)

    def _hurry(self) -> None:
        self._round_due_ns = min(self._round_due_ns, self._last_round_ns + EXTRA_ROUND_NS)

    def _take_beats(self) -> None:
        self._notice_lateness(self.clock.read())
        now_ns = self.clock.read()
        heard = []
        while (one := self.beats.take()) is not None:
            heard.append(frames.Heard(one[0], 0, now_ns, one[1]))
        if self._judge.step(now_ns, frames.HeardTogether(tuple(heard))).news:
            self._news(now_ns)

    def _notice_lateness(self, now_ns: int) -> None:
        """What the next round is late by was our own standstill."""
        lateness_ns = now_ns - self._round_due_ns
        if lateness_ns > self._interval_ns:
            self._round_due_ns = now_ns
            if self._judge.step(now_ns, Late(lateness_ns)).news:
                self._news(now_ns)

    def wake(self) -> int | None:
        judge_ns = self._judge.wake()
        due_ns = min(self._reporter.due_ns, self._round_due_ns)
        return due_ns if judge_ns is None else min(due_ns, judge_ns)

    def tick(self, now_ns: int) -> None:
        self._notice_lateness(now_ns)
        if now_ns >= self._round_due_ns:
            self._last_round_ns = now_ns
            self._round_due_ns = now_ns + self._interval_ns
            self.around.beat(self._beat(now_ns))
        judge_ns = self._judge.wake()
        if judge_ns is not None and now_ns >= judge_ns and self._judge.step(now_ns).news:
            self._news(now_ns)
        if now_ns >= self._reporter.due_ns:
            self._report(now_ns)

    def _report(self, now_ns: int) -> None:
        if not self.around.listening:
            self._reporter.due_ns = now_ns + self._repeat_ns  # a starting watchdog main asks; retries only cost here
            return
        repeated = self._said is not None and self._repeat_ns > REPEAT_NS
        if self._said is None or not repeated:
            self._said = self._judge.verdicts(now_ns)
        verdicts = frames.Verdicts(now_ns, self.around.pgpool, now_ns, "the simulator says so", self._said, ())
        self._reporter.sent(self.around.report(verdicts, repeated), now_ns)
        if self._repeat_ns > REPEAT_NS and now_ns - self._started_at_ns > EAGER_FOR_NS:
            self._reporter.due_ns = now_ns + self._repeat_ns
