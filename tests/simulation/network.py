"""The network between the machines: it loses, delays, doubles, reorders and replays, and links may work one way only.

Cluster messages and heartbeats use the same links, but either kind may be cut alone. Replays are of cluster
messages only: replayed heartbeats are refused by their session before anybody judges them, which has tests of its
own.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.options import Options
from tests.simulation.world import World

REMEMBERED = 400
Pair = tuple[int, int]


@dataclass(slots=True)
class Weather:
    """How bad all links are."""

    least_us: int
    spread_us: int
    tail: float
    tail_us: int
    loss: float
    double: float


class Network:
    """All links; a link is (sender, receiver)."""

    def __init__(self, world: World, options: Options) -> None:
        self._world = world
        self._random = world.source("network").random
        self._pick = random.Random(f"{options.seed} replays")
        least_us, most_us = options.delay_us
        self.weather = Weather(
            least_us,
            most_us - least_us,
            options.tail_permille / 1000,
            options.tail_us,
            options.loss_permille / 1000,
            options.double_permille / 1000,
        )
        self.mail_cut: dict[Pair, int] = {}
        self.beats_cut: set[Pair] = set()
        self.lossy: dict[Pair, float] = {}
        self.carried = 0
        self._sent: deque[tuple[Pair, Callable[[], None]]] = deque(maxlen=REMEMBERED)

    def mail(self, sender: int, to: int, deliver: Callable[[], None]) -> None:
        """One cluster message."""
        link = (sender, to)
        self._sent.append((link, deliver))
        self._carry(link, lambda: None if link in self.mail_cut else deliver())

    def beat(self, sender: int, to: int, deliver: Callable[[], None]) -> None:
        """One heartbeat."""
        link = (sender, to)
        self._carry(link, lambda: None if link in self.beats_cut else deliver())

    def _carry(self, link: Pair, arrive: Callable[[], None]) -> None:
        weather, chance = self.weather, self._random
        copies = 2 if weather.double and chance() < weather.double else 1
        lossy = self.lossy.get(link, 0.0) if self.lossy else 0.0
        for _ in range(copies):
            if (weather.loss and chance() < weather.loss) or (lossy and chance() < lossy):
                continue
            delay_us = weather.least_us + weather.spread_us * chance()
            if weather.tail and chance() < weather.tail:
                delay_us += weather.tail_us * chance()
            self.carried += 1
            self._world.after(int(delay_us * 1000), arrive)

    def cut(self, link: Pair, mail: bool = True, beats: bool = True) -> None:
        """Nothing passes this way from now on, not even what is on its way."""
        if mail:
            self.mail_cut.setdefault(link, self._world.now_ns)
        if beats:
            self.beats_cut.add(link)

    def mend(self, link: Pair) -> None:
        """It passes again."""
        self.mail_cut.pop(link, None)
        self.beats_cut.discard(link)
        self.lossy.pop(link, None)

    def mend_all(self) -> None:
        """A good network from now on."""
        self.mail_cut.clear()
        self.beats_cut.clear()
        self.lossy.clear()
        weather = self.weather
        weather.tail = weather.loss = weather.double = 0.0

    def replay(self, count: int) -> None:
        """Messages of the past arrive once more."""
        for _ in range(count if self._sent else 0):
            link, deliver = self._pick.choice(self._sent)
            if link not in self.mail_cut:
                self._world.after(self._pick.randrange(2_000_000), deliver)
