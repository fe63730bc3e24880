"""The requests of the command line that are about backends.

Orders of an operator and reports of this node's pgpool-II become `AskDecision`; what is decided, and by how many, is
the core's affair. Whatever comes in is checked again here: the socket may be open to pgpool-II's user.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog import backend_names, placeholders
from pgvigil.watchdog.control import Control, Verb
from pgvigil.watchdog.core.deciding import SWITCHOVER
from pgvigil.watchdog.core.events import Answer, AskDecision
from pgvigil.watchdog.core.record import DecisionKind, Document

ORDER_MS = 60_000
LEAST_MS, MOST_MS = 1000, 3_600_000
GRACE_MS = 5000
MAX_REASON = 400
MAX_DIGITS = 19
TIMEOUT, ASKED = "timeout_ms", "asked_ns"
RESTARTED = "unknown: watchdog main was restarted meanwhile, and what was decided since may be newer"

CALLS = {"down": DecisionKind.DOWN, "up": DecisionKind.UP, "follow": DecisionKind.FOLLOW}
SAID = {
    DecisionKind.DOWN: "its pgpool-II reports a failure",
    DecisionKind.UP: "it was attached at its pgpool-II",
    DecisionKind.FOLLOW: "its pgpool-II follows a new primary",
}


class Callers(Protocol):
    """What knows of the calls that this node's pgpool-II is inside of, and what it means by them."""

    def classify(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Of a report of DOWN: whether it is a person's doing, and why; soon, or at once."""

    def still_down(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Whether the newest view of this node's pgpool-II has it down, and why not; as soon as there is a view."""

    def cut_off(self, backend_id: int, on_known: Callable[[bool, str], None]) -> None:
        """Whether a report of DOWN only tells that this node was cut off until a moment ago, and why; soon."""

    def outdated(self, kind: DecisionKind, backend_id: int) -> bool:
        """Whether the report is only the echo of an order of ours that is not agreed any more."""

    def call_started(self, kind: DecisionKind, backend_id: int) -> None:
        """pgpool-II waits for the answer to a report on this backend."""

    def call_ended(self, kind: DecisionKind, backend_id: int) -> None:
        """It has the answer, or nobody waits for it any more."""


class BackendControl:
    """Verbs for `Control`."""

    def __init__(
        self,
        control: Control,
        dispatch: Callable[[AskDecision], None],
        document: Callable[[], Document | None],
        listing: Callable[[int], Mapping[str, object]],
        callers: Callers,
    ) -> None:
        """`document`: the newest that this node knows; `listing(now_ns)`: the answer to backend-list."""
        self._control = control
        self._dispatch = dispatch
        self._document = document
        self._listing = listing
        self._callers = callers
        self._began_ns = boottime_ns()

    def verbs(self) -> dict[str, Verb]:
        """All of them, by name."""
        return {
            "backend-list": self._list,
            "backend-attach": lambda address, request: self._order(address, request, DecisionKind.UP),
            "backend-detach": lambda address, request: self._order(address, request, DecisionKind.DOWN),
            "backend-promote": lambda address, request: self._order(address, request, DecisionKind.PROMOTE),
            "backend-ask": self._ask,
        }

    def _list(self, address: bytes, request: frames.Request) -> None:
        body = json.dumps(self._listing(boottime_ns()), ensure_ascii=True, separators=(",", ":"))
        self._control.tell(address, request, body.encode())

    # --- orders of an operator ------------------------------------------------------------------------

    def _order(self, address: bytes, request: frames.Request, kind: DecisionKind) -> None:
        name, reason, *more = (*request.arguments, "", "")[: max(2, len(request.arguments))]
        document = self._document()
        try:
            backend = backend_names.find(() if document is None else document.backends, name)
            if more not in ([], [SWITCHOVER]) or (more and kind is not DecisionKind.PROMOTE):
                raise ConfigError(f"'{more[0][:80]}' after the reason, expected nothing, or switchover for promote")
            if len(reason) > MAX_REASON:
                raise ConfigError(f"the reason has {len(reason)} letters, expected at most {MAX_REASON}")
        except ConfigError as error:
            self._control.refuse(address, request, str(error))
            return
        self._decide(address, request, kind, backend.backend_id, reason or "by an operator", tuple(more))

    # --- reports of pgpool-II -------------------------------------------------------------------------

    def _ask(self, address: bytes, request: frames.Request) -> None:
        """The body of `pgvigil failover|failback|follow-primary`: kind, time limit, placeholders."""
        try:
            kind, limit_ms, asked_ns, arguments = _read(request.arguments)
            backend_id = int(placeholders.values_of(arguments)["d"])
        except ConfigError as error:
            self._control.refuse(address, request, str(error))
            return
        again = asked_ns < self._began_ns
        if again and kind is DecisionKind.UP:
            # Under the number that is newest now it would take back what was decided in between.
            self._control.refuse(address, request, RESTARTED)
            return
        number = self._wait(address, request, limit_ms, lambda: self._callers.call_ended(kind, backend_id))
        if number is None:
            return
        self._callers.call_started(kind, backend_id)
        until_ns = boottime_ns() + limit_ms * NS_PER_MS

        def wish(operator: bool, reason: str) -> None:
            self._dispatch(AskDecision(number, kind, backend_id, operator, reason, arguments, until_ns))

        def refuse(why: str) -> None:
            self._control.answer(Answer(number, True, False, f"refused: {why}"))

        def still(down: bool, why: str) -> None:
            if down:
                self._callers.classify(backend_id, known)
            else:
                refuse(why)

        def known(operator: bool, why: str) -> None:
            if operator:
                wish(True, why)
            else:
                self._callers.cut_off(backend_id, judged)

        def judged(cut_off: bool, why: str) -> None:
            if cut_off:
                refuse(why)
            else:
                wish(False, SAID[kind])

        if self._callers.outdated(kind, backend_id):
            # As a wish of its own it would take back the newer decision.
            text = f"pgvigil itself had ordered this at its pgpool-II, but backend {backend_id} is agreed otherwise now"
            self._control.answer(Answer(number, True, True, text))
        elif kind is DecisionKind.DOWN and again:
            self._callers.still_down(backend_id, still)
        elif kind is DecisionKind.DOWN:
            self._callers.classify(backend_id, known)
        else:
            wish(False, SAID[kind])

    def _decide(
        self, address: bytes, request: frames.Request, kind: DecisionKind, backend_id: int, reason: str,
        arguments: tuple[str, ...],
    ) -> None:  # fmt: skip
        number = self._wait(address, request, ORDER_MS)
        if number is not None:
            until_ns = boottime_ns() + ORDER_MS * NS_PER_MS
            self._dispatch(AskDecision(number, kind, backend_id, True, reason, arguments, until_ns))

    def _wait(
        self, address: bytes, request: frames.Request, limit_ms: int, on_end: Callable[[], None] | None = None
    ) -> int | None:
        return self._control.wait(address, request, limit_ms + GRACE_MS, on_end)


def _read(words: Sequence[str]) -> tuple[DecisionKind, int, int, tuple[str, ...]]:
    """Kind, time limit, the instant of the first asking, placeholders."""
    kind = CALLS.get(words[0]) if words else None
    if kind is None:
        raise ConfigError(f"'{words[0][:80] if words else ''}', expected one of {', '.join(CALLS)}")
    told = dict(word.partition("=")[::2] for word in words[1:])
    limit = told.pop(TIMEOUT, str(ORDER_MS))
    whole = limit.isascii() and limit.isdigit() and len(limit) <= MAX_DIGITS
    if not whole or not LEAST_MS <= int(limit) <= MOST_MS:
        raise ConfigError(f"{TIMEOUT} is '{limit[:80]}', expected {LEAST_MS} to {MOST_MS}")
    asked = told.pop(ASKED, str(boottime_ns()))
    if not asked.isascii() or not asked.isdigit() or len(asked) > MAX_DIGITS:
        raise ConfigError(f"{ASKED} is '{asked[:80]}', expected nanoseconds since the machine started")
    for letter in told:
        if letter not in placeholders.ORDER:
            raise ConfigError(f"'{letter[:80]}' is no placeholder, expected one of {placeholders.shown_order()}")
    arguments = tuple(f"{letter}={placeholders.checked(letter, word)}" for letter, word in told.items())
    if not told.get("d", "").strip().isdigit():
        raise ConfigError(f"%d is '{told.get('d', '')[:80]}', expected the id of a backend")
    return kind, int(limit), int(asked), arguments
