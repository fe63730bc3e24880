"""Seeded random runs: faults of every kind, the checks after every step, then peace and a demand for a leader.

A failure prints its seed and the end of its story; `python tests/scenarios/test_random.py FIRST LAST` runs more seeds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import pytest
from tests.scenarios.cluster import Cluster, Host, SafetyError, Weather

from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreCommand, CoreNode, CoreRemoval, CoreSettings
from pgvigil.watchdog.core.lease import NS_PER_MS

CALM_MS = 5_000
STORM_MS = 50_000
PEACE_MS = 10_000
RENEW_MS = 200
STAGGER_MS = RENEW_MS // 2
# Beyond L + (n-1)*stagger + one round: verdicts of the storm (0.6 s), a restart wait of the largest L, a one-way
# leader's L, two split votes with their pauses, and what a hand-over on its way may add.
MARGIN_MS = 600 + 1500 + 1500 + 4 * RENEW_MS + 1500


class Storm:
    """What goes wrong, and when; all from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = self.random.choice((1, 2, 3, 3, 3, 4, 5, 5, 7))
        self.lease_ms = dict.fromkeys(range(1, self.size + 1), 1000)
        if self.random.random() < 0.2:
            self.lease_ms = {node: self.random.choice((700, 1000, 1500)) for node in self.lease_ms}
        witnesses = self.random.sample(range(2, self.size + 1), self.random.randint(0, (self.size - 1) // 2))
        same = self.random.random() < 0.7
        nodes = tuple(
            CoreNode(node, f"n{node}", node in witnesses, 1 if same else self.random.randint(1, 2))
            for node in range(1, self.size + 1)
        )
        preempt = self.random.random() < 0.3
        command = CoreCommand("escalation", self.random.choice(("once", "retry")))
        removal = CoreRemoval(
            self.random.random() < 0.3, self.random.choice((0, 3500)), self.random.choice((0, 3500))
        )  # fmt: skip
        settings = {
            node: CoreSettings(node, nodes, self.lease_ms[node], RENEW_MS, preempt, (command,), removal)
            for node in range(1, self.size + 1)
        }
        bad = self.random.random()
        self.cluster = Cluster(
            settings,
            seed,
            Weather((200, self.random.choice((2_000, 30_000))), (1_000, 20_000), int(bad * 150), int(bad * 100)),
        )
        for host in self.cluster.hosts.values():
            host.rate_ppm = self.random.randint(-5000, 5000)
            host.origin_ns = -self.random.randrange(10_000 * NS_PER_MS)
            self.cluster.at(self.random.randrange(500 * NS_PER_MS), self._starter(host.node.node_id))
        self.stormy = True
        self.mean_ms = self.random.choice((150, 500, 2000))

    def _starter(self, node: int) -> Callable[[], None]:
        return lambda: self.cluster.start(node) if self.cluster.hosts[node].core is None else None

    def run(self) -> None:
        """The storm, then peace."""
        if self.random.random() < 0.85:
            self.cluster.run(CALM_MS * NS_PER_MS, lambda: self.cluster.leader() is not None)
        self._next()
        self.cluster.run(STORM_MS * NS_PER_MS)
        self.stormy = False
        self._peace()

    def _next(self) -> None:
        if not self.stormy:
            return
        wait_ns = int(self.random.expovariate(1 / self.mean_ms) * NS_PER_MS)
        self.cluster.at(self.cluster.now_ns + wait_ns, self._strike)

    def _strike(self) -> None:
        if self.stormy:
            host = self.cluster.hosts[self.random.randint(1, self.size)]
            kinds = [self._kill, self._kill, self._pause, self._pause, self._cut, self._cut, self._heal]
            kinds += [self._crash, self._stop, self._pgpool, self._operate, self._operate, self._replay, self._stick]
            self.random.choice(kinds)(host)
            self._next()

    def _again(self, host: Host, least_ms: int, most_ms: int) -> None:
        delay_ns = self.random.randint(least_ms, most_ms) * NS_PER_MS
        self.cluster.at(self.cluster.now_ns + delay_ns, self._starter(host.node.node_id))

    def _kill(self, host: Host) -> None:
        self.cluster.say(host, "  (killed)")
        self.cluster.kill(host.node.node_id)
        self._again(host, 20, 1500)

    def _crash(self, host: Host) -> None:
        self.cluster.say(host, "  (machine lost)")
        self.cluster.crash(host.node.node_id)
        self._again(host, 200, 3000)

    def _stop(self, host: Host) -> None:
        self.cluster.stop(host.node.node_id)
        self._again(host, 1500, 5000)

    def _pause(self, host: Host) -> None:
        if host.core is None or host.stopped:
            return
        self.cluster.say(host, "  (stopped)")
        self.cluster.pause(host.node.node_id)
        life = host.life
        delay_ns = self.random.choice((50, 300, 1200, 2500)) * NS_PER_MS
        self.cluster.at(self.cluster.now_ns + delay_ns, lambda: self._continue(host, life))

    def _continue(self, host: Host, life: int) -> None:
        if host.life == life and host.stopped:
            self.cluster.resume(host.node.node_id)

    def _cut(self, host: Host) -> None:
        others = [node for node in self.cluster.hosts if node != host.node.node_id]
        for other in others if self.random.random() < 0.4 else others[:1]:
            way = self.random.randint(1, 3)
            if way & 1:
                self.cluster.cuts.add((host.node.node_id, other))
            if way & 2:
                self.cluster.cuts.add((other, host.node.node_id))

    def _heal(self, host: Host) -> None:
        self.cluster.cuts = {cut for cut in sorted(self.cluster.cuts) if host.node.node_id not in cut}

    def _pgpool(self, host: Host) -> None:
        host.pgpool = self.random.choice((Health.ALIVE, Health.DEAD, Health.UNKNOWN))
        host.vip_cut = self.random.random() < 0.2
        host.unfit = "interface eth0 is down" if host.vip_cut else self.random.choice(("", "", "isolated"))

    def _stick(self, host: Host) -> None:
        host.vip_stuck = self.random.random() < 0.3

    def _replay(self, host: Host) -> None:
        for _ in range(10):
            if self.cluster.sent:
                sender, to, message = self.random.choice(self.cluster.sent)
                self.cluster.deliver(sender, to, message, self.cluster.hosts[sender].record_id)

    def _operate(self, host: Host) -> None:
        other = self.random.choice((0, *self.cluster.hosts))
        leader = self.cluster.leader()
        target = leader if leader is not None and self.random.random() < 0.7 else host
        events: list[ev.Event] = [ev.SwitchOver(1, other), ev.Bootstrap(2)]
        if self.size > 2 and other:
            events += [ev.ChangeVoters(3, other, 0), ev.ChangeVoters(4, 0, other), ev.Leave(5)]
        self.cluster.step(target, self.random.choice(events))

    def _peace(self) -> None:
        """Heal everything; somebody must lead in time, and keep leading."""
        cluster = self.cluster
        cluster.cuts.clear()
        cluster.weather = Weather((200, 2_000), (1_000, 5_000))
        for host in cluster.hosts.values():
            host.pgpool, host.can_hold, host.vip_stuck = Health.ALIVE, True, False
            host.unfit, host.vip_cut = "", False
            if host.stopped:
                cluster.resume(host.node.node_id)
            if host.core is None:
                cluster.start(host.node.node_id)
        most_ms = max(self.lease_ms.values()) + (self.size - 1) * STAGGER_MS + RENEW_MS + MARGIN_MS
        cluster.run(2000 * NS_PER_MS)  # processes that were just ending
        for host in cluster.hosts.values():
            if host.core is None:
                cluster.start(host.node.node_id)
        if not cluster.run(most_ms * NS_PER_MS, lambda: cluster.leader() is not None):
            raise SafetyError(f"nobody leads {most_ms + 2000} ms after the faults ended")
        cluster.run(PEACE_MS * NS_PER_MS)
        if cluster.leader() is None or not cluster.open_gates():
            raise SafetyError("the leader was lost again in peace")


def weather_of(seed: int) -> str | None:
    """Run one seed; what went wrong, with the end of the story, or None."""
    storm = Storm(seed)
    try:
        storm.run()
    except (SafetyError, InvariantError, AssertionError, ArithmeticError, LookupError) as error:
        return f"seed {seed}: {type(error).__name__}: {error}\n" + "\n".join(storm.cluster.story[-120:])
    return None


@pytest.mark.parametrize("first", range(0, 150, 10))
def test_no_storm_breaks_a_promise(first: int) -> None:
    """Ten seeds each."""
    for seed in range(first, first + 10):
        failure = weather_of(seed)
        if failure is not None:
            pytest.fail(failure, pytrace=False)


if __name__ == "__main__":
    failed = 0
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        found = weather_of(number)
        if found is not None:
            failed += 1
            print(found[-int(sys.argv[3]) :] if len(sys.argv) > 3 else found.splitlines()[0], flush=True)
    print(f"{failed} seeds failed")
