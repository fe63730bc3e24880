"""The method query: a real question through every node's pgpool-II, the local one included.

All are asked in the same instant, so that they share wake-ups, each over a connection of its own: only a new client
meets what new clients meet (a full pgpool-II, a hung parent). One epoll descriptor stands for all sockets, because
the loop waits for readability alone. The local answer is this node's `reading`; what is found out about peers is
read with `peer`. It refuses to guess: a wrong password, an unknown name or a trouble of ours is no verdict, but loud.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from collections.abc import Callable
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.answers import Answer, Ending, Outcome, judge
from pgvigil.lifecheck.core.query import QueriedPgpool
from pgvigil.lifecheck.probes.question import Question, Target
from pgvigil.lifecheck.probes.reading import Reading, Watcher
from pgvigil.lifecheck.probes.resolver import Resolver, literal
from pgvigil.lifecheck.settings import LifecheckPeer, QuerySettings

logger = logging.getLogger("pgvigil")

MAX_PASSWORD_BYTES = 4096
COMPLAIN_EVERY_NS = 60 * NS_PER_S
# A tick that comes early, because the loop was awake anyway, begins the next round.
MAX_EARLY_NS = 250 * NS_PER_MS
LINGER_NS = 60 * NS_PER_S
LOUD = (Answer.OPERATOR, Answer.OURS)
OWN = 0


@dataclass(slots=True)
class _Asked:
    """One pgpool-II; `node_id` is `OWN` for the local one."""

    node_id: int
    label: str
    host: str
    port: int
    pgpool: QueriedPgpool
    question: Question | None = None
    fd: int = -1
    complained_at_ns: int | None = None


class QueryProbe:
    """`on_change` is told of the local pgpool-II's health, `on_peer` of a peer's: its id, health and evidence."""

    method = "query"

    def __init__(
        self,
        settings: QuerySettings,
        peers: tuple[LifecheckPeer, ...],
        watcher: Watcher,
        on_change: Callable[[Reading], None],
        on_peer: Callable[[int, Health, str], None],
        now_ns: int,
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._on_change = on_change
        self._on_peer = on_peer
        self._interval_ns = settings.interval_ms * NS_PER_MS
        self._timeout_ns = settings.timeout_ms * NS_PER_MS
        self._early_ns = min(MAX_EARLY_NS, self._interval_ns // 4)
        self._started_at_ns = self._due_ns = now_ns
        self._passfile = forget_environment()
        self._resolver = Resolver(watcher, boottime_ns)
        self._asked = [self._new(OWN, "the local pgpool-II", settings.host, settings.port)] if settings.host else []
        self._asked += [self._of_peer(peer) for peer in peers if peer.pgpool_host]
        self._by_id = {one.node_id: one for one in self._asked}
        self._by_fd: dict[int, _Asked] = {}
        self._epoll = select.epoll()
        watcher.watch(self._epoll.fileno(), self._on_sockets)
        for one in self._asked:
            self._resolver.look_up(one.host, now_ns)

    # --- what is known -----------------------------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """The local pgpool-II; a witness without one has nothing that could be dead."""
        own = self._by_id.get(OWN)
        if own is None:
            return Reading(Health.ALIVE, self._started_at_ns, "no pgpool-II here to query")
        return Reading(own.pgpool.health, own.pgpool.since_ns, own.pgpool.evidence)

    def peer(self, node_id: int) -> QueriedPgpool | None:
        """A peer's pgpool-II as queried from here; None if it has none."""
        asked = self._by_id.get(node_id)
        return asked.pgpool if asked is not None else None

    def failing(self) -> tuple[int, ...]:
        """The peers whose pgpool-II failed the last question, dead or not."""
        return tuple(one.node_id for one in self._asked if one.node_id != OWN and one.pgpool.failing)

    # --- deadlines ---------------------------------------------------------------------------------

    def wake(self) -> int | None:
        running = [one.question.deadline_ns for one in self._asked if one.question is not None]
        naming = self._resolver.wake()
        return min([self._due_ns, *running, *([] if naming is None else [naming])])

    def tick(self, now_ns: int) -> None:
        self._resolver.tick(now_ns)
        for one in self._asked:
            if one.question is not None and now_ns >= one.question.deadline_ns:
                self._time_out(one, one.question, now_ns)
        if now_ns >= self._due_ns or (now_ns + self._early_ns >= self._due_ns and self._is_idle()):
            self._due_ns = now_ns + self._interval_ns
            self._ask_all(now_ns)

    def late(self, lateness_ns: int) -> None:
        """Our own loop was late: the time counts for no deadline."""
        self._resolver.late(lateness_ns)
        for one in self._asked:
            if one.question is not None:
                one.question.deadline_ns += lateness_ns

    def close(self) -> None:
        """Give the descriptors back."""
        for one in self._asked:
            self._drop(one)
        self._resolver.close()
        self._watcher.unwatch(self._epoll.fileno())
        self._epoll.close()

    def _is_idle(self) -> bool:
        """Whether the next round can begin early: a question that still runs would miss it."""
        return all(one.question is None for one in self._asked)

    # --- asking ------------------------------------------------------------------------------------

    def _ask_all(self, now_ns: int) -> None:
        try:
            password = read_password(self._settings.password_file)
        except CommandError as error:
            for one in self._asked:
                self._take(one, Outcome(Answer.OPERATOR, f"query not possible: {error}"), now_ns, now_ns)
            return
        for one in self._asked:
            if one.question is None:
                self._ask(one, password, now_ns)

    def _ask(self, one: _Asked, password: str, now_ns: int) -> None:
        address = self._resolver.address(one.host)
        if address is None:
            self._resolver.look_up(one.host, now_ns)
            self._take(one, Outcome(Answer.OURS, f"query not sent: no address of {one.host} is known"), now_ns, now_ns)
            return
        settings = self._settings
        target = Target(one.host, address, one.port, settings.database, settings.user, password, self._passfile)
        one.question = Question(target, settings.query, now_ns, now_ns + self._timeout_ns)
        self._follow(one)
        if one.fd < 0:  # libpq failed at once: no socket to wait for
            self._advance(one)

    def _on_sockets(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            one = self._by_fd.get(descriptor)
            if one is not None:
                self._advance(one)

    def _advance(self, one: _Asked) -> None:
        if one.question is None:
            return
        now_ns = boottime_ns()
        ending = one.question.advance(now_ns)
        if ending is None:
            self._follow(one)
        else:
            self._end(one, ending, now_ns)

    def _follow(self, one: _Asked) -> None:
        """Wait for what libpq wants now; between two attempts it may change its socket, even under the same number."""
        assert one.question is not None
        descriptor, events = one.question.fd, one.question.events
        if descriptor != one.fd:
            self._forget_socket(one)
        if descriptor < 0:
            return
        try:
            self._epoll.modify(descriptor, events)
        except FileNotFoundError:
            self._epoll.register(descriptor, events)
        one.fd = descriptor
        self._by_fd[descriptor] = one

    def _forget_socket(self, one: _Asked) -> None:
        """A closed socket has left the epoll by itself (epoll(7))."""
        if one.fd >= 0 and self._by_fd.get(one.fd) is one:
            del self._by_fd[one.fd]
        one.fd = -1

    def _drop(self, one: _Asked) -> None:
        self._forget_socket(one)
        if one.question is not None:
            one.question.close()
            one.question = None

    # --- answers -----------------------------------------------------------------------------------

    def _time_out(self, one: _Asked, question: Question, now_ns: int) -> None:
        """Behind a backend that hangs every new question would take one more child of pgpool-II: this one goes on.

        Unless it has just cost a life point: one session that hangs is one failure, and the next question is another.
        """
        outcome = judge(question.give_up(now_ns))
        self._take(one, outcome, question.asked_at_ns, now_ns)
        counted = one.pgpool.failing and one.pgpool.health is not Health.DEAD
        if outcome.answer is Answer.SILENT_BEHIND and not counted and now_ns - question.asked_at_ns < LINGER_NS:
            question.deadline_ns = now_ns + self._interval_ns
        else:
            self._drop(one)

    def _end(self, one: _Asked, ending: Ending, now_ns: int) -> None:
        assert one.question is not None
        asked_at_ns = one.question.asked_at_ns
        self._drop(one)
        self._take(one, judge(ending), asked_at_ns, now_ns)

    def _take(self, one: _Asked, outcome: Outcome, asked_at_ns: int, now_ns: int) -> None:
        changed = one.pgpool.take(outcome, asked_at_ns, now_ns, self._others_answer(one, asked_at_ns, now_ns))
        if outcome.answer in LOUD:
            self._complain(one, outcome, now_ns)
        if one.pgpool.failing:
            self._resolver.look_up(one.host, now_ns)  # it may have moved
        if not changed:
            return
        if one.node_id == OWN:
            self._on_change(self.reading)
        else:
            self._on_peer(one.node_id, one.pgpool.health, one.pgpool.evidence)

    def _others_answer(self, one: _Asked, asked_at_ns: int, now_ns: int) -> bool:
        """A question that was asked later than this one: those of the same round may have met a backend still well.

        Not so if the question before has failed already.
        """
        horizon_ns = now_ns - 2 * max(self._interval_ns, self._timeout_ns)
        answers = [other.pgpool.answered for other in self._asked if other is not one]
        since_ns = asked_at_ns if one.pgpool.failing else asked_at_ns + 1
        return any(answer is not None and answer[0] >= since_ns and answer[1] >= horizon_ns for answer in answers)

    def _complain(self, one: _Asked, outcome: Outcome, now_ns: int) -> None:
        if one.complained_at_ns is not None and now_ns - one.complained_at_ns < COMPLAIN_EVERY_NS:
            return
        one.complained_at_ns = now_ns
        advice = "; mend query_user, query_password_file or query_database" if outcome.answer is Answer.OPERATOR else ""
        logger.error("%s is not judged by query: %s%s", one.label, outcome.evidence, advice)

    def _of_peer(self, peer: LifecheckPeer) -> _Asked:
        return self._new(peer.node_id, f"the pgpool-II of {peer.label}", peer.pgpool_host, peer.pgpool_port)

    def _new(self, node_id: int, label: str, host: str, port: int) -> _Asked:
        pgpool = QueriedPgpool(self._settings.life_points, self._started_at_ns)
        return _Asked(node_id, label, literal(host) or host, port, pgpool)


def read_password(path: str | None) -> str:
    """The first line of a file that nobody else can read; empty without a file. `CommandError` names what is wrong.

    It is read for every round, so that a new password counts at once.
    """
    if path is None:
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            content = os.read(descriptor, MAX_PASSWORD_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CommandError(f"password file {path} cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise CommandError(f"password file {path} has mode {stat.S_IMODE(mode):04o}, expected 0600")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or not lines[0] or len(content) > MAX_PASSWORD_BYTES:
        raise CommandError(f"password file {path} holds no password in its first line")
    return lines[0]


def forget_environment() -> str:
    """Keep libpq to the configuration: drop its variables. Returns the path of the .pgpass that it may still read."""
    for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGVIGIL")]:
        del os.environ[name]
    return os.path.join(os.environ.setdefault("HOME", os.path.expanduser("~")), ".pgpass")
