"""By which names an operator may call a backend: its id, HOST:PORT, or HOST where that is only one."""

from __future__ import annotations

from collections.abc import Sequence

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.core.record import Backend

MAX_NAME = 300


def find(backends: Sequence[Backend], name: str) -> Backend:
    """The backend of that name; `ConfigError` with the candidates if there is none, or more than one."""
    if not backends:
        raise ConfigError("the cluster has not agreed on any backend yet; see `pgvigil backend list`")
    if name.isascii() and name.isdigit():
        found = [one for one in backends if str(one.backend_id) == str(int(name[:9]))]
    else:
        host, port = split(name)
        found = [one for one in backends if one.host.lower() == host.lower() and port in (None, one.port)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"'{name[:80]}' is the host of several backends, expected one of {known(found)}")
    raise ConfigError(f"no backend '{name[:80]}', expected one of {known(backends)}")


def split(name: str) -> tuple[str, int | None]:
    """Host and port, if one is given. An IPv6 address with a port stands in brackets."""
    if name.startswith("["):
        host, _, rest = name[1:].partition("]")
        return host, int(rest[1:]) if _is_port(rest[1:]) else None
    host, colon, port = name.rpartition(":")
    if not colon or ":" in host or not _is_port(port):
        return name, None
    return host, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def known(backends: Sequence[Backend]) -> str:
    """All of them, for people."""
    return ", ".join(f"{one.backend_id} ({address(one.host, one.port)})" for one in backends)


def address(host: str, port: int) -> str:
    """HOST:PORT; the port of a unix socket stands behind its folder likewise."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
