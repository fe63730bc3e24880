"""Requests of the command line, and who waits for which answer.

A request that changes something goes to the core as an event under a number of our own; the core's answers find
their way back by that number. A client that has gone loses its answer, nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.codec import MAX_BIN_BYTES
from pgvigil.watchdog.core import events

if TYPE_CHECKING:
    from pgvigil.watchdog.status.report import Report

logger = logging.getLogger("pgvigil")

REQUEST_LIFE_NS = 60 * NS_PER_S
MAX_WAITING = 64
MAX_TEXT = 2000
BY_SIGNAL = 0


class Control:
    """The server side of the control socket."""

    def __init__(
        self,
        server: ControlServer,
        report: Report,
        dispatch: Callable[[events.Event], None],
        inform: Callable[[bytes, frames.Request], None],
    ) -> None:
        self._server = server
        self._report = report
        self._dispatch = dispatch
        self._number = BY_SIGNAL
        self._waiting: dict[int, tuple[bytes, int, int]] = {}
        self._reload: dict[str, object] = {"at_ns": 0, "accepted": True, "message": "no reload since the start"}
        self._verbs: dict[str, Callable[[bytes, frames.Request], None]] = {
            "status": self._status,
            "last-reload": self._last_reload,
            "switchover": self._switch_over,
            "bootstrap": self._bootstrap,
            "node-add": self._node_add,
            "node-remove": self._node_remove,
            "node-leave": self._node_leave,
            "inform": inform,
        }

    @property
    def socket(self) -> object:
        """For the loop."""
        return self._server.socket

    def on(self, verb: str, handler: Callable[[bytes, frames.Request], None]) -> None:
        """Let somebody else answer the requests of one verb."""
        self._verbs[verb] = handler

    def close(self) -> None:
        """Free the socket."""
        self._server.close()

    def serve(self) -> None:
        """Take what has arrived."""
        for address, request in self._server.requests():
            verb = self._verbs.get(request.verb)
            if verb is None:
                self._refuse(address, request, f"unknown request '{request.verb}', expected {', '.join(self._verbs)}")
            else:
                verb(address, request)

    def _refuse(self, address: bytes, request: frames.Request, text: str) -> None:
        self._server.reply(address, frames.Reply(request.request_id, True, False, text[:MAX_TEXT], b""))

    def _status(self, address: bytes, request: frames.Request) -> None:
        body = self.status_text().encode()
        if len(body) > MAX_BIN_BYTES:
            self._refuse(address, request, f"the status is {len(body)} bytes long, at most {MAX_BIN_BYTES} can be sent")
            return
        self._server.reply(address, frames.Reply(request.request_id, True, True, "", body))

    def status_text(self) -> str:
        """The status as one line of JSON."""
        return json.dumps(self._report.make(boottime_ns()), ensure_ascii=True, separators=(",", ":"))

    def _last_reload(self, address: bytes, request: frames.Request) -> None:
        body = json.dumps(self._reload).encode()
        self._server.reply(address, frames.Reply(request.request_id, True, True, "", body))

    def reload_done(self, frame: frames.ReloadDone) -> None:
        """Remember the supervisor's answer to the last reload."""
        self._reload = {"at_ns": boottime_ns(), "accepted": frame.accepted, "message": frame.message}

    def _switch_over(self, address: bytes, request: frames.Request) -> None:
        to = self._named(address, request) if request.arguments else 0
        if to is not None:
            self._order(address, request, lambda number: events.SwitchOver(number, to))

    def _bootstrap(self, address: bytes, request: frames.Request) -> None:
        self._order(address, request, events.Bootstrap)

    def _node_add(self, address: bytes, request: frames.Request) -> None:
        node = self._named(address, request)
        if node is not None:
            self._order(address, request, lambda number: events.ChangeVoters(number, node, 0))

    def _node_remove(self, address: bytes, request: frames.Request) -> None:
        node = self._named(address, request)
        if node is not None:
            self._order(address, request, lambda number: events.ChangeVoters(number, 0, node))

    def _node_leave(self, address: bytes, request: frames.Request) -> None:
        self._order(address, request, events.Leave)

    def _named(self, address: bytes, request: frames.Request) -> int | None:
        """The node that the first argument names; None and a refusal if there is none."""
        name = request.arguments[0] if request.arguments else ""
        found = self._report.node_named(name)
        if found is None:
            known = ", ".join(self._report.node_names())
            self._refuse(address, request, f"no node '{name}', expected one of {known}")
        return found

    def _order(self, address: bytes, request: frames.Request, event: Callable[[int], events.Event]) -> None:
        """Hand an order to the core under a number of our own."""
        number = self._wait(address, request)
        if number is not None:
            self._dispatch(event(number))

    def _wait(self, address: bytes, request: frames.Request) -> int | None:
        now_ns = boottime_ns()
        self._waiting = {key: value for key, value in self._waiting.items() if value[2] > now_ns - REQUEST_LIFE_NS}
        if len(self._waiting) >= MAX_WAITING:
            self._refuse(address, request, f"{MAX_WAITING} requests wait already; try again later")
            return None
        self._number += 1
        self._waiting[self._number] = (address, request.request_id, now_ns)
        return self._number

    def hand_over_by_signal(self) -> None:
        """SIGUSR2: the answer goes to the log."""
        self._dispatch(events.SwitchOver(BY_SIGNAL, 0))

    def answer(self, answer: events.Answer) -> None:
        """Send an answer of the core to whoever asked."""
        if answer.request_id == BY_SIGNAL:
            logger.info("hand-over by signal: %s", answer.text)
            return
        waiting = self._waiting.get(answer.request_id)
        if waiting is None:
            return
        if answer.final:
            del self._waiting[answer.request_id]
        address, request_id, _ = waiting
        self._server.reply(address, frames.Reply(request_id, answer.final, answer.accepted, answer.text, b""))
