"""Frees the local pgpool-II from connections to a host that has vanished: the hands of what `freeing` decides.

Asks nobody anything while all is well. Nothing waits: questions to hosts are begun and answered in the loop; reading
`/proc` and the kernel's list takes about a millisecond, and happens only once a host has been silent for 3 s.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.netlink import KernelRefusal, NetlinkSocket
from pgvigil.ipc.sock_diag import NETLINK_SOCK_DIAG, Connection, connections, destroy, plain_address
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.core.events import Level, Views
from pgvigil.watchdog.pools.freeing import Place, Silences, Stuck, Suspicion, given_up, sentence, stuck
from pgvigil.watchdog.pools.plan import Facts, Memory
from pgvigil.watchdog.pools.processes import Processes
from pgvigil.watchdog.pools.silence import SilenceProbe
from pgvigil.watchdog.pools.view import Incarnation

SLACK_NS = 200 * NS_PER_MS
"""The owner looks about once a second, and not to the millisecond."""
WHAT_TO_DO = {
    errno.EOPNOTSUPP: "this kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)",
    errno.EPERM: "give pgvigil CAP_NET_ADMIN",
    errno.EACCES: "run pgvigil as the user of pgpool-II, or give it CAP_SYS_PTRACE",
}
NOT_SEEN = "cannot see the connections of its pgpool-II, to free it from a host that vanishes"
OTHERWISE = "until it is restarted, pgpool-II may wait for that host for ever"


class Freer:
    """`look` is called about once a second by its owner, in the loop."""

    def __init__(
        self, loop: Loop, resolver: Resolver, note: Callable[[Level, str], None], clock: Callable[[], int]
    ) -> None:
        self._resolver = resolver
        self._note = note
        self._silence_probe: SilenceProbe[Place] = SilenceProbe(loop, self._answered, clock)
        self._suspicion = Suspicion()
        self._silences = Silences()
        self._processes = Processes()
        self._said: set[str] = set()
        self._known: Incarnation | None = None

    def close(self) -> None:
        """Give every socket back."""
        self._silence_probe.close()

    def look(self, facts: Facts, memory: Memory, views: Views | None) -> None:
        """Ask the hosts if something is wrong, and act on those that have been silent."""
        self._meet(facts.incarnation)
        node_dead = views is not None and any(peer.health is Health.DEAD for peer in views.peers)
        lost = given_up(memory, facts)
        trouble = node_dead or bool(lost)
        wrong = self._suspicion.holds(facts.now_ns, facts.incarnation, facts.view, memory.ordered, trouble)
        places = _places(facts) if wrong else ()
        self._silences.keep(places)
        if not places:
            self._processes.forget()
        for place in places:
            if self._silences.due(place, facts.now_ns, SLACK_NS):
                self._ask(place, facts.now_ns)
            silent_ns = self._silences.silent_ns(place, facts.now_ns)
            if silent_ns is not None and facts.incarnation is not None:
                self._silences.freed(place, facts.now_ns)
                self._free(place, facts.incarnation.pid, silent_ns, place.backend_id in lost)

    def _meet(self, incarnation: Incarnation | None) -> None:
        """Say at the start what would be missing in an emergency."""
        if incarnation is None or incarnation == self._known:
            return
        self._known = incarnation
        if self._processes.hidden(incarnation.pid):
            self._cannot_see()

    def _ask(self, place: Place, now_ns: int) -> None:
        address = self._resolver.address(place.host)
        if address is None:
            self._resolver.look_up(place.host, now_ns)
            return
        if not self._silence_probe.asks(place):
            self._silences.asked(place, now_ns, address)
            self._silence_probe.ask(place, address, place.port)

    def _answered(self, place: Place, asked_ns: int, silent: bool) -> None:
        self._silences.answered(place, asked_ns, silent)

    def _free(self, place: Place, main_pid: int, silent_ns: int, lost: bool) -> None:
        address = self._silences.address(place)
        processes = self._processes.find(main_pid)
        if lost and processes:
            processes += self._processes.sessions(main_pid)
        if self._processes.obstacle:
            self._cannot_see()
        if not any(process.inodes for process in processes):
            return
        try:
            netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
        except OSError as error:
            self._complain(f"cannot list connections: {error.strerror}", error.errno or 0)
            return
        try:
            listed = connections(netlink, place.port)
            found = stuck(processes, listed, plain_address(address), place.port, silent_ns)
            ended = [one.process.duty for one in found if self._end(netlink, one)]
        except KernelRefusal as refusal:
            self._complain(f"cannot free its pgpool-II: {refusal}", refusal.code)
            return
        finally:
            netlink.close()
        if ended:
            self._note(Level.WARNING, sentence(place, ended, silent_ns))

    @staticmethod
    def _end(netlink: NetlinkSocket, one: Stuck[Connection]) -> bool:
        """Whether it was there to be ended."""
        try:
            destroy(netlink, one.connection)
        except KernelRefusal as refusal:
            if refusal.code != errno.ENOENT:
                raise
            return False
        return True

    def _cannot_see(self) -> None:
        denied = errno.errorcode[errno.EACCES] in self._processes.obstacle
        self._complain(f"{NOT_SEEN}: {self._processes.obstacle}", errno.EACCES if denied else 0)

    def _complain(self, text: str, code: int) -> None:
        """Once for each reason."""
        key = f"{text.partition(':')[0]} {code}"
        if key not in self._said:
            self._said.add(key)
            self._note(Level.WARNING, f"{text}; {WHAT_TO_DO.get(code, OTHERWISE)}")


def _places(facts: Facts) -> tuple[Place, ...]:
    """As pgpool-II has said, or else as is agreed."""
    if facts.view is not None:
        return tuple(Place(one.backend_id, one.host, one.port) for one in facts.view.backends)
    agreed = () if facts.agreed is None else facts.agreed.backends
    return tuple(Place(one.backend_id, one.host, one.port) for one in agreed)
