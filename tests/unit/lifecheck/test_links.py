"""Links: what counts as down, the debounce in both directions, and the probe against scripted kernel events."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.netlink import (
    IFF_RUNNING,
    IFF_UP,
    IFINFO,
    IFLA_IFNAME,
    IFLA_OPERSTATE,
    RTM_DELLINK,
    RTM_NEWLINK,
    KernelRefusal,
    Link,
    attribute,
    message,
    parse_link,
    text,
)
from pgvigil.lifecheck.core.links import LinksMethod
from pgvigil.lifecheck.probes import links
from pgvigil.lifecheck.probes.links import LinkProbe, trouble_of
from pgvigil.lifecheck.probes.reading import Reading
from pgvigil.lifecheck.settings import LinkSettings

MS = NS_PER_MS
UP, DOWN = IFF_UP | IFF_RUNNING, IFF_UP
BRIDGE = 7  # AF_BRIDGE


# --- the core ---------------------------------------------------------------------------------------


def method(interfaces: tuple[str, ...] = (), vip: str = "", debounce_ms: int = 100) -> LinksMethod:
    """All of them up at 0."""
    made = LinksMethod(interfaces, vip, debounce_ms * MS)
    for name in made.names:
        made.seen(name, "", 0)
    return made


def test_nothing_is_said_before_every_interface_was_looked_at() -> None:
    made = LinksMethod(("eth0",), "eth1", 0)
    made.seen("eth0", "", 0)
    assert made.opinion(0).health is Health.UNKNOWN
    made.seen("eth1", "", 0)
    assert made.opinion(0).health is Health.ALIVE
    assert made.opinion(0).evidence == "eth0 and eth1 are up"


def test_what_is_seen_first_counts_at_once() -> None:
    made = LinksMethod((), "eth0", 100 * MS)
    made.seen("eth0", "no carrier", 5 * MS)
    assert made.opinion(57 * MS).health is Health.DEAD
    assert made.opinion(57 * MS).evidence == "interface eth0 is down for 52 ms (no carrier)"
    assert made.wake() is None


def test_a_link_is_down_after_the_debounce_time_and_counted_from_when_it_was_seen() -> None:
    made = method(vip="eth0")
    made.seen("eth0", "no carrier", 1000 * MS)
    assert made.wake() == 1100 * MS
    assert not made.step(1099 * MS)
    assert made.opinion(1099 * MS).health is Health.ALIVE
    assert made.step(1100 * MS)
    assert made.opinion(1100 * MS).evidence == "interface eth0 is down for 100 ms (no carrier)"
    assert made.wake() is None


def test_it_is_up_again_only_after_the_debounce_time() -> None:
    made = method(vip="eth0")
    made.seen("eth0", "no carrier", 1000 * MS)
    made.step(1100 * MS)
    made.seen("eth0", "", 2000 * MS)
    assert not made.step(2099 * MS)
    assert made.opinion(2099 * MS).health is Health.DEAD
    assert made.step(2100 * MS)
    assert made.opinion(2100 * MS).health is Health.ALIVE


def test_flaps_shorter_than_the_debounce_time_never_count_in_either_direction() -> None:
    made = method(vip="eth0")
    for at_ms in range(1000, 3000, 100):
        made.seen("eth0", "no carrier" if at_ms % 200 == 0 else "", at_ms * MS)
        assert not made.step((at_ms + 99) * MS)
        assert made.opinion(at_ms * MS).health is Health.ALIVE
    made.seen("eth0", "no carrier", 3000 * MS)
    assert made.step(3100 * MS)
    for at_ms in range(4000, 6000, 100):
        made.seen("eth0", "" if at_ms % 200 == 0 else "no carrier", at_ms * MS)
        assert not made.step((at_ms + 99) * MS)
        assert made.opinion(at_ms * MS).health is Health.DEAD
    assert made.opinion(6000 * MS).evidence == "interface eth0 is down for 3000 ms (no carrier)"


def test_repeated_news_of_the_same_do_not_put_the_verdict_off_and_the_newest_reason_is_shown() -> None:
    made = method(vip="eth0")
    made.seen("eth0", "no carrier", 1000 * MS)
    made.seen("eth0", "no carrier", 1050 * MS)
    assert made.step(1100 * MS)
    made.seen("eth0", "removed", 1200 * MS)
    assert not made.step(1300 * MS)
    assert made.opinion(1300 * MS).evidence == "interface eth0 is down for 300 ms (removed)"


def test_without_debounce_every_change_counts_at_once() -> None:
    made = method(vip="eth0", debounce_ms=0)
    made.seen("eth0", "switched off", 1000 * MS)
    assert made.step(1000 * MS)
    assert made.opinion(1000 * MS).health is Health.DEAD


def test_monitored_interfaces_count_only_all_together() -> None:
    made = method(("eth1", "eth2"), vip="eth0", debounce_ms=0)
    made.seen("eth1", "no carrier", 10 * MS)
    assert made.step(10 * MS)
    opinion = made.opinion(30 * MS)
    assert opinion.health is Health.ALIVE
    assert opinion.evidence == "eth2 and eth0 are up; interface eth1 is down for 20 ms (no carrier)"
    made.seen("eth2", "switched off", 20 * MS)
    assert made.step(20 * MS)
    opinion = made.opinion(30 * MS)
    assert opinion.health is Health.DEAD
    assert opinion.evidence == (
        "interface eth1 is down for 20 ms (no carrier) and interface eth2 is down for 10 ms (switched off)"
    )


def test_the_interface_of_the_vip_counts_alone_also_when_it_is_one_of_the_monitored() -> None:
    made = method(("eth0", "eth1"), vip="eth0", debounce_ms=0)
    assert made.names == ("eth0", "eth1")
    made.seen("eth0", "no carrier", 0)
    made.step(0)
    assert made.opinion(0).health is Health.DEAD


# --- the probe --------------------------------------------------------------------------------------


class Kernel:
    """Interfaces by name, and the events about them; `dropped` makes the next reading fail with ENOBUFS."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.links: dict[str, Link] = {}
        self.alias: dict[str, str] = {}
        self.datagrams: list[bytes] = []
        self.asked: list[str] = []
        self.dropped = False
        self.refuses = 0

    def has(self, index: int, name: str, flags: int = UP, oper_state: int = 6) -> None:
        """State without an event."""
        self.links[name] = parse_link(body(index, name, flags, oper_state))

    def tell(self, index: int, name: str, flags: int = UP, oper_state: int = 6, family: int = 0) -> None:
        """State with an event."""
        self.has(index, name, flags, oper_state)
        self.event(RTM_NEWLINK, body(index, name, flags, oper_state, family))

    def remove(self, index: int, name: str) -> None:
        self.links.pop(name)
        self.event(RTM_DELLINK, body(index, name, 0, 2))

    def event(self, kind: int, content: bytes) -> None:
        self.datagrams.append(message(kind, 0, 0, content))
        os.write(self.writer, b"x")

    def find_link(self, _netlink: object, name: str) -> Link:
        self.asked.append(name)
        if self.refuses:
            raise KernelRefusal(f"interface {name}", self.refuses)
        try:
            return self.links[self.alias.get(name, name)]
        except KeyError:
            raise KernelRefusal(f"interface {name}", errno.ENODEV) from None


