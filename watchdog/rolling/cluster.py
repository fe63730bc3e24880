"""The backends as the cluster agrees on them, and the few orders that rolling work gives.

Values and a protocol, no socket: the plan decides on these values, the tests stand in for the cluster with them. A
backend counts as up or down only if every pgpool-II says so and has said so lately: clients of one that was not heard
may still be reading what is being refreshed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgvigil.ipc.errors import CommandError, PeerError

OLD_MS = 10_000
"""A pgpool-II is asked every 2 s; a view that old says nothing about now."""
MAX_BACKENDS = 128
"""MAX_NUM_BACKENDS of pgpool-II."""


class OrderRefused(CommandError):
    """The cluster said no, with its reason; asking again would not help."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the pgpool-II of one node says about one backend. `age_ms` is None if it never said anything."""

    label: str
    status: str
    quarantined: bool = False
    failed: bool = False
    age_ms: int | None = 0
    problem: str = ""
    """Why what it says is not the newest."""

    @property
    def heard(self) -> bool:
        return self.age_ms is not None and self.age_ms < OLD_MS and not self.problem

    @property
    def says_up(self) -> bool:
        return self.heard and self.status in ("up", "waiting") and not self.quarantined and not self.failed

    @property
    def says_down(self) -> bool:
        return self.heard and self.status in ("down", "unused")

    def describe(self) -> str:
        """For the operator: who says what."""
        if not self.heard:
            return f"{self.label} is not known ({self.problem or 'not heard for 10 s'})"
        extra = " (quarantined)" if self.quarantined else " (failed)" if self.failed else ""
        return f"{self.label} says {self.status}{extra}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One PostgreSQL: what is agreed about it, and what every pgpool-II says."""

    backend_id: int
    host: str
    port: int
    status: str
    role: str
    reason: str = ""
    pools: tuple[PoolView, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_up(self) -> bool:
        """Agreed, and so at every pgpool-II; false if no pgpool-II says anything."""
        return self.status == "up" and bool(self.pools) and all(pool.says_up for pool in self.pools)

    @property
    def is_down(self) -> bool:
        return self.status == "down" and bool(self.pools) and all(pool.says_down for pool in self.pools)

    def describe(self) -> str:
        """The agreed status, and every pgpool-II that differs or is silent."""
        views = [pool for pool in self.pools if not (pool.says_up if self.status == "up" else pool.says_down)]
        parts = [pool.describe() for pool in views] if self.pools else ["no pgpool-II tells about it"]
        why = f" ({self.reason})" if self.status == "down" and self.reason else ""
        return f"{self.name} is {self.status}{why}" + (f", but {', '.join(parts)}" if parts else "")


Seen = tuple[Backend, ...]


class Cluster(Protocol):
    """All pgpool-IIs as one. Every call has a time limit of its own."""

    def list(self) -> Seen:
        """The agreed backends; `CommandError` if nobody can say now."""

    def detach(self, backend_id: int, reason: str) -> None:
        """Returns when it is committed; `OrderRefused`, or `CommandError` if the outcome is unknown."""

    def attach(self, backend_id: int, reason: str) -> None:
        """The same the other way round."""


def seen_of(value: object) -> Seen:
    """The body of a `backend-list`; `PeerError` for anything else, `CommandError` if this node is out of touch."""
    if not isinstance(value, dict) or not isinstance(value.get("backends"), list):
        raise PeerError("watchdog main sent no list of backends; are both of one version?")
    if value.get("agreed") is not True:
        raise CommandError("this node does not know what the cluster agrees on now; see 'pgvigil status'")
    if len(value["backends"]) > MAX_BACKENDS:
        raise PeerError(f"watchdog main sent {len(value['backends'])} backends, expected {MAX_BACKENDS} at most")
    known = [_table(item) for item in _list(value, "pools")]
    backends = (_backend(_table(item), known) for item in value["backends"])
    return tuple(sorted(backends, key=lambda backend: backend.backend_id))


def _backend(table: dict[str, Any], known: Sequence[dict[str, Any]]) -> Backend:
    """`known` are all pgpool-IIs: one of them that does not list the backend has not told what it makes of it."""
    problems = {_number(pool, "node"): _text(pool, "problem") for pool in known}
    views = [_table(item) for item in _list(table, "pools")]
    told = {_number(view, "node") for view in views}
    pools = [_view(view, problems.get(_number(view, "node"), "")) for view in views]
    for pool in known:
        if _number(pool, "node") not in told:
            pools.append(
                PoolView(_label(pool), "", age_ms=None, problem=_text(pool, "problem") or "it does not list it")
            )
    return Backend(
        _number(table, "id"), _text(table, "host"), _number(table, "port"), _text(table, "status"),
        _text(table, "role"), _text(table, "reason"), tuple(pools),
    )  # fmt: skip


def _view(table: dict[str, Any], problem: str) -> PoolView:
    age_ms = None if table.get("age_ms") is None else _number(table, "age_ms")
    quarantined, failed = table.get("quarantined") is True, table.get("failed") is True
    return PoolView(_label(table), _text(table, "status"), quarantined, failed, age_ms, problem)


def _label(table: dict[str, Any]) -> str:
    return _text(table, "label") or str(table.get("node", "?"))[:80]


def _list(table: dict[str, Any], key: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise PeerError(f"{key} is {str(value)[:80]!r}, expected a list")
    return value


def _table(item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise PeerError(f"the list of backends holds {str(item)[:80]!r}, expected an object")
    return item


def _number(table: dict[str, Any], key: str) -> int:
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PeerError(f"a backend has {key} {str(value)[:80]!r}, expected a number")
    return value


def _text(table: dict[str, Any], key: str) -> str:
    """What comes from other nodes must not steer the terminal."""
    value = table.get(key, "")
    if not isinstance(value, str):
        raise PeerError(f"a backend has {key} {str(value)[:80]!r}, expected text")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:500])
