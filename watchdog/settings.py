"""The validated configuration, as frozen dataclasses.

Made once, in the parent, by `watchdog.config.load`; handed down at fork. Nothing here is read from a file
or checked again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from pgvigil.heartbeat.settings import HeartbeatSettings
from pgvigil.lifecheck.settings import LifecheckSettings


class Fence(enum.Enum):
    """Whether the node may carry the VIP without kernel gate or address lifetime."""

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"


@dataclass(frozen=True, slots=True)
class PathSettings:
    """One network path of a node: interface name, address, UDP port of the heartbeats."""

    interface: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One [[node]]; `port` is the cluster transport's TCP port, on every path address."""

    id: int
    host: str
    port: int
    witness: bool
    priority: int
    pgpool_host: str
    pgpool_port: int
    pcp_port: int
    paths: tuple[PathSettings, ...]


NOT_GUARANTEED = (
    'quorum = "half": if the halves of the cluster do not hear each other and both reach %s, both lead, and the '
    "virtual IP may be on two networks; half a cluster runs no commands and changes nothing"
)


@dataclass(frozen=True, slots=True)
class RemovalSettings:
    """Which voters are removed without an operator; 0 s: never."""

    shutdown: bool = False
    lost_s: int = 0
    no_show_s: int = 0


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """[cluster]; `key` is the 32-byte secret, or a well-known one if `insecure`."""

    name: str
    # No repr: settings end up in logs and tracebacks.
    key: bytes = field(repr=False)
    insecure: bool
    lease_ms: int
    renew_ms: int
    quorum: str
    preempt: bool
    fence: Fence
    removal: RemovalSettings = RemovalSettings()
    tie_breaker: str = ""


@dataclass(frozen=True, slots=True)
class VipAddress:
    """`address` without and with its prefix length, for example 10.0.0.100 and 24."""

    address: str
    prefix_length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_length}"


@dataclass(frozen=True, slots=True)
class VipSettings:
    """[vip]; commands are shell words with `$_IP_$`, used by driver "command" only. No addresses: no VIP."""

    addresses: tuple[VipAddress, ...]
    interface: str
    driver: str
    if_up_cmd: str
    if_down_cmd: str
    arping_cmd: str
    announce_interval_s: int
    command_timeout_s: int


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """[process]; `log` is "stderr", "syslog" or "file:/absolute/path"; `control_group` is empty for nobody."""

    run_dir: str
    state_dir: str
    log: str
    log_level: str
    hang_timeout_ms: int
    control_group: str = ""


@dataclass(frozen=True, slots=True)
class UserCommand:
    """One entry of [commands]: shell text, time limit, "once" or "retry"."""

    run: str
    timeout_s: int
    policy: str


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """[commands], in the order of `config.schema.COMMAND_NAMES`; None where nothing is configured."""

    escalation: UserCommand | None = None
    de_escalation: UserCommand | None = None
    failover: UserCommand | None = None
    failback: UserCommand | None = None
    follow_primary: UserCommand | None = None

    def get(self, name: str) -> UserCommand | None:
        """The command of that name, if it is configured."""
        found: UserCommand | None = getattr(self, name) if name in self.__slots__ else None
        return found


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    """[failover]: how many pgpool-IIs have to report a backend, and how long a report waits for the others."""

    require_consensus: bool = True
    half_votes: bool = False
    multiple_requests_from_node: bool = False
    consensus_timeout_s: int = 10


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """[recovery]: how long new clients may be held back; and from [lifecheck] as whom a session can be had."""

    hold_limit_s: int = 90
    user: str = ""
    database: str = "template1"
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class PgpoolSettings:
    """[pgpool]; empty where nothing is configured. The password is read when it is needed, never kept here."""

    pcp_user: str = ""
    pcp_password_file: str = ""
    pid_file: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything, for one node. `nodes` are in file order, this node among them; `source` is the file's path."""

    source: str
    node_id: int
    cluster: ClusterSettings
    nodes: tuple[NodeSettings, ...]
    heartbeats: tuple[HeartbeatSettings, ...]
    lifecheck: LifecheckSettings
    vip: VipSettings
    commands: CommandSettings
    process: ProcessSettings
    pgpool: PgpoolSettings = PgpoolSettings()
    recovery: RecoverySettings = RecoverySettings()
    failover: FailoverSettings = FailoverSettings()
    compared: tuple[tuple[str, str], ...] = ()
    """What must agree between nodes, as texts under their keys (`drift.facts`)."""

    @property
    def node(self) -> NodeSettings:
        """This node's own entry."""
        return next(node for node in self.nodes if node.id == self.node_id)

    def label(self, node_id: int) -> str:
        """A node's host name, or its number if the file does not name it."""
        return next((node.host for node in self.nodes if node.id == node_id), f"node {node_id}")
