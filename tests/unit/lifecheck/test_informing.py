"""What pgpool-II's watchdog is told and when, as stories against its node list."""

from __future__ import annotations

import itertools
from dataclasses import replace

from pgvigil.ipc.frames import Health, WatchdogMember
from pgvigil.lifecheck.core.informing import (
    ALIVE_AGAIN_NS,
    LIST,
    LIST_NS,
    MAX_DEAD_ATTEMPTS,
    SETTLED_NS,
    Informing,
    Kind,
    Order,
    Wish,
)
from pgvigil.lifecheck.core.pgpool_ipc import ListedNode, NodeList
from pgvigil.lifecheck.settings import PgpoolAddress

MS = 1_000_000
LEADER, STANDBY, LOST, SHUTDOWN = 4, 7, 8, 10
ADDRESSES = tuple(PgpoolAddress(node, f"pg0{node}", (f"10.0.0.{node}", f"pg0{node}"), 9999) for node in (1, 2, 3))
DEAD, ALIVE = Wish(Health.DEAD, "silent"), Wish(Health.ALIVE, "heard")


class Story:
    """Node 1 with pgpool-II's node 10, beside 2 (11, the leader) and 3 (12)."""

    def __init__(self) -> None:
        self.plan = Informing(1, ADDRESSES, 0)
        self.now_ns = 0
        self.nodes = [
            ListedNode(10, STANDBY, "10.0.0.1", 9999, 1, ""),
            ListedNode(11, LEADER, "PG02", 9999, 1, ""),
            ListedNode(12, STANDBY, "10.0.0.3", 9999, 1, ""),
        ]
        self.said: list[tuple[int, bool]] = []
        self.read()

    def read(self, *changes: tuple[int, int]) -> None:
        """The list is read; `changes` are pgpool ids with their new states."""
        for pgpool_id, state in changes:
            place = pgpool_id - 10
            self.nodes[place] = replace(self.nodes[place], state=state)
        self.plan.listed(NodeList(1, False, tuple(self.nodes)), self.now_ns)

    def go(self, ms: int, *changes: tuple[int, int]) -> list[tuple[int, bool]]:
        """Time passes and orders are carried out; what was said. `changes` happen in the first list that is read."""
        end_ns, before = self.now_ns + ms * MS, len(self.said)
        waiting = changes
        while self.now_ns <= end_ns:
            order = self.plan.next(self.now_ns)
            if order is None:
                self.now_ns += 50 * MS
            elif order.kind is Kind.LIST:
                self.read(*waiting)
                waiting = ()
            else:
                self.said.append((order.pgpool_id, order.alive))
                self.plan.said(order, self.now_ns)
        return self.said[before:]

    def wish(self, **wishes: Wish) -> None:
        for name, wish in wishes.items():
            self.plan.wish(int(name[1:]), wish)


def test_without_a_difference_only_the_list_is_read() -> None:
    story = Story()
    story.wish(n1=ALIVE, n2=ALIVE, n3=ALIVE)
    assert story.plan.next(0) is None and story.plan.wake() == LIST_NS
    assert story.plan.next(LIST_NS) == LIST
    assert story.go(10_000) == []


def test_a_silent_node_is_told_at_once_in_its_own_words_and_once() -> None:
    story = Story()
    story.wish(n2=DEAD)
    assert story.plan.next(story.now_ns) == Order(Kind.STATUS, 11, False, "pgvigil: silent")
    assert story.go(300, (11, LOST)) == [(11, False)]
    assert story.go(60_000) == []


def test_a_node_that_pgpool_takes_back_is_not_thrown_out_again_but_told_to_the_operator() -> None:
    story = Story()
    story.wish(n2=DEAD)
    assert story.go(300, (11, LOST)) == [(11, False)]
    assert story.go(60_000, (11, LEADER)) == []
    assert story.plan.trouble() == "pgpool-II has taken PG02:9999 back, which pgvigil does not hear"
    story.wish(n2=ALIVE)
    assert story.go(5_000) == [] and story.plan.trouble() == ""


def test_a_word_that_had_no_effect_is_repeated_but_not_for_ever() -> None:
    story = Story()
    story.wish(n3=DEAD)
    assert story.go(30_000) == [(12, False)] * MAX_DEAD_ATTEMPTS


