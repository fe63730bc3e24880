"""The order of things in a recovery, told as stories in a world without sockets, whose clock is told to go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import BackendStatus, NodeInfo, Role
from pgvigil.watchdog.recovery.drive import Drive
from pgvigil.watchdog.recovery.plan import Wish
from pgvigil.watchdog.recovery.world import ORDER_THREAD, Failed, Held, Holds, Unknown, World

DOWN, UP = BackendStatus.DOWN, BackendStatus.UP
MARK = (99, 0)


def info(status: BackendStatus) -> NodeInfo:
    return NodeInfo(1, "db2", 5432, status, False, None, 0.5, Role.REPLICA, None, None, 0, "", "", 0)


class Town:
    """Three nodes: pg01 recovers, pg02 and pg03 hold. `story` is what happened, in order."""

    def __init__(self, mode: str = "2") -> None:
        self.story: list[str] = []
        self.mode = mode
        self.seconds = 0.0
        self.changes: list[tuple[float, Callable[[], None]]] = []
        self.pools = {node: FakePool(self, node) for node in (1, 2, 3)}
        self.held = {node: Held(f"pg0{node}", "silent", (0, 0), "") for node in (2, 3)}
        self.can_hold = {2, 3}
        self.wish: Wish | None = None
        self.latch: FakeLatch | None = None
        self.no_latch = ""
        self.disagreed = ""
        self.first_stage_s, self.second_stage_s = 5.0, 5.0
        self.stage = ""
        self.error: Exception | None = None
        self.ended = threading.Event()

    # what the drive is given

    def world(self) -> World:
        others = {node: pool for node, pool in self.pools.items() if node != 1}
        return World(
            self.pools[1], others, self.tell, self.make_latch, lambda: self.stage in ("", "first"), self.story.append,
            lambda: self.seconds, self.pause, "lifecheck", self.agree,
        )  # fmt: skip

    def tell(self, wish: Wish) -> Holds:
        if wish is not self.wish:
            self.story.append(f"wish {wish.value}")
        self.wish = wish
        for node in self.can_hold:
            if wish is Wish.HOLD and self.held[node].unbroken == (0, 0):
                self.held[node] = Held(f"pg0{node}", "holds", MARK, "")
            elif wish is not Wish.HOLD:
                self.held[node] = Held(f"pg0{node}", "ready", (0, 0), "")
        return self.held

    def agree(self, up: bool) -> None:
        self.story.append(f"agreed {up}")
        if up and self.disagreed:
            raise CommandError(self.disagreed)

    def make_latch(self, parameters: dict[str, str]) -> FakeLatch:
        if self.no_latch:
            raise CommandError(self.no_latch)
        self.latch = FakeLatch(self)
        return self.latch

    def pause(self, seconds: float) -> None:
        """Time goes on, and what was to happen happens."""
        self.seconds += seconds
        for at_s, change in list(self.changes):
            if self.seconds >= at_s:
                self.changes.remove((at_s, change))
                change()
        self.live()
        if self.stage == "over":  # the thread that waits for pgpool-II has to get its answer now
            for thread in threading.enumerate():
                if thread.name == ORDER_THREAD:
                    thread.join(20)

    def after(self, seconds: float, change: Callable[[], None]) -> None:
        self.changes.append((seconds, change))

    # pgpool-II of pg01

    def live(self) -> None:
        if self.stage == "first" and self.seconds >= self.first_stage_s:
            self.stage = "waiting"
        if self.stage == "waiting" and not (self.latch is not None and self.latch.shut):
            self.stage = "second"
            self.story.append("the second stage runs")
            self.second_stage_s += self.seconds
        if self.stage == "second" and self.seconds >= self.second_stage_s:
            self.pools[1].status = UP
            self.end()

    def end(self, error: Exception | None = None) -> None:
        self.error, self.stage = error, "over"
        self.ended.set()

    def went(self, *words: str) -> bool:
        """Whether these happened in this order."""
        rest = iter(self.story)
        return all(any(word in line for line in rest) for word in words)


class FakeLatch:
    """A session that pgpool-II waits for."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.shut = True

    def is_shut(self) -> bool:
        return self.shut

    def open(self) -> None:
        if self.shut:
            self._town.story.append("latch opens")
        self.shut = False