class Socket:
    """The part of `NetlinkSocket` that the probe uses."""

    kernel: Kernel
    opened = 0

    def __init__(self, _protocol: int, groups: int = 0) -> None:
        self._listens = groups != 0
        self.fd = self.kernel.reader
        type(self).opened += 1

    def available(self) -> Iterator[bytes]:
        os.read(self.fd, 4096)
        waiting, self.kernel.datagrams = self.kernel.datagrams, []
        if self.kernel.dropped:
            self.kernel.dropped = False
            raise KernelRefusal("netlink events", errno.ENOBUFS)
        yield from waiting

    def close(self) -> None:
        type(self).opened -= 1


def body(index: int, name: str, flags: int, oper_state: int, family: int = 0) -> bytes:
    head = IFINFO.pack(family, 0, index, flags, 0)
    return head + text(IFLA_IFNAME, name) + attribute(IFLA_OPERSTATE, bytes([oper_state]))


class Bench:
    """A probe in a loop."""

    def __init__(self, kernel: Kernel, settings: LinkSettings) -> None:
        self.kernel = kernel
        self.loop = Loop()
        self.changes: list[Reading] = []
        self.probe = LinkProbe(settings, self.loop, self.changes.append, boottime_ns())
        self.loop.join(self.probe)
        self.probe.tick(boottime_ns())

    def health(self) -> Health:
        """The verdict of now."""
        return self.probe.reading.health

    def turn(self) -> Reading:
        """Let the probe read what has been told."""
        if self.kernel.datagrams or self.kernel.dropped:
            self.loop.run_once(10 * NS_PER_S)
        return self.probe.reading

    def until(self, health: Health) -> Reading:
        """Go round until that is the verdict."""
        end_ns = boottime_ns() + 20 * NS_PER_S
        while self.probe.reading.health is not health:
            assert boottime_ns() < end_ns
            self.loop.run_once(10 * MS)
        return self.probe.reading


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    kernel.has(2, "eth0")
    kernel.has(3, "eth1")
    monkeypatch.setattr(Socket, "kernel", kernel, raising=False)
    monkeypatch.setattr(Socket, "opened", 0)
    monkeypatch.setattr(links, "NetlinkSocket", Socket)
    monkeypatch.setattr(links, "find_link", kernel.find_link)
    yield kernel
    os.close(kernel.reader)
    os.close(kernel.writer)


