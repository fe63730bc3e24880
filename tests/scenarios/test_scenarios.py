"""Stories of whole clusters: each file holds commands, a line of dashes, and what happened.

A red test is a diff of a story. `PGVIGIL_REWRITE=1 pytest tests/scenarios/test_scenarios.py` writes the second part
anew; read the diff before committing it. Lines of the first part that begin with `expect` or `until` fail by
themselves, rewriting or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.cluster import TIE_BREAKER, Cluster, Host

from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreCommand, CoreNode, CoreRemoval, CoreSettings
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.record import NOBODY, QuorumRule

FOLDER = Path(__file__).parent
DASHES = "-" * 40
FILES = sorted(path.name for path in FOLDER.glob("*.txt"))


@dataclass
class Setup:
    """What the lines before the first action say about the cluster."""

    nodes: tuple[CoreNode, ...] = ()
    lease_ms: int = 1000
    renew_ms: int = 200
    preempt: bool = False
    policy: str = ""
    removal: CoreRemoval = field(default_factory=CoreRemoval)
    half: bool = False

    def cluster(self) -> Cluster:
        """A cluster of exactly that kind; nothing runs yet."""
        commands = (CoreCommand("escalation", self.policy),) if self.policy else ()
        return Cluster(
            {
                node.node_id: CoreSettings(
                    node.node_id,
                    self.nodes,
                    self.lease_ms,
                    self.renew_ms,
                    self.preempt,
                    commands,
                    self.removal,
                    QuorumRule.HALF if self.half else QuorumRule.MAJORITY,
                    TIE_BREAKER if self.half else "",
                )
                for node in self.nodes
            }
        )


class Teller:
    """Carries out the commands of one story."""

    def __init__(self) -> None:
        self.setup = Setup()
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """The cluster, made at the first action."""
        if self._cluster is None:
            self._cluster = self.setup.cluster()
        return self._cluster

    def tell(self, commands: str) -> str:
        """The story of these commands."""
        for line in commands.splitlines():
            words = line.split("#")[0].split()
            if words:
                self._carry_out(words)
        return "\n".join(line.rstrip() for line in self.cluster.story) + "\n"

    def _carry_out(self, words: list[str]) -> None:
        verb, *rest = words
        if verb not in ("nodes", "set", "begin", "run", "until", "expect"):
            now_ms = self.cluster.now_ns / NS_PER_MS
            self.cluster.story.append(f"{now_ms:9.1f}  > {' '.join(words)}")
        _COMMANDS[verb](self, rest)

    def host(self, label: str) -> Host:
        """The host of that name."""
        return next(host for host in self.cluster.hosts.values() if host.node.label == label)

    def some(self, words: list[str]) -> list[Host]:
        """The hosts named, or all."""
        return list(self.cluster.hosts.values()) if words == ["all"] else [self.host(word) for word in words]

    # --- setting up -----------------------------------------------------------------------------

    def nodes(self, words: list[str]) -> None:
        """`nodes n1 n2:priority=2 n3:witness`."""
        found = []
        for number, word in enumerate(words, 1):
            label, *options = word.split(":")
            priority = next((int(option[9:]) for option in options if option.startswith("priority=")), 1)
            found.append(CoreNode(number, label, "witness" in options, priority))
        self.setup.nodes = tuple(found)

    def set(self, words: list[str]) -> None:
        """`set lease 1000`, `set preempt`, `set half`, `set escalation once`, `set removal lost_ms 3000`."""
        if words[0] in ("preempt", "half"):
            setattr(self.setup, words[0], True)
        elif words[0] == "escalation":
            self.setup.policy = words[1]
        elif words[0] == "removal":
            change: dict[str, Any] = {words[1]: int(words[2]) if len(words) > 2 else True}
            self.setup.removal = replace(self.setup.removal, **change)
        else:
            self.setup.lease_ms = int(words[1])

    def begin(self, words: list[str]) -> None:
        """Found the cluster, have a leader, and begin the story there."""
        for host in self.cluster.hosts.values():
            self.cluster.start(host.node.node_id)
        assert self.cluster.run(5000 * NS_PER_MS, lambda: self.cluster.leader() is not None)
        self.cluster.run(1500 * NS_PER_MS)
        leader = self.cluster.leader()
        assert leader is not None and leader.core is not None
        self.cluster.story.clear()
        self.cluster.say(leader, f"leads term {leader.core.record.term}: the story begins")

    # --- time and demands -----------------------------------------------------------------------

    def run(self, words: list[str]) -> None:
        """`run 500`: milliseconds."""
        self.cluster.run(int(words[0]) * NS_PER_MS)

    def until(self, words: list[str]) -> None:
        """`until leader [n2] within 900`, `until no leader within 900`."""
        label = words[words.index("leader") + 1] if words[0] == "leader" and words[1] != "within" else None

        def reached() -> bool:
            leader = self.cluster.leader()
            if words[0] == "no":
                return leader is None
            return leader is not None and label in (None, leader.node.label)

        assert self.cluster.run(int(words[-1]) * NS_PER_MS, reached), "not reached: until " + " ".join(words)

    def expect(self, words: list[str]) -> None:
        """`expect gate n1`, `expect gate nowhere`, `expect leader n1`, `expect no leader`, `expect voters n1 n2`."""
        leader = self.cluster.leader()
        found = {
            "gate": self.cluster.open_gates() or ["nowhere"],
            "leader": [leader.node.label] if leader else [],
            "no": ["leader"] if leader is None else [],
            "voters": self._voters(leader),
            "runs": [str(sum(len(host.commands) for host in self.cluster.hosts.values()))],
        }[words[0]]
        assert found == words[1:], f"expected {' '.join(words)}, found {' '.join(found)}"

    def _voters(self, leader: Host | None) -> list[str]:
        if leader is None or leader.core is None or leader.core.document is None:
            return []
        bound = [voter.node_id for voter in leader.core.document.voters if voter.record_id]
        return [self.cluster.hosts[node].node.label for node in bound]

    # --- faults ---------------------------------------------------------------------------------

    def each(self, act: Callable[[int], None], words: list[str]) -> None:
        """Do one thing to each host named."""
        for host in self.some(words):
            act(host.node.node_id)

    def cut(self, words: list[str]) -> None:
        """`cut n1 > n2` one way, `cut n1 - n2` both ways."""
        one, way, other = self.host(words[0]).node.node_id, words[1], self.host(words[2]).node.node_id
        self.cluster.cuts |= {(one, other)} if way == ">" else {(one, other), (other, one)}

    def isolate(self, words: list[str]) -> None:
        """Cut every link of the hosts named to all others."""
        inside = {host.node.node_id for host in self.some(words)}
        for one in sorted(inside):
            for other in self.cluster.hosts:
                if other not in inside:
                    self.cluster.cuts |= {(one, other), (other, one)}

    def pgpool(self, words: list[str]) -> None:
        """`pgpool n1 dead`: lifecheck says so."""
        self.host(words[0]).pgpool = Health(words[1])

    def upstream(self, words: list[str]) -> None:
        """`upstream n1 off`: the tie-breaker does not answer this host."""
        for host in self.some(words[:-1]):
            host.upstream = words[-1] == "on"

    def vip(self, words: list[str]) -> None:
        """`vip n1 stuck`: the address cannot be taken off."""
        self.host(words[0]).vip_stuck = words[1] == "stuck"

    def wipe(self, words: list[str]) -> None:
        """The state directory of a host is lost; its next record has another id."""
        host = self.host(words[0])
        host.disk, host.record_id = None, host.record_id + 1000

    def term(self, words: list[str]) -> None:
        """`term n3 9`: what a lost candidacy left in the record of a host that is down."""
        host = self.host(words[0])
        assert host.core is None and host.disk is not None
        host.disk = replace(host.disk, term=int(words[1]), voted_for=host.node.node_id)

    def lease(self, words: list[str]) -> None:
        """`lease n1 2000`: the file says so at the next start."""
        for host in self.some(words[:-1]):
            host.settings = replace(host.settings, lease_ms=int(words[-1]))

    def replay(self, words: list[str]) -> None:
        """Deliver the last messages once more, oldest first."""
        for sender, to, message in list(self.cluster.sent):
            self.cluster.deliver(sender, to, message, self.cluster.hosts[sender].record_id)

    # --- operators ------------------------------------------------------------------------------

    def order(self, label: str, event: ev.Event) -> None:
        """An operator's order on one host."""
        self.cluster.step(self.host(label), event)

    def switch_over(self, words: list[str]) -> None:
        """`switch-over n2 to n3`, asked on n2."""
        to = self.host(words[2]).node.node_id if len(words) > 2 else NOBODY
        self.order(words[0], ev.SwitchOver(1, to))

    def change(self, words: list[str]) -> None:
        """`change n1 add n4`, `change n1 remove n3`."""
        node = self.host(words[2]).node.node_id
        add, remove = (node, NOBODY) if words[1] == "add" else (NOBODY, node)
        self.order(words[0], ev.ChangeVoters(2, add, remove))


