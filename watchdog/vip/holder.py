"""Holds the virtual IP while there is a lease, and makes sure that it is not held otherwise.

Orders (`keep`, `hold`, `close_gate`, `drop`) say what is wanted; `core.vip.decide` compares that with what is
observed, and the answer is carried out here, after every order, event and second. So a lost event or a failed action
heals itself. The holder never extends a lease: all it knows of it is its absolute end, and whatever it does outside
is checked against that end right before (P21). It reports through the log and `status`, never by exceptions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.netlink import Link
from pgvigil.ipc.runner import Runner
from pgvigil.watchdog.core.vip import Action, Desired, GateState, Observed, Probe, Wanted, decide
from pgvigil.watchdog.settings import Fence, VipSettings
from pgvigil.watchdog.vip.announce import Announcer, Question
from pgvigil.watchdog.vip.driver import CommandDriver, Driver, NetlinkDriver, ip
from pgvigil.watchdog.vip.fence import GateKeeper
from pgvigil.watchdog.vip.netlink import Address, Addresses, AddressEvents, HostAddress
from pgvigil.watchdog.vip.release import remove_addresses
from pgvigil.watchdog.vip.slow_check import SlowCheck
from pgvigil.watchdog.vip.status import VipStatus

ANSWER_TIME_NS = 12 * NS_PER_MS
FREE_FOR_NS = 1 * NS_PER_S
ASK_AGAIN_NS = 1 * NS_PER_S
FAILURE_COUNTS_NS = 10 * NS_PER_S
ROUNDS = 3

__all__ = ["VipHolder", "VipStatus"]

_log = logging.getLogger("pgvigil")


class VipHolder:
    """The VIP of one host; a participant of the loop of watchdog main."""

    def __init__(
        self, settings: VipSettings, fence: Fence, loop: Loop, runner: Runner, on_change: Callable[[], None]
    ) -> None:
        """`on_change` is called from the loop, never from inside an order."""
        self._settings = settings
        self._fence = fence
        self._loop = loop
        self._on_change = on_change
        self._addresses: tuple[Address, ...] = tuple(ip(vip) for vip in settings.addresses)
        self._netlink = Addresses()
        self._driver: Driver = self._make_driver(runner)
        self._keeper = GateKeeper(loop, self._addresses, self._look_and_reconcile)
        self._announcer: Announcer | None = None
        self._events: AddressEvents | None = None
        self._announce_problem = ""
        self._question: Question | None = None
        self._probe = Probe.UNASKED
        self._probe_due_ns: int | None = None
        self._asking = False
        self._free_until_ns: int | None = 0
        self._conflict = ""
        self._wanted = Wanted.DOWN
        self._lease_end_ns = 0
        self._hosts: list[HostAddress] = []
        self._blind = False  # the kernel did not tell which addresses there are
        self._link: Link | None = None
        self._announced = False
        self._on_down: list[Callable[[], None]] = []
        self._failed_at_ns = 0
        self._failure = ""
        self._slow_check = SlowCheck(self.check)
        self._told: object = None
        self._reconciling = False

    def _make_driver(self, runner: Runner) -> Driver:
        if self._settings.driver == "command":
            return CommandDriver(self._settings, runner, self._look_and_reconcile)
        return NetlinkDriver(self._settings, self._netlink)

    # --- orders -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Sockets and tables, before the loop. What is not permitted becomes a reason in `status`."""
        if not self._addresses:
            return
        self._release_leftovers()
        self._keeper.load()
        try:
            self._announcer = Announcer(self._addresses, self._settings.announce_interval_s)
        except CommandError as error:
            self._announce_problem = f"cannot announce the address: {error}; needs CAP_NET_RAW"
        self._events = AddressEvents(self._netlink.port)
        self._loop.watch(self._events.fd, self._addresses_changed)
        self._loop.join(self)
        self._loop.join(self._slow_check)
        self._look()
        if self._announcer is not None and self._link is not None and self._link.announces:
            try:
                self._questioner(self._link)  # opening takes longer than asking
            except CommandError as error:
                self._announce_problem = f"cannot ask for the address: {error}; needs CAP_NET_RAW"
        self._told = self._key()

    def keep(self) -> None:
        """A leader may resume: the kernel closes gate and address by itself."""
        self._wanted = Wanted.KEEP
        self._reconcile()

    def ask_ahead(self) -> None:
        """This node stands for leader: ask for the address now, so that the first raise need not wait for answers."""
        self._forget_old_answer()
        if self._addresses and self._wanted is not Wanted.UP and self._probe is Probe.UNASKED:
            self._look()
            self._ask()

    def hold(self, lease_end_ns: int) -> None:
        """Carry the VIP until `lease_end_ns`, and no instant longer."""
        self._lease_end_ns = lease_end_ns
        if self._wanted is not Wanted.UP:
            self._wanted = Wanted.UP
            self._announced = False
            self._on_down.clear()
            self._forget_old_answer()
            self._look()
            if all(self._present()):
                self._probe = Probe.FREE  # it is ours already: a resumed term
        self._reconcile()

    def close_gate(self) -> None:
        """Nothing passes from now on; the lease that was known counts no more."""
        self._lease_end_ns = 0
        if not self._addresses:
            return
        if not self._keeper.close() and self._keeper.state(boottime_ns()) is GateState.MISSING:
            self._remove_without_gate()

    def drop(self, on_down: Callable[[], None]) -> None:
        """Close the gate, take the addresses off, then call `on_down`; at once if there is nothing to take off."""
        self._wanted = Wanted.DOWN
        self.close_gate()
        self._on_down.append(on_down)
        if self._addresses:
            self._stop_asking()
            self._conflict = ""
            self._driver.cancel()
            self._look()
            self._reconcile()
        self._settle()

    def status(self) -> VipStatus:
        """The state at this instant."""
        now_ns = boottime_ns()
        gate = self._keeper.state(now_ns)
        return VipStatus(
            self._wanted.value,
            tuple(zip(self._settings.addresses, self._present(), strict=True)),
            gate.value,
            self._keeper.until_ns if gate is GateState.OPEN else None,
            self._problems(),
            self._conflict,
            self._settings.interface,
            self._can_hold(),
        )

    def close(self) -> None:
        """Give the descriptors back; gate and addresses stay as they are."""
        self._stop_asking()
        if self._question is not None:
            self._question.close()
        self._keeper.close_sockets()
        if self._announcer is not None:
            self._announcer.close()
        if self._events is not None:
            self._loop.leave(self)
            self._loop.leave(self._slow_check)
            self._loop.unwatch(self._events.fd)
            self._events.close()
        self._netlink.close()

    # --- what is observed -------------------------------------------------------------------------

    def _present(self) -> tuple[bool, ...]:
        return self._driver.present(self._hosts, self._link)

    def _look(self) -> None:
        self._blind = bool(self._addresses)
        try:
            self._hosts = self._netlink.dump()
            self._blind = False
            had_carrier = self._link is not None and self._link.running
            self._link = self._netlink.link(self._settings.interface)
            if self._link.running and not had_carrier:
                self._announced = False
        except CommandError:
            self._link = None
        self._driver.look(self._hosts)

    def _problems(self) -> tuple[str, ...]:
        if not self._addresses:
            return ()
        found = [self._keeper.problem, self._announce_problem, self._failure]
        if self._settings.driver == "command":
            found.append('the driver "command" gives addresses no lifetime in the kernel')
        elif self._link is None:
            found.append(f"interface {self._settings.interface} does not exist")
        return tuple(problem for problem in found if problem)

    def _can_hold(self) -> bool:
        if not self._addresses:
            return True
        strict = self._fence is Fence.REQUIRED
        no_link = self._settings.driver != "command" and self._link is None
        return not (no_link or self._failure or (strict and (self._keeper.problem or self._announce_problem)))

    def _observed(self, now_ns: int) -> Observed:
        present = self._present()
        return Observed(
            now_ns=now_ns,
            gate=self._keeper.state(now_ns),
            armed_for_ns=self._keeper.until_ns,
            present=any(present) or self._driver.traces,
            missing=not all(present),
            misplaced=bool(self._driver.misplaced(self._hosts, self._link)),
            lifetime_ends_ns=self._driver.lifetime_ends_ns,
            announced=self._announced,
            probe=self._probe,
            busy=self._driver.busy,
        )

    def _key(self) -> object:
        """All that `status` is made of; asked for in every round of the loop."""
        keeper = self._keeper
        problems = (keeper.problem, self._announce_problem, self._failure, self._link is None)
        return self._wanted, self._present(), keeper.state(boottime_ns()), self._conflict, problems

    # --- reconcile --------------------------------------------------------------------------------

    def _look_and_reconcile(self) -> None:
        self._look()
        self._reconcile()
        self._settle()

    def _reconcile(self) -> None:
        if not self._addresses or self._reconciling:
            return
        self._reconciling = True
        try:
            for _ in range(ROUNDS):
                desired = Desired(self._wanted, self._lease_end_ns, self._fence is Fence.REQUIRED)
                actions = decide(desired, self._observed(boottime_ns()))
                if not actions:
                    break
                for action in actions:
                    self._perform(action)
        finally:
            self._reconciling = False

    def _perform(self, action: Action) -> None:
        if action is Action.CLOSE_GATE:
            self._keeper.close()
        elif action is Action.RESTORE_GATE:
            self._keeper.load()
        elif action is Action.ARM:
            self._arm()
        elif action is Action.ASK:
            self._ask()
        elif action is Action.ANNOUNCE:
            self._announce()
        elif action in (Action.RAISE, Action.EXTEND):
            self._raise(action)
        elif action is Action.REMOVE:
            self._remove()
        elif action is Action.REMOVE_MISPLACED:
            self._remove_misplaced()

    def _arm(self) -> None:
        was_open = self._keeper.state(boottime_ns()) is GateState.OPEN
        if self._keeper.arm(self._lease_end_ns) and not was_open:
            self._announced = False

    def _raise(self, action: Action) -> None:
        if boottime_ns() >= self._lease_end_ns:  # P21
            return
        self._driver.put(self._hosts, self._link, self._lease_end_ns)
        self._note_failure()
        if action is Action.EXTEND and not self._driver.failure:
            return
        if action is Action.RAISE:
            self._announced = False
            if not self._driver.failure and not self._driver.busy:
                self._free_until_ns = None  # only the first raise of this process asks
                _log.info("%s is up on %s", self._names(), self._settings.interface)
        self._look()

    def _remove(self) -> None:
        if self._wanted is Wanted.DOWN and not self._on_down:
            _log.warning("found %s on this host without holding it; removes it", self._names())
        self._driver.remove(self._hosts)
        self._note_failure()
        self._look()

    def _remove_misplaced(self) -> None:
        for host in self._driver.misplaced(self._hosts, self._link):
            try:
                self._netlink.delete(host.address, host.prefix_length, host.index)
                _log.warning("removed %s/%s from where it does not belong", host.address, host.prefix_length)
            except CommandError as error:
                self._fail(str(error))
        self._look()

    def _may_be_there(self) -> bool:
        """Whether an address may be anywhere on this host: what counts where no gate is known to be closed."""
        anywhere = any(host.address in self._addresses for host in self._hosts)
        return self._blind or anywhere or any(self._present()) or self._driver.traces

    def _remove_without_gate(self) -> None:
        self._look()
        if self._may_be_there():
            self._driver.cancel()
            self._driver.remove(self._hosts)
            self._look()

    def _note_failure(self) -> None:
        if self._driver.failure:
            self._fail(self._driver.failure)
        elif not self._driver.busy:
            self._failure = ""

    def _fail(self, reason: str) -> None:
        self._failed_at_ns = boottime_ns()
        if reason != self._failure:
            self._failure = reason
            _log.error("%s", reason)

    def _settle(self) -> None:
        """Call `on_down` once nothing here answers any more."""
        if not self._on_down or self._wanted is not Wanted.DOWN or (self._driver.busy and not self._driver.failure):
            return
        if self._driver.failure:
            self._note_failure()
        if self._keeper.state(boottime_ns()) is GateState.CLOSED:
            if (any(self._present()) or self._driver.traces) and not self._driver.failure:
                return
        elif self._may_be_there():
            return
        waiting, self._on_down = self._on_down, []
        for call in waiting:
            call()

    # --- announcing and asking --------------------------------------------------------------------

    def _announce(self) -> None:
        self._announced = True
        if self._driver.announce() and self._announcer is not None:
            self._announcer.start(boottime_ns())
            self._send_announcement()

    def _send_announcement(self) -> None:
        now_ns = boottime_ns()
        if self._announcer is None:
            return
        silent = self._wanted is not Wanted.UP or now_ns >= self._lease_end_ns or not all(self._present())
        if silent or self._link is None or self._keeper.state(now_ns) is GateState.CLOSED:
            self._announcer.stop()
            self._announced = False
        else:
            self._announcer.send(self._link, now_ns, self._lease_end_ns)

    def _forget_old_answer(self) -> None:
        if self._probe is Probe.FREE and self._free_until_ns is not None and boottime_ns() >= self._free_until_ns:
            self._probe = Probe.UNASKED

    def _ask(self) -> None:
        now_ns = boottime_ns()
        self._probe, self._free_until_ns = Probe.FREE, now_ns + FREE_FOR_NS
        if self._link is None or not self._link.announces:
            return
        try:
            question = self._questioner(self._link)
            question.ask()
        except CommandError as error:
            _log.warning("cannot ask whether somebody else has %s: %s", self._names(), error)
            return
        self._probe = Probe.ASKING
        self._probe_due_ns = now_ns + ANSWER_TIME_NS
        self._asking = True
        for fd in question.fds:
            self._loop.watch(fd, self._answered)

    def _questioner(self, link: Link) -> Question:
        """The open sockets for questions; made again only if the interface is another one now."""
        if self._question is not None and not self._question.fits(link):
            self._question.close()
            self._question = None
        if self._question is None:
            self._question = Question(self._addresses, link)
        return self._question

    def _answered(self) -> None:
        answers = self._question.answers() if self._question is not None and self._asking else []
        if not answers:
            return
        self._stop_asking()
        if self._wanted is not Wanted.UP:
            return  # asked ahead: whoever answered may let go in time; the raise asks again
        self._probe, self._probe_due_ns = Probe.TAKEN, boottime_ns() + ASK_AGAIN_NS
        if self._conflict != answers[0]:
            self._conflict = answers[0]
            _log.error("does not raise the virtual IP: %s; find that host and take the address off it", answers[0])

    def _stop_asking(self) -> None:
        if self._asking and self._question is not None:
            for fd in self._question.fds:
                self._loop.unwatch(fd)
        self._asking = False
        self._probe_due_ns = None
        if self._probe is not Probe.FREE:
            self._probe = Probe.UNASKED

    def _probe_due(self) -> None:
        if self._probe is Probe.TAKEN:
            self._stop_asking()
        else:
            self._answered()
            if not self._asking:
                return
            self._stop_asking()
            self._probe, self._free_until_ns = Probe.FREE, boottime_ns() + FREE_FOR_NS
            self._conflict = ""
        self._reconcile()

    # --- the loop ---------------------------------------------------------------------------------

    def wake(self) -> int | None:
        """The next instant at which something is due."""
        if self._told != self._key():
            return 1
        due = [self._probe_due_ns, self._announcer.wake() if self._announcer is not None else None]
        if self._wanted is Wanted.UP and self._lease_end_ns and self._keeper.until_ns:
            due.append(self._lease_end_ns)
        return min((at_ns for at_ns in due if at_ns is not None), default=None)

    def tick(self, now_ns: int) -> None:
        """Do what is due; tell of changes last."""
        if self._wanted is Wanted.UP and self._lease_end_ns <= now_ns and self._keeper.until_ns:
            self._keeper.close()  # the loop was late: the kernel has done it already, say so
        if self._probe_due_ns is not None and self._probe_due_ns <= now_ns:
            self._probe_due()
        announce_ns = self._announcer.wake() if self._announcer is not None else None
        if announce_ns is not None and announce_ns <= now_ns:
            self._send_announcement()
        key = self._key()
        if key != self._told:
            self._told = key
            self._on_change()

    def check(self, now_ns: int) -> None:
        """The slow look at everything: whatever event was lost or action failed heals here."""
        if self._failure and self._wanted is not Wanted.UP and now_ns - self._failed_at_ns > FAILURE_COUNTS_NS:
            self._failure = ""  # it may be electable again; the next attempt tells
        self._keeper.check()
        self._look_and_reconcile()

    def _addresses_changed(self) -> None:
        if self._events is None or not self._events.changed(frozenset(self._addresses), self._settings.interface):
            return
        before = self._present()
        self._look()
        if (
            self._wanted is Wanted.UP
            and all(before)
            and not all(self._present())
            and boottime_ns() < self._lease_end_ns
        ):
            _log.warning("somebody removed %s; restores it", self._names())
        self._reconcile()
        self._settle()

    def _release_leftovers(self) -> None:
        """Addresses that an earlier configuration protected are taken off before their protection ends."""
        gate = self._keeper.open_sockets()
        if gate is None:
            return
        try:
            left = tuple(address for address in gate.protected() if address not in self._addresses)
            for sentence in remove_addresses(left) if left else ():
                _log.warning("no longer configured: %s", sentence)
            still = tuple(host.address for host in self._netlink.dump() if host.address in left)
            gate.protect_also(still)
        except CommandError:
            return  # what is wrong shows when the tables are loaded

    def _names(self) -> str:
        return ", ".join(str(vip) for vip in self._settings.addresses)
