"""Backends in whole clusters: everybody reports a failure, the leader dies in the middle of the command (P23)."""

from __future__ import annotations

import pytest
from tests.scenarios.cluster import Cluster, Host

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreCommand, CoreNode, CoreSettings
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.record import BackendRole, BackendStatus, DecisionKind, Document

SECOND_NS = 1_000 * NS_PER_MS
NAMES = ("failover", "failback", "follow_primary")


class Story:
    """Three nodes with a primary and two standbys, all seen by all."""

    def __init__(self, policy: str) -> None:
        nodes = tuple(CoreNode(number, f"n{number}", False, 1) for number in (1, 2, 3))
        commands = tuple(CoreCommand(name, policy) for name in NAMES)
        self.cluster = Cluster(
            {number: CoreSettings(number, nodes, 1000, 200, False, commands) for number in (1, 2, 3)}
        )
        for number in (1, 2, 3):
            self.cluster.start(number)
        assert self.cluster.run(5 * SECOND_NS, lambda: self.cluster.leader() is not None)
        for host in self.cluster.hosts.values():
            self.cluster.step(host, ev.BackendsSeen(tuple(seen(number) for number in range(3))))
        assert self.cluster.run(5 * SECOND_NS, lambda: all(self.table(number) for number in (1, 2, 3)))

    def agreed(self, number: int) -> Document | None:
        """What a node may act on."""
        core = self.cluster.hosts[number].core
        return None if core is None else core.agreed_now()

    def table(self, number: int) -> list[tuple[BackendStatus, BackendRole]]:
        """States and roles as a node may act on them."""
        agreed = self.agreed(number)
        return [] if agreed is None else [(item.status, item.role) for item in agreed.backends]

    def reports(self, host: Host) -> None:
        """Its pgpool-II calls failover_command for the primary."""
        core = host.core
        assert core is not None
        event = ev.AskDecision(7, DecisionKind.DOWN, 0, False, "", ("d=0", "m=1", "P=0"), core.now_ns + 20 * SECOND_NS)
        self.cluster.step(host, event)

    def starts(self) -> int:
        """How often the failover was started anywhere."""
        return sum(
            event == "decision 2" for host in self.cluster.hosts.values() for _, event in host.commands
        )  # decision 1 is the table

    def answered(self, host: Host) -> list[str]:
        """The final answers that callers on a node got."""
        said = [line for line in self.cluster.story if f" {host.node.label} " in line and "answer 7" in line]
        return [line for line in said if "waits for" not in line and "no leader" not in line]


def seen(number: int) -> SeenBackend:
    """Up everywhere."""
    role = BackendRole.STANDBY if number else BackendRole.PRIMARY
    return SeenBackend(number, f"db{number}", 5432, SeenStatus.UP, role, False, 0)


UP, DOWN = BackendStatus.UP, BackendStatus.DOWN
PROMOTED = [(DOWN, BackendRole.STANDBY), (UP, BackendRole.PRIMARY), (UP, BackendRole.STANDBY)]


def test_everybody_reports_and_one_command_runs() -> None:
    """All callers get the outcome, and all nodes come to one table."""
    story = Story("once")
    for host in story.cluster.hosts.values():
        story.reports(host)
    assert story.cluster.run(10 * SECOND_NS, lambda: all(story.table(number) == PROMOTED for number in (1, 2, 3)))
    assert story.starts() == 1
    for host in story.cluster.hosts.values():
        assert [line.split("answer 7, ")[1][:3] for line in story.answered(host)] == ["yes"]


@pytest.mark.parametrize("policy", ["once", "retry"])
def test_the_leader_dies_in_the_middle_of_the_command(policy: str) -> None:
    """The next one finds decision and intent: `once` is unknown, `retry` runs again; the callers left are answered."""
    story = Story(policy)
    leader = story.cluster.leader()
    assert leader is not None
    for host in story.cluster.hosts.values():
        story.reports(host)
    assert story.cluster.run(5 * SECOND_NS, lambda: story.starts() == 1)
    story.cluster.crash(leader.node.node_id)
    left = [host for host in story.cluster.hosts.values() if host is not leader]
    assert story.cluster.run(20 * SECOND_NS, lambda: all(story.answered(host) for host in left))
    texts = [line.split("answer 7, ")[1] for host in left for line in story.answered(host)]
    if policy == "once":
        assert story.starts() == 1 and all(text.startswith("no: unknown: decision 2 was made") for text in texts)
    else:
        assert story.starts() == 2 and all(text.startswith("yes: decision 2") for text in texts)
        assert story.cluster.run(
            10 * SECOND_NS, lambda: all(story.table(host.node.node_id) == PROMOTED for host in left)
        )


def test_one_pgpool_alone_changes_nothing() -> None:
    """Its caller is told so, and the table stays."""
    story = Story("once")
    host = story.cluster.hosts[3]
    story.reports(host)
    assert story.cluster.run(15 * SECOND_NS, lambda: bool(story.answered(host)))
    assert "no consensus: 1 of 2" in story.answered(host)[0] and story.starts() == 0
    assert story.table(1)[0] == (UP, BackendRole.PRIMARY)


def test_an_isolated_node_may_act_on_nothing() -> None:
    """Within L after it heard its leader for the last time."""
    story = Story("once")
    leader = story.cluster.leader()
    assert leader is not None
    other = next(number for number in (1, 2, 3) if number != leader.node.node_id)
    for number in (1, 2, 3):
        story.cluster.cuts |= {(number, other), (other, number)}
    story.cluster.run(2 * SECOND_NS)
    assert story.agreed(other) is None and story.agreed(leader.node.node_id) is not None
