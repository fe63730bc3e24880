"""What pgpool-II's own watchdog is to be told, and when: wishes against its node list, level by level.

Its list is read every two seconds and after everything that was said, so a restart of pgpool-II needs no care, and a
message that was lost is noticed. Learned from real ones (4.3.5), and refused here:

- "alive" about a node that is not lost: it would be thrown back to the start of joining, a leader too.
- "dead" again and again: a watchdog that still runs connects anew and leads again within seconds, so each
  repetition would take the virtual IP away for a moment. What has been seen lost once is not said again.
- "dead" about a peer that merely says so of itself: its own lifecheck tells its own watchdog, which then steps down.
  Only that works when the main process is gone: the orphaned watchdog goes on leading.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.ipc.frames import Health, WatchdogMember
from pgvigil.lifecheck.core.pgpool_ipc import DEAD_STATE, LOST_STATE, SHUTDOWN_STATE, STATE_NAMES, ListedNode, NodeList
from pgvigil.lifecheck.settings import PgpoolAddress

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
LIST_NS = 2 * NS_PER_S
VERIFY_NS = 200 * NS_PER_MS
AGAIN_NS = NS_PER_S
ALIVE_AGAIN_NS = 10 * NS_PER_S
FRESH_NS = 500 * NS_PER_MS
SETTLED_NS = 2 * NS_PER_S
"""How long a watchdog must have answered before it is told that its own pgpool-II is dead: it may just have started."""
MAX_DOUBLINGS = 5
MAX_DEAD_ATTEMPTS = 3
STANDBY_STATE = 7
GONE_STATES = (DEAD_STATE, LOST_STATE, SHUTDOWN_STATE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What pgpool-II should believe of a node, and the sentence for its log. UNKNOWN: whatever it likes.

    `certain`, for the own node: its process is gone or stopped, or a person says so. Anything less counts only while
    another could lead, because a watchdog that is told so ends, and its pgpool-II with it. For a peer: a person says
    so, and nobody need ask whether its pgpool-II still answers.
    """

    health: Health
    sentence: str
    certain: bool = True


class Kind(enum.Enum):
    """What to ask."""

    LIST = "list"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Order:
    """One exchange with the socket; `pgpool_id`, `alive` and `message` for STATUS."""

    kind: Kind
    pgpool_id: int = 0
    alive: bool = False
    message: str = ""


LIST = Order(Kind.LIST)


@dataclass(slots=True)
class _Told:
    """What was said about one node since the wish changed."""

    health: Health = Health.UNKNOWN
    attempts: int = 0
    said_at_ns: int = 0
    again_ns: int = 0
    seen: bool = False


