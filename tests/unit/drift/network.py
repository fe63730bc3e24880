"""Nodes that compare their settings over a network of lists: what is sent waits until the test lets it arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pgvigil.watchdog.core.events import Note
from pgvigil.watchdog.drift.exchange import NOBODY, Effect, Exchange, Send

SECOND = 10**9
SAME = {"nodes": "1 2 3", "vip.addresses": "10.0.0.100/24", "vip.driver": "netlink", "cluster.lease_ms": "1000"}
OTHER_VIP = {**SAME, "vip.addresses": "10.0.0.101/24"}
OTHER_DRIVER = {**SAME, "vip.driver": "command"}


@dataclass
class Node:
    """One node: what it would do outside."""

    exchange: Exchange
    boot: int = 1
    number: int = 0
    obstacle: str = ""
    notes: list[str] = field(default_factory=list)


Sent = tuple[int, int, int, int, bytes]
"""Sender, receiver, boot, number, body."""


class Net:
    """Nodes 1 to n with these settings; `down` nodes neither hear nor speak."""

    def __init__(self, *settings: Mapping[str, str]) -> None:
        self.now_ns = 1000 * SECOND
        self.leader = NOBODY
        self.down: set[int] = set()
        self.way: list[Sent] = []
        self.lost: Callable[[Sent], bool] = lambda sent: False
        self.labels = {number: f"pg{number:02}" for number in range(1, len(settings) + 1)}
        self.nodes = {
            number: Node(Exchange(number, self.labels, given)) for number, given in enumerate(settings, start=1)
        }

    def restart(self, number: int, settings: Mapping[str, str]) -> None:
        """A new watchdog main of this node, with these settings."""
        boot = self.nodes[number].boot + 1
        self.nodes[number] = Node(Exchange(number, self.labels, settings), boot)

    def carry(self, number: int, effects: list[Effect]) -> None:
        """What a node wants done."""
        node = self.nodes[number]
        for effect in effects:
            if isinstance(effect, Send):
                node.number += 1
                self.way.append((number, effect.to, node.boot, node.number, effect.body))
            elif isinstance(effect, Note):
                node.notes.append(effect.text)
            else:
                node.obstacle = effect.reason

    def arrive(self) -> None:
        """Everything that is on its way, and what it causes, unless it is lost."""
        while self.way:
            sent = self.way.pop(0)
            sender, to, boot, number, body = sent
            if self.down & {sender, to} or self.lost(sent):
                continue
            self.carry(to, self.nodes[to].exchange.take(sender, boot, number, body, self.now_ns))

    def tick(self) -> None:
        """One second of every node; nothing arrives."""
        self.now_ns += SECOND
        for number, node in self.nodes.items():
            if number not in self.down:
                self.carry(number, node.exchange.tick(self.now_ns, self.leader, tuple(self.labels)))

    def run(self, seconds: int = 3) -> None:
        """Time that passes on a network that works."""
        for _ in range(seconds):
            self.tick()
            self.arrive()

    def out(self) -> list[int]:
        """The nodes that are kept out."""
        return [number for number, node in self.nodes.items() if node.obstacle]

    def keys(self, number: int) -> list[str]:
        """In what a node differs from the leader."""
        return [one.key for one in self.nodes[number].exchange.found]