class FakePool:
    """One pgpool-II."""

    def __init__(self, town: Town, node: int) -> None:
        self._town = town
        self.label = f"pg0{node}"
        self.status = DOWN
        self.sessions = 0
        self.trouble = ""

    def backend(self, backend_id: int) -> NodeInfo:
        assert backend_id == 1
        if self.trouble:
            raise CommandError(self.trouble)
        return info(self.status)

    def parameters(self) -> dict[str, str]:
        return {"backend_clustering_mode": self._town.mode}

    def clients(self, but: str = "") -> int:
        assert but == "lifecheck"
        return self.sessions

    def order(self, request: Request[None], limit_ms: int = 0) -> None:
        if request.name == "recovery":
            self._town.stage = "first"
            assert self._town.ended.wait(20)
            if self._town.error is not None:
                raise self._town.error
            return
        self._town.story.append(f"{request.name} on {self.label}")
        self.status = UP if request.name == "attach" else DOWN


def fail(town: Town) -> str:
    with pytest.raises(Failed) as caught:
        Drive(town.world(), 1).run()
    return str(caught.value)


def test_the_second_stage_waits_for_everybody() -> None:
    town = Town()
    town.pools[3].sessions = 2
    town.after(9.0, lambda: setattr(town.pools[3], "sessions", 0))
    assert Drive(town.world(), 1).run().startswith("backend 1 is recovered and attached everywhere")
    assert town.went(
        "wish ready", "pg01 recovers backend 1", "the second stage begins", "wish hold", "2 other pgpool-IIs hold",
        "latch opens", "the second stage runs", "agreed True", "attach on pg02", "attach on pg03", "wish release",
    ), town.story  # fmt: skip
    assert not town.went("latch opens", "wish hold") and not town.went("wish release", "attach")
    assert town.seconds >= 9 + 5


def test_without_a_session_of_ours_they_hold_from_the_beginning() -> None:
    town = Town()
    town.no_latch = "no query_user"
    assert Drive(town.world(), 1).run()
    assert town.went("wait from the beginning: no query_user", "wish hold", "pg01 recovers", "the second stage runs")


def test_streaming_replication_holds_nobody() -> None:
    town = Town("1")
    assert Drive(town.world(), 1).run() == "backend 1 is recovered and attached everywhere"
    assert town.wish is None and town.went("nobody is held back", "attach on pg02", "attach on pg03")


@pytest.mark.parametrize("node", [1, 2])
def test_a_backend_that_is_in_use_somewhere_is_not_recovered(node: int) -> None:
    town = Town()
    town.pools[node].status = UP
    assert fail(town) == f"backend 1 is up on pg0{node}, expected it down: detach it first"
    assert town.story == []


def test_a_node_that_cannot_hold_keeps_it_from_beginning_unless_forced() -> None:
    town = Town()
    town.can_hold = {2}
    assert "pg03 does not answer; nothing was begun" in fail(town)
    assert not town.went("recovers") and town.wish is Wish.RELEASE
    town = Town()
    town.can_hold = {2}
    said = Drive(town.world(), 1, force=True).run()
    assert said.startswith("backend 1 is recovered and attached, but not on pg03")
    assert (
        town.went("left out by force: pg03", "1 other pgpool-II holds back", "attach on pg02")
        and town.pools[3].status is DOWN
    )


def test_a_pgpool_that_cannot_be_asked_keeps_it_from_beginning() -> None:
    town = Town()
    town.pools[2].trouble = "no connection"
    assert "pgpool-II of pg02 cannot be asked: no connection; nothing was begun" in fail(town)


def test_clients_that_do_not_leave_stop_it_before_the_second_stage() -> None:
    town = Town()
    town.pools[2].sessions = 1
    town.after(60.0, lambda: town.end(CommandError("waiting connection closed timeout")))
    assert fail(town).startswith("clients (1 on pg02) did not leave within 30 s")
    assert town.went("wish release", "is kept from its second stage until it gives up")
    assert not town.went("the second stage runs") and not town.went("attach")


def test_a_hold_that_was_open_makes_the_backend_untrusted() -> None:
    """Also when it holds again at the end: writes may be missing."""
    town = Town()
    town.after(8.0, lambda: town.held.update({2: Held("pg02", "holds", (99, 1), "")}))
    assert "the hold on pg02 was open for a while: writes may be missing on backend 1" in fail(town)
    assert town.went("detach on pg01", "detach on pg02", "detach on pg03", "wish release"), town.story


def test_a_client_that_gets_through_in_the_second_stage_is_noticed() -> None:
    town = Town()
    town.after(8.0, lambda: setattr(town.pools[3], "sessions", 1))
    assert "clients (1 on pg03) got through in the second stage: writes may be missing" in fail(town)
    assert town.went("the second stage runs", "detach on pg01", "wish release")


def test_a_watchdog_main_that_takes_no_wishes_keeps_it_from_beginning() -> None:
    town = Town()
    world = replace(town.world(), wish=refuse)
    with pytest.raises(Failed, match=r"^another 'pgvigil recovery' of this node"):
        Drive(world, 1).run()
    assert town.story == []


