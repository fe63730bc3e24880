"""Who holds back new clients for a recovery, and who has said so: the coordinator's half, without sockets and clock.

The command line says again and again what it wants; this says it to the other nodes, again and again, and keeps what
they answer. Nothing is believed for longer than it was promised: a hold counts from the *sending* of the order that it
answers, so the kernel of the other node holds at least as long. Whoever falls silent is forgotten by the others'
kernels: command line, this node and the other nodes may die at any moment, and clients get through again.

It does not know what a recovery is, and releases nobody who was not asked to hold.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from pgvigil.ipc import codec
from pgvigil.ipc.errors import PeerError

TOPIC = "recovery hold"
NS_PER_MS = 1_000_000
RENEW_NS = 1000 * NS_PER_MS
HOLD_MS = 6000
"""One order; five renewals may be lost."""
ABANDONED_NS = 4000 * NS_PER_MS
"""The command line that says nothing for so long is gone."""
STALE_NS = 3000 * NS_PER_MS
FAREWELL_NS = 3000 * NS_PER_MS
"""How long a release is repeated to nodes that do not confirm it."""
DRIFT = 100
"""Running clocks differ in rate by at most one in so many (DESIGN 7)."""
KEPT_ORDERS = 16
MAX_TROUBLE = 200


class Wish(enum.Enum):
    """What the coordinator wants of the others."""

    READY = "ready"
    """To be able to hold, holding nothing."""
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """To another node. `cause` is one recovery; `number` grows within it."""

    cause: int
    number: int
    wish: Wish
    for_ms: int


@dataclass(frozen=True, slots=True)
class HoldReport:
    """Its answer: for how long it holds from the order's arrival on, or why it does not."""

    cause: int
    number: int
    able: bool
    held_ms: int
    hold_id: int
    """Of the hold that is renewed; another one after a restart."""
    breaks: int
    """How often this hold was found open."""
    trouble: str


class Stand(enum.Enum):
    """What is known of a node; the value says it to people."""

    SILENT = "does not answer"
    UNABLE = "cannot hold"
    READY = "is ready"
    HOLDS = "holds"


@dataclass(frozen=True, slots=True)
class Standing:
    """One node, now."""

    node_id: int
    stand: Stand
    left_ms: int
    unbroken: tuple[int, int]
    """As long as this stays the same, the hold was there all the time."""
    trouble: str


@dataclass(slots=True)
class _Known:
    """What was said to one node, and by it."""

    report: HoldReport | None = None
    sent_at_ns: int = 0
    """Of the order that the report answers."""
    heard_at_ns: int = 0
    released: bool = False


@dataclass(slots=True)
class Plan:
    """The orders of one recovery. Call `orders` when `wake()` has passed and after every `wants`."""

    cause: int
    others: tuple[int, ...]
    number: int
    """Of the newest order; a plan that goes on after a restart begins with a higher one than before."""
    wish: Wish = Wish.READY
    _wanted_at_ns: int = 0
    _released_at_ns: int = 0
    _due_ns: int = 0
    _sent: dict[int, int] = field(default_factory=dict)
    _known: dict[int, _Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {node: _Known() for node in self.others}

    # --- what the command line wants ---------------------------------------------------------------

    def wants(self, now_ns: int, wish: Wish) -> None:
        """It is alive, and wants this; a release is final."""
        self._wanted_at_ns = now_ns
        if self.wish is Wish.RELEASE or wish is self.wish:
            return
        self.wish = wish
        self._due_ns = now_ns
        if wish is Wish.RELEASE:
            self._released_at_ns = now_ns

    # --- orders out, reports in --------------------------------------------------------------------

    def wake(self) -> int:
        """The instant at which `orders` has to be called."""
        if self.wish is Wish.RELEASE:
            return self._due_ns
        return min(self._due_ns, self._wanted_at_ns + ABANDONED_NS)

    def orders(self, now_ns: int) -> list[tuple[int, HoldOrder]]:
        """What has to be said now, and to whom. A command line that fell silent wants its release."""
        if self.wish is not Wish.RELEASE and now_ns >= self._wanted_at_ns + ABANDONED_NS:
            self.wish, self._released_at_ns, self._due_ns = Wish.RELEASE, now_ns, now_ns
        if now_ns < self._due_ns:
            return []
        self._due_ns = now_ns + RENEW_NS
        self.number += 1
        self._sent[self.number] = now_ns
        self._sent.pop(self.number - KEPT_ORDERS, None)
        order = HoldOrder(self.cause, self.number, self.wish, HOLD_MS if self.wish is Wish.HOLD else 0)
        return [
            (node, order) for node in self.others if self.wish is not Wish.RELEASE or not self._known[node].released
        ]

    def report(self, now_ns: int, sender: int, report: HoldReport) -> None:
        """What a node says; what belongs to another recovery, or is older than what is known, is left out."""
        known, sent_at_ns = self._known.get(sender), self._sent.get(report.number)
        if known is None or sent_at_ns is None or report.cause != self.cause:
            return
        if known.report is not None and report.number < known.report.number:
            return
        known.report, known.sent_at_ns, known.heard_at_ns = report, sent_at_ns, now_ns
        known.released = self.wish is Wish.RELEASE and sent_at_ns >= self._released_at_ns

    # --- what is known -----------------------------------------------------------------------------

    def is_over(self, now_ns: int) -> bool:
        """Whether everybody was released, or nobody can be reached any more: their kernels do it."""
        if self.wish is not Wish.RELEASE:
            return False
        confirmed = all(known.released for known in self._known.values())
        return confirmed or now_ns >= self._released_at_ns + FAREWELL_NS

    def standings(self, now_ns: int) -> tuple[Standing, ...]:
        """Each of the others, in order."""
        return tuple(self._standing(node, self._known[node], now_ns) for node in self.others)

    def _standing(self, node: int, known: _Known, now_ns: int) -> Standing:
        report = known.report
        if report is None or now_ns >= known.heard_at_ns + STALE_NS:
            return Standing(node, Stand.SILENT, 0, (0, 0), "")
        unbroken = (report.hold_id, report.breaks)
        held_ns = report.held_ms * NS_PER_MS
        left_ms = (known.sent_at_ns + held_ns - held_ns // DRIFT - now_ns) // NS_PER_MS
        if not report.able:
            return Standing(node, Stand.UNABLE, 0, unbroken, report.trouble)
        if report.held_ms > 0 and left_ms > 0:
            return Standing(node, Stand.HOLDS, left_ms, unbroken, report.trouble)
        return Standing(node, Stand.READY, 0, unbroken, report.trouble)


def pack(value: HoldOrder | HoldReport) -> bytes:
    """For the body of an aside."""
    return (b"o" if isinstance(value, HoldOrder) else b"r") + codec.encode(value)


def unpack(body: bytes) -> HoldOrder | HoldReport:
    """`PeerError` for what is neither."""
    kinds: dict[bytes, type[HoldOrder] | type[HoldReport]] = {b"o": HoldOrder, b"r": HoldReport}
    kind = kinds.get(body[:1])
    if kind is None:
        raise PeerError(f"{TOPIC}: begins with {body[:1]!r}, expected b'o' or b'r'")
    value = codec.decode(kind, body[1:])
    if isinstance(value, HoldOrder) and value.for_ms > HOLD_MS:
        raise PeerError(f"{TOPIC}: {value.for_ms} ms, expected at most {HOLD_MS}")
    if isinstance(value, HoldReport) and len(value.trouble) > MAX_TROUBLE:
        raise PeerError(f"{TOPIC}: a trouble of {len(value.trouble)} characters, expected at most {MAX_TROUBLE}")
    return value
