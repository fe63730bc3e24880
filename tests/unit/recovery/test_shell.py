"""Watchdog mains that talk: what one is asked for, the others do, and everybody forgets when somebody falls silent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.unit.recovery.test_follower import FakeHold, Host
from tests.unit.watchdog import peers_lab

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import NS_PER_S
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.asides import Asides
from pgvigil.watchdog.core.messages import Aside
from pgvigil.watchdog.recovery.follower import Follower
from pgvigil.watchdog.recovery.hold import Hold
from pgvigil.watchdog.recovery.plan import ABANDONED_NS, HOLD_MS
from pgvigil.watchdog.recovery.shell import Recovery


class Net:
    """Three mains, of which the third is a witness; messages arrive at once unless the way is cut."""

    def __init__(self, witness: bool = True) -> None:
        self.clock = Host()
        self.cut: set[int] = set()
        self.said: list[frames.Reply] = []
        self.asides = {node: self.wire(node) for node in (1, 2, 3)}
        self.mains = {node: self.start(node, witness) for node in (1, 2, 3)}

    def wire(self, node: int) -> Asides:
        def send(to: int, aside: Aside) -> None:
            if not {node, to} & self.cut:
                self.asides[to].take(node, aside)

        return Asides(1, send, pytest.fail)

    def start(self, node: int, witness: bool) -> Recovery:
        made = peers_lab.settings(node, 3, 9000)
        nodes = tuple(replace(one, witness=witness and one.id == 3) for one in made.nodes)
        main = Recovery(
            replace(made, nodes=nodes), cast(ControlServer, self), self.asides[node], lambda: self.clock.now_ns
        )
        main.follower = Follower(lambda: cast(Hold, FakeHold(self.clock)), lambda: self.clock.now_ns)
        return main

    def reply(self, address: bytes, reply: frames.Reply) -> None:
        frames.unpack(frames.pack(reply, "watchdog main", 1, 1))  # as on the wire: it must fit
        self.said.append(reply)

    def ask(self, *arguments: str) -> frames.Reply:
        self.mains[1].request(b"a", frames.Request(7, "recovery", arguments))
        return self.said[-1]

    def nodes(self, *arguments: str) -> list[dict[str, Any]]:
        reply = self.ask(*arguments)
        assert reply.accepted, reply
        found: list[dict[str, Any]] = json.loads(reply.body)["nodes"]
        return found

    def go(self, seconds: float) -> None:
        """Time passes as in the loop: whoever is due is ticked."""
        end_ns = self.clock.now_ns + int(seconds * NS_PER_S)
        while self.clock.now_ns < end_ns:
            wakes = [at for main in self.mains.values() if (at := main.wake()) is not None]
            self.clock.now_ns = max(self.clock.now_ns, min([end_ns, *wakes]))
            for main in self.mains.values():
                at_ns = main.wake()
                if at_ns is not None and self.clock.now_ns >= at_ns:
                    main.tick(self.clock.now_ns)

    def held(self) -> list[int]:
        return [node for node, main in self.mains.items() if main.follower.is_held(self.clock.now_ns)]


def test_others_are_ready_hold_and_let_go_and_a_witness_is_not_asked() -> None:
    net = Net()
    assert [main.wake() for main in net.mains.values()] == [None] * 3
    (two,) = net.nodes("ready", "5")
    assert (two["id"], two["label"], two["state"]) == (2, "pg02", "ready") and net.held() == []
    (two,) = net.nodes("hold", "5")
    assert two["state"] == "holds" and two["left_ms"] > HOLD_MS - 200 and net.held() == [2]
    (after,) = net.nodes("release", "5")
    assert after["state"] == "ready" and net.held() == []
    net.go(10)
    assert [main.wake() for main in net.mains.values()] == [None] * 3


def test_as_long_as_it_is_wanted_it_is_renewed() -> None:
    net = Net(witness=False)
    marks = set()
    for _ in range(16):
        for node in net.nodes("hold", "5"):
            marks.add(tuple(node["unbroken"]))
            assert node["state"] == "holds"
        net.go(0.5)
    assert net.held() == [2, 3] and len(marks) == 1


def test_a_command_line_that_is_gone_is_noticed_and_everybody_gets_through() -> None:
    net = Net()
    net.nodes("hold", "5")
    net.go((ABANDONED_NS - 1) / NS_PER_S)
    assert net.held() == [2]
    net.go(0.1)
    assert net.held() == []


def test_a_coordinator_that_is_gone_is_survived_by_the_time_out_only() -> None:
    net = Net()
    net.nodes("hold", "5")
    net.cut.add(1)
    net.go((HOLD_MS - 1) / 1000)
    assert net.held() == [2]
    net.go(0.1)
    assert net.held() == []
    (two,) = net.nodes("hold", "6")
    assert two["state"] == "silent"


def test_a_coordinator_that_starts_again_goes_on_with_the_same_hold() -> None:
    net = Net()
    (before,) = net.nodes("hold", "5")
    net.go(2)
    net.asides[1] = net.wire(1)
    net.mains[1] = net.start(1, witness=True)
    (after,) = net.nodes("hold", "5")
    assert after["state"] == "holds" and after["unbroken"] == before["unbroken"]


def test_a_coordinator_that_ends_releases() -> None:
    net = Net()
    net.nodes("hold", "5")
    net.mains[1].close()
    assert net.held() == []


def test_a_node_that_ends_holds_nobody_back() -> None:
    net = Net()
    net.nodes("hold", "5")
    net.mains[2].close()
    assert net.held() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected 'recovery ready|hold|release CAUSE'"),
        (("wait", "5"), "expected 'recovery"),
        (("hold", "five"), "cause 'five', expected a number"),
        (("hold", "0"), "cause '0', expected a number"),
        (("hold", "9" * 19), "expected a number of 1 to"),
        (("hold", "9" * 200), "expected a number of 1 to"),
    ],
)
def test_what_cannot_be_wanted_is_refused(arguments: tuple[str, ...], words: str) -> None:
    reply = Net().ask(*arguments)
    assert not reply.accepted and words in reply.message


def test_one_recovery_of_a_node_at_a_time() -> None:
    net = Net()
    net.nodes("hold", "5")
    reply = net.ask("hold", "6")
    assert not reply.accepted and reply.message == "another 'pgvigil recovery' of this node is not over yet"
    net.nodes("release", "5")
    assert net.nodes("hold", "6")[0]["state"] == "holds"


def test_a_message_that_is_nothing_is_the_senders_mistake() -> None:
    net = Net()
    with pytest.raises(PeerError, match="begins with"):
        net.mains[2]._take(1, Aside("recovery hold", 1, 1, b"?"))
    assert net.held() == []
