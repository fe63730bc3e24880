"""The supervisor: it keeps the processes of a node running and does nothing else.

One loop over pidfds and links, without ZeroMQ and without threads, so that a fork is safe at any time. After every
wake-up the children that exist are compared with those that should; signals are queued and handled in the loop.
It never decides about leadership. It touches the virtual IP in one case only: when watchdog main cannot
(`last_will`).
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

from pgvigil.ipc import frames, log
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import ConfigError
from pgvigil.ipc.frames import StopMode
from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.pools.opening import preload
from pgvigil.watchdog.settings import Settings
from pgvigil.watchdog.supervisor import birth, children, exits, policy, reload, sharing
from pgvigil.watchdog.supervisor.child import Child
from pgvigil.watchdog.supervisor.last_will import LastWill, Release
from pgvigil.watchdog.supervisor.notify import Notifier
from pgvigil.watchdog.supervisor.pidfile import PidFile
from pgvigil.watchdog.supervisor.roster import Roster
from pgvigil.watchdog.supervisor.rundir import RunDir
from pgvigil.watchdog.supervisor.stopping import Stopping

REPORT_INTERVAL_NS = 1 * NS_PER_S
START_DEADLINE_NS = 10 * NS_PER_S

_log = logging.getLogger(log.LOGGER)


class Supervisor:
    """Run it once. `table` makes the children from the settings, `load` reads the settings again for a reload.

    `strict_start`: somebody waits for the outcome of the start, so a child that cannot start ends it, with the reason.
    """

    def __init__(
        self,
        settings: Settings,
        table: children.Table,
        load: Callable[[], Settings],
        release: Release,
        pid_file: PidFile,
        notifier: Notifier,
        on_started: Callable[[], None],
        strict_start: bool,
    ) -> None:
        self.settings = settings
        self.rules = policy.Rules(hang_ns=settings.process.hang_timeout_ms * NS_PER_MS)
        self._table = table
        self._load = load
        self._pid_file = pid_file
        self._notifier = notifier
        self._on_started = on_started
        self._strict_start = strict_start
        self._will = LastWill(release)
        self._loop = Loop()
        self._roster = Roster(self._loop, self, lambda: pid_file.fd, self._drop_inheritance)
        self._stopping: Stopping | None = None
        self._started = False
        self._began_ns = boottime_ns()
        self._awake_ns = self._began_ns  # the newest round; what is long ago was slept through
        self._report_ns = self._began_ns
        self._watchdog_ns = 0
        self._outage_ns: int | None = None  # since when watchdog main is not ready
        self._will_done = False
        self._news_for_main: frames.ReloadDone | None = None
        self._run_dir = RunDir(settings.process.run_dir, pid_file, settings.process.control_group)
        self._status = ""
        self._title = ""
        self.exit_code = exits.CLEAN
        self.reason = ""

    # --- life ------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything and stay until a stop: the exit code. `reason` says why, if it is not 0."""
        numbers = (
            signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD
        )  # fmt: skip
        self._loop.on_signals(tuple(map(int, numbers)), self._on_signal)
        self._loop.join(self)
        self._roster.fill(self._table(self.settings, self.rules.life_interval_ns))
        preload(self.settings)
        sharing.freeze()
        for child in self._roster:
            self._roster.start(child)
        self._loop.run()
        self._loop.close()
        return self.exit_code

    def wake(self) -> int | None:
        """The earliest of all deadlines; at least once a second, for the report."""
        due = [self._report_ns, self._awake_ns + self.rules.beat_ns]
        due += [at for child in self._roster if (at := self._deadline_of(child)) is not None]
        due += [at for at in (self._will.wake(), self._will_due_ns()) if at is not None]
        if self._stopping is not None:
            due.append(self._stopping.wake())
        if self._notifier.watchdog_ns is not None:
            due.append(self._watchdog_ns)
        if self._somebody_waits():
            due.append(self._began_ns + START_DEADLINE_NS)
        return min(due)

    def tick(self, now_ns: int) -> None:
        """Reconcile what is with what should be."""
        self._doubt(now_ns)
        for child in self._roster:
            self._roster.listen(child)
            self._check(child, now_ns)
        will_wake = self._will.wake()
        if will_wake is not None and will_wake <= now_ns:
            self._will.tick(now_ns)
        if (at := self._will_due_ns()) is not None and at <= now_ns:
            self._replace_main()
        if self._somebody_waits() and now_ns >= self._began_ns + START_DEADLINE_NS:
            self._fail_start(
                exits.TIMED_OUT, f"not ready after {START_DEADLINE_NS // NS_PER_S} s: {self._roster.unready()}"
            )
        if self._stopping is not None:
            self._stopping.tick(now_ns)
        if self._notifier.watchdog_ns is not None and now_ns >= self._watchdog_ns:
            self._watchdog_ns = now_ns + self._notifier.watchdog_ns // 2
            self._notifier.alive()
        if now_ns >= self._report_ns:
            self._report(now_ns)

    def _doubt(self, now_ns: int) -> None:
        away_ns, self._awake_ns = now_ns - self._awake_ns, now_ns
        if policy.must_doubt_itself(away_ns, self.rules):
            _log.warning("the supervisor was away for %d ms; no child is judged for that time", away_ns // NS_PER_MS)
            for child in self._roster:
                child.pardon(now_ns)

    # --- children --------------------------------------------------------------------------------------

    def _deadline_of(self, child: Child) -> int | None:
        if child.alive:
            if child.state == "stopping":
                return None
            return policy.death_deadline_ns(child.started_ns, child.ready, child.life_ns, self.rules)
        return None if self._must_wait(child) else child.due_ns

    def _must_wait(self, child: Child) -> bool:
        # A new watchdog main must not raise an address while the helper is still taking it down.
        return self._stopping is not None or (child.spec.vital and self._will.running)

    def _check(self, child: Child, now_ns: int) -> None:
        if not child.alive:
            if child.due_ns is not None and child.due_ns <= now_ns and not self._must_wait(child):
                self._roster.start(child)
            return
        if child.state == "stopping":
            return
        reason = policy.must_die(child.started_ns, child.ready, child.life_ns, now_ns, self.rules)
        if reason is not None:
            _log.error("%s (pid %d) is killed: %s", child.spec.name, child.pid, reason)
            child.reason = reason
            self._roster.kill(child)

    def on_change(self) -> None:
        """Titles and reports follow every change at once."""
        self._report_ns = min(self._report_ns, boottime_ns())

    def on_ready(self, child: Child) -> None:
        """The outage of watchdog main is over; the start may be complete."""
        if child.spec.vital:
            self._outage_ns, self._will_done = None, False
            if self._news_for_main is not None and child.order(self._news_for_main):
                self._news_for_main = None
        if not self._started and self._stopping is None and self._roster.all_ready():
            self._started = True
            _log.info("started: %d processes are ready", len(self._roster.by_name) + 1)
            self._notifier.ready(self._status_line())
            self._on_started()

    def on_killed(self, child: Child) -> None:
        """An outage of watchdog main counts from the kill: a process that the kernel holds may end much later."""
        if child.spec.vital and self._outage_ns is None:
            self._outage_ns = boottime_ns()

    def on_exit(self, child: Child, status: int) -> bool:
        """While stopping, nothing is started again."""
        self.on_killed(child)
        self._reap_strangers()  # one may have hidden behind this one
        if self._stopping is None:
            return False
        child.state = "failed" if status else "stopping"
        self._stopping.on_exit(child, status)
        return True

    def on_failure(self, child: Child, ran_ready_ns: int | None) -> None:
        """Start it again, now or later, or give up."""
        now_ns = boottime_ns()
        child.history, verdict = policy.after_exit(child.history, ran_ready_ns, now_ns, child.spec.vital, self.rules)
        name = child.spec.name
        if isinstance(verdict, policy.GiveUp):
            child.state = "failed"
            _log.critical("%s ended (%s); giving up: %s", name, child.last_exit, verdict.reason)
            self._give_up(exits.GAVE_UP, f"{name} keeps failing ({child.last_exit}): {verdict.reason}")
        elif self._start_is_lost(child):
            child.state = "failed"
            self._fail_start(child.last_code or exits.FAILED, f"{name} cannot start: {child.last_exit}")
        else:
            child.state, child.due_ns = "backing off", verdict.at_ns
            wait_ms = (verdict.at_ns - now_ns) // NS_PER_MS
            when = f"in {wait_ms} ms" if wait_ms else "at once"
            _log.error("%s ended (%s); it is started again %s", name, child.last_exit, when)
            if not wait_ms:
                self._check(child, now_ns)

    def _somebody_waits(self) -> bool:
        return self._strict_start and not self._started and self._stopping is None

    def _start_is_lost(self, child: Child) -> bool:
        if not self._somebody_waits():
            return False
        return child.last_code == exits.CONFIGURATION or policy.start_has_failed(child.history, self.rules)

    # --- the end ---------------------------------------------------------------------------------------

    def _fail_start(self, code: int, reason: str) -> None:
        _log.critical("the start has failed: %s", reason)
        self._give_up(code, reason)

    def _give_up(self, code: int, reason: str) -> None:
        self.exit_code, self.reason = code, reason
        if not self._roster.main.alive:
            self._write_will("watchdog main has ended for good")
        self.stop(StopMode.FAST)

    def stop(self, mode: StopMode) -> None:
        """Begin to stop, or stop faster."""
        if self._stopping is None:
            _log.info("stopping (%s)", mode.value)
            self._notifier.stopping(f"stopping ({mode.value})")
            self._stopping = Stopping(self._roster.by_name, self._write_will, self._will_running, self._loop.stop)
        self._stopping.begin(mode, main_is_owed=self._outage_ns is not None and not self._will_done)
        self.on_change()

    def _drop_inheritance(self) -> None:
        """In a fresh child: nothing of the supervisor's may stay open or be closed later by accident."""
        self._roster.drop()
        self._loop.close()
        self._notifier.close()

    def _will_due_ns(self) -> int | None:
        if self._outage_ns is None or self._will_done or self._stopping is not None:
            return None
        return self._outage_ns + self.settings.cluster.lease_ms * NS_PER_MS

    def _replace_main(self) -> None:
        """Release the VIP; a successor that still starts would raise it meanwhile, so it starts again afterwards."""
        main = self._roster.main
        self._roster.listen(main)  # we may have been away since it said that it is ready
        if self._outage_ns is None:
            return
        late = f"watchdog main is not back {self.settings.cluster.lease_ms} ms after its end"
        if main.alive:
            main.reason = late
            self._roster.kill(main)
        self._write_will(late)

    def _will_running(self) -> bool:
        return self._will.running

    def _write_will(self, reason: str) -> None:
        if self._will_done:
            return
        self._will_done = True
        if self._will.start(self.settings.vip, reason, boottime_ns(), self._drop_inheritance):
            self._loop.watch(self._will.pidfd, self._on_will_done)

    def _on_will_done(self) -> None:
        if not self._will.running:
            return
        pidfd = self._will.pidfd
        self._loop.unwatch(pidfd)
        if not self._will.reap():
            self._loop.watch(pidfd, self._on_will_done)
        elif self._stopping is not None:
            self._stopping.check()

    # --- signals ---------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap_strangers()
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR1:
            self._reopen_logs()
        elif number == signal.SIGUSR2:
            _log.info("handing leadership over, as asked by SIGUSR2")
            if not self._roster.main.order(frames.HandOverOrder()):
                _log.warning("watchdog main is not there to take the order to hand over")
        else:
            modes = {signal.SIGTERM: StopMode.SMART, signal.SIGINT: StopMode.FAST, signal.SIGQUIT: StopMode.IMMEDIATE}
            self.stop(modes[signal.Signals(number)])

    def _reap_strangers(self) -> None:
        """As process 1 of a container the supervisor inherits orphans; its own children have their pidfds."""
        own = self._roster.pids | {self._will.pid}
        while True:
            try:
                peeked = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if peeked is None or peeked.si_pid in own:
                return
            os.waitpid(peeked.si_pid, os.WNOHANG)

    def _reopen_logs(self) -> None:
        log.reopen()
        _log.info("log reopened; %s", self._status_line())
        for child in self._roster:
            child.order(frames.ReopenLogsOrder())

    # --- reload ----------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._stopping is not None:
            _log.warning("a reload was asked for, but pgvigil is stopping")
            return
        self._notifier.reloading()
        done = self._reloaded()
        for line in done.message.splitlines():
            _log.log(logging.INFO if done.accepted else logging.ERROR, "%s", line)
        # A watchdog main that is about to be restarted hears it when it is ready again.
        if self._roster.main.restart_asked or not self._roster.main.order(done):
            self._news_for_main = done
        self._notifier.ready(self._status_line())
        self.on_change()

    def _reloaded(self) -> frames.ReloadDone:
        kept = "reload refused, nothing changes"
        try:
            fresh = self._load()
        except ConfigError as error:
            return frames.ReloadDone(False, f"{kept}: {error}"[:4000])
        refused = reload.refusals(self.settings, fresh)
        if refused:
            return frames.ReloadDone(False, "\n".join((f"{kept}:", *refused))[:4000])
        try:
            if fresh.process != self.settings.process:
                log.setup("supervisor", fresh.node.host, fresh.process.log, fresh.process.log_level)
        except ConfigError as error:
            return frames.ReloadDone(False, f"{kept}: {error}")
        return frames.ReloadDone(True, self._apply(fresh))

    def _apply(self, fresh: Settings) -> str:
        self.settings = fresh
        self.rules = policy.Rules(hang_ns=fresh.process.hang_timeout_ms * NS_PER_MS)
        done = self._roster.change_to(self._table(fresh, self.rules.life_interval_ns))
        return f"configuration reloaded from {fresh.source}; {done}"

    # --- what others see -------------------------------------------------------------------------------

    def _report(self, now_ns: int) -> None:
        self._report_ns = now_ns + REPORT_INTERVAL_NS
        alive = sum(child.alive for child in self._roster) + 1
        nodes = len(self.settings.nodes)
        title = f"supervisor ({nodes} node{'s' * (nodes != 1)}, {alive} process{'es' * (alive != 1)})"
        if title != self._title:
            self._title = title
            birth.set_title(title)
        self._roster.tell_main(self._own_row(), now_ns)
        status = self._status_line()
        if status != self._status and self._started and self._stopping is None:
            self._status = status
            self._notifier.status(status)
        if self._run_dir.mend():
            self._restore_sockets()

    def _own_row(self) -> frames.ProcessInfo:
        state = "stopping" if self._stopping is not None else "running" if self._started else "starting"
        return frames.ProcessInfo("supervisor", os.getpid(), state, 0, self._began_ns, "")

    def _status_line(self) -> str:
        bad = [f"{child.spec.name}: {child.state}" for child in self._roster if not child.ready]
        return log.escape("; ".join((self._roster.main.summary or "watchdog main has said nothing yet", *bad)))

    def _restore_sockets(self) -> None:
        """One child after the other; the next is looked at when this one is ready, see `on_change`."""
        if self._stopping is not None or not self._roster.all_ready() or self._roster.restarting():
            return
        for child in self._roster:
            if self._run_dir.lacks_sockets_of(child):
                _log.warning("%s is restarted, because its sockets in %s are gone", child.spec.name, self._run_dir.path)
                self._roster.restart(child, child.spec)
                return
