"""PCP from inside a loop: one connection to the local pgpool-II, one question at a time, nothing ever waits.

A question whose connection breaks is asked again until its time is up: pgpool-II starts its PCP process anew a second
after every change and forgets its callers. An order is sent once; without an answer it may have been carried out, and
the answer says so. A connection ends with the last request that waits for it: one that stays open keeps the new PCP
process from answering anybody, and pgpool-II from stopping (4.3.5). The password is read when connecting and not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError, InvariantError
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.pcp.passwords import password_of_file
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import Report
from pgvigil.watchdog.pcp.session import Answered, Broken, Event, LoggedIn, Noticed, Refused, Session, State
from pgvigil.watchdog.pools.door import Door

T = TypeVar("T")

ANSWER_LIMIT_MS = 3000
MAX_JOBS = 32
FIRST_RETRY_NS = 100 * NS_PER_MS
MAX_RETRY_NS = 2 * NS_PER_S
CANCELLED = "not wanted any more"
REFUSED_RETRY_NS = 10 * NS_PER_S
"""After a refused login: pgpool-II writes a line to its log for each."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of a request: its value, or the `problem`.

    `report` is what pgpool-II said when it refused; `unknown`: an order that may have been carried out all the same.
    """

    value: T | None
    problem: str = ""
    report: Report | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where PCP listens, and as whom to log in."""

    host: str
    port: int
    user: str
    password_file: str

    def __str__(self) -> str:
        if self.host.startswith("/"):
            return f"{self.host.rstrip('/')}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class _Job:
    """A request that waits for its answer; `sent`: pgpool-II may have it."""

    request: Request[Any]
    on_answer: Callable[[Answer[Any]], None]
    limit_ms: int
    deadline_ns: int
    still: Callable[[], bool]
    sent: bool = False


