"""Watchdog main, simulated: the real core, carrier and beliefs, wired as `pgvigil.watchdog.process.Main` wires them.

The shell itself owns real sockets and cannot run here; this is its part that decides about order and time: one clock
reading for each message after it was taken, effects through the carrier, events caused by effects after the step.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from tests.simulation.clock import Clock
from tests.simulation.disk import Disk, SimWriter
from tests.simulation.kernel import Kernel, SimVip
from tests.simulation.process import Process
from tests.simulation.wiring import Inlet
from tests.simulation.world import World

from pgvigil.heartbeat.sender import differs
from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Role
from pgvigil.watchdog.beliefs import Beliefs
from pgvigil.watchdog.carrier import Agreement, Carrier
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.base import CoreSettings, Draw
from pgvigil.watchdog.core.engine import Watchdog, restart_wait_ns
from pgvigil.watchdog.core.messages import NUMBERS, Message
from pgvigil.watchdog.core.record import Record
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.process import HOUSEKEEPING_NS, raised_boot
from pgvigil.watchdog.transport.envelope import message_of, read
from pgvigil.watchdog.transport.window import Windows

COMMAND_NS = 50 * NS_PER_MS
Parcel = tuple[int, int, int, int, Message | bytes]


class Surroundings(Protocol):
    """What watchdog main finds on its machine."""

    def say(self, text: str) -> None: ...
    def stepped(self, core: Watchdog) -> None: ...
    def post(self, effect: events.Send, core: Watchdog) -> None: ...
    def started_command(self, effect: events.StartCommand) -> tuple[int, bool]: ...
    def answered(self, effect: events.Answer) -> None: ...
    def speaks(self, content: frames.BeatContent) -> None: ...
    def asks(self, question: frames.AskTieBreaker) -> None: ...


class Main:
    """One life of watchdog main."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        kernel: Kernel,
        disk: Disk,
        settings: CoreSettings,
        record: Record,
        around: Surroundings,
        draw: Draw,
        fence: events.FenceState,
        windows: bool,
        housekeeping_ns: int,
        slow_ns: int,
    ) -> None:
        """`record` is the durable one of the last life; its boot is raised here, durably, before anything is said."""
        self.clock = clock
        self.settings = settings
        self.around = around
        self.started_at_ns = clock.read()
        self.process = Process(world, clock, slow_ns)
        self.fence = fence
        boundary = self.process.boundary
        now_ns = clock.read()
        wait_ns = restart_wait_ns(record.promised_ms, record.clean_stop, now_ns)
        record = raised_boot(record, str(kernel.boot_number))
        disk.keep(record)
        self.core = Watchdog(settings, record, draw, now_ns, wait_ns)
        self.beliefs = Beliefs(tuple(node.node_id for node in settings.nodes if node.node_id != settings.node_id))
        self._tickets: Inlet[int] = Inlet(self.process.poller, self.process.wake)
        self.writer = SimWriter(world, disk, self._tickets, boundary)
        self.vip = SimVip(world, kernel, clock, boundary, self.process.later)
        self._carrier = Carrier(self.writer, self.vip, lambda: self.dispatch(events.VipDown()), self._act)
        self.agreement = Agreement(self.core, self._carrier)
        self.mail: Inlet[Parcel] = Inlet(self.process.poller, self.process.wake)
        self.reports: Inlet[frames.Verdicts | frames.TieBreakerSeen] = Inlet(self.process.poller, self.process.wake, 64)
        self.orders: Inlet[events.Event] = Inlet(self.process.poller, self.process.wake)
        self._windows = {node.node_id: Windows() for node in settings.nodes} if windows else None
        self._pending: deque[events.Event] = deque()
        self._stepping = False
        self._finished = False
        self._said: frames.Beat | None = None
        self._basis: object = None
        self._asked = ("", 0, 0)
        self.due_ns = 0
        self._housekeeping_ns = housekeeping_ns
        loop = self.process.loop
        loop.watch(self.mail, self._take_mail)
        loop.watch(self.reports, self._take_reports)
        loop.watch(self.orders, self._take_orders)
        loop.watch(self._tickets, self._written)
        loop.join(self)
        loop.join(Housekeeping(self))

    def begin(self) -> None:
        """The first step of this life."""
        self.orders.put(events.Started())
        self.orders.put(self.fence)

    # --- the loop ---------------------------------------------------------------------------------

    def wake(self) -> int | None:
        """The core's next deadline; it changes by a step only."""
        return self.core.expected_wake_ns

    def tick(self, now_ns: int) -> None:
        """The core's deadline has passed."""
        self.dispatch(events.Tick())

    def dispatch(self, event: events.Event) -> None:
        """Step the core; events that its effects cause are taken after it, each at an instant of its own."""
        self._pending.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._pending:
                effects = self.core.step(self.clock.read(), self._pending.popleft())
                self.around.stepped(self.core)
                self._carrier.carry(effects)
                self.process.boundary("stepped")
        finally:
            self._stepping = False
        self._say_question()
        self._say_news(self.clock.read())

    def _take_mail(self) -> None:
        while (parcel := self.mail.take()) is not None:
            self._take(*parcel)

    def _take(self, sender: int, record_id: int, boot: int, counter: int, content: Message | bytes) -> None:
        if self._windows is not None and not self._windows[sender].accept(record_id, boot, counter):
            return
        if isinstance(content, bytes):
            content = message_of(read(content, sender, self.settings.node_id))
        self.dispatch(events.Arrived(sender, record_id, content))

    def _take_reports(self) -> None:
        while (frame := self.reports.take()) is not None:
            now_ns = self.clock.read()
            if isinstance(frame, frames.TieBreakerSeen):
                taken = self.beliefs.take_tie_breaker(frame, now_ns)
            else:
                taken = self.beliefs.take(frame, now_ns)
            if taken:
                self.tell_views(now_ns)

    def heard_again(self, frame: frames.Verdicts) -> bool:
        """Words that only keep beliefs fresh change nothing else, so the process is not woken for them."""
        now_ns = self.clock.read()
        fresh = now_ns < self.beliefs.stale_at_ns() and not self.process.frozen
        return fresh and self.beliefs.take(frame, now_ns)

    def _take_orders(self) -> None:
        while (event := self.orders.take()) is not None:
            self.dispatch(event)

    def _written(self) -> None:
        self._carrier.written()
        if self._finished and self._carrier.idle:
            self.process.loop.stop()

    def tell_views(self, now_ns: int) -> None:
        """Give the core the newest beliefs, if they changed."""
        views = self.beliefs.views(now_ns)
        if views != self.core.views:
            self.dispatch(views)

    # --- effects ----------------------------------------------------------------------------------

    def _act(self, effect: events.Effect) -> None:
        if isinstance(effect, events.Send):
            self.process.boundary(SEND_NAMES[type(effect.message)])
            self.around.post(effect, self.core)
        elif isinstance(effect, events.Note):
            self.around.say(effect.text)
            self.due_ns = 0
        elif isinstance(effect, events.StartCommand):
            self._start_command(effect)
        elif isinstance(effect, events.Answer):
            self.around.answered(effect)
        elif isinstance(effect, events.Finished):
            self._finished = True
            if self._carrier.idle:
                self.process.loop.stop()

    def _start_command(self, order: events.StartCommand) -> None:
        """P21: the lease is checked once more, right before the start."""
        self.process.boundary("command")
        if self.core.state is not State.LEADER or not self.core.lease_held_at(self.clock.read()):
            self.dispatch(events.CommandEnded(order.intent.token, False))
            return
        takes_ns, succeeds = self.around.started_command(order)
        ended = events.CommandEnded(order.intent.token, succeeds, "the simulator says so")
        self.process.later(takes_ns, lambda: self.dispatch(ended))

    # --- what others are told ---------------------------------------------------------------------

    def role(self) -> Role:
        """What this node says it is."""
        if self.core.state is State.LEADER:
            return Role.LEADER
        if self.core.state in (State.ASKING, State.VOTING, State.ELECTED):
            return Role.CANDIDATE
        return Role.WITNESS if self.core.witness(self.core.me) else Role.STANDBY

    def _beat(self, now_ns: int) -> frames.Beat:
        core = self.core
        electable = core.named and core.stopping is None and core.unfit_reason() is None and self._may_stand(now_ns)
        priority = core.standing().priority
        return frames.Beat(self.role(), core.record.term, electable, core.views.pgpool, priority, 0, (), 0)

    def _may_stand(self, now_ns: int) -> bool:
        return now_ns >= max(self.core.restart_wait_until_ns, self.core.no_stand_until_ns)

    def _say_question(self, again: bool = False) -> None:
        question = self.core.question()
        if question != self._asked or (again and question[0]):
            self._asked = question
            address, interval_ns, gap_ns = question
            self.around.asks(frames.AskTieBreaker(address, interval_ns // NS_PER_MS, gap_ns // NS_PER_MS))

    def _say_news(self, now_ns: int) -> None:
        core = self.core
        basis = (core.state, core.record, core.views, core.fence, core.stopping, self._may_stand(now_ns))
        if basis != self._basis:
            self._basis = basis
            if differs(self._said, self._beat(now_ns)):
                self._say_beat(now_ns)

    def _say_beat(self, now_ns: int) -> None:
        self._said = self._beat(now_ns)
        self.around.speaks(frames.BeatContent(now_ns, self.started_at_ns, self._said))

    def keep_house(self, now_ns: int) -> None:
        """Once a second, less often with long leases: beliefs that went stale, heartbeat content."""
        self.due_ns = now_ns + self._housekeeping_ns
        self.tell_views(now_ns)
        self._say_question(again=True)
        self._say_beat(now_ns)


class Housekeeping:
    """The participant for what is not the core's."""

    slack_ns = HOUSEKEEPING_NS // 4

    def __init__(self, main: Main) -> None:
        self._main = main

    def wake(self) -> int | None:
        return self._main.due_ns

    def tick(self, now_ns: int) -> None:
        self._main.keep_house(now_ns)


SEND_NAMES = {kind: f"send {kind.__name__}" for kind in NUMBERS}
