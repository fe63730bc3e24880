"""A seeded model of a network with the real detector at its end: how soon a dead peer is found, how often a living one.

One node watches another; a third may vouch for it. Sending, loss and delay are modelled; everything from the counter
in the heartbeat to the verdict is the product's own code, bundles and testimony of the receiver included. What the
model leaves out: real schedulers (`tests.detector.cpu` has them), reordering, and paths that fail together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from pgvigil.heartbeat.bundle import Bundle
from pgvigil.heartbeat.hearing import Hearing
from pgvigil.heartbeat.quality import Quality
from pgvigil.heartbeat.sender import EXTRA_ROUND_NS
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Beat, Health, Heard, HeardTogether, Role
from pgvigil.lifecheck.core.accrual import Accrual
from pgvigil.lifecheck.core.judge import Judge
from pgvigil.lifecheck.core.path import Fixed, Patience

INTERVAL_MS = 200
INTERVAL_NS = INTERVAL_MS * NS_PER_MS
PEER, THIRD = 2, 3
DELAY_NS = 200_000
LATENESS_NS = 300_000  # mean of the exponential lateness of each sending
NEWS_NS = 2 * NS_PER_MS  # from the receiver of a third node to its sender
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)


@dataclass(frozen=True, slots=True)
class Detector:
    """One choice of the configuration."""

    name: str
    floor_ms: int
    ceiling_ms: int

    @property
    def adaptive(self) -> bool:
        return self.floor_ms < self.ceiling_ms

    def patience(self) -> Patience:
        """As the lifecheck process makes it."""
        if not self.adaptive:
            return Fixed(self.ceiling_ms * NS_PER_MS)
        return Accrual(INTERVAL_NS, self.floor_ms * NS_PER_MS, self.ceiling_ms * NS_PER_MS)


class Link:
    """A direction of the network; losses come in bursts of `burst` on average (1: independent of each other)."""

    def __init__(self, dice: random.Random, loss: float, burst: float) -> None:
        self._dice = dice
        self.set(loss, burst)

    def set(self, loss: float, burst: float) -> None:
        """Another weather (Gilbert 1960: two states, all is lost in the bad one)."""
        stay = loss if burst <= 1 else 1 - 1 / burst
        self._begin = loss if burst <= 1 else loss * (1 - stay) / (1 - loss)
        self._stay = stay
        self._bad = False

    def carries(self) -> bool:
        """Whether the next datagram arrives."""
        self._bad = self._dice.random() < (self._stay if self._bad else self._begin)
        return not self._bad


class Source:
    """A node that sends heartbeats; `counter` counts them for one destination."""

    def __init__(self, dice: random.Random, node_id: int) -> None:
        self._dice = dice
        self.node_id = node_id
        self.counter = 0
        self.beat = BEAT
        self.round_ns = dice.randrange(INTERVAL_NS)
        self.last_ns = 0

    def sent(self) -> int:
        """The next heartbeat leaves; when it does."""
        self.counter += 1
        self.last_ns = self.round_ns + int(self._dice.expovariate(1 / LATENESS_NS))
        self.round_ns = self.last_ns + INTERVAL_NS
        return self.last_ns

    def hurry(self, now_ns: int) -> None:
        """As the sender does when it has news."""
        self.round_ns = min(self.round_ns, max(now_ns, self.last_ns + EXTRA_ROUND_NS))


class Watcher:
    """Receiver and lifecheck of the node that watches."""

    def __init__(self, detector: Detector, node_ids: tuple[int, ...]) -> None:
        self._quality = {node_id: Quality(INTERVAL_NS) for node_id in node_ids}
        self._bundle = Bundle(INTERVAL_MS, detector.floor_ms)
        self._hearing = Hearing(node_ids, INTERVAL_MS, detector.floor_ms, detector.ceiling_ms, 0)
        labels = {node_id: f"node {node_id}" for node_id in node_ids}
        self._judge = Judge(labels, ("eth0",), ("heartbeat",), detector.patience(), INTERVAL_NS, 0)
        self.deaths: list[int] = []
        """When the peer was declared dead."""
        self.dead = False

    def hear(self, now_ns: int, source: Source, sequence: int) -> None:
        """A datagram arrives."""
        self._quality[source.node_id].take(now_ns, sequence, source.counter)
        self._hearing.heard(source.node_id, now_ns)
        if self._bundle.add(Heard(source.node_id, 0, now_ns, source.beat)):
            self._tell(now_ns, 0)
        if self._hearing.soon(now_ns):
            self._look(now_ns)

    def wake(self) -> int:
        """When something is due."""
        dues = (self._hearing.due_ns, self._bundle.due_ns, self._judge.wake())
        return min(due_ns for due_ns in dues if due_ns is not None)

    def tick(self, now_ns: int) -> None:
        """Do it."""
        if self._bundle.due_ns is not None and now_ns >= self._bundle.due_ns:
            self._tell(now_ns, 0)
        if now_ns >= self._hearing.due_ns:
            self._look(now_ns)
        at_ns = self._judge.wake()
        if at_ns is not None and now_ns >= at_ns:
            self._step(now_ns, None)

    def _look(self, now_ns: int) -> None:
        if self._hearing.look(now_ns):
            self._tell(now_ns, now_ns)

    def _tell(self, now_ns: int, quiet_at_ns: int) -> None:
        beats = self._bundle.take()
        qualities = tuple(self._quality[one.node_id].summary(one.node_id) for one in beats)
        self._step(now_ns, HeardTogether(beats, 0, quiet_at_ns, qualities))

    def _step(self, now_ns: int, event: HeardTogether | None) -> None:
        for verdict in self._judge.step(now_ns, event).changed:
            if verdict.node_id == PEER:
                self.dead = verdict.health is Health.DEAD
                self.deaths += [now_ns] if self.dead else []


class Model:
    """The three nodes and the links between them; copies of it go on independently (`random` is part of them)."""

    def __init__(self, detector: Detector, seed: int, loss: float, burst: float = 1, third: bool = True) -> None:
        self._dice = random.Random(seed)
        self._peer = Source(self._dice, PEER)
        self._third = Source(self._dice, THIRD) if third else None
        self.watcher = Watcher(detector, (PEER, THIRD) if third else (PEER,))
        self._hearing = Hearing((PEER,), INTERVAL_MS, detector.floor_ms, detector.ceiling_ms, 0)
        self._links = {name: Link(self._dice, loss, burst) for name in ("peer", "third", "between")}
        self._crashed = False
        self.now_ns = 0

    def weather(self, loss: float, burst: float) -> None:
        """Other links from now on."""
        for link in self._links.values():
            link.set(loss, burst)

    def crash(self, seed: int) -> int:
        """The peer sends nothing from some instant of the next interval on; that instant."""
        self._dice.seed(seed)
        self.run_until(self.now_ns + self._dice.randrange(INTERVAL_NS))
        self._crashed = True
        return self.now_ns

    def reseed(self, seed: int) -> None:
        """Another future."""
        self._dice.seed(seed)

    def run_until(self, end_ns: int) -> None:
        """Go on."""
        while self._next(end_ns):
            pass
        self.now_ns = end_ns

    def _next(self, end_ns: int) -> bool:
        """The next thing that happens, if it happens before the end."""
        sources = [source for source in (self._peer, self._third) if source is not None]
        if self._crashed:
            sources.remove(self._peer)
        source = min(sources, key=lambda one: one.round_ns, default=None)
        dues = [self.watcher.wake()]
        if self._third is not None:
            dues.append(self._hearing.due_ns)
        due_ns = min(dues)
        if source is not None and source.round_ns <= due_ns:
            if source.round_ns >= end_ns:
                return False
            self._send(source)
            return True
        if due_ns >= end_ns:
            return False
        if self._third is not None and due_ns == self._hearing.due_ns:
            self._hearing.look(due_ns)
            self._speak(due_ns)
        if due_ns >= self.watcher.wake():
            self.watcher.tick(due_ns)
        return True

    def _send(self, source: Source) -> None:
        sequence = source.sent()
        now_ns = sequence + DELAY_NS
        if self._links["peer" if source is self._peer else "third"].carries():
            self.watcher.hear(now_ns, source, sequence)
        if source is self._peer and self._third is not None and self._links["between"].carries():
            self._hearing.heard(PEER, now_ns)
            self._speak(now_ns)

    def _speak(self, now_ns: int) -> None:
        """The third node says whom it hears, in an extra round if that is news."""
        if self._third is not None and self._third.beat.hears != self._hearing.hears:
            self._third.beat = replace(self._third.beat, hears=self._hearing.hears)
            self._third.hurry(now_ns + NEWS_NS)


def seconds(number: float) -> int:
    """In ns."""
    return int(number * NS_PER_S)