class Informing:
    """`next(now)` until it is None, `listed` or `failed` after each; `wake` says when to ask again."""

    def __init__(self, own_id: int, addresses: tuple[PgpoolAddress, ...], now_ns: int) -> None:
        self._own_id = own_id
        self._addresses = addresses
        self._wishes: dict[int, Wish] = {}
        self._told: dict[int, _Told] = {}
        self._list: NodeList | None = None
        self._ids: dict[int, int] = {}
        self._listed_at_ns = 0
        self._answers_since_ns: int | None = None
        self._due_ns = now_ns

    def wish(self, node_id: int, wish: Wish) -> None:
        """The newest wish for a node; a new sentence for the same health changes nothing."""
        before = self._wishes.get(node_id)
        self._wishes[node_id] = wish
        if before is None or before.health is not wish.health:
            self._told[node_id] = _Told()

    # --- what came of an order --------------------------------------------------------------------

    def listed(self, node_list: NodeList, now_ns: int) -> None:
        """The answer to LIST."""
        self._list = node_list
        self._listed_at_ns = now_ns
        self._due_ns = now_ns + LIST_NS
        if self._answers_since_ns is None:
            self._answers_since_ns = now_ns
        self._ids = {node.pgpool_id: self._node_id(node) for node in node_list.nodes}
        for node in node_list.nodes:
            told = self._told.get(self._ids[node.pgpool_id])
            if told is not None and told.health is Health.DEAD and node.state in GONE_STATES:
                told.seen = True

    def said(self, order: Order, now_ns: int) -> None:
        """A STATUS went out; the list will show whether it was taken."""
        node_id = self._ids[order.pgpool_id]
        told = self._told.setdefault(node_id, _Told())
        told.health = Health.ALIVE if order.alive else Health.DEAD
        told.again_ns = now_ns + (ALIVE_AGAIN_NS << min(told.attempts, MAX_DOUBLINGS) if order.alive else AGAIN_NS)
        told.attempts += 1
        told.said_at_ns = now_ns
        self._due_ns = now_ns + VERIFY_NS

    def failed(self, retry_ns: int, now_ns: int, gone: bool = False) -> None:
        """No answer; what was known of the list is not known any more. `gone`: so is all that it was told."""
        if gone:
            self._told = {node_id: _Told() for node_id in self._told}
        self._list = None
        self._ids = {}
        self._answers_since_ns = None
        self._due_ns = now_ns + retry_ns

    # --- what to do -------------------------------------------------------------------------------

    def next(self, now_ns: int) -> Order | None:
        """The next order that is due."""
        if self._list is None:
            return LIST if now_ns >= self._due_ns else None
        for node in () if self._is_misplaced() else self._list.nodes:
            if self._wants_to_say(node, now_ns):
                # A node may have come back by itself since the list was read, and "alive" would throw it back.
                wish = self._wishes[self._ids[node.pgpool_id]]
                alive = wish.health is Health.ALIVE
                if alive and now_ns >= self._listed_at_ns + FRESH_NS:
                    return LIST
                return Order(Kind.STATUS, node.pgpool_id, alive, f"pgvigil: {wish.sentence}")
        return LIST if now_ns >= self._due_ns else None

    def _wants_to_say(self, node: ListedNode, now_ns: int) -> bool:
        node_id = self._ids[node.pgpool_id]
        wish, told = self._wishes.get(node_id), self._told.get(node_id)
        if wish is None or told is None or now_ns < told.again_ns:
            return False
        if told.attempts and self._listed_at_ns <= told.said_at_ns:
            return False  # the list does not show yet what came of the last time
        if wish.health is Health.ALIVE:
            return node_id != self._own_id and node.state == LOST_STATE
        if wish.health is not Health.DEAD or node.state in GONE_STATES or told.seen:
            return False
        if told.attempts >= MAX_DEAD_ATTEMPTS:
            return False
        return node_id != self._own_id or self._may_end(wish, now_ns)

    def _may_end(self, wish: Wish, now_ns: int) -> bool:
        """Whether the own watchdog may be told that its pgpool-II is dead."""
        if self._answers_since_ns is None or now_ns < self._answers_since_ns + SETTLED_NS:
            return False
        return wish.certain or self._somebody_else_is_fit()

    def _somebody_else_is_fit(self) -> bool:
        nodes = () if self._list is None else self._list.nodes
        others = [self._wishes.get(self._ids[node.pgpool_id]) for node in nodes[1:] if node.state == STANDBY_STATE]
        return any(wish is not None and wish.health is Health.ALIVE for wish in others)

    def wake(self) -> int | None:
        """The next instant at which `next` can have something new."""
        return self._due_ns

    # --- names ------------------------------------------------------------------------------------

    def _node_id(self, node: ListedNode) -> int:
        """Our id of a listed node, 0 if the configuration has none of its host and port."""
        host = node.host.lower()
        found = (one.node_id for one in self._addresses if node.pgpool_port == one.port and host in one.hosts)
        return next(found, 0)

    def _is_misplaced(self) -> bool:
        """Whether the socket is another node's: the node that was asked stands first."""
        return self._list is not None and self._ids[self._list.nodes[0].pgpool_id] != self._own_id

    def members(self) -> tuple[WatchdogMember, ...]:
        """The list as status shows it."""
        return () if self._list is None else tuple(self._member(node) for node in self._list.nodes)

    def _member(self, node: ListedNode) -> WatchdogMember:
        node_id = self._ids[node.pgpool_id]
        told = self._told.get(node_id)
        state = STATE_NAMES.get(node.state, f"state {node.state}")
        health = Health.UNKNOWN if told is None else told.health
        return WatchdogMember(node.pgpool_id, node_id, node.name, state, node.priority, health)

    def trouble(self) -> str:
        """What of the list an operator should mend; empty if all is well."""
        if self._list is None:
            return ""
        if self._is_misplaced():
            own = self._list.nodes[0].name
            return f"it says nothing: the socket is that of {own}, which is not this node's pgpool_host and pgpool_port"
        strangers = [node.name for node in self._list.nodes if not self._ids[node.pgpool_id]]
        if strangers:
            return f"{', '.join(strangers)} of pgpool-II is no node's pgpool_host and pgpool_port"
        taken_back = [name for node in self._list.nodes if (name := self._taken_back(node))]
        if taken_back:
            return f"pgpool-II has taken {', '.join(taken_back)} back, which pgvigil does not hear"
        return ""

    def _taken_back(self, node: ListedNode) -> str:
        wish, told = self._wishes.get(self._ids[node.pgpool_id]), self._told.get(self._ids[node.pgpool_id])
        dead = wish is not None and wish.health is Health.DEAD and told is not None and told.seen
        return node.name if dead and node.state not in GONE_STATES else ""
