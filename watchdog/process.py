"""Watchdog main: the shell around the decision core.

Turns sockets, timers and reports into events, and the core's effects into actions. Decides nothing. It ends by
itself when the supervisor is gone: it hands over first, because nobody would restart it.
"""

from __future__ import annotations

import logging
import random
import signal
from collections import deque
from dataclasses import replace

from setproctitle import setproctitle

from pgvigil.heartbeat.sender import differs
from pgvigil.ipc import endpoints, frames, log
from pgvigil.ipc.channel import ControlServer, Inbox, Outbox, ZmqPoller, new_context
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns, kernel_boot_id
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health, Role, StopMode
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, SignOfLife
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog.asides import Asides
from pgvigil.watchdog.backend_control import BackendControl
from pgvigil.watchdog.beliefs import Beliefs
from pgvigil.watchdog.carrier import Agreement, Carrier
from pgvigil.watchdog.chronicle import Chronicle
from pgvigil.watchdog.commander import Commander
from pgvigil.watchdog.control import Control
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.base import CoreCommand, CoreConsensus, CoreNode, CoreRemoval, CoreSettings
from pgvigil.watchdog.core.engine import Watchdog, restart_wait_ns
from pgvigil.watchdog.core.messages import Aside, Message
from pgvigil.watchdog.core.record import RECORD_FORMAT, Document, QuorumRule, Record
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.drift.watch import DriftWatch
from pgvigil.watchdog.outside import Outside, way_to_lifecheck
from pgvigil.watchdog.peers import Peers
from pgvigil.watchdog.pools.opening import open_pools
from pgvigil.watchdog.recovery.shell import Recovery
from pgvigil.watchdog.settings import NOT_GUARANTEED, CommandSettings, Settings
from pgvigil.watchdog.status.report import Report
from pgvigil.watchdog.store import Store, Writer
from pgvigil.watchdog.supervisor.daemon import revive
from pgvigil.watchdog.upstream import Upstream
from pgvigil.watchdog.vip.holder import VipHolder
from pgvigil.watchdog.vip.release import remove_tables

HOUSEKEEPING_NS = NS_PER_S
COURIER_RETRY_NS = 20 * NS_PER_MS
KEPT_EVENTS = 30
EXIT_OK, EXIT_FAILED = 0, 1
ORDERED_COMMANDS = ("escalation", "failover", "failback", "follow_primary")

logger = logging.getLogger("pgvigil")

# secrets.randbelow and randbits without the import of OpenSSL.
_chance = random.SystemRandom()


def core_settings(settings: Settings) -> CoreSettings:
    """What the core is told."""
    removal, failover = settings.cluster.removal, settings.failover
    return CoreSettings(
        node_id=settings.node_id,
        nodes=tuple(CoreNode(node.id, node.host, node.witness, node.priority) for node in settings.nodes),
        lease_ms=settings.cluster.lease_ms,
        renew_ms=settings.cluster.renew_ms,
        preempt=settings.cluster.preempt,
        commands=core_commands(settings.commands),
        removal=CoreRemoval(removal.shutdown, removal.lost_s * 1000, removal.no_show_s * 1000),
        quorum=QuorumRule(settings.cluster.quorum),
        tie_breaker=settings.cluster.tie_breaker,
        consensus=CoreConsensus(
            failover.require_consensus,
            failover.half_votes,
            failover.multiple_requests_from_node,
            failover.consensus_timeout_s * 1000,
        ),
    )


def core_commands(commands: CommandSettings) -> tuple[CoreCommand, ...]:
    """The commands that the core orders: all that are configured but the de-escalation, which is `Commander`'s own."""
    found = {name: commands.get(name) for name in ORDERED_COMMANDS}
    return tuple(CoreCommand(name, command.policy) for name, command in found.items() if command is not None)


def run(settings: Settings, link: Link, life_interval_ns: int) -> int:
    """The whole life of watchdog main; the exit status. `CommandError` when it cannot start."""
    main = Main(settings, link)
    main.start(life_interval_ns)
    try:
        status = main.live()
        main.close()
    except Exception:
        if main.orphaned:  # nobody else would bring this node back, however it ended
            logger.critical("watchdog main ends with an error that was not foreseen", exc_info=True)
            revive(settings)
        raise
    if main.orphaned:
        revive(settings)
    return status