@pytest.fixture
def bench(kernel: Kernel) -> Iterator[Bench]:
    """Both interfaces are monitored, eth0 carries the virtual IP, and nothing is debounced."""
    bench = Bench(kernel, LinkSettings(("eth0", "eth1"), "eth0", 0))
    yield bench
    bench.probe.close()
    bench.loop.close()
    assert Socket.opened == 0


def test_all_up_is_alive_and_nothing_wakes_the_probe_any_more(bench: Bench) -> None:
    assert bench.health() is Health.ALIVE
    assert bench.probe.reading.evidence == "eth0 and eth1 are up"
    assert bench.probe.wake() is None
    assert Socket.opened == 1


def test_an_event_carries_the_state_and_nothing_is_asked(bench: Bench) -> None:
    bench.kernel.asked.clear()
    bench.kernel.tell(2, "eth0", DOWN, 2)
    reading = bench.turn()
    assert reading.health is Health.DEAD
    assert reading.evidence.startswith("interface eth0 is down for ") and reading.evidence.endswith(" (no carrier)")
    bench.kernel.tell(2, "eth0")
    assert bench.turn().health is Health.ALIVE
    assert [change.health for change in bench.changes] == [Health.ALIVE, Health.DEAD, Health.ALIVE]
    assert bench.kernel.asked == []


def test_words_about_a_link_that_is_down_are_kept_fresh(bench: Bench) -> None:
    bench.kernel.tell(2, "eth0", DOWN, 2)
    bench.turn()
    due_ns = bench.probe.wake()
    assert due_ns is not None
    bench.probe.tick(due_ns + 5000 * MS)
    words = bench.probe.reading.evidence
    assert int(words.split(" ms")[0].rpartition(" ")[2]) >= 5000
    assert len(bench.changes) == 2


def test_a_debounced_change_counts_when_its_time_has_come(kernel: Kernel) -> None:
    bench = Bench(kernel, LinkSettings((), "eth0", 30))
    kernel.tell(2, "eth0", 0, 2)
    assert bench.turn().health is Health.ALIVE
    assert "switched off" in bench.until(Health.DEAD).evidence
    bench.probe.close()
    bench.loop.close()


def test_one_of_two_monitored_links_is_news_but_no_verdict(bench: Bench) -> None:
    bench.kernel.tell(3, "eth1", DOWN, 2)
    assert bench.turn().health is Health.ALIVE
    assert "interface eth1 is down" in bench.changes[-1].evidence and len(bench.changes) == 2


def test_an_interface_that_is_removed_and_made_anew_is_followed(bench: Bench) -> None:
    bench.kernel.remove(2, "eth0")
    assert "(it does not exist)" in bench.turn().evidence
    bench.kernel.tell(9, "eth0")
    assert bench.turn().health is Health.ALIVE
    bench.kernel.event(RTM_DELLINK, body(2, "eth0", 0, 2))  # late news of the old one
    assert bench.turn().health is Health.ALIVE
    bench.kernel.tell(9, "eth0", DOWN, 2)
    assert bench.turn().health is Health.DEAD


