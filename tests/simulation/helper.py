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

from pgvigil.heartbeat.sender import EXTRA_ROUND_NS, current_beat, differs
from pgvigil.ipc import frames
from pgvigil.lifecheck.core.judge import Heartbeat, Judge, Late
from pgvigil.lifecheck.process import EAGER_FOR_NS, REPEAT_NS, Reporter


class HelperSurroundings(Protocol):
    """What the helper finds on its machine."""

    @property
    def pgpool(self) -> frames.Health: ...
    @property
    def listening(self) -> bool: ...
    @property
    def main_frozen(self) -> bool: ...
    def beat(self, beat: frames.Beat) -> None: ...
    def report(self, verdicts: frames.Verdicts) -> bool: ...


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
        self._said: tuple[frames.NodeVerdict, ...] | None = None
        self.beats: Inlet[tuple[int, frames.Beat]] = Inlet(self.process.poller, self.process.wake)
        self.process.loop.watch(self.beats, self._take_beats)
        self.process.loop.join(self)
        self.process.later(0, lambda: None)

    def speaks(self, content: frames.BeatContent) -> None:
        """Watchdog main says what to put into the next heartbeats."""
        old = self._content
        self._content = content
        if differs(None if old is None else old.beat, content.beat):
            self.process.later(0, self._hurry)

    def look_at_pgpool(self) -> None:
        """The probe has news."""
        self.process.later(0, lambda: self._news(self.clock.read()))

    def main_started(self) -> None:
        """Watchdog main was started: it is told everything at once."""
        self.process.later(0, lambda: self._news(self.clock.read()))

    def _newest_content(self, now_ns: int) -> frames.BeatContent | None:
        """Where watchdog main keeps house less than once a second, what it would have said again just now."""
        content = self._content
        lazy = self._repeat_ns > REPEAT_NS and self.around.listening and not self.around.main_frozen
        if content is not None and lazy:
            return replace(content, said_at_ns=now_ns)
        return content

    def _news(self, now_ns: int) -> None:
        self._said = None
        self._reporter.news(now_ns)

    def _hurry(self) -> None:
        self._round_due_ns = min(self._round_due_ns, self._last_round_ns + EXTRA_ROUND_NS)

    def _take_beats(self) -> None:
        self._notice_lateness(self.clock.read())
        while (heard := self.beats.take()) is not None:
            now_ns = self.clock.read()
            if self._judge.step(now_ns, Heartbeat(heard[0], 0, now_ns, heard[1])).news:
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
            self.around.beat(current_beat(self._newest_content(now_ns), self._started_at_ns, now_ns))
        if self._judge.step(now_ns).news:
            self._news(now_ns)
        if now_ns >= self._reporter.due_ns:
            self._report(now_ns)

    def _report(self, now_ns: int) -> None:
        if not self.around.listening:
            self._reporter.due_ns = now_ns + self._repeat_ns  # a starting watchdog main asks; retries only cost here
            return
        peers = self._said
        if peers is None or self._repeat_ns == REPEAT_NS:
            peers = self._said = self._judge.verdicts(now_ns)
        verdicts = frames.Verdicts(now_ns, self.around.pgpool, now_ns, "the simulator says so", peers, ())
        self._reporter.sent(self.around.report(verdicts), now_ns)
        if self._reporter.due_ns - now_ns == REPEAT_NS and now_ns - self._started_at_ns > EAGER_FOR_NS:
            self._reporter.due_ns = now_ns + self._repeat_ns
