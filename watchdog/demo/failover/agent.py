"""A host's hands: carries out orders for its PostgreSQL, where a site would use ssh.

Other hosts reach it over the network, so that a partition or a dead host stops orders as it would stop ssh; the lab
itself uses its unix socket. One line of JSON each way, one connection per order. It trusts everybody: it is part of
the lab, and never runs outside of one.

    python -m pgvigil.watchdog.demo.failover.agent NAME ADDRESS FOLDER LEDGER
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pgvigil.ipc.errors import CommandError, PgvigilError
from pgvigil.watchdog.demo.failover.ledger import Ledger
from pgvigil.watchdog.demo.failover.server import Server

PORT = 2222
CONNECT_LIMIT_S = 3.0
ORDER_LIMIT_S = 90.0
MAX_LINE = 4096


def socket_path(folder: Path) -> Path:
    """Where the agent listens inside its PostgreSQL's folder."""
    return folder / "agent"


class Agent:
    """One host's server and what may be asked of it."""

    def __init__(self, server: Server, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger
        self._promoting = threading.Lock()
        self._orders: dict[str, Callable[..., str | None]] = {
            "ping": lambda: "",
            "create": server.create,
            "start": server.start,
            "stop": server.stop,
            "follow": server.follow,
            "promote": self._promote,
        }

    def carry_out(self, line: bytes) -> dict[str, Any]:
        """The answer to one order."""
        try:
            order = json.loads(line)
            said = self._orders[order.pop("order")](**order)
        except PgvigilError as error:
            return {"done": False, "said": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"done": False, "said": f"not understood: {line!r}: {error}"}
        return {"done": True, "said": said or ""}

    def _promote(self, **origin: str) -> str:
        """Promote it, once: a script that may be run again has to bear that it was done already."""
        with self._promoting:
            if not self._server.in_recovery():
                return "is a primary already"
            self._server.promote()
            self._ledger.add("promoted", "failover", self._server.name, origin)
            return "promoted"


class _Handler(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        answer = self.server.agent.carry_out(self.rfile.readline(MAX_LINE))
        try:
            self.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # whoever asked has gone; the order was carried out all the same, as with ssh


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    agent: Agent


class _LocalListener(_Listener):
    address_family = socket.AF_UNIX
    allow_reuse_address = False


def order(place: str | Path, name: str, arguments: Mapping[str, str] | None = None) -> str:
    """Have an order carried out at an address, or by the agent behind a unix socket; returns what it said.

    `CommandError` when the agent cannot be reached, does not answer in time, or failed.
    """
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    target = str(place) if isinstance(place, Path) else (place, PORT)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(CONNECT_LIMIT_S)
            sock.connect(target)
            sock.settimeout(ORDER_LIMIT_S)
            sock.sendall(json.dumps({"order": name, **(arguments or {})}).encode() + b"\n")
            answer = json.loads(sock.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise CommandError(f"{name}: no answer from the host's agent at {place}: {error}") from None
    if not answer["done"]:
        raise CommandError(f"{name} at {place}: {answer['said']}")
    return str(answer["said"])


def main(arguments: list[str]) -> None:
    name, address, folder, ledger = arguments
    server = Server(name, address, Path(folder))
    server.prepare()
    agent = Agent(server, Ledger(Path(ledger)))
    socket_path(server.folder).unlink(missing_ok=True)
    local = _LocalListener(str(socket_path(server.folder)), _Handler)  # type: ignore[arg-type]
    remote = _Listener(("0.0.0.0", PORT), _Handler)
    for listener in (local, remote):
        listener.agent = agent
    threading.Thread(target=local.serve_forever, daemon=True).start()
    remote.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
