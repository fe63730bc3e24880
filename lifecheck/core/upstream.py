"""Does anything upstream answer? A node that hears none of its upstream servers is isolated, and should not lead.

Every server is asked again and again. One that answers is enough; isolated is a node when each server has left so many
questions in a row unanswered as there are life points. The first answer after that ends it. It is told the outcome of
every question, and refuses to know how they are asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.verdict import Opinion

NS_PER_MS = 1_000_000
MAX_REASON = 120


@dataclass(slots=True)
class _Server:
    """One server: when it last answered (0: never), how often in a row it has or has not, and why not the last time."""

    answered_at_ns: int = 0
    hits: int = 0
    misses: int = 0
    reason: str = ""


class UpstreamMethod:
    """All upstream servers; times are CLOCK_BOOTTIME in ns."""

    def __init__(self, servers: tuple[str, ...], life_points: int, started_at_ns: int) -> None:
        self._servers = {name: _Server() for name in servers}
        self._life_points = life_points
        self._started_at_ns = started_at_ns
        self._recovering = False

    def answered(self, name: str, asked_at_ns: int) -> None:
        """A question of that instant was answered."""
        server = self._servers[name] = _Server(asked_at_ns, self._servers[name].hits + 1)
        if server.hits >= self._life_points:
            self._recovering = False

    def missed(self, name: str, reason: str) -> None:
        """A question was not answered."""
        server = self._servers[name]
        server.hits = 0
        server.misses += 1
        server.reason = reason[:MAX_REASON]
        if self._isolated():
            self._recovering = True

    def wavering(self) -> bool:
        """Whether nobody answered the last question, or isolation has ended only just now.

        When something that all nodes need goes away or comes back, each finds out in its own round. A leader that is
        the first to be isolated must not hand over to the next, nor the last to one that was isolated a moment ago.
        """
        return self._recovering or all(server.misses for server in self._servers.values())

    def opinion(self, now_ns: int) -> Opinion:
        """DEAD: this node is isolated."""
        if self._isolated():
            return Opinion(Health.DEAD, self._sentence(now_ns))
        good = [name for name, server in self._servers.items() if server.answered_at_ns and not server.misses]
        if good:
            silent = [name for name, server in self._servers.items() if server.misses >= self._life_points]
            answer = f"{_list(good)} {'answers' if len(good) == 1 else 'answer'}"
            return Opinion(Health.ALIVE, f"{answer}; no answer from {_list(silent)}" if silent else answer)
        heard = any(server.answered_at_ns for server in self._servers.values())
        health = Health.ALIVE if heard else Health.UNKNOWN
        return Opinion(health, f"no answer from {_list(self._servers)} for {self._silence(now_ns)}")

    def _isolated(self) -> bool:
        return all(server.misses >= self._life_points for server in self._servers.values())

    def _sentence(self, now_ns: int) -> str:
        names = list(self._servers)
        whom = f"none of {_list(names)} has answered" if len(names) > 1 else f"{names[0]} has not answered"
        reasons = dict.fromkeys(server.reason for server in self._servers.values())
        return f"{whom} for {self._silence(now_ns)} ({'; '.join(reasons)})"

    def _silence(self, now_ns: int) -> str:
        last_ns = max(server.answered_at_ns for server in self._servers.values()) or self._started_at_ns
        return f"{(now_ns - last_ns) // (100 * NS_PER_MS) / 10:.1f} s"


def _list(names: list[str] | dict[str, _Server]) -> str:
    return ", ".join(names)