def test_alive_is_said_only_of_a_node_that_is_lost_now() -> None:
    story = Story()
    story.wish(n3=DEAD)
    story.go(300, (12, LOST))
    story.now_ns += 1_000 * MS
    story.wish(n3=ALIVE)
    assert story.plan.next(story.now_ns) == LIST, "the list is too old to say so"
    assert story.go(0, (12, STANDBY)) == [], "it had come back by itself"
    story.go(2_500, (12, LOST))
    assert story.said[-1] == (12, True)


def test_alive_is_repeated_ever_more_seldom_while_the_node_stays_lost() -> None:
    story = Story()
    story.read((12, LOST))
    story.wish(n3=ALIVE)
    times: list[int] = []
    while len(times) < 4:
        if story.go(0) == [(12, True)]:
            times.append(story.now_ns)
        story.now_ns += 100 * MS
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] >= ALIVE_AGAIN_NS and gaps[1] >= 2 * ALIVE_AGAIN_NS and gaps[2] >= 4 * ALIVE_AGAIN_NS


def test_nothing_is_said_of_a_node_that_pgpool_knows_to_be_gone() -> None:
    story = Story()
    story.read((11, SHUTDOWN), (12, 0))
    story.wish(n2=DEAD, n3=ALIVE)
    assert story.go(10_000) == []


def test_the_own_watchdog_is_told_when_its_process_is_gone_but_not_in_its_first_seconds() -> None:
    story = Story()
    story.wish(n1=DEAD)
    assert story.go(SETTLED_NS // MS - 100) == []
    assert story.go(2_500, (10, SHUTDOWN)) == [(10, False)]


def test_a_new_start_of_pgpool_begins_the_wait_anew() -> None:
    story = Story()
    story.now_ns = SETTLED_NS
    story.plan.failed(1_000 * MS, story.now_ns)
    assert story.plan.members() == () and story.plan.next(story.now_ns) is None
    story.wish(n1=DEAD)
    story.now_ns += 1_000 * MS
    assert story.plan.next(story.now_ns) == LIST
    story.read()
    assert story.go(1_500) == []
    story.wish(n1=ALIVE)
    assert story.go(5_000) == []


def test_what_a_watchdog_that_has_ended_was_told_is_told_to_the_next_but_not_after_a_mere_silence() -> None:
    story = Story()
    story.wish(n3=DEAD)
    assert story.go(300, (12, LOST)) == [(12, False)]
    story.plan.failed(0, story.now_ns)
    assert story.go(5_000, (12, STANDBY)) == [], "it hung for a while and took the node back"
    story.plan.failed(0, story.now_ns, gone=True)
    assert story.go(300) == [(12, False)]


def test_less_than_certain_death_ends_the_own_watchdog_only_if_another_could_lead() -> None:
    story = Story()
    story.now_ns = SETTLED_NS
    story.wish(n1=Wish(Health.DEAD, "query timed out", certain=False), n2=ALIVE)
    assert story.go(5_000) == [], "node 2 leads already, and node 3 is not known to be fit"
    story.wish(n3=ALIVE)
    assert story.go(300, (10, SHUTDOWN)) == [(10, False)]


def test_after_a_restart_of_lifecheck_a_lost_node_is_brought_back() -> None:
    story = Story()
    story.read((11, LOST))
    story.wish(n1=ALIVE, n2=ALIVE, n3=ALIVE)
    assert story.go(100) == [(11, True)]


def test_a_node_of_pgpool_that_the_configuration_does_not_know_is_shown_and_left_alone() -> None:
    story = Story()
    story.nodes[2] = replace(story.nodes[2], host="10.9.9.9")
    story.read()
    story.wish(n1=ALIVE, n2=ALIVE, n3=DEAD)
    assert story.go(10_000) == []
    assert story.plan.trouble() == "10.9.9.9:9999 of pgpool-II is no node's pgpool_host and pgpool_port"
    assert story.plan.members()[2] == WatchdogMember(12, 0, "10.9.9.9:9999", "standby", 1, Health.UNKNOWN)


def test_the_socket_of_another_node_is_told_nothing() -> None:
    story = Story()
    story.nodes.reverse()
    story.read()
    story.wish(n1=DEAD, n2=DEAD, n3=DEAD)
    assert story.go(10_000) == []
    assert "the socket is that of 10.0.0.3:9999" in story.plan.trouble()


def test_a_new_sentence_alone_is_no_news() -> None:
    story = Story()
    story.wish(n2=DEAD)
    story.go(300, (11, LOST))
    story.wish(n2=Wish(Health.DEAD, "silent for longer"))
    assert story.go(10_000) == []
    assert story.plan.members()[1].told is Health.DEAD
