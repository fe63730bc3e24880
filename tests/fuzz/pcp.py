"""The answers of a pgpool-II as a fuzzer's bytes: the first byte picks the request, the rest is what comes back.

Whatever comes, in one piece or in many, the session must tell the same story, keep its promises about errors, and give
values that survive being written (by the fake pgpool-II, which knows the formats on its own) and read again.
"""

from __future__ import annotations

import json
from typing import Any

from tests.unit.pcp import fake

from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.answers import RAND_MAX
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import HealthStats, NodeInfo, Parameter, ProcessInfo, WatchdogInfo
from pgvigil.watchdog.pcp.session import Answered, Broken, Event, LoggedIn, Refused, Session

MAX_BYTES = 64 * 1024
PIECE_BYTES = 7
REQUESTS: tuple[Request[Any], ...] = (
    requests.node_count(), requests.node_info(), requests.node_info(0), requests.health_stats(0),
    requests.process_count(), requests.process_info(), requests.pool_status(), requests.watchdog_info(),
    requests.attach(0), requests.recovery(0),
)  # fmt: skip
LOGIN = len(REQUESTS)
"""The first byte that stands for a session from its very beginning."""


class AnotherStory(Exception):
    """The session broke one of its promises."""


def take(data: bytes) -> int:
    """1 for a whole answer, 0 for anything else."""
    kind, said = (data[0] if data else 0) % (LOGIN + 1), data[1:]
    request = REQUESTS[1] if kind == LOGIN else REQUESTS[kind]
    whole = _events(request, kind == LOGIN, said, max(1, len(said)))
    if [str(event) for event in whole] != [str(one) for one in _events(request, kind == LOGIN, said, PIECE_BYTES)]:
        raise AnotherStory(f"in pieces: {whole}")
    answers = [event for event in whole if isinstance(event, Answered)]
    for answer in answers:
        _survives(request, answer.value)
    return len(answers)


def _events(request: Request[Any], from_the_beginning: bool, said: bytes, piece: int) -> list[Event]:
    session = Session(fake.USER, fake.PASSWORD)
    if not from_the_beginning:
        session.feed(fake.raw("m", fake.SALT) + fake.frame("r", "AuthenticationOK"))
    session.ask(request)
    events: list[Event] = []
    for start in range(0, len(said), piece):
        events += session.feed(said[start : start + piece])
        session.outgoing()
    events += session.end()
    _promises(session, events)
    return events


def _promises(session: Session, events: list[Event]) -> None:
    if not session.is_over or session.feed(b"more") or session.end():
        raise AnotherStory("it goes on after its end")
    kinds = [type(event) for event in events]
    if kinds.count(Answered) > 1 or kinds.count(LoggedIn) > 1 or kinds.count(Broken) > 1:
        raise AnotherStory(f"one request, one login, one end: {kinds}")
    for event in events:
        if isinstance(event, Broken) and (type(event.error) is not PeerError or "expected" not in str(event.error)):
            raise AnotherStory(f"no reason: {event!r}")
        if isinstance(event, Refused) and not event.report.message:
            raise AnotherStory(f"no reason: {event!r}")


# --- writing again ------------------------------------------------------------------------------------------------


def _survives(request: Request[Any], value: Any) -> None:
    events = _events(request, False, written(request, value), MAX_BYTES)
    if not events or not isinstance(events[0], Answered) or events[0].value != value:
        raise AnotherStory(f"{value!r} became {events}")


def written(request: Request[Any], value: Any) -> bytes:
    """An answer as the fake pgpool-II would give it."""
    letter = request.answer
    if value is None:
        return fake.raw(letter, fake.DONE)
    if isinstance(value, int):
        return fake.frame(letter, "CommandComplete", str(value))
    if isinstance(value, HealthStats):
        return fake.frame(letter, "CommandComplete", *_health(value))
    if isinstance(value, WatchdogInfo):
        return fake.frame(letter, "CommandComplete", json.dumps(_watchdog(value)))
    if letter == "n":
        return fake.pid_list(value)
    if letter == "b":
        return fake.parameter_rows([_parameter(one) for one in value])
    if letter == "i" and value and value[0].pg_status is None:
        return fake.node_rows("4.2", [_node(value[0])])
    word = {"i": "NodeInfo", "p": "ProcessInfo"}[letter]
    rows = b"".join(fake.frame(letter, word, *_row(one)) for one in value)
    return fake.frame(letter, "ArraySize", str(len(value))) + rows + fake.frame(letter, "CommandComplete")


