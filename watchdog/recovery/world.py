"""What a recovery needs of the world outside, and what it can come to.

Protocols and plain values, so that the order of things (`drive`) can be told as a story without pgpool-II, kernel and
cluster. Nothing here acts but the thread that waits for pgpool-II's answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pgvigil.ipc.errors import CommandError, ConfigError, PeerError
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import NodeInfo
from pgvigil.watchdog.recovery.plan import Wish

ORDER_THREAD = "pcp_recovery_node"


class AnyPool(Protocol):
    """What is asked of a pgpool-II; `pool.Pool` is the real one."""

    @property
    def label(self) -> str: ...
    def backend(self, backend_id: int) -> NodeInfo: ...
    def parameters(self) -> dict[str, str]: ...
    def clients(self, but: str = "") -> int: ...
    def order(self, request: Request[None], limit_ms: int = ...) -> None: ...


class AnyLatch(Protocol):
    """What keeps pgpool-II from its second stage; `latch.Latch` is the real one."""

    def is_shut(self) -> bool: ...
    def open(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """What watchdog main says of one other node."""

    label: str
    state: str
    unbroken: tuple[int, int]
    trouble: str

    def __str__(self) -> str:
        words = {"silent": "does not answer", "unable": "cannot hold", "ready": "does not hold", "holds": "holds"}
        return f"{self.label} {words.get(self.state, self.state)}" + (f" ({self.trouble})" if self.trouble else "")


Holds = Mapping[int, Held]


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside; others by node id."""

    local: AnyPool
    others: Mapping[int, AnyPool]
    wish: Callable[[Wish], Holds]
    """Tells watchdog main what is wanted, and what it knows of the others."""
    latch: Callable[[dict[str, str]], AnyLatch]
    """Made with pgpool-II's parameters; `CommandError` with the reason if it cannot be had."""
    is_served: Callable[[], bool]
    say: Callable[[str], None]
    now_s: Callable[[], float]
    pause: Callable[[float], None]
    lifecheck_user: str = ""
    agree: Callable[[bool], None] = lambda _up: None
    """Lets the cluster agree that the backend is up, or down again; `CommandError` if it does not."""


class Failed(Exception):
    """The recovery failed, or was refused; the sentence for the operator."""


class Unknown(Exception):
    """Nobody knows what came of it."""


@dataclass(slots=True)
class Order:
    """pcp_recovery_node in a thread: pgpool-II answers at the end only."""

    thread: threading.Thread | None = None
    error: Exception | None = None

    def begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # handed to the thread that waits for it
                self.error = error

        self.thread = threading.Thread(target=run, name=ORDER_THREAD, daemon=True)
        self.thread.start()

    @property
    def runs(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def outcome(self) -> None:
        """Raises what came of it."""
        if isinstance(self.error, PeerError):
            raise Unknown(f"{self.error}; the outcome is unknown, see 'pgvigil pcp node-info'")
        if isinstance(self.error, CommandError | ConfigError):
            raise Failed(str(self.error))
        if self.error is not None:
            raise self.error
