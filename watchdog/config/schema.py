"""Every setting that a configuration may hold: its table, key, kind, default and one sentence.

The tables are the single source: the reader checks against them, the reference in docs/configuration.md and the
sample in conf/ are tested against them. A key that DESIGN names but this version lacks stands here too, with
`later`, so that it is refused by name rather than as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgvigil.watchdog.config import kinds
from pgvigil.watchdog.config.kinds import Kind

MAX_NODES = 127
MAX_PATHS = 8
MAX_VIPS = 16
MAX_UPSTREAM = 16


class Absent:
    """No default: `REQUIRED` must stand in the file, `DERIVED` is worked out from other settings."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


REQUIRED = Absent("required")
DERIVED = Absent("derived")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `later` is true for names that are reserved for a later version."""

    name: str
    kind: Kind
    default: Any
    help: str
    later: bool = False


def _later(name: str) -> Key:
    return Key(name, kinds.text(""), DERIVED, "Not in this version.", later=True)


PORT = kinds.integer(1, 65535)
COMMAND = kinds.text("expected a shell command", may_be_empty=True)

CLUSTER = (
    Key("name", kinds.name(), REQUIRED, "Name of the cluster; part of every key, so clusters cannot mix."),
    Key("authkey_file", kinds.text("expected the path of the key file"), DERIVED, "File with the shared secret."),
    Key("insecure", kinds.boolean(), False, "Run without a secret; shown in every status."),
    Key("lease_ms", kinds.integer(300, 60_000, "ms"), 1000, "How long a leader may act after a majority agreed."),
    Key("renew_ms", kinds.integer(20, 20_000, "ms"), 200, "How often the leader asks for its lease again."),
    Key("quorum", kinds.choice("majority", "half"), "majority", "How many voters must agree."),
    Key("tie_breaker", kinds.upstream(), DERIVED, 'quorum = "half": an address upstream that must answer this node.'),
    Key("preempt", kinds.boolean(), False, "Whether a node of higher priority takes over from a healthy leader."),
    Key(
        "remove_shutdown_nodes",
        kinds.boolean(),
        False,
        "Whether a node that is stopped is a voter no more until it is back (`wd_remove_shutdown_nodes`).",
    ),
    Key(
        "lost_node_removal_timeout_s",
        kinds.integer(0, 31_536_000, "s"),
        0,
        "A voter lost for so long is a voter no more until it is back (`wd_lost_node_removal_timeout`); 0: never.",
    ),
    Key(
        "no_show_node_removal_timeout_s",
        kinds.integer(0, 31_536_000, "s"),
        0,
        "The same for a voter that has never come (`wd_no_show_node_removal_timeout`); 0: never.",
    ),
    Key("fence", kinds.choice("required", "best-effort"), "required", "Whether the kernel gate is demanded."),
)

NODE = (
    Key("id", kinds.integer(1, MAX_NODES), REQUIRED, "Number of the node, never given twice."),
    Key("host", kinds.host(), REQUIRED, "Host name or address, as operators know the node."),
    Key("port", PORT, 9000, "TCP port of the watchdog, on every path address."),
    Key("role", kinds.choice("member", "witness"), "member", "A witness votes and never leads."),
    Key("priority", kinds.integer(0, 1_000_000), 1, "The highest stands first."),
    Key("pgpool_host", kinds.host(), DERIVED, "Where its pgpool-II listens; default: host."),
    Key("pgpool_port", PORT, 9999, "Port of its pgpool-II for clients."),
    Key("pcp_port", PORT, 9898, "Port of its pgpool-II for PCP."),
)

PATH = (
    Key("interface", kinds.interface(), "auto", "Network interface on that node; auto: found by the address."),
    Key("address", kinds.address(), REQUIRED, "Address of the node on this path."),
    Key("port", PORT, 9694, "UDP port of the heartbeats."),
)

HEARTBEAT = (
    Key("interval_ms", kinds.integer(20, 10_000, "ms"), 200, "How often a heartbeat is sent on every path."),
    Key("deadtime_ms", kinds.integer(100, 120_000, "ms"), 1000, "Silence on all paths that makes a node dead."),
    Key(
        "detector",
        kinds.choice("fixed", "adaptive"),
        "fixed",
        "fixed: silence of deadtime_ms is death. adaptive: sooner on a path that has been regular.",
    ),
    Key(
        "deadtime_min_ms",
        kinds.integer(100, 120_000, "ms"),
        DERIVED,
        "The adaptive detector never calls a shorter silence death; default: three intervals.",
    ),
)

VIP = (
    Key("addresses", kinds.many(kinds.vip(), MAX_VIPS), (), "Virtual addresses; an empty list means none."),
    Key("interface", kinds.interface(), DERIVED, "Interface that carries them; default: the one in their network."),
    Key("driver", kinds.choice("netlink", "command"), "netlink", "How addresses are set."),
    Key("if_up_cmd", COMMAND, DERIVED, "Driver command: sets $_IP_$."),
    Key("if_down_cmd", COMMAND, DERIVED, "Driver command: removes $_IP_$."),
    Key("arping_cmd", COMMAND, DERIVED, "Driver command: announces $_IP_$."),
    Key("announce_interval_s", kinds.integer(1, 86_400, "s"), 60, "How often the leader announces the addresses."),
    Key("command_timeout_s", kinds.integer(1, 60, "s"), 5, "Time limit of each of these commands."),
)

METHODS = kinds.many(kinds.choice("heartbeat", "process", "query", "upstream", "external"), 5)
QUESTION_MS = kinds.integer(100, 600_000, "ms")
LIFE_POINTS = kinds.integer(1, 100)

LIFECHECK = (
    Key("methods", METHODS, ("heartbeat", "process"), "How nodes are judged; heartbeat is always needed."),
    Key("query", kinds.text("expected an SQL query"), "SELECT 1", "Sent through pgpool-II (`wd_lifecheck_query`)."),
    Key(
        "query_database",
        kinds.text("expected the name of a database"),
        "template1",
        "Database of the query (`wd_lifecheck_dbname`).",
    ),
    Key(
        "query_user",
        kinds.text("expected the name of a PostgreSQL user"),
        DERIVED,
        "User of the query (`wd_lifecheck_user`); needed by the method query.",
    ),
    Key(
        "query_password_file",
        kinds.absolute_path("expected the absolute path of a file of mode 0600"),
        DERIVED,
        "File with that user's password; default: libpq's .pgpass.",
    ),
    Key("query_interval_ms", QUESTION_MS, 1000, "How often each pgpool-II is queried (`wd_interval`)."),
    Key("query_timeout_ms", QUESTION_MS, 1000, "How long an answer may take."),
    Key("query_life_points", LIFE_POINTS, 3, "So many queries in a row have to fail (`wd_life_point`)."),
    Key(
        "upstream_servers",
        kinds.many(kinds.host(), MAX_UPSTREAM),
        (),
        "Hosts that are always there; a node that hears none is isolated (`trusted_servers`).",
    ),
    Key(
        "upstream_command",
        COMMAND,
        DERIVED,
        "Asks one of them, as %h, and succeeds if it answers (`trusted_server_command`); default: ICMP echo.",
    ),
    Key("upstream_interval_ms", QUESTION_MS, 1000, "How often they are asked."),
    Key("upstream_timeout_ms", QUESTION_MS, 1000, "How long an answer may take."),
    Key("upstream_life_points", LIFE_POINTS, 3, "So many rounds in a row have to stay without any answer."),
    Key(
        "interfaces",
        kinds.many(kinds.interface(), MAX_PATHS),
        (),
        "Monitored interfaces: with all of them down a node does not lead; that of the virtual IP always counts.",
    ),
    Key(
        "link_debounce_ms",
        kinds.integer(0, 60_000, "ms"),
        100,
        "A link has to be down, or up again, for so long before it counts.",
    ),
    Key(
        "external_timeout_s",
        kinds.integer(1, 86_400, "s"),
        60,
        "How long a report of `pgvigil inform` counts.",
    ),
)

PGPOOL = (
    Key(
        "pid_file",
        kinds.absolute_path("expected the absolute path of pid_file_name in pgpool.conf"),
        "/var/run/postgresql/pgpool.pid",
        "pid_file_name of pgpool.conf; tells which process to watch.",
    ),
    Key("pcp_user", kinds.text("expected a user of pcp.conf"), DERIVED, "User of pcp.conf for `pgvigil pcp`."),
    Key(
        "pcp_password_file",
        kinds.absolute_path("expected the absolute path of a file of mode 0600"),
        DERIVED,
        "File with that user's password.",
    ),
    Key(
        "watchdog",
        kinds.choice("none", "external"),
        "none",
        "external: pgpool-II's own watchdog leads and carries its virtual IP; pgvigil is its external lifecheck.",
    ),
    Key(
        "watchdog_socket_dir",
        kinds.absolute_path("expected the absolute path of wd_ipc_socket_dir in pgpool.conf"),
        "/var/run/postgresql",
        "wd_ipc_socket_dir of pgpool.conf.",
    ),
    Key("watchdog_port", PORT, 9000, "wd_port of pgpool.conf; names the socket."),
    Key(
        "watchdog_authkey_file",
        kinds.absolute_path("expected the absolute path of a file of mode 0600"),
        DERIVED,
        "File with wd_authkey of pgpool.conf; default: no key.",
    ),
)

RECOVERY = (
    Key(
        "hold_limit_s",
        kinds.integer(10, 600, "s"),
        90,
        "How long an online recovery may hold back new clients of this node's pgpool-II.",
    ),
)

COMMAND_ENTRY = (
    Key("run", kinds.text("expected a shell command"), REQUIRED, "Shell command."),
    Key("timeout_s", kinds.integer(1, 3600, "s"), 30, "Time limit; then its process group is killed."),
    Key("policy", kinds.choice("once", "retry"), "once", "Whether the next leader runs it again if in doubt."),
)

COMMAND_NAMES = ("escalation", "de_escalation", "failover", "failback", "follow_primary")

FAILOVER = (
    Key(
        "require_consensus",
        kinds.boolean(),
        True,
        "Whether a majority of the pgpool-IIs has to report a backend (`failover_require_consensus`).",
    ),
    Key(
        "half_votes",
        kinds.boolean(),
        False,
        "Whether half of an even number of pgpool-IIs is enough (`enable_consensus_with_half_votes`).",
    ),
    Key(
        "multiple_requests_from_node",
        kinds.boolean(),
        False,
        "Whether several reports of one pgpool-II count (`allow_multiple_failover_requests_from_node`).",
    ),
    Key(
        "consensus_timeout_s",
        kinds.integer(1, 600, "s"),
        10,
        "How long a report waits for others; then the backend is quarantined on that pgpool-II.",
    ),
)

PROCESS = (
    Key("run_dir", kinds.absolute_path("expected an absolute path"), "/run/pgvigil", "Sockets and pid file; 0700."),
    Key(
        "control_group",
        kinds.text("expected the name of a group"),
        DERIVED,
        "Unix group whose members may call `pgvigil failover` and look at the status; default: nobody but the owner.",
    ),
    Key("state_dir", kinds.absolute_path("expected an absolute path"), "/var/lib/pgvigil", "The durable record."),
    Key("log", kinds.log_target(), "stderr", "stderr, syslog or file:/absolute/path."),
    Key("log_level", kinds.choice("debug", "info", "warning", "error"), "info", "Least level that is logged."),
    Key("hang_timeout_ms", kinds.integer(500, 600_000, "ms"), 4000, "Silence that makes a process count as hung."),
)

STATUS = (_later("listen"),)

# Plain tables; [[node]], [[node.path]] and [commands] have shapes of their own in `reader`.
TABLES: dict[str, tuple[Key, ...]] = {
    "cluster": CLUSTER,
    "heartbeat": HEARTBEAT,
    "vip": VIP,
    "lifecheck": LIFECHECK,
    "pgpool": PGPOOL,
    "failover": FAILOVER,
    "recovery": RECOVERY,
    "process": PROCESS,
    "status": STATUS,
}
TOP_LEVEL = (
    "cluster", "node", "heartbeat", "vip", "lifecheck", "pgpool", "failover", "recovery", "commands", "process",
    "status",
)  # fmt: skip
REQUIRED_TABLES = ("cluster", "node")
# Every table under the name that documentation uses for it.
ALL: dict[str, tuple[Key, ...]] = {**TABLES, "node": NODE, "node.path": PATH, "commands.*": COMMAND_ENTRY}