def refuse(wish: Wish) -> Holds:
    raise CommandError("another 'pgvigil recovery' of this node is not over yet")


def test_a_cluster_that_does_not_agree_makes_it_untrusted() -> None:
    """A node would detach it again while clients write through the others."""
    town = Town()
    town.disagreed = "no leader"
    assert "no leader: writes may be missing" in fail(town)
    assert town.went("agreed True", "agreed False", "detach on pg01", "wish release") and not town.went(
        "attach on pg02"
    )


def test_a_hold_that_ends_at_its_limit_makes_the_backend_untrusted() -> None:
    town = Town()
    town.after(8.0, lambda: town.held.update({2: Held("pg02", "ready", MARK, "hold_limit_s is reached")}))
    assert "the hold on pg02 has ended: hold_limit_s is reached" in fail(town)
    assert town.went("detach on pg01", "wish release")


def test_a_node_that_is_silent_at_the_end_may_have_let_clients_in() -> None:
    town = Town()

    def fall_silent() -> None:
        town.can_hold.remove(3)
        town.held[3] = Held("pg03", "silent", (0, 0), "")

    town.after(8.0, fall_silent)
    assert "nobody knows whether clients were held back all the time: pg03 does not answer" in fail(town)
    assert town.went("detach on pg01", "wish release")


def test_a_session_that_is_lost_in_the_first_stage_makes_them_hold_at_once() -> None:
    town = Town()

    def lose() -> None:
        assert town.latch is not None
        town.latch.shut = False

    town.after(2.0, lose)
    assert Drive(town.world(), 1).run()
    assert town.went("the session that makes pgpool-II wait is lost", "wish hold", "the second stage runs")


def test_a_pgpool_that_was_only_busy_keeps_nobody_waiting() -> None:
    town = Town()
    town.first_stage_s = 20.0
    busy_until_s = 6.0
    world = replace(
        town.world(), is_served=lambda: town.stage in ("", "first") and not 3.0 < town.seconds < busy_until_s
    )
    town.pools[2].sessions = 1
    town.after(7.0, lambda: setattr(town.pools[2], "sessions", 0))
    assert Drive(world, 1).run()
    assert town.went(
        "wish hold", "pgpool-II was only busy", "wish ready", "the second stage begins", "wish hold", "latch opens",
        "the second stage runs", "wish release",
    ), town.story  # fmt: skip


def test_an_interrupted_recovery_lets_clients_in_and_takes_back_what_came_of_it() -> None:
    town = Town()

    def interrupt() -> None:
        raise KeyboardInterrupt

    town.after(9.0, interrupt)
    assert fail(town).startswith("interrupted; pgpool-II recovered backend 1 all the same")
    assert town.went("the second stage runs", "wish release", "goes on by itself", "agreed False", "detach on pg01")


def test_interrupted_in_the_first_stage_pgpool_is_kept_from_the_second() -> None:
    town = Town()

    def interrupt() -> None:
        raise KeyboardInterrupt

    town.after(2.0, interrupt)
    town.after(60.0, lambda: town.end(CommandError("timeout")))
    assert fail(town) == "interrupted"
    assert town.went("is kept from its second stage until it gives up") and not town.went("the second stage runs")


def test_a_second_stage_that_ran_too_early_makes_the_backend_untrusted() -> None:
    town = Town()

    def lose() -> None:
        assert town.latch is not None
        town.latch.shut = False
        town.stage = "waiting"

    town.after(2.0, lose)
    assert "may have begun before new clients were held back" in fail(town)
    assert town.went("detach on pg01", "wish release")


def test_what_pgpool_says_no_to_is_told_and_everybody_gets_through() -> None:
    town = Town()
    town.after(3.0, lambda: town.end(CommandError("refused recovery: node id 1 is alive")))
    assert fail(town) == "refused recovery: node id 1 is alive"
    assert town.wish is Wish.RELEASE and town.latch is not None and not town.latch.shut


def test_a_lost_answer_is_unknown() -> None:
    town = Town()
    town.after(3.0, lambda: town.end(PeerError("hung up")))
    with pytest.raises(Unknown, match="hung up; the outcome is unknown"):
        Drive(town.world(), 1).run()
    assert town.wish is Wish.RELEASE


def test_a_pgpool_that_does_not_attach_it_must_not_go_on_without() -> None:
    town = Town()
    town.after(8.0, lambda: setattr(town.pools[3], "trouble", "connection refused"))
    assert "backend 1 was not attached on pg03: connection refused" in (said := fail(town))
    assert "it was not detached on pg03" in said
    assert town.went("detach on pg01", "detach on pg02", "wish release")
