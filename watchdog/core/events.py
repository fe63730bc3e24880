"""What goes into the decision core and what comes out of it.

Events are facts, effects are orders. The shell carries effects out **in the order given**: a `Persist` is durable
before any `Send` behind it leaves. Effects on the gate never wait for the disk.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core.messages import Message, SeenBackend
from pgvigil.watchdog.core.record import DecisionKind, Intent, Record

# --- events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The process is up, its record loaded and its new boot durable."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The instant of `wake()` has passed."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message, taken from the socket just now; `record_id` is the sender's."""

    sender: int
    record_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class PeerView:
    """What lifecheck believes of a peer, for ranks and hand-overs. The start is on our clock."""

    node_id: int
    health: Health
    electable: bool
    priority: int
    started_at_ns: int


@dataclass(frozen=True, slots=True)
class Views:
    """Lifecheck's newest verdicts: the local pgpool-II, the peers, and the tie-breaker that it was told to ask.

    `unfit` is another reason not to lead; `vip_cut`: nobody could reach the virtual IP here, because its interface is
    down. `tie_breaker_ns`: when it was asked for its newest answer, `tie_breaker_since_ns`: for the first one of the
    unbroken series that this answer ends; 0 for never (P22).
    """

    pgpool: Health
    evidence: str
    peers: tuple[PeerView, ...]
    unfit: str = ""
    vip_cut: bool = False
    tie_breaker: str = ""
    tie_breaker_ns: int = 0
    tie_breaker_since_ns: int = 0


@dataclass(frozen=True, slots=True)
class FenceState:
    """Whether this node can hold the VIP as the configuration demands, and why not."""

    can_hold: bool
    reason: str


@dataclass(frozen=True, slots=True)
class VipDown:
    """The gate is closed and the address is gone: nothing answers for the VIP here."""


@dataclass(frozen=True, slots=True)
class SwitchOver:
    """An operator wants another leader; `to` 0 means whoever ranks first."""

    request_id: int
    to: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """An operator ends the waiting for voters that have never been heard."""

    request_id: int


@dataclass(frozen=True, slots=True)
class ChangeVoters:
    """An operator adds or removes one voter (P18); a node that does not lead passes it on to the leader."""

    request_id: int
    add: int
    remove: int


@dataclass(frozen=True, slots=True)
class Leave:
    """An operator wants this node to be a voter no more; a leader hands over first."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The process shall end. IMMEDIATE never reaches the core."""

    mode: StopMode


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command that `StartCommand` began has ended."""

    token: int
    succeeded: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason of the shell why this node must not lead; an empty `reason` takes it back."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackendsSeen:
    """What the local pgpool-II makes of the backends, or why that is not known (`problem`)."""

    backends: tuple[SeenBackend, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AskDecision:
    """Somebody on this node wants a decision on a backend: an operator, its pgpool-II, or who noticed a change by hand.

    The final answer comes as `Answer`, at `until_ns` at the latest. `arguments` are pgpool-II's placeholders ("d=0").
    """

    request_id: int
    kind: DecisionKind
    backend_id: int
    operator: bool
    reason: str
    arguments: tuple[str, ...]
    until_ns: int


Event = (
    Started | Tick | Arrived | Views | FenceState | VipDown
    | SwitchOver | Bootstrap | ChangeVoters | Leave | Stop | CommandEnded
    | Obstacle | BackendsSeen | AskDecision
)  # fmt: skip

# --- effects ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Make this record durable before anything that follows leaves the node."""

    record: Record


@dataclass(frozen=True, slots=True)
class Send:
    """One message to one node, on every path."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class KeepVip:
    """A leader may resume: leave address and gate to the kernel's own time limits."""


@dataclass(frozen=True, slots=True)
class HoldVip:
    """Carry the VIP until the absolute end of the lease (P20)."""

    lease_end_ns: int


@dataclass(frozen=True, slots=True)
class CloseGate:
    """Close the gate now."""


@dataclass(frozen=True, slots=True)
class DropVip:
    """Take the VIP off; `VipDown` follows when it is done."""


@dataclass(frozen=True, slots=True)
class StartCommand:
    """Run a user's command, if the lease still runs when it starts (P21)."""

    intent: Intent
    lease_end_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell whoever asked; a `final` answer ends the request."""

    request_id: int
    final: bool
    accepted: bool
    text: str


class Level(enum.Enum):
    """How loud a note is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for the log and for `pgvigil status`."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The node has let go of everything; the process may end."""


Effect = (
    Persist | Send | KeepVip | HoldVip | CloseGate | DropVip | StartCommand | Answer | Note | Finished
)  # fmt: skip