class Main:
    """Everything that watchdog main owns."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self.settings = settings
        self.started_at_ns = boottime_ns()
        self.orphaned = False
        self.exit_status = EXIT_OK
        self.events: deque[tuple[int, str]] = deque(maxlen=KEPT_EVENTS)
        self.processes: tuple[frames.ProcessInfo, ...] = ()
        self._link = link
        self._pending: deque[events.Event] = deque()
        self._stepping = False
        self._finished = False
        self._failed = False
        self._title = ""
        self._said: frames.Beat | None = None
        self._said_at_ns = 0
        self._basis: object = None
        self._unsaid: list[Outbox] = []
        self._due_ns = 0
        # The lock comes first: another living watchdog main's address and tables are not touched.
        self._store = Store(settings.process.state_dir, settings.cluster.name, settings.node_id)
        self.loop = Loop(ZmqPoller())
        self._context = new_context()
        self.runner = Runner(self.loop)
        self.vip = VipHolder(settings.vip, settings.cluster.fence, self.loop, self.runner, self._vip_changed)
        self.vip.prepare()
        peers = {node.id: node.host for node in settings.nodes if node.id != settings.node_id}
        self.beliefs = Beliefs(tuple(peers))
        self._chronicle = Chronicle(peers)
        record, wait_until_ns = self._raise_boot()
        self.core = Watchdog(core_settings(settings), record, _chance.randrange, boottime_ns(), wait_until_ns)
        self.commander = Commander(settings, self.runner, self.core, self.dispatch, self._note, self._end_if_done)
        self.writer = Writer(self._store)
        self._carrier = Carrier(self.writer, self.vip, lambda: self.dispatch(events.VipDown()), self._act)
        self._inbox = Inbox(self._context, endpoints.watchdog_endpoint(settings.process.run_dir), logger.warning)
        self._senders = [
            Outbox(self._context, endpoints.sender_endpoint(settings.process.run_dir, item.path), "watchdog main")
            for item in settings.heartbeats
        ]
        to_lifecheck = endpoints.lifecheck_endpoint(settings.process.run_dir)
        self._upstream = Upstream(lambda: Outbox(self._context, to_lifecheck, "watchdog main"))
        run_dir, group = settings.process.run_dir, settings.process.control_group
        server = ControlServer(self._context, endpoints.control_endpoint(run_dir), logger.warning)
        for_group = (
            ControlServer(self._context, endpoints.group_endpoint(run_dir), logger.warning, group) if group else None
        )
        self.outside = Outside(settings, server, way_to_lifecheck(self._context, self.loop, run_dir))
        report = Report(self)
        self.control = Control(server, report, self.dispatch, self.outside.request, for_group)
        self.asides = Asides(record.boot, lambda to, aside: self._peers.send(to, aside), logger.warning)
        self.recovery = Recovery(settings, server, self.asides)
        self.control.add({"recovery": self.recovery.request})
        self._peers = Peers(self._context, settings, record.boot, record.record_id, self.loop, self._message)
        agreement = Agreement(self.core, self._carrier)
        self.pools = open_pools(
            settings, self.loop, agreement, self.dispatch, lambda level, text: self._note(events.Note(level, text))
        )
        self.drift = DriftWatch(settings, self.asides, self.dispatch, self._note, self.pools.link)
        backends = BackendControl(self.control, self.dispatch, self._backends_known, report.backends, self.pools)
        self.control.add(backends.verbs())

    def _raise_boot(self) -> tuple[Record, int]:
        """PROTOCOL 1: the boot counter is raised durably, and the clean-stop flag cleared, before any message (P14)."""
        kernel = kernel_boot_id()
        record = self._store.open(kernel, _chance.getrandbits(62) + 1)
        now_ns = boottime_ns()
        wait_until_ns = restart_wait_ns(record.promised_ms, record.clean_stop, now_ns)
        raised = raised_boot(record, kernel)
        self._store.save(raised)
        return raised, wait_until_ns

    # --- life -------------------------------------------------------------------------------------

    def start(self, life_interval_ns: int) -> None:
        """Watch everything, take the first step, say that we are ready."""
        self.loop.watch(self._inbox.socket, self._reports)
        for socket in self.control.sockets:
            self.loop.watch(socket, self.control.serve)
        self.loop.watch(self.writer.fd, self._written)
        self.loop.watch(self._link.fd, self._orders)
        self.loop.on_signals((signal.SIGTERM,), lambda _: self._stop(StopMode.SMART))
        self.loop.join(self)
        self.loop.join(Housekeeping(self))
        self.loop.join(self.recovery)
        self.loop.join(SignOfLife(self._link, life_interval_ns, self._sign))
        if self.core.settings.quorum is QuorumRule.HALF:
            logger.warning(NOT_GUARANTEED, self.settings.cluster.tie_breaker)
        self.dispatch(events.Started())
        self._vip_changed()
        self._link.send(frames.Ready(self.core.sentence))
        self.keep_house(boottime_ns())

    def live(self) -> int:
        """Until everything is let go of."""
        self.loop.run()
        return self.exit_status

    def close(self) -> None:
        """Leave nothing behind: sockets, thread, and the gate's tables once no address is left."""
        self.pools.close()
        self.recovery.close()
        self._peers.close()
        self.outside.close()
        self.control.close()
        self._inbox.close()
        for sender in self._senders:
            sender.close()
        self._upstream.close()
        self.writer.close(1000)
        if self._finished:
            for trouble in remove_tables():
                logger.warning("%s", trouble)
        self._context.destroy(linger=0)

    def wake(self) -> int | None:
        """The core's next deadline; it changes by a step only."""
        return self.core.expected_wake_ns

    def tick(self, now_ns: int) -> None:
        """The core's deadline has passed."""
        self.dispatch(events.Tick())

    # --- events in --------------------------------------------------------------------------------

    def dispatch(self, event: events.Event) -> None:
        """Step the core; events that its effects cause are taken after it, each at an instant of its own."""
        if self._failed:
            return  # the rest of this round must not take up again what was just let go of
        self._pending.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._pending:
                taken = self._pending.popleft()
                self._carrier.carry(self.core.step(boottime_ns(), taken))
                self.commander.stepped(taken)
        finally:
            self._stepping = False
        if self.core.state is State.ASKING and self._role_changed():
            self.vip.ask_ahead()
        self._upstream.tell(self.core.question())
        self.pools.look(self.core.views)
        self._say_news(boottime_ns())
        self._end_if_done()

    def _backends_known(self) -> Document | None:
        """For the names of backends: what is agreed, or was when this node was last told."""
        return self.core.agreed or self.core.document

    def _stop(self, mode: StopMode) -> None:
        self.commander.stopping(mode)
        self.dispatch(events.Stop(mode))

    def _message(self, sender: int, record_id: int, message: Message) -> None:
        if isinstance(message, Aside):
            self.asides.take(sender, message)
        else:
            self.dispatch(events.Arrived(sender, record_id, message))

    def _reports(self) -> None:
        for received in self._inbox.receive():
            frame, now_ns = received.frame, boottime_ns()
            if isinstance(frame, frames.TieBreakerSeen):
                if self.beliefs.take_tie_breaker(frame, now_ns):
                    self.tell_views(now_ns)
            elif isinstance(frame, frames.OutsideReports | frames.PgpoolWatchdog):
                self.outside.take(frame, now_ns)
            elif not isinstance(frame, frames.Verdicts):
                self._inbox.complaints.add(f"a frame of kind {type(frame).__name__}, expected Verdicts")
            elif not self.beliefs.take(frame, now_ns):
                self._inbox.complaints.add(f"verdicts of {frame.judged_at_ns} ns, older than others or of the future")
            else:
                self.events += [(now_ns, text) for text in self._chronicle.take(frame)]
                self.tell_views(now_ns)

    def tell_views(self, now_ns: int) -> None:
        """Give the core the newest beliefs, if they changed."""
        views = self.beliefs.views(now_ns)
        if views != self.core.views:
            self.dispatch(views)
        else:
            self._say_news(now_ns)

    def _vip_changed(self) -> None:
        status = self.vip.status()
        fence = events.FenceState(status.can_hold, "; ".join(status.fence_problems))
        if fence != self.core.fence:
            self.dispatch(fence)

    def _written(self) -> None:
        try:
            self._carrier.written()
        except CommandError as error:
            logger.error("gives up, because its record cannot be made durable: %s", error)
            self._failed = True
            self.vip.close_gate()
            self.vip.drop(lambda: None)
            self.exit_status = EXIT_FAILED
            self.loop.stop()
            return
        self._end_if_done()

    def _orders(self) -> None:
        for received in self._link.receive():
            frame = received.frame
            if isinstance(frame, frames.StopOrder):
                self._stop(frame.mode)
            elif isinstance(frame, frames.HandOverOrder):
                self.control.hand_over_by_signal()
            elif isinstance(frame, frames.ReopenLogsOrder):
                log.reopen()
                logger.info("status: %s", self.control.status_text())
            elif isinstance(frame, frames.ChildrenReport):
                self.processes = frame.processes
            elif isinstance(frame, frames.ReloadDone):
                self.control.reload_done(frame)
        if self._link.closed and not self.orphaned:
            self.orphaned = True
            self.loop.unwatch(self._link.fd)
            logger.error("the supervisor is gone: hands over and ends")
            self._stop(StopMode.SMART)

    # --- effects out ------------------------------------------------------------------------------

    def _act(self, effect: events.Effect) -> None:
        if isinstance(effect, events.Send):
            self._peers.send(effect.to, effect.message)
        elif isinstance(effect, events.Note):
            self._note(effect)
        elif isinstance(effect, events.Answer):
            if not self.pools.answer(effect):
                self.control.answer(effect)
        elif isinstance(effect, events.StartCommand):
            self.commander.start(effect)
        elif isinstance(effect, events.Finished):
            self._finished = True

    def _end_if_done(self) -> None:
        """A stop waits for the disk, and a little for the de-escalation."""
        if self._finished and self._carrier.idle and not self.commander.de_escalating:
            self.loop.stop()

    def _note(self, note: events.Note) -> None:
        self.events.append((boottime_ns(), note.text))
        logger.log(logging.getLevelNamesMapping()[note.level.value.upper()], "%s", note.text)
        self._due_ns = 0

    # --- what others are told ---------------------------------------------------------------------

    def _sign(self) -> frames.Alive:
        return frames.Alive(self.vip.status().wanted != "down", self.core.sentence[:200])

    def role(self) -> Role:
        """What this node says it is."""
        if self.core.state is State.LEADER:
            return Role.LEADER
        if self.core.state in (State.ASKING, State.VOTING, State.ELECTED):
            return Role.CANDIDATE
        return Role.WITNESS if self.settings.node.witness else Role.STANDBY

    def _beat(self, now_ns: int) -> frames.Beat:
        core = self.core
        electable = core.named and core.stopping is None and core.unfit_reason() is None and self._may_stand(now_ns)
        electable = electable and not self.beliefs.wavering(now_ns)
        role, health, priority = self.role(), core.views.pgpool, self.settings.node.priority
        cannot_query = self.beliefs.cannot_query(now_ns)
        return frames.Beat(role, core.record.term, electable, health, priority, 0, (), 0, cannot_query)

    def _role_changed(self) -> bool:
        said = self._said
        return said is None or said.role is not self.role() or said.term != self.core.record.term

    def _say_news(self, now_ns: int) -> None:
        """What others act on is said at once: a hand-over must not go to a node that cannot lead any more."""
        core = self.core
        # All that a beat is made of; few steps change any of it.
        told = (self.beliefs.cannot_query(now_ns), self.beliefs.wavering(now_ns), *core.obstacles.values())
        basis = (core.state, core.record, core.views, core.fence, core.stopping, self._may_stand(now_ns), told)
        if basis == self._basis:
            return
        self._basis = basis
        if differs(self._said, self._beat(now_ns)):
            self.say_beat(now_ns)

    def _may_stand(self, now_ns: int) -> bool:
        return now_ns >= max(self.core.restart_wait_until_ns, self.core.no_stand_until_ns)

    def say_beat(self, now_ns: int) -> None:
        """Tell the senders what to put into the next heartbeats."""
        beat = self._beat(now_ns)
        self._said, self._said_at_ns = beat, now_ns
        content = frames.BeatContent(now_ns, self.started_at_ns, beat)
        self._unsaid = [sender for sender in self._senders if not sender.send(content)]

    def keep_house_at_ns(self) -> int:
        """When something is due that is not the core's."""
        return min(self._due_ns, self._said_at_ns + COURIER_RETRY_NS) if self._unsaid else self._due_ns

    def keep_house(self, now_ns: int) -> None:
        """Once a second, and soon after every change: beliefs that went stale, title, heartbeat content."""
        if now_ns >= self._due_ns - Housekeeping.slack_ns:
            self._due_ns = now_ns + HOUSEKEEPING_NS
            self.tell_views(now_ns)
            self._upstream.tell(self.core.question(), again=True)
            self.outside.tick(now_ns)
            self.drift.tick(now_ns, self.core.leader_at(now_ns), self.core.voter_ids)
            self._set_title()
            self.say_beat(now_ns)
        elif self._unsaid:
            self.say_beat(now_ns)

    def quorum(self) -> tuple[int, int, int]:
        """Voters believed alive (this node included), needed, and all."""
        core = self.core
        alive = {peer.node_id for peer in core.views.peers if peer.health is Health.ALIVE}
        have = sum(1 for voter in core.voter_ids if voter in alive or voter == core.me)
        return have, core.quorum, len(core.voter_ids)

    def _set_title(self) -> None:
        core = self.core
        have, _, voters = self.quorum()
        names = {State.BLANK: "waiting", State.STANDBY: self.role().value, State.LEADER: "leader"}
        doing = names.get(core.state, core.state.value)
        vip = self.vip.status()
        shown = "none" if not self.settings.vip.addresses else vip.wanted
        title = f"pgvigil: watchdog main ({doing}, term {core.record.term}, quorum {have}/{voters}, vip {shown})"
        if title != self._title:
            self._title = title
            setproctitle(title)


class Housekeeping:
    """The participant for what is not the core's."""

    slack_ns = HOUSEKEEPING_NS // 4

    def __init__(self, main: Main) -> None:
        self._main = main

    def wake(self) -> int | None:
        return self._main.keep_house_at_ns()

    def tick(self, now_ns: int) -> None:
        self._main.keep_house(now_ns)


def raised_boot(record: Record, kernel: str) -> Record:
    """The record of a new start: the next boot, no claim of a clean stop, this kernel."""
    return replace(record, format=RECORD_FORMAT, boot=record.boot + 1, clean_stop=False, kernel_boot_id=kernel)
