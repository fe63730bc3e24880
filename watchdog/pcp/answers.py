"""The items of an answer, as values. The number of fields tells the version of pgpool-II.

| row | 4.2 | 4.3 | 4.4 | 4.5 and 4.6 | 4.7 |
|---|---|---|---|---|---|
| node info | 10 | 12 | 13 | 13 | 13 |
| process info | 11 | 17 | 17 | 18 | 21 |

A number of fields that is not in the table is refused: a guess at what they mean would act on the wrong backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.pcp.protocol import Fields, number, shown, text
from pgvigil.watchdog.pcp.records import (
    BackendStatus,
    HealthStats,
    NodeInfo,
    Parameter,
    ProcessInfo,
    Role,
    WatchdogInfo,
    WatchdogNode,
)

NODE_FIELDS_42 = (10,)
NODE_FIELDS = (12, 13)
PROCESS_FIELDS = (11, 17, 18, 21)
MAX_NODE_FIELDS = max(NODE_FIELDS)
MAX_PROCESS_FIELDS = max(PROCESS_FIELDS)
HEALTH_FIELDS = 20
PARAMETER_FIELDS = 3
RAND_MAX = 2**31 - 1
"""pgpool-II scales weights by it (stdlib.h of glibc)."""
MAX_INT = 2**31 - 1
MAX_LONG = 2**64 - 1


def count(most: int) -> Callable[[list[bytes]], int]:
    """Reads one number."""

    def read(items: list[bytes]) -> int:
        _fields("a node count", items, (1,))
        return number(items[0], "a node count", 0, most)

    return read


def _fields(what: str, items: list[bytes], allowed: tuple[int, ...]) -> Fields:
    if len(items) not in allowed:
        wanted = " or ".join(str(one) for one in allowed)
        raise PeerError(f"{what} of {len(items)} fields, expected {wanted} (pgpool-II 4.2 to 4.7)")
    return Fields(what, items)


def node_info(node_id: int, items: list[bytes], allowed: tuple[int, ...]) -> NodeInfo:
    """A backend, in one of the `allowed` numbers of fields; the answer does not name it, so the question does."""
    fields = _fields(f"backend {node_id}", items, allowed)
    since_43, since_44 = len(items) >= 12, len(items) >= 13
    return NodeInfo(
        node_id=node_id,
        host=fields.text("host"),
        port=fields.number("port", 0, 65535),
        status=BackendStatus(fields.number("status", 0, 3)),
        quarantined=fields.flag("quarantine"),
        pg_status=fields.text("pg_status") if since_43 else None,
        weight=_weight(fields.decimal("weight"), node_id),
        role=Role(fields.number("role", 0, 3)),
        pg_role=fields.text("pg_role") if since_43 else None,
        delay_in_time=fields.flag("standby_delay_by_time") if since_44 else None,
        delay=fields.number("standby_delay", 0, MAX_LONG),
        replication_state=fields.text("replication_state"),
        replication_sync_state=fields.text("replication_sync_state"),
        changed_at_s=fields.number("last_status_change", 0, MAX_LONG),
    )


def _weight(value: float | None, node_id: int) -> float:
    if value is None or not 0 <= value <= 2 * RAND_MAX:
        raise PeerError(f"weight of backend {node_id} is {value}, expected 0 to {RAND_MAX}")
    return round(value / RAND_MAX, 6)


def health(node_id: int) -> Callable[[list[bytes]], HealthStats]:
    """Reads the counters of the health checks of this backend."""
    return lambda items: _health(node_id, _fields("health stats", items, (HEALTH_FIELDS,)))


def _health(node_id: int, fields: Fields) -> HealthStats:
    return HealthStats(
        node_id=fields.number("node id", node_id, node_id),
        host=fields.text("host"),
        port=fields.number("port", 0, 65535),
        status=fields.text("status"),
        role=fields.text("role"),
        last_status_change=fields.text("last status change"),
        total=fields.number("total", 0, MAX_LONG),
        success=fields.number("success", 0, MAX_LONG),
        fail=fields.number("fail", 0, MAX_LONG),
        skip=fields.number("skip", 0, MAX_LONG),
        retry=fields.number("retry", 0, MAX_LONG),
        average_retry=fields.decimal("average retry"),
        max_retry=fields.number("max retry", 0, MAX_INT),
        # pgpool-II measures with the wall clock: one that is set back makes a duration negative, and that stays.
        max_duration_ms=fields.number("max duration", -MAX_INT - 1, MAX_INT),
        min_duration_ms=fields.number("min duration", -MAX_INT - 1, MAX_INT),
        average_duration_ms=fields.decimal("average duration"),
        last_check=fields.text("last check"),
        last_success=fields.text("last success"),
        last_skip=fields.text("last skip"),
        last_failure=fields.text("last failure"),
    )


def pids(most: int, highest: int) -> Callable[[list[bytes]], tuple[int, ...]]:
    """Reads a count and as many pids."""

    def read(items: list[bytes]) -> tuple[int, ...]:
        if not items:
            raise PeerError("a process list without a count, expected one")
        announced = number(items[0], "the count of processes", 0, most)
        if announced != len(items) - 1:
            raise PeerError(f"a process list of {len(items) - 1} pids, expected the announced {announced}")
        return tuple(number(item, "a pid", 0, highest) for item in items[1:])

    return read


def process_info(items: list[bytes]) -> ProcessInfo:
    """A slot of the connection cache."""
    fields = _fields("process info", items, PROCESS_FIELDS)
    return _process_42(fields) if len(items) == 11 else _process_43(fields, len(items))


def _process_42(fields: Fields) -> ProcessInfo:
    pid = fields.number("pid", 0, MAX_INT)
    database, user = fields.text("database"), fields.text("user")
    return ProcessInfo(
        pid=pid,
        started_at=fields.text("start time"),
        client_connections=None,
        pool_id=None,
        database=database,
        user=user,
        backend_connected_at=fields.text("create time"),
        client_connected_at=None,
        client_disconnected_at=None,
        client_idle=None,
        protocol_major=fields.number("major version", 0, MAX_INT),
        protocol_minor=fields.number("minor version", 0, MAX_INT),
        use_count=fields.number("pool counter", 0, MAX_INT),
        backend_id=fields.number("backend id", 0, 127),
        backend_pid=fields.number("backend pid", -MAX_INT - 1, MAX_INT),
        connected=fields.flag("connected"),
        status=None,
        load_balance_node=None,
        client_host=None,
        client_port=None,
        statement=None,
    )


def _process_43(fields: Fields, sent: int) -> ProcessInfo:
    since_45, since_47 = sent >= 18, sent >= 21
    return ProcessInfo(
        pid=fields.number("pid", 0, MAX_INT),
        started_at=fields.text("start time"),
        client_connections=fields.number("client connection count", 0, MAX_INT),
        pool_id=fields.number("pool id", 0, MAX_INT),
        backend_id=fields.number("backend id", 0, 127),
        database=fields.text("database"),
        user=fields.text("user"),
        backend_connected_at=fields.text("backend connection time"),
        client_connected_at=fields.text("client connection time"),
        client_disconnected_at=fields.text("client disconnection time"),
        client_idle=fields.text("client idle duration"),
        protocol_major=fields.number("major version", 0, MAX_INT),
        protocol_minor=fields.number("minor version", 0, MAX_INT),
        use_count=fields.number("pool counter", 0, MAX_INT),
        backend_pid=fields.number("backend pid", -MAX_INT - 1, MAX_INT),
        connected=fields.flag("connected"),
        status=fields.text("status"),
        load_balance_node=fields.text("load balance node") if since_45 else None,
        client_host=fields.text("client host") if since_47 else None,
        client_port=fields.text("client port") if since_47 else None,
        statement=fields.text("statement") if since_47 else None,
    )


def parameter(items: list[bytes]) -> Parameter:
    """A setting: name, value, description."""
    _fields("a parameter", items, (PARAMETER_FIELDS,))
    return Parameter(*map(text, items))


# --- the watchdog's JSON ------------------------------------------------------------------------------------------


def watchdog(most: int) -> Callable[[list[bytes]], WatchdogInfo]:
    """Reads the node list of pgpool-II's own watchdog."""

    def read(items: list[bytes]) -> WatchdogInfo:
        import json  # only here: no daemon needs it

        _fields("watchdog info", items, (1,))
        try:
            value = json.loads(items[0])
        except (ValueError, RecursionError):
            raise PeerError(f"watchdog info {shown(items[0])}, expected JSON") from None
        table = _Table("watchdog info", value)
        nodes = value.get("WatchdogNodes")
        if not isinstance(nodes, list) or len(nodes) > most:
            found = f"{len(nodes)} nodes" if isinstance(nodes, list) else "no list of nodes"
            raise PeerError(f"watchdog info with {found}, expected a list of at most {most}")
        return WatchdogInfo(
            remote_nodes=table.number("RemoteNodeCount", 0),
            member_remote_nodes=table.optional_number("MemberRemoteNodeCount"),
            alive_remote_nodes=table.number("AliveNodeCount", 0),
            needed_for_quorum=table.optional_number("NodesRequireForQuorum"),
            quorum=table.number("QuorumStatus", -MAX_INT),
            escalated=table.number("Escalated", 0, 1) == 1,
            leader_name=table.text("LeaderNodeName"),
            leader_host=table.text("LeaderHostName"),
            nodes=tuple(_watchdog_node(node) for node in nodes),
        )

    return read


