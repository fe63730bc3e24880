"""`pgvigil inform`, and what watchdog main knows of the world outside of the cluster.

A report is stamped here, passed on to lifecheck and answered once lifecheck says that it has it. Both sides hold the
reports that count and repeat them, so that either may be restarted. Nothing here decides: lifecheck judges.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import zmq

from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import ControlServer, Outbox
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.counted import counted
from pgvigil.ipc.frames import OUTCOME_UNKNOWN, Health, OutsideReport, PgpoolWatchdog
from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.settings import Settings

logger = logging.getLogger("pgvigil")

REPEAT_NS = NS_PER_S
ANSWER_LIMIT_NS = 3 * NS_PER_S
STALE_NS = 5 * NS_PER_S
MAX_WAITING = 64
MAX_SECONDS = 86_400
# All reports have to fit into one frame, and their words into the verdicts.
MAX_REASON_BYTES = 120
MAX_REPORTER_BYTES = 40
USAGE = "expected NODE alive|dead [REASON [SECONDS [REPORTER]]]"


OpenOutbox = Callable[[Callable[[], None]], Outbox]
"""Makes the way to lifecheck, and calls back whenever lifecheck is there anew."""


class Refused(Exception):
    """The sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who waits for lifecheck to have a report."""

    address: bytes
    request_id: int
    report: OutsideReport
    until_ns: int


class Outside:
    """`request` for the control socket, `take` for lifecheck's frames, `tick` once a second."""

    def __init__(self, settings: Settings, server: ControlServer, open_outbox: OpenOutbox) -> None:
        self._settings = settings
        self._server = server
        self._open_outbox = open_outbox
        self._outbox: Outbox | None = None
        self._reports: dict[int, OutsideReport] = {}
        self._waiting: list[_Waiting] = []
        self._pgpool: PgpoolWatchdog | None = None
        self._pgpool_at_ns = 0

    # --- for the command line ---------------------------------------------------------------------

    def request(self, address: bytes, request: frames.Request) -> None:
        """`pgvigil inform`."""
        now_ns = boottime_ns()
        try:
            if len(self._waiting) >= MAX_WAITING:
                raise Refused(f"{MAX_WAITING} reports wait already; try again later")
            report = self._report(request.arguments, now_ns)
        except Refused as error:
            self._answer(address, request.request_id, False, str(error))
            return
        self._reports[report.node_id] = report
        self._waiting.append(_Waiting(address, request.request_id, report, now_ns + ANSWER_LIMIT_NS))
        self._repeat(now_ns)

    def _report(self, arguments: tuple[str, ...], now_ns: int) -> OutsideReport:
        if not 2 <= len(arguments) <= 5:
            raise Refused(f"{counted(len(arguments), 'argument')}; {USAGE}")
        name, word, reason, seconds, reporter = (*arguments, "", "", "")[:5]
        if word not in (Health.ALIVE.value, Health.DEAD.value):
            raise Refused(f"'{word[:40]}' is no report; {USAGE}")
        node_id = self._node(name)
        # Two reports of one nanosecond would count as one.
        last = self._reports.get(node_id)
        said_at_ns = now_ns if last is None else max(now_ns, last.said_at_ns + 1)
        until_ns = said_at_ns + self._seconds(seconds) * NS_PER_S
        reason, reporter = _short(reason, MAX_REASON_BYTES), _short(reporter, MAX_REPORTER_BYTES) or "somebody"
        return OutsideReport(node_id, Health(word), reason, reporter, said_at_ns, until_ns)

    def _node(self, name: str) -> int:
        settings = self._settings
        found = next((node.id for node in settings.nodes if name in (node.host, str(node.id))), None)
        if found is None:
            known = ", ".join(f"{node.id} ({node.host})" for node in settings.nodes)
            raise Refused(f"no node '{name[:80]}', expected one of {known}")
        if found == settings.node_id and settings.lifecheck.pgpool_pid_file is None:
            raise Refused("this node has no pgpool-II that could be alive or dead")
        return found

    def _seconds(self, text: str) -> int:
        if not text:
            return self._settings.lifecheck.external_timeout_s
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_SECONDS:
            raise Refused(f"'{text[:40]}' seconds, expected 1 to {MAX_SECONDS}")
        return int(text)

    def _answer(self, address: bytes, request_id: int, accepted: bool, text: str) -> None:
        self._server.reply(address, frames.Reply(request_id, True, accepted, text, b""))

    # --- lifecheck --------------------------------------------------------------------------------

    def take(self, frame: frames.OutsideReports | PgpoolWatchdog, now_ns: int) -> None:
        """What lifecheck says."""
        if isinstance(frame, PgpoolWatchdog):
            self._pgpool, self._pgpool_at_ns = frame, now_ns
            return
        for report in frame.reports:
            known = self._reports.get(report.node_id)
            if known is None or known.said_at_ns < report.said_at_ns:
                self._reports[report.node_id] = report
        self._confirm(frame.reports)

    def _confirm(self, taken: Iterable[OutsideReport]) -> None:
        newest = {report.node_id: report.said_at_ns for report in taken}
        for one in list(self._waiting):
            if newest.get(one.report.node_id, -1) >= one.report.said_at_ns:
                self._waiting.remove(one)
                self._answer(one.address, one.request_id, True, self._sentence(one.report))

    def _sentence(self, report: OutsideReport) -> str:
        seconds = (report.until_ns - report.said_at_ns) // NS_PER_S
        label = self._settings.label(report.node_id)
        return (
            f"lifecheck counts {label} as reported {report.health.value} for {seconds} s, unless it is reported again"
        )

    def tick(self, now_ns: int) -> None:
        """Repeat what counts, forget what does not, tell those who have waited for too long."""
        self._reports = {node: report for node, report in self._reports.items() if now_ns < report.until_ns}
        self._repeat(now_ns)
        for one in list(self._waiting):
            if now_ns >= one.until_ns:
                self._waiting.remove(one)
                text = f"{OUTCOME_UNKNOWN} lifecheck has not confirmed it; it is told again while the report counts"
                self._answer(one.address, one.request_id, False, text)

    def _repeat(self, now_ns: int) -> None:
        if not self._reports:
            return
        if self._outbox is None:
            self._outbox = self._open_outbox(lambda: self._repeat(boottime_ns()))
        if not self._outbox.send(frames.OutsideReports(tuple(self._reports.values()))):
            logger.debug("lifecheck takes no reports at %d; they are repeated", now_ns)

    def close(self) -> None:
        """Free the socket."""
        if self._outbox is not None:
            self._outbox.close()

    # --- for status -------------------------------------------------------------------------------

    def reports(self, now_ns: int) -> list[OutsideReport]:
        """Those that count, by node."""
        return [self._reports[node] for node in sorted(self._reports) if now_ns < self._reports[node].until_ns]

    def pgpool_watchdog(self, now_ns: int) -> PgpoolWatchdog | None:
        """pgpool-II's own watchdog; None if it does not lead here, or lifecheck is silent."""
        return self._pgpool if now_ns < self._pgpool_at_ns + STALE_NS else None


def way_to_lifecheck(context: zmq.Context[zmq.Socket[bytes]], loop: Loop, run_dir: str) -> OpenOutbox:
    """What opens it; nothing is opened before there is a report."""

    def open_outbox(on_connected: Callable[[], None]) -> Outbox:
        outbox = Outbox(context, endpoints.lifecheck_endpoint(run_dir), "watchdog main")

        def connected() -> None:
            outbox.connected()
            on_connected()

        loop.watch(outbox.connections(), connected)
        return outbox

    return open_outbox


def _short(text: str, limit: int) -> str:
    """One printable line of at most `limit` bytes."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return plain.encode()[:limit].decode(errors="ignore")
