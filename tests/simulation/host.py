"""One machine: clock, kernel, disk, pgpool-II, and maybe a watchdog main and a helper that run on it.

It starts, kills, stops and continues what runs on it, and hands everything that leaves a process to network, story
and checkers. It decides nothing: the fault schedule does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tests.simulation.clock import Clock
from tests.simulation.disk import Disk
from tests.simulation.helper import Helper
from tests.simulation.kernel import Kernel
from tests.simulation.network import Network
from tests.simulation.options import Options
from tests.simulation.pools import Commands, Pool
from tests.simulation.process import Process
from tests.simulation.story import Story
from tests.simulation.upstream import SimWay, Upstream
from tests.simulation.watchdog import COMMAND_NS, Main, Parcel
from tests.simulation.world import World

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.probes.tie_breaker import MakeWay
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.base import CoreNode
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.record import Record, blank_record
from pgvigil.watchdog.process import HOUSEKEEPING_NS
from pgvigil.watchdog.transport.envelope import seal

LAZY_NS = 10_000 * NS_PER_MS  # with long leases, housekeeping only notices that lifecheck has fallen silent


class Watcher(Protocol):
    """Who is told what happens on a machine; the checkers."""

    def opened(self, host: Host) -> None: ...
    def resumed(self, host: Host) -> None: ...
    def stepped(self, host: Host, core: Watchdog) -> None: ...
    def sends(self, host: Host, effect: events.Send) -> None: ...
    def durable(self, host: Host, old: Record | None, new: Record) -> None: ...
    def commands(self, host: Host, effect: events.StartCommand) -> None: ...


class Host:
    """A machine and what runs on it."""

    def __init__(self, world: World, options: Options, node: CoreNode, network: Network, story: Story) -> None:
        source = world.source(f"host {node.node_id}")
        self.world = world
        self.options = options
        self.node = node
        self.id = node.node_id
        self.network = network
        self.story = story
        self.watcher: Watcher
        self.upstream: Upstream
        self.peers: dict[int, Host] = {}
        self.clock = Clock(world, options.rates_ppm[node.node_id - 1], -source.randrange(10**13))
        self.kernel = Kernel(world, self.clock)
        self.kernel.on_open = lambda: self.watcher.opened(self)
        self.disk = Disk(world, source, lambda old, new: self.watcher.durable(self, old, new))
        self.disk.delay_us = options.disk_us
        self.main: Main | None = None
        self.helper: Helper | None = None
        self.pool: Pool | None = None
        self.users_commands: Commands | None = None
        self.settings = options.settings(node.node_id, options.lease_ms)
        self.pgpool_health = Health.ALIVE
        self.fence = events.FenceState(True, "")
        self.stuck = False
        self.on = True
        self.paused = False
        self.paused_at_ns = 0
        self.lost_records: set[int] = set()
        self.lost_time = False
        self.starts = 0
        self._draw = source.randrange
        self._counter = 0

    # --- processes --------------------------------------------------------------------------------

    def start_main(self) -> None:
        """Watchdog main begins another life, unless one is running."""
        if self.main is not None or not self.on or self.paused:
            return
        self.starts += 1
        record = self.disk.load() or blank_record("c", self.id, self._draw(1 << 62) + 1)
        self._counter = 0
        options = self.options
        self.main = Main(
            self.world, self.clock, self.kernel, self.disk, self.settings, record, self, self._draw, self.fence,
            options.windows, HOUSEKEEPING_NS if options.lease_ms <= 5000 else LAZY_NS,
            self._slow_ns(),
        )  # fmt: skip
        self.main.vip.stuck = self.stuck
        self.main.vip.removal_ns = options.removal_us * 1000
        self.main.process.on_end = self._ended
        if self.helper is not None:
            self.helper.main_started()
        self.main.begin()

    def start_helper(self) -> None:
        """Lifecheck and sender begin another life, unless they are running."""
        if self.helper is not None or not self.on or self.paused:
            return
        options = self.options
        peers = tuple(node.node_id for node in options.nodes() if node.node_id != self.id)
        interval_ns, deadtime_ns = options.interval_ms * NS_PER_MS, options.deadtime_ms * NS_PER_MS
        repeat_ns = options.repeat_ms * NS_PER_MS
        self.helper = Helper(
            self.world, self.clock, peers, interval_ns, deadtime_ns, repeat_ns, self, self._slow_ns()
        )  # fmt: skip

    def start(self) -> None:
        """Both."""
        self.start_helper()
        self.start_main()

    def _slow_ns(self) -> int:
        return self.options.slow_us * 1000 if self.options.slow_node == self.id else 0

    def kill_main(self) -> None:
        """Memory is gone; kernel and disk are not."""
        if self.main is not None:
            main, self.main = self.main, None
            main.process.kill()
            main.writer.crash()

    def kill_helper(self) -> None:
        """Heartbeats and verdicts end."""
        if self.helper is not None:
            self.helper.process.kill()
            self.helper = None

    def _ended(self) -> None:
        self.story.say(self.node.label, "  process ended")
        self.main = None

    def processes(self) -> list[Process]:
        """Those that live."""
        return [part.process for part in (self.main, self.helper) if part is not None]

    def stop(self, process: Process) -> None:
        """SIGSTOP."""
        process.stopped = True

    def proceed(self, process: Process) -> None:
        """SIGCONT."""
        if process.stopped:
            process.stopped = False
            process.proceed()

    # --- the machine ------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Everything but the disk is gone."""
        self.kill_main()
        self.kill_helper()
        if self.paused:
            self.paused = False
        self.on = False
        self.kernel.power_off()

    def power_on(self) -> None:
        """The machine is up; its clock begins anew."""
        if not self.on:
            self.on, self.lost_time = True, False
            self.clock.restart()
            self.start()

    def pause(self) -> None:
        """The hypervisor stops the guest: kernel timers stand still too."""
        if self.on and not self.paused:
            self.paused, self.paused_at_ns = True, self.world.now_ns
            self.kernel.pause()
            for process in self.processes():
                process.machine_paused = True

    def unpause(self) -> None:
        """The guest goes on."""
        if not self.paused:
            return
        self.paused = False
        if not self.options.counts_pause:
            self.clock.stand_still(self.world.now_ns - self.paused_at_ns)
            self.lost_time = True
        self.kernel.resume()
        self.watcher.resumed(self)
        for process in self.processes():
            process.machine_paused = False
            process.proceed()

    # --- what processes ask of their machine ------------------------------------------------------

    @property
    def pgpool(self) -> Health:
        """What a look at the local pgpool-II shows."""
        return self.pgpool_health

    @property
    def listening(self) -> bool:
        """Whether there is a watchdog main to report to."""
        return self.main is not None

    @property
    def main_frozen(self) -> bool:
        """Whether watchdog main stands still."""
        return self.main is not None and self.main.process.frozen

    def say(self, text: str) -> None:
        """A line of the log."""
        self.story.say(self.node.label, text)

    def stepped(self, core: Watchdog) -> None:
        """The core has taken a step."""
        self.watcher.stepped(self, core)

    def post(self, effect: events.Send, core: Watchdog) -> None:
        """A message leaves."""
        self.watcher.sends(self, effect)
        target = self.peers.get(effect.to)
        if target is None:
            return
        self._counter += 1
        boot, record_id = core.record.boot, core.record.record_id
        content = effect.message
        if self.options.codec:
            sealed = seal(content, self.id, effect.to, boot, self._counter, record_id)
            self.network.mail(self.id, effect.to, _drop(target, (self.id, record_id, boot, self._counter, sealed)))
        else:
            self.network.mail(self.id, effect.to, _drop(target, (self.id, record_id, boot, self._counter, content)))

    def up(self) -> bool:
        """Whether the machine runs."""
        return self.on and not self.paused

    def started_command(self, effect: events.StartCommand) -> tuple[int, bool]:
        """A user's command runs: how long, and whether it will succeed."""
        self.say(f"  runs {effect.intent.name} for {effect.intent.event}, token {effect.intent.token}")
        self.watcher.commands(self, effect)
        if self.users_commands is None or effect.intent.name == "escalation":
            return COMMAND_NS, True
        return self.users_commands.run(effect.intent.name, effect.intent.arguments)

    def answered(self, effect: events.Answer) -> None:
        """An operator reads this."""
        self.say(f"  answer, {'yes' if effect.accepted else 'no'}: {effect.text}")
        if self.pool is not None:
            self.pool.answered(effect)

    def speaks(self, content: frames.BeatContent) -> None:
        """For the next heartbeats."""
        if self.helper is not None:
            self.helper.speaks(content)

    def asks(self, question: frames.AskTieBreaker) -> None:
        """For lifecheck."""
        if self.helper is not None:
            self.helper.asks(question)

    def ways(self, process: Process) -> MakeWay:
        """How lifecheck asks a tie-breaker from here."""
        return lambda settings, watcher, on_end: SimWay(
            self.world, self.upstream, self.id, process, settings, on_end
        )  # fmt: skip

    def saw(self, seen: frames.TieBreakerSeen) -> None:
        """For watchdog main, if it is there."""
        if self.main is not None:
            self.main.reports.put(seen)

    def beat(self, beat: frames.Beat) -> None:
        """A round of heartbeats."""
        for peer in self.peers.values():
            self.network.beat(self.id, peer.id, _tell(peer, self.id, beat))

    def report(self, verdicts: frames.Verdicts, repeated: bool) -> bool:
        """Verdicts for watchdog main; False if it is away."""
        if self.main is None:
            return False
        return (repeated and self.main.heard_again(verdicts)) or self.main.reports.put(verdicts)


def _drop(target: Host, parcel: Parcel) -> Callable[[], None]:
    def deliver() -> None:
        if target.main is not None and not target.paused:
            target.main.mail.put(parcel)

    return deliver


def _tell(target: Host, sender: int, beat: frames.Beat) -> Callable[[], None]:
    def deliver() -> None:
        if target.helper is not None and not target.paused:
            target.helper.beats.put((sender, beat))

    return deliver