def _row(value: NodeInfo | ProcessInfo) -> list[str]:
    if isinstance(value, NodeInfo):
        return fake.ordered(fake.NODE_ORDER["4.3" if value.delay_in_time is None else "4.4"], _node(value))
    version = (
        "4.2" if value.pool_id is None
        else "4.3" if value.load_balance_node is None
        else "4.5" if value.statement is None
        else "4.7"
    )  # fmt: skip
    return fake.ordered(fake.PROCESS_ORDER[version], _process(value))


def _node(node: NodeInfo) -> fake.Fields:
    return {
        "host": node.host, "port": str(node.port), "status": str(node.status.value),
        "quarantine": str(int(node.quarantined)), "pg_status": node.pg_status or "",
        "weight": f"{node.weight * RAND_MAX:f}", "role": str(node.role.value), "pg_role": node.pg_role or "",
        "by_time": str(int(bool(node.delay_in_time))), "standby_delay": str(node.delay),
        "replication_state": node.replication_state, "replication_sync_state": node.replication_sync_state,
        "changed": str(node.changed_at_s),
    }  # fmt: skip


def _process(slot: ProcessInfo) -> fake.Fields:
    return {
        "pid": str(slot.pid), "started": slot.started_at, "connections": str(slot.client_connections),
        "pool_id": str(slot.pool_id), "backend_id": str(slot.backend_id), "database": slot.database,
        "user": slot.user, "backend_connected": slot.backend_connected_at,
        "client_connected": slot.client_connected_at or "", "client_disconnected": slot.client_disconnected_at or "",
        "idle": slot.client_idle or "", "major": str(slot.protocol_major), "minor": str(slot.protocol_minor),
        "counter": str(slot.use_count), "backend_pid": str(slot.backend_pid), "connected": str(int(slot.connected)),
        "status": slot.status or "", "load_balance_node": slot.load_balance_node or "",
        "client_host": slot.client_host or "", "client_port": slot.client_port or "",
        "statement": slot.statement or "",
    }  # fmt: skip


def _health(stats: HealthStats) -> list[str]:
    values = [getattr(stats, name) for name in HealthStats.__slots__]
    return ["-nan" if value is None else repr(value) if isinstance(value, float) else str(value) for value in values]


def _parameter(parameter: Parameter) -> tuple[str, str, str]:
    return parameter.name, parameter.value, parameter.description


def _watchdog(info: WatchdogInfo) -> dict[str, Any]:
    value = {
        "RemoteNodeCount": info.remote_nodes, "MemberRemoteNodeCount": info.member_remote_nodes,
        "NodesRequireForQuorum": info.needed_for_quorum, "QuorumStatus": info.quorum,
        "AliveNodeCount": info.alive_remote_nodes, "Escalated": info.escalated,
        "LeaderNodeName": info.leader_name, "LeaderHostName": info.leader_host,
    }  # fmt: skip
    nodes = [
        _told({
            "ID": node.node_id, "State": node.state, "Membership": node.membership,
            "MembershipString": node.membership_name, "NodeName": node.name, "HostName": node.host,
            "StateName": node.state_name, "DelegateIP": node.delegate_ip, "WdPort": node.watchdog_port,
            "PgpoolPort": node.pgpool_port, "Priority": node.priority,
        })
        for node in info.nodes
    ]  # fmt: skip
    return _told(value) | {"WatchdogNodes": nodes}


def _told(value: dict[str, Any]) -> dict[str, Any]:
    return {key: one for key, one in value.items() if one is not None}


# --- samples ------------------------------------------------------------------------------------------------------


def samples() -> list[bytes]:
    """A whole answer to every request by every version, and a session from its beginning."""
    made: dict[bytes, None] = {}
    for version in fake.VERSIONS:
        server = fake.Fake(version)
        server.answer("M", b"")
        proof = fake.md5(fake.md5(fake.md5(fake.PASSWORD.encode()) + fake.USER.encode()) + fake.SALT)
        server.answer("R", fake.USER.encode() + b"\0" + proof + b"\0")
        for number, request in enumerate(REQUESTS):
            if version == "4.2" and request == REQUESTS[1]:
                continue
            made[bytes([number]) + (server.answer(request.letter, request.body) or b"")] = None
    login = fake.raw("m", fake.SALT) + fake.frame("r", "AuthenticationOK")
    notice = fake.report("N", "NOTICE", "hello", H="none")
    made[bytes([LOGIN]) + login + notice + fake.node_rows("4.4", fake.NODES)] = None
    return list(made)
