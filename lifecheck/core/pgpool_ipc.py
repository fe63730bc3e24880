"""The command socket of pgpool-II's own watchdog: bytes to and from typed values, and nothing else.

The formats are those of the code of 4.2 to 4.7 (`wd_ipc_conn.c`, `wd_json_data.c`), which the documentation does not
match. A frame is one byte of type, a length of four bytes (big-endian) and JSON. One request a connection: the
watchdog answers and closes, and closes without a word after a change of status that it has taken. A malformed
request ends a 4.3.5, so none is ever made. What comes from there is another program's word: everything is checked
against limits, and anything else raises `PeerError`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from pgvigil.ipc.errors import PeerError

HEADER = struct.Struct("!cI")
STATUS_CHANGE, NODE_LIST = b"2", b"3"
IN_TRANSITION, BAD, OK, TIMEOUT = b"5", b"6", b"7", b"8"
DEAD, ALIVE = 1, 2
ALL_NODES = -1

MAX_REPLY_BYTES = 256 * 1024  # 128 nodes of some 400 bytes, pretty-printed
MAX_NODES = 128
MAX_TEXT = 300

# wd_state_names of watchdog.c. pgpool-II says "LEADER" since 4.2, whatever its version calls the state inside.
DEAD_STATE, LOST_STATE, LEADER_STATE, SHUTDOWN_STATE = 0, 8, 4, 10
STATE_NAMES: dict[int, str] = {
    0: "dead",
    1: "loading",
    2: "joining",
    3: "initializing",
    4: "leader",
    5: "participating in an election",
    6: "standing for leader",
    7: "standby",
    8: "lost",
    9: "in network trouble",
    10: "shutdown",
    11: "add message sent",
    12: "network isolation",
}
QUORUM_NAMES: dict[int, str] = {1: "exists", 0: "on the edge", -1: "absent", -2: "unknown"}


@dataclass(frozen=True, slots=True)
class ListedNode:
    """One node of pgpool-II's list; `host` is its hostnameX."""

    pgpool_id: int
    state: int
    host: str
    pgpool_port: int
    priority: int
    delegate_ip: str

    @property
    def name(self) -> str:
        """As pgpool-II's own tools show it."""
        return f"{self.host}:{self.pgpool_port}"


@dataclass(frozen=True, slots=True)
class NodeList:
    """The answer to `node_list_request`; the node that was asked stands first."""

    quorum: int
    escalated: bool
    nodes: tuple[ListedNode, ...]

    def leader(self) -> ListedNode | None:
        """The node that leads, if exactly one is listed as leader."""
        leaders = [node for node in self.nodes if node.state == LEADER_STATE]
        return leaders[0] if len(leaders) == 1 else None


def node_list_request(authkey: str) -> bytes:
    """Ask for all nodes."""
    return _frame(NODE_LIST, {"NodeID": ALL_NODES}, authkey)


def status_request(pgpool_id: int, alive: bool, message: str, authkey: str) -> bytes:
    """Say that a node is alive or dead; `message` goes to pgpool-II's log."""
    body = {"NodeID": pgpool_id, "NodeStatus": ALIVE if alive else DEAD, "Message": message[:MAX_TEXT]}
    return _frame(STATUS_CHANGE, body, authkey)


def _frame(kind: bytes, body: dict[str, object], authkey: str) -> bytes:
    if authkey:
        body = {**body, "IPCAuthKey": authkey}
    data = json.dumps(body).encode("ascii")
    return HEADER.pack(kind, len(data)) + data


def whole_reply(received: bytes) -> tuple[bytes, bytes] | None:
    """Type and data of a reply, or None while bytes are missing; `PeerError` if it can never become one."""
    if not received:
        return None
    if received[:1] not in (IN_TRANSITION, BAD, OK, TIMEOUT):
        raise PeerError(f"a reply of type {received[:1]!r}, expected one of 5, 6, 7, 8")
    if len(received) < HEADER.size:
        return None
    kind, length = HEADER.unpack_from(received)
    if length > MAX_REPLY_BYTES:
        raise PeerError(f"a reply of {length} bytes, expected at most {MAX_REPLY_BYTES}")
    if len(received) < HEADER.size + length:
        return None
    return kind, received[HEADER.size : HEADER.size + length].rstrip(b"\0")


def refusal(kind: bytes, data: bytes) -> str:
    """What a reply that is no success says that the watchdog does."""
    if kind == IN_TRANSITION:
        return "has its cluster in transition"
    if kind == TIMEOUT:
        return "ran into a time limit of its own"
    return f"refuses{_message(data)}"


def _message(data: bytes) -> str:
    try:
        said = _object(data).get("MESSAGE")
    except PeerError:
        return ""
    return f": {_printable(said)}" if isinstance(said, str) and said else ""


def parse_node_list(data: bytes) -> NodeList:
    """The node list, or `PeerError` that names what is wrong."""
    root = _object(data)
    rows = root.get("WatchdogNodes")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_NODES:
        raise PeerError(f"WatchdogNodes is {_shown(rows)}, expected a list of 1 to {MAX_NODES}")
    nodes = tuple(_listed(row) for row in rows)
    if len({node.pgpool_id for node in nodes}) != len(nodes):
        raise PeerError("two nodes of one ID, expected each once")
    return NodeList(_integer(root, "QuorumStatus", -2, 1), bool(_integer(root, "Escalated", 0, 1)), nodes)


def _listed(row: object) -> ListedNode:
    if not isinstance(row, dict):
        raise PeerError(f"a node is {_shown(row)}, expected an object")
    return ListedNode(
        pgpool_id=_integer(row, "ID", 0, 127),
        state=_integer(row, "State", 0, 255),
        host=_text(row, "HostName"),
        pgpool_port=_integer(row, "PgpoolPort", 0, 65535),
        priority=max(0, _integer(row, "Priority", -1, 2**31 - 1)),
        delegate_ip=_text(row, "DelegateIP"),
    )


def _object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PeerError(f"{_shown(data)}, expected a JSON object")
    return value


def _integer(row: dict[str, object], key: str, least: int, most: int) -> int:
    value = row.get(key)
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int) or not least <= value <= most:
        raise PeerError(f"{key} is {_shown(value)}, expected an integer of {least} to {most}")
    return value


def _text(row: dict[str, object], key: str) -> str:
    """Absent names are shown as `Not_Set` or `Not Set` by pgpool-II."""
    value = row.get(key, "")
    if not isinstance(value, str):
        raise PeerError(f"{key} is {_shown(value)}, expected text")
    return "" if value in ("Not_Set", "Not Set") else _printable(value)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT])


def _shown(value: object) -> str:
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else text[:57] + "..."
