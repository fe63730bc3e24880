"""Every request that PCP knows, each with the reader of its answer.

One function per request makes a `Request`; its type says what the answer is. The arguments are checked here, before
pgpool-II reads them with atoi(3), for which "x" is node 0.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.pcp import answers
from pgvigil.watchdog.pcp.protocol import Done, Request, Rows, Single
from pgvigil.watchdog.pcp.records import BackendStatus, HealthStats, NodeInfo, Parameter, ProcessInfo, WatchdogInfo

ALL = -1
MAX_NODES = 128
"""MAX_NUM_BACKENDS of pgpool-II."""
MAX_PROCESSES = 65_536
MAX_SLOTS = 32_768
MAX_PARAMETERS = 8192
MAX_PID = 2**22
MAX_WATCHDOG_NODES = 128
MAX_PARAMETER_FIELDS = 3
PROCESSES_BYTES = 512 * 1024
SLOTS_BYTES = 8 * 1024 * 1024
PARAMETERS_BYTES = 4 * 1024 * 1024
MODES = {"smart": b"s", "fast": b"f", "immediate": b"i"}


def _node(node_id: int, lowest: int = 0) -> bytes:
    if not lowest <= node_id < MAX_NODES:
        raise ConfigError(f"backend {node_id}, expected {lowest} to {MAX_NODES - 1}")
    return _item(node_id)


def _item(value: object) -> bytes:
    data = str(value).encode()
    if b"\0" in data:
        raise ConfigError("a NUL byte inside an argument, expected text")
    return data + b"\0"


def _order(name: str, letter: str, body: bytes, answer: str) -> Request[None]:
    return Request(name, letter, body, answer, Done, changes=True)


def node_count() -> Request[int]:
    """How many backends are configured."""
    return Request("node-count", "L", b"", "l", lambda: Single("a node count", 1, answers.count(MAX_NODES)))


def node_info(node_id: int = ALL) -> Request[tuple[NodeInfo, ...]]:
    """One backend, or all of them (`ALL`, since 4.3; 4.2 refuses it)."""
    first, most = (0, MAX_NODES) if node_id == ALL else (node_id, 1)

    def reader() -> Rows[NodeInfo]:
        return Rows(
            "node info", b"NodeInfo", answers.MAX_NODE_FIELDS, most,
            lambda row, items: answers.node_info(first + row, items, answers.NODE_FIELDS),
            alone=None if node_id == ALL else lambda items: answers.node_info(first, items, answers.NODE_FIELDS_42),
        )  # fmt: skip

    return Request("node-info", "I", _node(node_id, ALL), "i", reader)


def health_stats(node_id: int) -> Request[HealthStats]:
    """What health checks of one backend came to."""
    fields, decode = answers.HEALTH_FIELDS, answers.health(node_id)
    return Request("health-stats", "H", _node(node_id), "h", lambda: Single("health stats", fields, decode))


def process_count() -> Request[tuple[int, ...]]:
    """The pids of pgpool-II's children; with dynamic processes some are 0."""
    return Request(
        "proc-count", "N", b"", "n",
        lambda: Single("a process list", MAX_PROCESSES + 1, answers.pids(MAX_PROCESSES, MAX_PID)), PROCESSES_BYTES,
    )  # fmt: skip


def process_info(pid: int = 0) -> Request[tuple[ProcessInfo, ...]]:
    """The connection cache of one child, or of all of them (0)."""
    if not 0 <= pid <= MAX_PID:
        raise ConfigError(f"process {pid}, expected 0 (all) to {MAX_PID}")

    def reader() -> Rows[ProcessInfo]:
        return Rows(
            "process info", b"ProcessInfo", answers.MAX_PROCESS_FIELDS, MAX_SLOTS,
            lambda _row, items: answers.process_info(items), may_be_fewer=True,
        )  # fmt: skip

    return Request("proc-info", "P", _item(pid), "p", reader, SLOTS_BYTES)


