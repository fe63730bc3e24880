"""A recovery from its beginning to its end, on the side of the command line.

The order of things is the whole point, and each step waits for the one before it:

1. nothing begins unless every other node says that it can hold back new clients (or the operator forces it);
2. pgpool-II recovers; a session of ours keeps it from its second stage, whose beginning is noticed by knocking;
3. the other nodes hold, and their last clients leave; only then our session ends and the second stage begins;
4. when it is over the backend is attached everywhere, while new clients still wait;
5. clients get through. Was a hold open in between, then writes may have missed the backend: it is detached again.

Where our session cannot be had the other nodes hold from before the beginning: too early is safe, too late is not.
It decides by what it is told, and touches neither sockets nor kernel itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.records import BackendStatus
from pgvigil.watchdog.recovery.plan import Wish
from pgvigil.watchdog.recovery.world import AnyLatch, AnyPool, Failed, Held, Holds, Order, World

STREAMING = ("1", "streaming_replication")
ROUND_S = 0.5
LOOK_EVERY = 4
"""Rounds between two looks for clients that got through."""
READY_S = 5.0
HOLDING_S = 10.0
ATTACH_S = 60.0
FAREWELL_S = 5.0
USABLE = (BackendStatus.UP, BackendStatus.WAITING)


@dataclass(slots=True)
class Drive:
    """One recovery of one backend. `run` raises `Failed` or `Unknown`."""

    world: World
    backend_id: int
    force: bool = False
    drain_s: float = 30.0
    limit_s: float = 3600.0
    missing: set[int] = field(default_factory=set)
    """Nodes that are left out by force."""
    _order: Order = field(default_factory=Order)
    _latch: AnyLatch | None = None
    _begun: bool = False
    _heard: bool = False
    """Whether watchdog main takes wishes."""
    _marks: dict[int, tuple[int, int]] = field(default_factory=dict)
    _rounds: int = 0
    _stain: str = ""
    """Why the recovered backend cannot be trusted."""

    def run(self) -> str:
        """The sentence of success."""
        self._examine()
        parameters = self.world.local.parameters()
        if parameters.get("backend_clustering_mode", "") in STREAMING:
            self.world.say("streaming replication has no second stage: nobody is held back")
            self._begin()
            self._await_end(lambda: None)
            try:
                self._attach_others()
            except CommandError as error:
                raise Failed(str(error)) from None
            return f"backend {self.backend_id} is recovered and attached{self._where()}"
        try:
            return self._held(parameters)
        finally:
            self._let_go()

    def _held(self, parameters: dict[str, str]) -> str:
        try:
            try:
                self._ready()
                self._start(parameters)
            except (Failed, CommandError) as error:
                self._abandon(str(error))
            return self._completed()
        except KeyboardInterrupt:
            self._abandon("interrupted")

    def _completed(self) -> str:
        self._await_end(self._watch)
        if not self._marks and self.world.others.keys() - self.missing:
            self._stain = self._stain or "the second stage was over before new clients were held back"
        return self._finish()

    def _where(self) -> str:
        left_out = ", ".join(self.world.others[node].label for node in sorted(self.missing))
        return " everywhere" if not left_out else f", but not on {left_out}: attach it there when it is back"

    # --- 1: may it begin? ----------------------------------------------------------------------------

    def _examine(self) -> None:
        """It has to be down on every pgpool-II: one that uses it would write to a backend that is being replaced."""
        self._expect_down(self.world.local)
        for node, pool in self.world.others.items():
            try:
                self._expect_down(pool)
            except CommandError as error:
                self._leave_out(node, f"pgpool-II of {pool.label} cannot be asked: {error}")

    def _expect_down(self, pool: AnyPool) -> None:
        status = pool.backend(self.backend_id).status
        if status is not BackendStatus.DOWN:
            raise Failed(
                f"backend {self.backend_id} is {status.name.lower()} on {pool.label}, expected it down: detach it first"
            )

    def _leave_out(self, node: int, why: str) -> None:
        if not self.force:
            raise Failed(f"{why}; nothing was begun (--force leaves it out: then keep its clients away yourself)")
        if node not in self.missing:
            self.missing.add(node)
            self.world.say(f"left out by force: {why}")

    def _ready(self) -> None:
        holds = self._until(READY_S, Wish.READY, lambda held: held.state in ("ready", "holds"))
        for node, held in holds.items():
            if held.state not in ("ready", "holds"):
                self._leave_out(node, str(held))

    def _until(self, limit_s: float, wish: Wish, good: Callable[[Held], bool]) -> Holds:
        """What the nodes that count say, as soon as all of it is good or the limit has passed."""
        end_s = self.world.now_s() + limit_s
        while True:
            holds = {node: held for node, held in self.world.wish(wish).items() if node not in self.missing}
            self._heard = True
            if all(map(good, holds.values())) or self.world.now_s() >= end_s:
                return holds
            self.world.pause(ROUND_S)

    # --- 2 and 3: the second stage begins when everybody is ready --------------------------------------

    def _start(self, parameters: dict[str, str]) -> None:
        """Until the second stage may run."""
        try:
            self._latch = self.world.latch(parameters)
        except CommandError as error:
            self.world.say(f"new clients of the other pgpool-IIs wait from the beginning: {error}")
            self._hold()
            self._begin()
        else:
            self._begin()
            self._await_second_stage()

    def _abandon(self, why: str) -> NoReturn:
        """Clients get through at once. What pgpool-II does meanwhile cannot be stopped, but be waited for."""
        self._release()
        if self._order.runs:
            until = "is kept from its second stage until it gives up (recovery_timeout)"
            how = until if self._kept else "goes on by itself"
            self.world.say(f"{why}; pgpool-II {how}")
        while self._order.runs:
            self.world.pause(ROUND_S)
        if self._begun and self._order.error is None:
            raise Failed(f"{why}; pgpool-II recovered backend {self.backend_id} all the same. {self._take_back()}")
        raise Failed(why)

    def _begin(self) -> None:
        self.world.say(f"pgpool-II of {self.world.local.label} recovers backend {self.backend_id}")
        self._begun = True
        limit_ms = int(self.limit_s * 1000)
        self._order.begin(lambda: self.world.local.order(requests.recovery(self.backend_id), limit_ms))

    def _await_second_stage(self) -> None:
        """Two knocks in vain: a pgpool-II whose children are all busy for a moment is held for, too; that is safe."""
        while self._knock():
            self.world.say("the second stage begins" if self._kept else "the session that makes pgpool-II wait is lost")
            self._hold()
            served = self.world.is_served()
            if not self._kept and not served:
                self._stain = "the second stage may have begun before new clients were held back"
            if self._kept and served:
                self.world.say("pgpool-II was only busy: its first stage goes on, and so do clients")
                self._marks = {}
                continue
            if self._latch is not None:
                self._latch.open()
            return

    @property
    def _kept(self) -> bool:
        """Whether pgpool-II waits for our session, now or later."""
        return self._latch is not None and self._latch.is_shut()

    def _knock(self) -> bool:
        """Until nobody is served or our session is lost; False when pgpool-II has ended before."""
        unserved = 0
        while self._order.runs and unserved < 2 and self._kept:
            self.world.wish(Wish.READY)
            unserved = 0 if self.world.is_served() else unserved + 1
            self.world.pause(ROUND_S)
        return self._order.runs

    def _hold(self) -> None:
        """The others hold, and have no client left."""
        holds = self._until(HOLDING_S, Wish.HOLD, lambda held: held.state == "holds")
        failing = [str(held) for held in holds.values() if held.state != "holds"]
        if failing:
            raise Failed(f"new clients are not held back: {', '.join(failing)}")
        self._marks = {node: held.unbroken for node, held in holds.items()}
        hold = f"{counted(len(holds), 'other pgpool-II')} hold{'s' * (len(holds) == 1)}"
        self.world.say(f"{hold} back new clients; the present ones have to leave")
        self._drain()

    def _drain(self) -> None:
        end_s = self.world.now_s() + self.drain_s
        while present := self._clients():
            if self.world.now_s() >= end_s:
                why = f"did not leave within {self.drain_s:g} s; end them and try again"
                raise Failed(f"{_counted(present)} {why}")
            self.world.wish(Wish.HOLD)
            self.world.pause(ROUND_S)

    def _clients(self) -> dict[str, int]:
        found = {}
        for node, pool in self.world.others.items():
            if node not in self.missing:
                count = pool.clients(but=self.world.lifecheck_user)
                if count:
                    found[pool.label] = count
        return found

    def _await_end(self, watch: Callable[[], None]) -> None:
        while self._order.runs:
            watch()
            self.world.pause(ROUND_S)
        self._order.outcome()

    def _watch(self) -> None:
        """The holds have to be there all the time."""
        try:
            self._compare(self.world.wish(Wish.HOLD))
        except CommandError as error:
            self._stain = self._stain or str(error)

    def _compare(self, holds: Holds) -> None:
        for node, mark in self._marks.items():
            held = holds.get(node)
            if held is not None and held.state in ("holds", "ready") and held.unbroken != mark:
                self._stain = self._stain or f"the hold on {held.label} was open for a while {held.trouble}".rstrip()
            elif held is not None and held.state == "ready" and held.trouble:
                self._stain = self._stain or f"the hold on {held.label} has ended: {held.trouble}"
        self._rounds += 1
        if self._rounds % LOOK_EVERY == 0:
            self._look_for_clients()

    def _look_for_clients(self) -> None:
        """Those of the pgpool-II's own host are not held back, nor are other nodes where lifecheck asks queries."""
        if not self._stain and (present := self._clients()):
            self._stain = f"{_counted(present)} got through in the second stage"

    # --- 4 and 5: attach everywhere, then release -------------------------------------------------------

    def _finish(self) -> str:
        self.world.say("the second stage is over; the backend is attached on the others")
        try:
            self._look_for_clients()
            self._attach_others()
            self._prove()
        except (Failed, CommandError) as error:
            self._stain = self._stain or str(error)
        if self._stain:
            raise Failed(f"{self._stain}: writes may be missing on backend {self.backend_id}. {self._take_back()}")
        return f"backend {self.backend_id} is recovered and attached{self._where()}; new clients get through again"

    def _attach_others(self) -> None:
        # First of all, or a node would detach again what its cluster believes to be down.
        self.world.agree(True)
        for node, pool in self.world.others.items():
            if node in self.missing:
                continue
            try:
                if not self._is_usable(pool):
                    pool.order(requests.attach(self.backend_id))
            except (CommandError, PeerError) as error:
                raise Failed(f"backend {self.backend_id} was not attached on {pool.label}: {error}") from None
        waiting = {node: pool for node, pool in self.world.others.items() if node not in self.missing}
        end_s = self.world.now_s() + ATTACH_S
        while waiting := {node: pool for node, pool in waiting.items() if not self._is_usable(pool)}:
            if self.world.now_s() >= end_s:
                names = ", ".join(pool.label for pool in waiting.values())
                raise Failed(f"backend {self.backend_id} is not yet attached on {names} after {ATTACH_S:g} s")
            self._keep()
            self.world.pause(ROUND_S)

    def _keep(self) -> None:
        if self._marks:
            self._watch()

    def _is_usable(self, pool: AnyPool) -> bool:
        return pool.backend(self.backend_id).status in USABLE

    def _prove(self) -> None:
        """All hold now, each with the hold that it began with."""
        holds = self._until(HOLDING_S, Wish.HOLD, lambda held: held.state == "holds")
        lost = [str(held) for node, held in holds.items() if node in self._marks and held.state != "holds"]
        if lost:
            raise Failed(f"nobody knows whether clients were held back all the time: {', '.join(lost)}")
        self._watch()

    def _take_back(self) -> str:
        """Take it out again before clients get through."""
        said = []
        try:
            self.world.agree(False)
        except CommandError as error:
            said.append(str(error))
        pools = [self.world.local, *(pool for node, pool in self.world.others.items() if node not in self.missing)]
        for pool in pools:
            try:
                if self._is_usable(pool):
                    pool.order(requests.detach(self.backend_id))
            except (CommandError, PeerError) as error:
                said.append(f"it was not detached on {pool.label}: {error}")
        return "; ".join(said) or "It was detached again: recover it once more"

    def _release(self) -> None:
        if not self._heard:
            return
        try:
            self._until(FAREWELL_S, Wish.RELEASE, lambda held: held.state != "holds")
        except CommandError as error:
            self.world.say(f"new clients get through within seconds: {error}")

    def _let_go(self) -> None:
        """Whatever happened, clients get through, and pgpool-II does not wait for us."""
        self._release()
        if self._latch is not None:
            self._latch.open()


def _counted(present: Mapping[str, int]) -> str:
    """Clients by pgpool-II, for people."""
    return "clients " + ", ".join(f"({count} on {label})" for label, count in present.items())
