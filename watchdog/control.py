"""Requests of the command line, and who waits for which answer.

A request that changes something goes to the core as an event under a number of our own; the core's answers find
their way back by that number. A client that has gone loses its answer, nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.codec import MAX_BIN_BYTES
from pgvigil.watchdog.core import events

if TYPE_CHECKING:
    from pgvigil.watchdog.status.report import Report

logger = logging.getLogger("pgvigil")

REQUEST_LIFE_NS = 60 * NS_PER_S
MAX_WAITING = 64
MAX_TEXT = 2000
BY_SIGNAL = 0
FOR_GROUP = ("status", "backend-list", "backend-ask")
"""What the members of `control_group` may ask: reports of pgpool-II's user, and looking."""

Verb = Callable[[bytes, frames.Request], None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who waits for the core's answer; `on_end` is called when that is final, or came too late."""

    server: ControlServer
    address: bytes
    request_id: int
    until_ns: int
    on_end: Callable[[], None] | None


class Control:
    """The server side of the control socket."""

    def __init__(
        self,
        server: ControlServer,
        report: Report,
        dispatch: Callable[[events.Event], None],
        inform: Verb,
        for_group: ControlServer | None = None,
    ) -> None:
        """`for_group`: the socket that a group may use, for `FOR_GROUP` alone."""
        self._servers = [server] if for_group is None else [server, for_group]
        self._server = server
        self._for_group = for_group
        self._report = report
        self._dispatch = dispatch
        self._number = BY_SIGNAL
        self._waiting: dict[int, Waiting] = {}
        self._reload: dict[str, object] = {"at_ns": 0, "accepted": True, "message": "no reload since the start"}
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "last-reload": self._last_reload,
            "switchover": self._switch_over,
            "bootstrap": self._bootstrap,
            "node-add": self._node_add,
            "node-remove": self._node_remove,
            "node-leave": self._node_leave,
            "inform": inform,
        }

    def add(self, verbs: Mapping[str, Verb]) -> None:
        """Serve these, too."""
        self._verbs |= verbs

    @property
    def sockets(self) -> list[object]:
        """For the loop."""
        return [server.socket for server in self._servers]

    def close(self) -> None:
        """Free the sockets."""
        for server in self._servers:
            server.close()

    def serve(self) -> None:
        """Take what has arrived. `_server` is the one that the request came by, until it is dealt with."""
        for server in self._servers:
            self._server = server
            for address, request in server.requests():
                self._take(address, request)

    def _take(self, address: bytes, request: frames.Request) -> None:
        verb = self._verbs.get(request.verb)
        if verb is None:
            self.refuse(address, request, f"unknown request '{request.verb}', expected {', '.join(self._verbs)}")
        elif self._server is self._for_group and request.verb not in FOR_GROUP:
            self.refuse(address, request, f"{request.verb} is not for members of control_group; run it as root")
        else:
            verb(address, request)

    def refuse(self, address: bytes, request: frames.Request, text: str) -> None:
        """The final answer no, with the reason; while the request is being dealt with."""
        self._server.reply(address, frames.Reply(request.request_id, True, False, text[:MAX_TEXT], b""))

    def tell(self, address: bytes, request: frames.Request, body: bytes) -> None:
        """The final answer to a question; while the request is being dealt with."""
        if len(body) > MAX_BIN_BYTES:
            text = f"the {request.verb} is {len(body)} bytes long, at most {MAX_BIN_BYTES} can be sent"
            self.refuse(address, request, text)
            return
        self._server.reply(address, frames.Reply(request.request_id, True, True, "", body))

    def _status(self, address: bytes, request: frames.Request) -> None:
        self.tell(address, request, self.status_text().encode())

    def status_text(self) -> str:
        """The status as one line of JSON."""
        return json.dumps(self._report.make(boottime_ns()), ensure_ascii=True, separators=(",", ":"))

    def _last_reload(self, address: bytes, request: frames.Request) -> None:
        self.tell(address, request, json.dumps(self._reload).encode())

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
            self.refuse(address, request, f"no node '{name}', expected one of {known}")
        return found

    def _order(self, address: bytes, request: frames.Request, event: Callable[[int], events.Event]) -> None:
        """Hand an order to the core under a number of our own."""
        number = self.wait(address, request)
        if number is not None:
            self._dispatch(event(number))

    def wait(
        self,
        address: bytes,
        request: frames.Request,
        life_ms: int = REQUEST_LIFE_NS // NS_PER_MS,
        on_end: Callable[[], None] | None = None,
    ) -> int | None:
        """The number under which the core shall answer; None, and a refusal, if too many wait."""
        now_ns = boottime_ns()
        for number in [number for number, one in self._waiting.items() if one.until_ns <= now_ns]:
            self._end(number)
        if len(self._waiting) >= MAX_WAITING:
            self.refuse(address, request, f"{MAX_WAITING} requests wait already; try again later")
            return None
        self._number += 1
        until_ns = now_ns + life_ms * NS_PER_MS
        self._waiting[self._number] = Waiting(self._server, address, request.request_id, until_ns, on_end)
        return self._number

    def _end(self, number: int) -> None:
        on_end = self._waiting.pop(number).on_end
        if on_end is not None:
            on_end()

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
        reply = frames.Reply(waiting.request_id, answer.final, answer.accepted, answer.text[:MAX_TEXT], b"")
        waiting.server.reply(waiting.address, reply)
        if answer.final:
            self._end(answer.request_id)
