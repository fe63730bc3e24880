"""The tie-breakers of `quorum = "half"`: addresses upstream that answer some machines and others not.

They keep assumption T of docs/safety.md and nothing more: of two machines between which any link is cut or lossy, both
get answers for less than one lease; which of them goes on getting some changes at random. What was really asked and
answered is remembered in true time, for the checkers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.network import Network, Pair
from tests.simulation.options import Options
from tests.simulation.process import Process
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.lifecheck.settings import TieBreakerSettings

ADDRESSES = ("10.0.0.254", "10.0.0.253:443")
GRACE_PERMILLE = 850  # of the shortest lease: how long both may be answered
KEPT_SERIES = 6
FLAKY = 0.03  # single questions that fail in a third of the runs


@dataclass(slots=True)
class Truth:
    """One series of questions that were all answered, in true time."""

    since_ns: int
    newest_ns: int


class Upstream:
    """All tie-breakers; each favours one machine at a time."""

    def __init__(self, world: World, options: Options, network: Network, least_lease_ns: int) -> None:
        """`least_lease_ns`: the shortest lease that any document may have in this run."""
        self._world = world
        self._network = network
        self._source = world.source("upstream")
        self._nodes = tuple(node.node_id for node in options.nodes())
        self._least_lease_ns = least_lease_ns
        self._lease_ns = options.lease_ns
        self._favoured = {address: self._source.choice(self._nodes) for address in ADDRESSES}
        self._bad_since_ns: dict[Pair, int] = {}
        self._good_since_ns: dict[Pair, int] = {}
        self._series: dict[tuple[int, str], deque[Truth]] = {}
        self._broken: set[tuple[int, str]] = set()
        self.fixed = 0
        self.flaky = options.seed % 3 == 0
        self._world.after(self._lease_ns, self._move)

    # --- who is answered --------------------------------------------------------------------------

    def answers(self, node: int, address: str) -> bool:
        """Whether this machine gets an answer now (assumption T)."""
        if address not in self._favoured:
            return False
        favoured = self.fixed or self._favoured[address]
        if node == favoured:
            return True
        return not any(self._parted(node, other) for other in self._nodes if other != node)

    def _parted(self, one: int, other: int) -> bool:
        """Whether these two may not hear each other, for longer than both may be answered."""
        bad_ns = self._bad_since_ns.get(_pair(one, other))
        return bad_ns is not None and self._world.now_ns - bad_ns >= self._least_lease_ns * GRACE_PERMILLE // 1000

    def watch(self) -> None:
        """Look at the links; those that flap are bad until they have been good for two leases."""
        network, now_ns = self._network, self._world.now_ns
        bad = {_pair(*link) for links in (network.mail_cut, network.beats_cut, network.lossy) for link in links}
        for pair in sorted(bad):
            self._bad_since_ns.setdefault(pair, now_ns)
            self._good_since_ns.pop(pair, None)
        for pair in sorted(self._bad_since_ns.keys() - bad):
            if now_ns - self._good_since_ns.setdefault(pair, now_ns) >= 2 * self._lease_ns:
                del self._bad_since_ns[pair], self._good_since_ns[pair]

    def _move(self) -> None:
        """Another machine is favoured; often the same one for long, because a series takes long."""
        address = self._source.choice(ADDRESSES)
        self._favoured[address] = self._source.choice(self._nodes)
        wait_leases = self._source.choice((0.5, 2.0, 5.0, 8.0, 15.0))
        self._world.after(int(wait_leases * self._lease_ns), self._move)

    # --- what has happened ------------------------------------------------------------------------

    def calm(self, favoured: int) -> None:
        """The faults end: from now on this machine is always answered, and the others where no link is bad."""
        self.fixed, self.flaky = favoured, False

    def asked(self, node: int, address: str) -> bool:
        """A question leaves its machine; whether it is answered."""
        now_ns, key = self._world.now_ns, (node, address)
        answered = self.answers(node, address) and not (self.flaky and self._source.random() < FLAKY)
        series = self._series.setdefault(key, deque(maxlen=KEPT_SERIES))
        if not answered:
            self._broken.add(key)
        elif key in self._broken or not series:
            self._broken.discard(key)
            series.append(Truth(now_ns, now_ns))
        else:
            series[-1].newest_ns = now_ns
        return answered

    def series(self, node: int, address: str) -> tuple[Truth, ...]:
        """The newest series of this machine, oldest first."""
        return tuple(self._series.get((node, address), ()))


class SimWay:
    """How a simulated lifecheck asks: the answer comes soon, late, as a refusal, or not at all."""

    def __init__(
        self, world: World, upstream: Upstream, node: int, process: Process, settings: TieBreakerSettings,
        on_end: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._source = world.source(f"questions of {node}")
        self._upstream = upstream
        self._node = node
        self._process = process
        port = f":{settings.port}" if settings.port else ""
        self._address = settings.address + port
        self._interval_ns = settings.interval_ms * NS_PER_MS
        self._on_end = on_end
        self._question = 0

    def ask(self) -> None:
        """Whether there is an answer is decided now, when it is heard later."""
        self._question += 1
        number, answered = self._question, self._upstream.asked(self._node, self._address)
        if answered or self._source.random() < 0.5:
            share = self._source.choice((0.001, 0.001, 0.01, 0.3))
            self._process.later(
                int(share * self._interval_ns), lambda: self._heard(number, "" if answered else "refused")
            )

    def _heard(self, number: int, trouble: str) -> None:
        if number == self._question:
            self._on_end(trouble)

    def forget(self) -> None:
        """What comes now is too late."""
        self._question += 1

    def close(self) -> None:
        self.forget()


def _pair(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)
