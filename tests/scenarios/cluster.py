"""A cluster in memory: the real decision cores, a virtual clock, and a network, disks, gates and processes that fail.

Transcripts, rule tests and the random run share it. The disk keeps only what was durable; whatever stands behind a
`Persist` waits for it, except orders to the gate. The checks stand outside the core and stop the run at the first
instant at which two gates or two leases are open, a term has two leaders, a node votes twice, or a record goes back.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.lifecheck.core.series import Series
from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.base import CoreNode, CoreSettings
from pgvigil.watchdog.core.engine import Watchdog, restart_wait_ns
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Granted, Message, Vote
from pgvigil.watchdog.core.record import Record, Stamp, blank_record
from pgvigil.watchdog.core.states import State

BEAT_NS = 100 * NS_PER_MS
DEAD_AFTER_NS = 450 * NS_PER_MS
DROP_NS = 3 * NS_PER_MS
TIE_GAP_NS = 500 * NS_PER_MS
TIE_BREAKER = "10.0.0.254"
MILLION = 1_000_000
REMEMBERED_MESSAGES = 400


class SafetyError(AssertionError):
    """A promise of the protocol was broken."""


@dataclass(slots=True)
class Weather:
    """How bad the network and the disks are; a range is (least, most) in microseconds."""

    delay_us: tuple[int, int] = (2_000, 2_000)
    disk_us: tuple[int, int] = (1_000, 1_000)
    loss_permille: int = 0
    double_permille: int = 0


@dataclass(slots=True)
class Host:
    """One machine: kernel (clock, gate, address), disk, pgpool-II, and maybe a watchdog process."""

    node: CoreNode
    record_id: int
    settings: CoreSettings
    rate_ppm: int = 0
    origin_ns: int = 0
    kernel: int = 1
    disk: Record | None = None
    core: Watchdog | None = None
    life: int = 0
    started_ns: int = 0
    stopped: bool = False
    pgpool: Health = Health.ALIVE
    can_hold: bool = True
    upstream: bool = True
    series: Series = field(default_factory=lambda: Series(TIE_GAP_NS))
    vip_stuck: bool = False
    address: bool = False
    gate_until_ns: int = 0
    holds: int = 0
    writing: bool = False
    waiting: deque[ev.Effect] = field(default_factory=deque)
    backlog: list[ev.Event] = field(default_factory=list)
    heard_ns: dict[int, int] = field(default_factory=dict)
    views: ev.Views | None = None
    commands: list[tuple[int, str]] = field(default_factory=list)

    def local(self, now_ns: int) -> int:
        """This machine's CLOCK_BOOTTIME at a true instant."""
        return (now_ns - self.origin_ns) * (MILLION + self.rate_ppm) // MILLION

    def true(self, local_ns: int) -> int:
        """The first true instant at which this machine's clock shows `local_ns`."""
        return self.origin_ns + -(-local_ns * MILLION // (MILLION + self.rate_ppm))


class Cluster:
    """All hosts, the events between them, and the checks."""

    def __init__(self, settings: dict[int, CoreSettings], seed: int = 0, weather: Weather | None = None) -> None:
        """`settings` by node id; `seed` decides every random choice."""
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.now_ns = 0
        self.story: list[str] = []
        self.hosts = {
            node.node_id: Host(node, 1000 + node.node_id, settings[node.node_id])
            for node in next(iter(settings.values())).nodes
        }
        self.cuts: set[tuple[int, int]] = set()
        self.sent: deque[tuple[int, int, Message]] = deque(maxlen=REMEMBERED_MESSAGES)
        self.tamper: Callable[[int, int, Message], bool] = lambda sender, to, message: True
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._leader_of: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._committed: tuple[Stamp, int] = (Stamp(0, 0), 0)
        self._once: dict[str, int] = {}
        self._beat()

    # --- time -----------------------------------------------------------------------------------

    def at(self, at_ns: int, action: Callable[[], None]) -> None:
        """Do something at a true instant."""
        self._serial += 1
        heapq.heappush(self._events, (max(at_ns, self.now_ns), self._serial, action))

    def run(self, for_ns: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds."""
        end_ns = self.now_ns + for_ns
        while not (until is not None and until()):
            if not self._events or self._events[0][0] > end_ns:
                self.now_ns = end_ns
                return until is None
            self.now_ns, _, action = heapq.heappop(self._events)
            action()
        return True

    def say(self, host: Host, text: str) -> None:
        """One line of the story."""
        self.story.append(f"{self.now_ns / NS_PER_MS:9.1f}  {host.node.label:4} {text}")

    # --- processes and machines -----------------------------------------------------------------

    def start(self, node_id: int) -> None:
        """Start watchdog main: its boot is raised durably before anything else (PROTOCOL 1)."""
        host = self.hosts[node_id]
        record = host.disk or blank_record("c", node_id, host.record_id)
        now_ns = host.local(self.now_ns)
        wait_ns = restart_wait_ns(record.promised_ms, record.clean_stop, now_ns)
        record = replace(record, boot=record.boot + 1, clean_stop=False, kernel_boot_id=str(host.kernel))
        host.disk = record
        host.life += 1
        host.stopped, host.writing, host.views, host.started_ns = False, False, None, self.now_ns
        host.waiting.clear()
        host.backlog.clear()
        host.core = Watchdog(host.settings, record, self.random.randrange, now_ns, wait_ns)
        self.step(host, ev.Started())
        self.step(host, ev.FenceState(host.can_hold, "the lab says so"))
        self._look(host)

    def kill(self, node_id: int) -> None:
        """Kill watchdog main: memory is gone, the kernel's gate and address are not."""
        host = self.hosts[node_id]
        host.core, host.life = None, host.life + 1

    def crash(self, node_id: int) -> None:
        """The machine loses power: gate, address and clock begin anew."""
        self.kill(node_id)
        host = self.hosts[node_id]
        host.address, host.gate_until_ns, host.kernel, host.origin_ns = False, 0, host.kernel + 1, self.now_ns
        host.series = Series(TIE_GAP_NS)

    def pause(self, node_id: int) -> None:
        """SIGSTOP."""
        self.hosts[node_id].stopped = True

    def resume(self, node_id: int) -> None:
        """SIGCONT: everything that waited is taken now, each message at the instant it is taken."""
        host = self.hosts[node_id]
        host.stopped = False
        backlog, host.backlog = host.backlog, []
        self.step(host, ev.Tick())
        for event in backlog:
            self.step(host, event)
        self._drain(host)

    # --- the shell around a core ----------------------------------------------------------------

    def step(self, host: Host, event: ev.Event) -> None:
        """One step of one core, and what follows from it."""
        core = host.core
        if core is None or core.state is State.STOPPED:
            return
        if host.stopped:
            host.backlog.append(event)
            return
        effects = core.step(host.local(self.now_ns), event)
        for effect in effects:
            if isinstance(effect, ev.Note):
                self.say(host, effect.text)
            elif not self._at_once(host, effect):
                host.waiting.append(effect)
        self._drain(host)
        wake_ns = core.wake()
        if wake_ns is not None:
            if wake_ns <= core.now_ns:
                raise SafetyError(f"{host.node.label}: wake() names {wake_ns}, now is {core.now_ns}")
            self.at(host.true(wake_ns), self._timer(host, host.life))
        self._check(host)

    def _timer(self, host: Host, life: int) -> Callable[[], None]:
        def tick() -> None:
            if host.life == life and host.core is not None and not host.stopped:
                wake_ns = host.core.wake()
                if wake_ns is not None and wake_ns <= host.local(self.now_ns):
                    self.step(host, ev.Tick())

        return tick

    def _at_once(self, host: Host, effect: ev.Effect) -> bool:
        """Orders to gate and address never wait for the disk."""
        if isinstance(effect, ev.HoldVip):
            self._hold(host, host.true(effect.lease_end_ns))
        elif isinstance(effect, ev.CloseGate):
            if host.gate_until_ns > self.now_ns:
                self.say(host, "  gate closed")
            host.gate_until_ns = min(host.gate_until_ns, self.now_ns)
        elif isinstance(effect, ev.DropVip):
            life, holds = host.life, host.holds
            if not host.vip_stuck:
                self.at(self.now_ns + DROP_NS, lambda: self._dropped(host, life, holds))
        elif isinstance(effect, ev.KeepVip):
            self.say(host, "  leaves gate and address as they are")
        else:
            return False
        return True

    def _hold(self, host: Host, end_ns: int) -> None:
        for other in self.hosts.values():
            if other is not host and other.gate_until_ns > self.now_ns:
                raise SafetyError(f"two gates are open: {other.node.label} and {host.node.label}")
        if host.gate_until_ns <= self.now_ns < end_ns:
            self.say(host, "  gate opened, address on")
        host.gate_until_ns, host.address, host.holds = end_ns, True, host.holds + 1
        self.at(end_ns, lambda: self._ran_out(host, end_ns))

    def _ran_out(self, host: Host, end_ns: int) -> None:
        if host.gate_until_ns == end_ns:
            self.say(host, "  gate closed by the kernel: its time ran out")
            host.gate_until_ns = end_ns - 1

    def _dropped(self, host: Host, life: int, holds: int) -> None:
        if (host.life, host.holds) == (life, holds) and host.core is not None:
            if host.address:
                self.say(host, "  address off")
            host.address = False
            self.step(host, ev.VipDown())

    def _drain(self, host: Host) -> None:
        """Carry out what waits, up to the next write to the disk."""
        while host.waiting and not host.writing and not host.stopped:
            effect = host.waiting.popleft()
            if isinstance(effect, ev.Persist):
                self._write(host, host.life, effect.record)
            else:
                self._carry_out(host, effect)

    def _write(self, host: Host, life: int, record: Record) -> None:
        host.writing = True
        delay_us = self.random.randint(*self.weather.disk_us)
        self.at(self.now_ns + delay_us * 1000, lambda: self._durable(host, life, record))

    def _durable(self, host: Host, life: int, record: Record) -> None:
        if host.life != life:
            return
        old = host.disk
        if old is not None and (record.term < old.term or record.stamp < old.stamp or record.boot < old.boot):
            raise SafetyError(f"{host.node.label}: its record went back from {old} to {record}")
        host.disk, host.writing = record, False
        self._drain(host)

    def _carry_out(self, host: Host, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Send):
            self._check_vote(host, effect)
            self._transmit(host.node.node_id, effect.to, effect.message, host.record_id)
        elif isinstance(effect, ev.StartCommand):
            self._start_command(host, effect)
        elif isinstance(effect, ev.Answer):
            self.say(host, f"  answer {effect.request_id}, {'yes' if effect.accepted else 'no'}: {effect.text}")
        elif isinstance(effect, ev.Finished):
            self.say(host, "  process ended")
            self.kill(host.node.node_id)

    def _start_command(self, host: Host, effect: ev.StartCommand) -> None:
        intent = effect.intent
        if host.local(self.now_ns) >= effect.lease_end_ns:
            return
        self.say(host, f"  runs {intent.name} for {intent.event}, token {intent.token}")
        host.commands.append((intent.token, intent.event))
        if intent.policy == "once":
            self._once[intent.event] = self._once.get(intent.event, 0) + 1
            if self._once[intent.event] > 1:
                raise SafetyError(f"{intent.name} for {intent.event} ran twice")
        life = host.life
        ended = ev.CommandEnded(intent.token, True)
        self.at(self.now_ns + 50 * NS_PER_MS, lambda: self.step(host, ended) if host.life == life else None)

    # --- network --------------------------------------------------------------------------------

    def _transmit(self, sender: int, to: int, message: Message, record_id: int) -> None:
        self.sent.append((sender, to, message))
        if to not in self.hosts or not self.tamper(sender, to, message):
            return
        copies = 2 if self.random.randrange(1000) < self.weather.double_permille else 1
        for _ in range(copies):
            if self.random.randrange(1000) >= self.weather.loss_permille:
                delay_ns = self.random.randint(*self.weather.delay_us) * 1000
                self.at(self.now_ns + delay_ns, lambda: self.deliver(sender, to, message, record_id))

    def deliver(self, sender: int, to: int, message: Message, record_id: int) -> None:
        """Hand a message over, unless the link is cut."""
        if (sender, to) not in self.cuts:
            self.step(self.hosts[to], ev.Arrived(sender, record_id, message))

    # --- lifecheck ------------------------------------------------------------------------------

    def _beat(self) -> None:
        for host in self.hosts.values():
            for other in self.hosts.values():
                up = other.core is not None and not other.stopped
                if up and (other.node.node_id, host.node.node_id) not in self.cuts:
                    host.heard_ns[other.node.node_id] = self.now_ns
            self._ask_upstream(host)
            self._look(host)
        self.at(self.now_ns + BEAT_NS, self._beat)

    def _ask_upstream(self, host: Host) -> None:
        """The tie-breaker answers at once, or not at all; the process that asks is not the one that fails here."""
        now_ns = host.local(self.now_ns)
        if not host.upstream:
            host.series.failed("silent")
        elif now_ns > 0:
            host.series.answered(now_ns, "answers")

    def _look(self, host: Host) -> None:
        if host.core is None or host.stopped:
            return
        peers = tuple(self._peer(host, other) for other in self.hosts.values() if other is not host)
        address, seen = host.core.question()[0], host.series.seen
        told = (address, seen.asked_at_ns, seen.since_ns) if address else ("", 0, 0)
        views = ev.Views(host.pgpool, "query failed" if host.pgpool is Health.DEAD else "", peers, *told)
        if views != host.views:
            host.views = views
            self.step(host, views)

    def _peer(self, host: Host, other: Host) -> ev.PeerView:
        heard_ns = host.heard_ns.get(other.node.node_id)
        health = Health.UNKNOWN
        if heard_ns is None and self.now_ns - host.started_ns > DEAD_AFTER_NS:
            health = Health.DEAD  # never heard, and long enough looked for
        elif heard_ns is not None:
            health = Health.ALIVE if self.now_ns - heard_ns <= DEAD_AFTER_NS else Health.DEAD
        fit = other.pgpool is Health.ALIVE and other.can_hold and not other.node.witness
        started_ns = host.local(other.started_ns)
        return ev.PeerView(other.node.node_id, health, fit, other.node.priority, started_ns)

    # --- checks ---------------------------------------------------------------------------------

    def open_gates(self) -> list[str]:
        """The hosts that answer for the VIP now."""
        return [host.node.label for host in self.hosts.values() if host.gate_until_ns > self.now_ns]

    def leaseholders(self) -> list[Host]:
        """The hosts whose process believes in a lease that still runs."""
        return [host for host in self.hosts.values() if self._holds(host)]

    def leader(self) -> Host | None:
        """The host that leads under a lease."""
        return next((host for host in self.leaseholders() if host.core and host.core.state is State.LEADER), None)

    def _holds(self, host: Host) -> bool:
        lease = None if host.core is None else host.core.lease
        return lease is not None and lease.held(host.local(self.now_ns))

    def _check(self, host: Host) -> None:
        core = host.core
        if core is None:
            return
        holders = self.leaseholders()
        if len(holders) > 1:
            raise SafetyError("two leases run: " + ", ".join(holder.node.label for holder in holders))
        if core.lease is not None:
            holder = self._leader_of.setdefault(core.lease.term, host.node.node_id)
            if holder != host.node.node_id:
                raise SafetyError(f"term {core.lease.term} has two leaders: {holder} and {host.node.node_id}")
        stamp, document = core.committed_stamp, core.document
        durable = (
            host.disk is not None and stamp is not None and host.disk.stamp >= stamp
        )  # a lone voter commits at once
        if durable and stamp is not None and document is not None and stamp > self._committed[0]:
            if document.epoch < self._committed[1]:
                raise SafetyError(f"{host.node.label} lost a committed change of the voters")
            self._committed = (stamp, document.epoch)

    def _check_vote(self, host: Host, effect: ev.Send) -> None:
        message = effect.message
        if isinstance(message, Granted) and message.real:
            given_to, term = effect.to, message.term
        elif isinstance(message, Vote):
            given_to, term = host.node.node_id, message.term
        else:
            return
        if host.disk is None or (host.disk.term, host.disk.voted_for) < (term, 0):
            raise SafetyError(f"{host.node.label} votes in term {term} before that is durable")
        if self._votes.setdefault((host.record_id, term), given_to) != given_to:
            raise SafetyError(f"{host.node.label} voted twice in term {term}")

    # --- operators ------------------------------------------------------------------------------

    def stop(self, node_id: int) -> None:
        """A smart stop."""
        self.step(self.hosts[node_id], ev.Stop(StopMode.SMART))