def pool_status() -> Request[tuple[Parameter, ...]]:
    """The settings that pgpool-II runs with."""

    def reader() -> Rows[Parameter]:
        return Rows(
            "pool status", b"ProcessConfig", MAX_PARAMETER_FIELDS, MAX_PARAMETERS,
            lambda _row, items: answers.parameter(items), binary_count=True,
        )  # fmt: skip

    return Request("pool-status", "B", b"", "b", reader, PARAMETERS_BYTES)


def watchdog_info(node_id: int = ALL) -> Request[WatchdogInfo]:
    """One node of pgpool-II's own watchdog (0: the one that is asked), or all of them (`ALL`)."""
    decode: Callable[[list[bytes]], WatchdogInfo] = answers.watchdog(MAX_WATCHDOG_NODES)
    return Request("watchdog-info", "W", _node(node_id, ALL), "w", lambda: Single("watchdog info", 1, decode))


def attach(node_id: int) -> Request[None]:
    """Let clients use a backend again.

    Like detach and promote it does not ask pgpool-II's own watchdog for quorum and consensus.
    """
    return _order("attach", "C", _node(node_id), "c")


def detach(node_id: int, graceful: bool = False) -> Request[None]:
    """Take a backend out; gracefully: new clients wait until the present ones have gone."""
    return _order("detach", "d" if graceful else "D", _node(node_id), "d")


def promote(node_id: int, graceful: bool = False, switchover: bool = False) -> Request[None]:
    """Make a backend the primary; `switchover` (since 4.3) detaches the old one and runs failover_command.

    4.2 reads the number and ignores what follows. Ask `promotion_obstacle` first: pgpool-II does not say no where it
    should.
    """
    # The number is followed by a blank, and the option by no NUL; pgpool-II counts on both.
    body = str(int(_node(node_id)[:-1])).encode() + b" \0" + (b"s" if switchover else b"n")
    return _order("promote", "j" if graceful else "J", body, "d")


def promotion_obstacle(node: NodeInfo, switchover: bool) -> str:
    """Why pgpool-II would not do what `promote` asks for although it does not refuse it; empty if nothing is known.

    A backend that is down is not promoted, and pgpool-II (4.3.5) says done all the same; asked to do it gracefully it
    never answers, and holds back new clients until it is restarted. 4.2 does not know a switchover and only promotes.
    """
    if node.status in (BackendStatus.DOWN, BackendStatus.UNUSED):
        return f"backend {node.node_id} is {node.status.name.lower()}, expected it up or waiting: attach it first"
    if switchover and node.pg_status is None:
        return "this pgpool-II is of 4.2 and would promote without a switchover, expected 4.3 or newer"
    return ""


def recovery(node_id: int) -> Request[None]:
    """Online recovery of a backend; answered when it is over."""
    return _order("recovery", "O", _node(node_id), "c")


def stop(mode: str = "smart", cluster: bool = False) -> Request[None]:
    """Stop pgpool-II; `cluster`: all that its own watchdog knows, without a word of what came of it."""
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}, expected one of {', '.join(MODES)}")
    return _order("stop", "t" if cluster else "T", MODES[mode], "t")


def reload(cluster: bool = False) -> Request[None]:
    """Let pgpool-II read its configuration again."""
    return _order("reload", "Z", _scope(cluster), "z")


def log_rotate(cluster: bool = False) -> Request[None]:
    """Let pgpool-II begin a new log file; since 4.6."""
    return _order("log-rotate", "V", _scope(cluster), "v")


def invalidate_cache() -> Request[None]:
    """Let pgpool-II forget its query cache; since 4.6."""
    return _order("invalidate-cache", "G", b"", "g")


def set_messages(level: str) -> Request[None]:
    """client_min_messages of this connection: which notices pgpool-II sends."""
    return _order("set-messages", "A", _item("client_min_messages") + _item(level), "a")


def no_operation() -> Request[None]:
    """Nothing, and no answer."""
    return Request("no-operation", "F", b"", "", Done)


def _scope(cluster: bool) -> bytes:
    return b"c" if cluster else b"l"
