"""A pgpool-II that exists as bytes only: what 4.2 to 4.7 answer over PCP, field by field.

The orders of the fields are written down here a second time, from the study of pgpool-II's protocol and not from the
code under test. `Fake` is pure (frame in, bytes out); `serving` puts it behind a real socket.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VERSIONS = ("4.2", "4.3", "4.4", "4.5", "4.6", "4.7")
USER, PASSWORD = "pgpool", "postgres"
SALT = bytes([1, 2, 3, 4])
DONE = b"CommandComplete\0"

Fields = dict[str, str]

_NODE_42 = "host port status quarantine weight role standby_delay replication_state replication_sync_state changed"
_NODE_43 = (
    "host port status quarantine pg_status weight role pg_role standby_delay replication_state "
    "replication_sync_state changed"
)
_NODE_44 = _NODE_43.replace("standby_delay", "by_time standby_delay")
_PROCESS_42 = "pid database user started backend_connected major minor counter backend_id backend_pid connected"
_PROCESS_43 = (
    "pid started connections pool_id backend_id database user backend_connected client_connected client_disconnected "
    "idle major minor counter backend_pid connected status"
)
_PROCESS_45 = _PROCESS_43 + " load_balance_node"
_PROCESS_47 = _PROCESS_45 + " client_host client_port statement"
NODE_ORDER = {"4.2": _NODE_42, "4.3": _NODE_43} | dict.fromkeys(("4.4", "4.5", "4.6", "4.7"), _NODE_44)
PROCESS_ORDER = {
    "4.2": _PROCESS_42, "4.3": _PROCESS_43, "4.4": _PROCESS_43, "4.5": _PROCESS_45, "4.6": _PROCESS_45,
    "4.7": _PROCESS_47,
}  # fmt: skip

NODES: list[Fields] = [
    {
        "host": "10.0.0.1", "port": "5432", "status": "2", "quarantine": "0", "pg_status": "up",
        "weight": "1073741823.500000", "role": "2", "pg_role": "primary", "by_time": "0", "standby_delay": "0",
        "replication_state": "", "replication_sync_state": "", "changed": "1700000000",
    },
    {
        "host": "/var/run/postgresql", "port": "5433", "status": "3", "quarantine": "1", "pg_status": "down",
        "weight": "0.000000", "role": "3", "pg_role": "standby", "by_time": "1", "standby_delay": "2500000",
        "replication_state": "streaming", "replication_sync_state": "async", "changed": "1700000001",
    },
]  # fmt: skip
PROCESS: Fields = {
    "pid": "4711", "started": "2026-01-02 03:04:05 (4:01 before process restarting)", "connections": "12",
    "pool_id": "3", "backend_id": "1", "database": "shop", "user": "ann", "backend_connected": "2026-01-02 03:05:00",
    "client_connected": "2026-01-02 03:06:00", "client_disconnected": "", "idle": "7", "major": "3", "minor": "0",
    "counter": "2", "backend_pid": "815", "connected": "1", "status": "Idle", "load_balance_node": "1",
    "client_host": "10.0.0.9", "client_port": "40000", "statement": "select 1",
}  # fmt: skip
PROCESSES: list[Fields] = [PROCESS, PROCESS | {"backend_id": "0", "database": "", "connected": "0"}]
HEALTH = (
    "0", "10.0.0.1", "5432", "up", "primary", "2026-01-02 03:04:05", "10", "9", "1", "0", "2", "0.200000", "2", "30",
    "1", "4.500000", "2026-01-02 03:09:00", "2026-01-02 03:09:00", "", "2026-01-02 03:08:00",
)  # fmt: skip
PARAMETERS = (("port", "9999", "Port number."), ("log_line_prefix", "%m: ", ""))
PIDS = (4711, 4712, 0)
WATCHDOG_NODE = {
    "ID": 0, "State": 4, "Membership": 0, "MembershipString": "MEMBER", "NodeName": "10.0.0.1:9999 Linux pg01",
    "HostName": "10.0.0.1", "StateName": "LEADER", "DelegateIP": "10.0.0.100", "WdPort": 9000, "PgpoolPort": 9999,
    "Priority": 1,
}  # fmt: skip
WATCHDOG = {
    "RemoteNodeCount": 2, "MemberRemoteNodeCount": 2, "NodesRequireForQuorum": 2, "QuorumStatus": 1,
    "AliveNodeCount": 1, "Escalated": 1, "LeaderNodeName": "10.0.0.1:9999 Linux pg01",
    "LeaderHostName": "10.0.0.1", "NodeCount": 1, "WatchdogNodes": [WATCHDOG_NODE],
}  # fmt: skip
SINCE_43 = ("MemberRemoteNodeCount", "NodesRequireForQuorum", "Membership", "MembershipString")


def frame(letter: str, *items: str | bytes) -> bytes:
    """A frame of NUL-terminated items."""
    return raw(letter, b"".join((item.encode() if isinstance(item, str) else item) + b"\0" for item in items))


def raw(letter: str, body: bytes) -> bytes:
    """A frame with this very body."""
    return letter.encode() + (len(body) + 4).to_bytes(4, "big") + body


def report(letter: str = "E", severity: str = "ERROR", message: str = "no", **more: str) -> bytes:
    """An error or a notice; `more` by its letter: D detail, H hint."""
    fields = {"S": severity, "C": "XX000", "M": message, **more, "F": "pcp_worker.c", "L": "1"}
    return raw(letter, b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items()) + b"\0")


def ordered(order: str, fields: Fields) -> list[str]:
    return [fields[name] for name in order.split()]


def node_rows(version: str, nodes: Sequence[Fields]) -> bytes:
    if version == "4.2":
        return b"".join(frame("i", "CommandComplete", *ordered(NODE_ORDER[version], node)) for node in nodes)
    rows = b"".join(frame("i", "NodeInfo", *ordered(NODE_ORDER[version], node)) for node in nodes)
    return frame("i", "ArraySize", str(len(nodes))) + rows + frame("i", "CommandComplete")


def process_rows(version: str, processes: Sequence[Fields], announced: int | None = None) -> bytes:
    rows = b"".join(frame("p", "ProcessInfo", *ordered(PROCESS_ORDER[version], one)) for one in processes)
    count = len(processes) if announced is None else announced
    return frame("p", "ArraySize", str(count)) + rows + frame("p", "CommandComplete")


def pid_list(pids: Sequence[int]) -> bytes:
    return frame("n", "CommandComplete", str(len(pids)), *map(str, pids))


def parameter_rows(parameters: Sequence[Sequence[str]]) -> bytes:
    rows = b"".join(frame("b", "ProcessConfig", *one) for one in parameters)
    return raw("b", b"ArraySize\0" + len(parameters).to_bytes(4, "big")) + rows + frame("b", "CommandComplete")


def watchdog_answer(version: str) -> bytes:
    if version != "4.2":
        return frame("w", "CommandComplete", json.dumps(WATCHDOG))
    node = {key: value for key, value in WATCHDOG_NODE.items() if key not in SINCE_43}
    value = {key: value for key, value in WATCHDOG.items() if key not in SINCE_43} | {"WatchdogNodes": [node]}
    return frame("w", "CommandComplete", json.dumps(value))


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode()


class Fake:
    """One connection's worth of pgpool-II; `answer` gives bytes, and None hangs up."""

    def __init__(self, version: str = "4.3") -> None:
        self.version = version
        self.asked: list[tuple[str, bytes]] = []
        self._authenticated = False
        self._over = False

    def answer(self, letter: str, body: bytes) -> bytes | None:
        """What it says to one frame."""
        self.asked.append((letter, body))
        if self._over or letter == "X":
            return None
        if len(body) > 255:
            return self._fatal("invalid PCP packet", D=f"incorrect packet length ({len(body) + 4})")
        if letter == "M":
            return raw("m", SALT)
        if letter == "R":
            return self._login(body)
        if not self._authenticated:
            return self._fatal("authentication failed for new PCP connection", D="connection not authorized")
        return self._command(letter, body)

    def _fatal(self, message: str, **more: str) -> bytes:
        self._over = True
        return report("E", "FATAL", message, **more)

    def _login(self, body: bytes) -> bytes:
        user, _, proof = body.removesuffix(b"\0").partition(b"\0")
        wanted = md5(md5(md5(PASSWORD.encode()) + USER.encode()) + SALT)
        if (user, proof) != (USER.encode(), wanted):
            detail = "username and/or password does not match"
            return self._fatal(f'authentication failed for user "{user.decode()}"', D=detail)
        self._authenticated = True
        return frame("r", "AuthenticationOK")

    def _command(self, letter: str, body: bytes) -> bytes:
        plain = {
            "L": lambda: frame("l", "CommandComplete", str(len(NODES))),
            "N": lambda: pid_list(PIDS),
            "P": lambda: process_rows(self.version, PROCESSES, 8),
            "B": lambda: parameter_rows(PARAMETERS),
            "W": lambda: watchdog_answer(self.version),
            "I": lambda: self._node_info(body),
            "H": lambda: frame("h", "CommandComplete", body.rstrip(b"\0"), *HEALTH[1:]),
        }
        orders = {"C": "c", "D": "d", "d": "d", "J": "d", "j": "d", "O": "c", "T": "t", "t": "t", "Z": "z", "A": "a"}
        if self.version in ("4.6", "4.7"):
            orders |= {"V": "v", "G": "g"}
        if letter in plain:
            return plain[letter]()
        if letter in orders:
            return raw(orders[letter], DONE)
        if letter == "F":
            return b""
        return self._fatal("PCP processing request", D=f'unknown PCP packet type "{letter}"')

    def _node_info(self, body: bytes) -> bytes:
        number = int(body.rstrip(b"\0"))
        if number == -1 and self.version != "4.2":
            return node_rows(self.version, NODES)
        if not 0 <= number < len(NODES):
            named = "" if self.version == "4.2" else f" : {number}"
            return report("E", "ERROR", "informing node info failed", D=f"invalid node ID{named}")
        return node_rows(self.version, [NODES[number]])