def _watchdog_node(value: object) -> WatchdogNode:
    table = _Table("a watchdog node", value)
    return WatchdogNode(
        node_id=table.number("ID", -1),
        name=table.text("NodeName"),
        host=table.text("HostName"),
        delegate_ip=table.text("DelegateIP"),
        pgpool_port=table.number("PgpoolPort", 0, 65535),
        watchdog_port=table.number("WdPort", 0, 65535),
        priority=table.number("Priority", -1),
        state=table.number("State", -1),
        state_name=table.text("StateName"),
        membership=table.optional_number("Membership"),
        membership_name=table.optional_text("MembershipString"),
    )


class _Table:
    """A JSON object, read by key."""

    def __init__(self, what: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise PeerError(f"{what} is {_kind(value)}, expected an object")
        self._what, self._value = what, value

    def number(self, key: str, low: int, high: int = MAX_INT) -> int:
        value = self._value.get(key)
        # pgpool-II sends some truths as numbers and some as booleans.
        if not isinstance(value, int) or not low <= value <= high:
            raise PeerError(f"{key} of {self._what} is {_kind(value)}, expected a number of {low} to {high}")
        return int(value)

    def optional_number(self, key: str) -> int | None:
        return self.number(key, -1) if key in self._value else None

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if not isinstance(value, str):
            raise PeerError(f"{key} of {self._what} is {_kind(value)}, expected text")
        # A lone surrogate of a \\u escape could be printed nowhere.
        return value.encode("utf-8", "backslashreplace").decode()

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if key in self._value else None


def _kind(value: object) -> str:
    """A value for an error message, without spelling out what may be deep or long."""
    return repr(value)[:40] if isinstance(value, int | float | str | None) else f"a {type(value).__name__}"