_COMMANDS: dict[str, Callable[[Teller, list[str]], None]] = {
    "nodes": Teller.nodes,
    "set": Teller.set,
    "begin": Teller.begin,
    "run": Teller.run,
    "until": Teller.until,
    "expect": Teller.expect,
    "start": lambda teller, words: teller.each(teller.cluster.start, words),
    "kill": lambda teller, words: teller.each(teller.cluster.kill, words),
    "crash": lambda teller, words: teller.each(teller.cluster.crash, words),
    "stop": lambda teller, words: teller.each(teller.cluster.stop, words),
    "pause": lambda teller, words: teller.each(teller.cluster.pause, words),
    "continue": lambda teller, words: teller.each(teller.cluster.resume, words),
    "cut": Teller.cut,
    "isolate": Teller.isolate,
    "heal": lambda teller, words: teller.cluster.cuts.clear(),
    "double": lambda teller, words: setattr(teller.cluster.weather, "double_permille", 1000),
    "pgpool": Teller.pgpool,
    "vip": Teller.vip,
    "upstream": Teller.upstream,
    "wipe": Teller.wipe,
    "term": Teller.term,
    "lease": Teller.lease,
    "replay": Teller.replay,
    "switch-over": Teller.switch_over,
    "bootstrap": lambda teller, words: teller.order(words[0], ev.Bootstrap(3)),
    "change": Teller.change,
    "leave": lambda teller, words: teller.order(words[0], ev.Leave(4)),
}


@pytest.mark.parametrize("name", FILES)
def test_story(name: str) -> None:
    """What happens is what the file says."""
    path = FOLDER / name
    commands, _, expected = path.read_text().partition(DASHES + "\n")
    happened = Teller().tell(commands)
    if os.environ.get("PGVIGIL_REWRITE"):
        path.write_text(f"{commands}{DASHES}\n{happened}")
    else:
        assert happened == expected
