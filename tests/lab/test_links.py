"""Links and upstream servers on a real kernel: what the probes see, and what a leader without a successor does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lab.vip_network import Cable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.links import LinkProbe
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.settings import LinkSettings
from pgvigil.watchdog.demo.cluster import Cluster, NodeView
from pgvigil.watchdog.demo.lab import CLIENT_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.run import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

LIMIT_S = 30


# --- the probe alone --------------------------------------------------------------------------------


class Watched:
    """A link probe inside the namespace `node`; `va` is the cable to the peer and carries the virtual IP."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.loop = Loop()
        self.changes: list[Reading] = []
        with cable.inside("node"):
            self.probe = LinkProbe(LinkSettings(("va", "vd"), "va", 20), self.loop, self.changes.append, boottime_ns())
            self.probe.tick(boottime_ns())
        self.loop.join(self.probe)

    def until(self, *words: str) -> Reading:
        """Go round until the evidence has all of these words."""
        end_ns = boottime_ns() + LIMIT_S * NS_PER_S
        with self.cable.inside("node"):  # where a socket is opened counts
            while not all(word in self.probe.reading.evidence for word in words):
                assert boottime_ns() < end_ns, f"expected {words}, found {self.probe.reading}"
                self.loop.run_once(50 * NS_PER_MS)
        return self.probe.reading


@pytest.fixture
def watched() -> Iterator[Watched]:
    cable = Cable()
    try:
        cable.run("node", "ip link add vd type veth peer name ve && ip link set ve up && ip link set vd up")
        watched = Watched(cable)
        yield watched
        watched.probe.close()
        watched.loop.close()
    finally:
        cable.close()


def test_the_kernel_tells_of_every_way_to_lose_a_link_and_of_its_return(watched: Watched) -> None:
    cable = watched.cable
    assert watched.until("va and vd are up").health is Health.ALIVE
    assert watched.probe.wake() is None
    cable.run("peer", "ip link set vb down")
    assert watched.until("va is down for", "no carrier").health is Health.DEAD
    cable.run("peer", "ip link set vb up")
    assert watched.until("va and vd are up").health is Health.ALIVE
    cable.run("node", "ip link set va down")
    assert watched.until("va is down for", "switched off").health is Health.DEAD
    cable.run("node", "ip link set va up")
    watched.until("va and vd are up")
    cable.run("node", "ip link del vd")
    assert watched.until("va is up; interface vd is down for", "it does not exist").health is Health.ALIVE
    cable.run("node", "ip link add vx type veth peer name ve && ip link set ve up && ip link set vx up name vd")
    watched.until("va and vd are up")
    cable.run("node", "ip link add vb0 type bridge && ip link set vd master vb0 && ip link set vd nomaster")
    cable.run("node", "ip link set vd down")
    watched.until("va is up; interface vd is down for", "switched off")


# --- a node of its own ------------------------------------------------------------------------------


class Alone:
    """A cluster of one node: whatever happens to its network, nobody else can lead."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node: Host = lab.node(1)
        self.cluster = Cluster(lab)
        self.cluster.changes["lifecheck"] = {
            "methods": ["heartbeat", "upstream"],
            "upstream_servers": [CLIENT_ADDRESS],
            "upstream_interval_ms": 200,
            "upstream_timeout_ms": 200,
        }
        self.cluster.configure()
        self.cluster.start(lab.nodes)

    def view(self) -> NodeView:
        return self.cluster.status(self.node)

    def own(self) -> dict[str, Any]:
        """What status says of this node."""
        raw = self.view().raw
        return dict(json.loads(raw)["nodes"][0]) if raw else {}

    def wait_fit(self) -> None:
        wait_until(self._leads_fit, LIMIT_S, "a leader with the VIP whom nothing speaks against")

    def leads_without_vip(self) -> bool:
        """Whether it leads on, but carries nothing."""
        view = self.view()
        return view.role == "leader" and not view.vip_up

    def _leads_fit(self) -> bool:
        view = self.view()
        return view.role == "leader" and view.vip_up and self.own().get("unfit") is None


@pytest.fixture(scope="module")
def alone() -> Iterator[Alone]:
    with Lab(nodes=1) as lab:
        yield Alone(lab)


def test_a_leader_without_a_successor_lets_go_of_the_vip_while_its_link_is_down(alone: Alone) -> None:
    alone.wait_fit()
    term = alone.view().term
    alone.lab.cut(alone.node)
    wait_until(alone.leads_without_vip, LIMIT_S, "the VIP to be let go")
    own = alone.own()
    assert own["unfit"].startswith("interface eth0 is down for ") and own["electable"] is False
    assert [check["health"] for check in own["checks"] if check["method"] == "links"] == ["dead"]
    alone.lab.restore(alone.node)
    alone.wait_fit()
    assert alone.view().term == term, "it led all the time"


def test_a_leader_without_a_successor_keeps_the_vip_when_it_is_isolated(alone: Alone) -> None:
    alone.wait_fit()
    rule = f"{alone.lab.between([alone.node], [alone.lab.client])} ip protocol icmp drop"
    alone.lab.drop([rule])
    wait_until(lambda: alone.own().get("unfit") is not None, LIMIT_S, "isolation")
    assert alone.own()["unfit"].startswith(f"{CLIENT_ADDRESS} has not answered for ")
    view = alone.view()
    assert view.role == "leader" and view.vip_up
    alone.lab.heal()
    alone.wait_fit()