class Link:
    """A participant of the loop; `ask` from inside of it."""

    def __init__(self, loop: Loop, resolver: Resolver, target: Target, clock: Callable[[], int] = boottime_ns) -> None:
        self.target = target
        self.problem = ""
        """Why the last attempt came to nothing; empty once pgpool-II has answered."""
        self._loop = loop
        self._resolver = resolver
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._asked: _Job | None = None
        self._door = Door(loop, self._data, self._broken)
        self._session: Session | None = None
        self._connect_ns = 0
        self._retry_ns = FIRST_RETRY_NS
        self._closed = False
        loop.join(self)

    def ask(
        self,
        request: Request[T],
        on_answer: Callable[[Answer[T]], None],
        limit_ms: int = ANSWER_LIMIT_MS,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Ask in turn; `on_answer` is called exactly once, unless the link is closed before.

        An order leaves only once the login is done, and only if it is `still` wanted at that instant.
        """
        if not request.answer:
            raise InvariantError(f"{request.name} has no answer, expected a request that has one")
        if len(self._jobs) >= MAX_JOBS:
            on_answer(Answer(None, f"{MAX_JOBS} requests wait for pgpool-II at {self.target} already"))
            return
        now_ns = self._clock()
        self._jobs.append(_Job(request, on_answer, limit_ms, now_ns + limit_ms * NS_PER_MS, still))
        self._go_on(now_ns)

    def wake(self) -> int | None:
        """The next deadline or attempt to connect."""
        due = [job.deadline_ns for job in self._waiting()]
        if not self._door.is_open and self._jobs:
            due.append(self._connect_ns)
        return min(due, default=None)

    def tick(self, now_ns: int) -> None:
        """Give up what is out of time, go on with the rest."""
        asked = self._asked
        if asked is not None and asked.deadline_ns <= now_ns:
            waiting = self._session.waiting_for if self._session is not None else "an answer"
            self._hang_up()
            self._fail(f"waited {asked.limit_ms} ms in vain, expected {waiting}", now_ns, asked)
        late = [job for job in self._jobs if job.deadline_ns <= now_ns]
        self._jobs = deque(job for job in self._jobs if job.deadline_ns > now_ns)
        for job in late:  # all are out of the queue before the first answer, which may ask again
            if self._closed:
                return
            waited = f"not asked within {job.limit_ms} ms"
            job.on_answer(Answer(None, self._worded(self.problem or waited)))
        self._go_on(now_ns)

    def close(self) -> None:
        """Forget everything; nobody is called back any more."""
        self._closed = True
        self._jobs.clear()
        self._asked = None
        self._hang_up()
        self._loop.leave(self)

    def _waiting(self) -> list[_Job]:
        return [*self._jobs, *(() if self._asked is None else (self._asked,))]

    def _worded(self, reason: str) -> str:
        return f"pgpool-II at {self.target}: {reason}"

    # --- one step further -------------------------------------------------------------------------

    def _go_on(self, now_ns: int) -> None:
        if self._closed or self._asked is not None:
            return
        if not self._jobs or (self._session is not None and self._session.is_over):
            self._hang_up()
        if not self._jobs:
            return
        if not self._door.is_open and (now_ns < self._connect_ns or not self._connect(now_ns)):
            return
        session = self._session
        if session is None:
            raise InvariantError("a PCP connection without a session")
        job = self._jobs[0]
        if not job.request.changes or session.state is State.IDLE:
            self._jobs.popleft()
            if not job.still():
                job.on_answer(Answer(None, CANCELLED))
                self._go_on(self._clock())
                return
            self._asked = job
            session.ask(job.request)
        self._speak()

    def _speak(self) -> None:
        session = self._session
        if session is None:
            return
        if self._asked is not None and session.state is State.ASKED:
            self._asked.sent = True
        self._door.send(session.outgoing())

    def _connect(self, now_ns: int) -> bool:
        """Whether a connection has begun."""
        target = self.target
        try:
            self._session = Session(target.user, password_of_file(target.password_file))
            self._door.open(self._address(now_ns), target.port)
        except (CommandError, ConfigError) as error:
            self._session = None
            self._pause(str(error), now_ns)
            return False
        return True

    def _address(self, now_ns: int) -> str:
        host = self.target.host
        if host.startswith("/"):
            return host
        address = self._resolver.address(host)
        if address is None or self.problem:
            self._resolver.look_up(host, now_ns)
        if address is None:
            raise CommandError(f"the name {host} has no address yet")
        return address

    def _pause(self, problem: str, now_ns: int) -> None:
        """No connection for a while."""
        self.problem = problem
        self._connect_ns = now_ns + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, MAX_RETRY_NS)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._door.send(self._session.outgoing())
        self._door.close()
        self._session = None

    # --- what the connection brings ---------------------------------------------------------------

    def _data(self, data: bytes) -> None:
        session = self._session
        if session is None:
            return
        events = session.feed(data) if data else session.end()
        for event in events:
            self._take(event)
        if self._session is session:
            self._speak()
            if session.is_over:
                self._hang_up()
        self._go_on(self._clock())

    def _broken(self, reason: str) -> None:
        now_ns = self._clock()
        self._session = None
        self._fail(reason, now_ns, self._asked)
        self._go_on(now_ns)

    def _take(self, event: Event) -> None:
        now_ns = self._clock()
        if isinstance(event, LoggedIn):
            self._retry_ns = FIRST_RETRY_NS
        elif isinstance(event, Answered):
            self.problem = ""
            self._finish(Answer(event.value))
        elif isinstance(event, Refused):
            self._refused(event, now_ns)
        elif isinstance(event, Broken):
            self._hang_up()
            self._fail(str(event.error), now_ns, self._asked)
        elif not isinstance(event, Noticed):
            raise InvariantError(f"no handler for {type(event).__name__}")

    def _refused(self, event: Refused, now_ns: int) -> None:
        if event.during in (State.SALT, State.LOGIN):
            self._hang_up()
            self._retry_ns = REFUSED_RETRY_NS
            self._pause(f"refused the login: {event.report}; expected a user of its pcp.conf", now_ns)
            waiting, self._asked = self._waiting(), None
            self._jobs.clear()
            for job in waiting:  # none of them would live to see the next attempt
                job.on_answer(Answer(None, self._worded(self.problem)))
        elif event.request is not None:
            self.problem = ""
            self._finish(Answer(None, self._worded(f"refused {event.request.name}: {event.report}"), event.report))

    def _finish(self, answer: Answer[Any]) -> None:
        job, self._asked = self._asked, None
        if job is not None:
            job.on_answer(answer)

    def _fail(self, reason: str, now_ns: int, job: _Job | None) -> None:
        """The connection is gone: a question is asked again in time, an order never."""
        self._pause(reason, now_ns)
        self._asked = None
        if job is None:
            return
        if job.sent and job.request.changes:
            text = f"{reason}; {job.request.name} may have been carried out"
            job.on_answer(Answer(None, self._worded(text), None, True))
        elif job.deadline_ns <= now_ns:
            job.on_answer(Answer(None, self._worded(reason)))
        else:
            job.sent = False
            self._jobs.appendleft(job)


__all__ = ["ANSWER_LIMIT_MS", "CANCELLED", "Answer", "Link", "Target"]