class Slowly(bytes):
    """Bytes that are sent one by one."""


Answer = Callable[[str, bytes], bytes | None]


@contextmanager
def serving(answer: Callable[[], Answer], path: Path | None = None) -> Iterator[tuple[str, int]]:
    """Behind a socket, one connection after another: host and port, or (`path`) folder and port of a unix socket."""
    port = 9898
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
        host, port = listener.getsockname()
    else:
        listener, host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path)
        listener.bind(f"{path}/.s.PGSQL.{port}")
        listener.listen()
    ended = threading.Event()
    listener.settimeout(0.05)

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                _converse(connection, answer(), ended)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield host, port
    finally:
        ended.set()
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def _converse(connection: socket.socket, answer: Answer, ended: threading.Event) -> None:
    connection.settimeout(0.05)
    received = b""
    while not ended.is_set():
        while len(received) >= 5 and len(received) > int.from_bytes(received[1:5], "big"):
            end = int.from_bytes(received[1:5], "big") + 1
            said = answer(chr(received[0]), received[5:end])
            received = received[end:]
            if said is None or not _said(connection, said, ended):
                return
        try:
            data = connection.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return
        if not data:
            return
        received += data


def _said(connection: socket.socket, data: bytes, ended: threading.Event) -> bool:
    """Whether all of it went out; a client that hangs up in the middle is no mistake of the fake."""
    view, step = memoryview(data), 1 if isinstance(data, Slowly) else 65536
    while view and not ended.is_set():
        if isinstance(data, Slowly):
            ended.wait(0.005)
        try:
            view = view[connection.send(view[:step]) :]
        except TimeoutError:
            continue
        except ConnectionError:
            return False
    return True