def test_an_interface_that_is_renamed_is_gone_and_comes_back(bench: Bench) -> None:
    bench.kernel.links.pop("eth0")
    bench.kernel.tell(2, "lan0")
    assert "(it does not exist)" in bench.turn().evidence
    bench.kernel.links.pop("lan0")
    bench.kernel.tell(2, "eth0")
    assert bench.turn().health is Health.ALIVE


def test_an_alternative_name_is_as_good(kernel: Kernel) -> None:
    kernel.alias["lan"] = "eth0"
    bench = Bench(kernel, LinkSettings(("lan",), "eth0", 0))
    kernel.tell(2, "eth0", DOWN, 2)
    assert bench.turn().health is Health.DEAD
    assert bench.probe.reading.evidence.count("is down") == 2
    bench.probe.close()
    bench.loop.close()


def test_the_ports_of_a_bridge_are_told_of_in_messages_that_mean_something_else(bench: Bench) -> None:
    bench.kernel.event(RTM_DELLINK, body(2, "eth0", UP, 6, BRIDGE))  # it left a bridge; it was not removed
    assert bench.turn().health is Health.ALIVE


def test_other_interfaces_concern_nobody(bench: Bench) -> None:
    bench.kernel.asked.clear()
    bench.kernel.tell(40, "veth7", DOWN, 2)
    bench.kernel.remove(40, "veth7")
    bench.kernel.event(99, b"")
    assert bench.turn().health is Health.ALIVE
    assert bench.kernel.asked == [] and len(bench.changes) == 1


def test_after_dropped_events_all_are_read_anew(bench: Bench) -> None:
    bench.kernel.tell(2, "eth0", DOWN, 2)
    bench.kernel.dropped = True
    assert bench.turn().health is Health.DEAD
    assert bench.kernel.asked[-2:] == ["eth0", "eth1"]


def test_an_interface_that_is_missing_from_the_start_counts_as_down(kernel: Kernel) -> None:
    bench = Bench(kernel, LinkSettings((), "eth7", 0))
    assert bench.health() is Health.DEAD
    assert "eth7 is down for 0 ms (it does not exist)" in bench.probe.reading.evidence
    kernel.tell(7, "eth7")
    assert bench.turn().health is Health.ALIVE
    bench.probe.close()
    bench.loop.close()


def test_a_kernel_that_does_not_tell_is_no_reason_against_the_node(kernel: Kernel) -> None:
    kernel.refuses = errno.EPERM
    bench = Bench(kernel, LinkSettings((), "eth0", 0))
    assert bench.health() is Health.UNKNOWN
    assert "links are not watched: interface eth0: EPERM" in bench.probe.reading.evidence
    assert Socket.opened == 0
    due_ns = bench.probe.wake()
    assert due_ns is not None
    kernel.refuses = 0
    bench.probe.tick(due_ns)
    assert bench.health() is Health.ALIVE
    bench.probe.close()
    bench.loop.close()


@pytest.mark.parametrize(
    ("flags", "oper_state", "trouble"),
    [
        (UP, 6, ""),
        (UP, 0, ""),  # loopback, dummy: their state is unknown
        (0, 2, "switched off"),
        (DOWN, 2, "no carrier"),
        (DOWN, 3, "the interface below it is down"),
        (DOWN, 5, "dormant"),
    ],
)
def test_why_an_interface_is_down(flags: int, oper_state: int, trouble: str) -> None:
    assert trouble_of(parse_link(body(2, "eth0", flags, oper_state))) == trouble


def test_the_real_kernel_knows_loopback_and_denies_what_is_not_there() -> None:
    loop = Loop()
    changes: list[Reading] = []
    probe = LinkProbe(LinkSettings(("lo",), "pgvnosuch0", 0), loop, changes.append, boottime_ns())
    probe.tick(boottime_ns())
    assert probe.reading.evidence.endswith("interface pgvnosuch0 is down for 0 ms (it does not exist)")
    probe.close()
    loop.close()
