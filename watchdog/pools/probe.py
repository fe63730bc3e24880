"""Does the PostgreSQL of a backend answer this node? Asked only while that matters: a connection, a startup packet.

Any answer to it counts, also one that refuses the user: the server works. None is: silence, a connection refused, and
57P03 (starting up, shutting down, in recovery without hot standby), because pgpool-II could not use it either. No
password and no secret is sent, and no session is ever begun: the connection ends with the first answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.loop import Loop
from pgvigil.lifecheck.probes.resolver import Resolver
from pgvigil.watchdog.pools.door import Door
from pgvigil.watchdog.pools.plan import Probed

LIMIT_NS = 2000 * NS_PER_MS
PROTOCOL_3 = 196_608
NAMES = {"user": "pgvigil", "database": "postgres", "application_name": "pgvigil"}
CANNOT_CONNECT_NOW = b"57P03"
MAX_ANSWER_BYTES = 8192
DEFAULT_SOCKET_DIR = "/tmp"
"""Where pgpool-II looks for a backend without a host name."""


def startup_packet() -> bytes:
    """PostgreSQL, "Message Formats": StartupMessage."""
    body = PROTOCOL_3.to_bytes(4, "big")
    for name, value in NAMES.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    return (len(body) + 5).to_bytes(4, "big") + body + b"\0"


def judge(data: bytes) -> tuple[bool, str] | None:
    """Whether a server's first bytes are an answer, and what it said; None if they are not enough to tell."""
    if not data:
        return None
    letter = data[:1]
    if letter in (b"R", b"v"):
        return True, "PostgreSQL answers"
    if letter != b"E":
        return False, f"answers with {data[:1]!r}, expected PostgreSQL"
    whole = len(data) >= 5 and len(data) > int.from_bytes(data[1:5], "big")
    if not whole and len(data) < MAX_ANSWER_BYTES:
        return None
    fields = {field[:1]: field[1:] for field in data[5:].split(b"\0") if field}
    message = fields.get(b"M", b"").decode("utf-8", "backslashreplace")[:120]
    if fields.get(b"C") == CANNOT_CONNECT_NOW:
        return False, f"does not take connections: {message}"
    return True, f"PostgreSQL answers: {message}"


@dataclass(slots=True)
class _Question:
    """One probe under way."""

    door: Door
    on_answer: Callable[[Probed], None]
    asked_ns: int
    deadline_ns: int
    received: bytes = b""


class Prober:
    """A participant of the loop; at most one question for each backend."""

    def __init__(self, loop: Loop, resolver: Resolver, clock: Callable[[], int]) -> None:
        self._loop = loop
        self._resolver = resolver
        self._clock = clock
        self._questions: dict[int, list[_Question]] = {}
        loop.join(self)

    def ask(self, backend_id: int, host: str, port: int, on_answer: Callable[[Probed], None]) -> None:
        """Ask; the answer comes within `LIMIT_NS`, also that there is none."""
        now_ns = self._clock()

        def end(answers: bool | None, evidence: str) -> None:
            self._end(backend_id, question, Probed(now_ns, answers, evidence))

        def take(data: bytes) -> None:
            question.received += data
            verdict = judge(question.received) if data else (False, "the connection was closed without an answer")
            if verdict is not None:
                end(*verdict)

        door = Door(self._loop, take, lambda reason: end(False, reason))
        question = _Question(door, on_answer, now_ns, now_ns + LIMIT_NS)
        self._questions.setdefault(backend_id, []).append(question)
        address = self._address(host, now_ns)
        if address is None:
            end(None, f"the name {host} has no address yet")
            return
        try:
            door.open(address, port)
        except CommandError as error:
            end(False, str(error))
            return
        door.send(startup_packet())

    def asks(self, backend_id: int) -> bool:
        """Whether a question is under way."""
        return backend_id in self._questions

    def wake(self) -> int | None:
        """The next deadline."""
        return min((one.deadline_ns for several in self._questions.values() for one in several), default=None)

    def tick(self, now_ns: int) -> None:
        """Silence is an answer, too."""
        for backend_id, several in list(self._questions.items()):
            for question in [one for one in several if one.deadline_ns <= now_ns]:
                self._end(backend_id, question, Probed(question.asked_ns, False, "has not answered in time"))

    def close(self) -> None:
        """Give the sockets back; nobody is called any more."""
        for several in self._questions.values():
            for question in several:
                question.door.close()
        self._questions.clear()
        self._loop.leave(self)

    def _address(self, host: str, now_ns: int) -> str | None:
        if not host or host.startswith("/"):
            return host or DEFAULT_SOCKET_DIR
        address = self._resolver.address(host)
        if address is None:
            self._resolver.look_up(host, now_ns)
        return address

    def _end(self, backend_id: int, question: _Question, probed: Probed) -> None:
        question.door.close()
        left = [one for one in self._questions.get(backend_id, ()) if one is not question]
        if left:
            self._questions[backend_id] = left
        else:
            self._questions.pop(backend_id, None)
        question.on_answer(probed)
