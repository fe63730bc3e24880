"""How many connections may stand open at one listener; pure.

libzmq takes every connection and keeps a silent one for as long as a handshake may last. A stranger who opens a
thousand of them takes all descriptors of the process, and a libzmq that finds none left aborts it. So strangers
together, and every configured address for itself, get only so many at once. Nothing here touches a socket, and nobody
who is in already is sent away.
"""

from __future__ import annotations

from collections.abc import Container

MAX_STRANGERS = 64
MAX_PER_PEER = 32
"""One for each path would do; a peer that restarts again and again leaves some behind for a while."""
_STRANGERS = ""


class Doorman:
    """Counts the connections of one listener by who has opened them."""

    def __init__(self, expected: Container[str]) -> None:
        self._expected = expected
        self._open: dict[int, str] = {}
        self._counts: dict[str, int] = {}

    def admit(self, descriptor: int, address: str) -> bool:
        """A connection was accepted; whether it may stay. One that may not counts until `leave` all the same."""
        self.leave(descriptor)  # the kernel gives a number again only after its end, so that end was not told
        self._open[descriptor] = address
        group = self._group(address)
        self._counts[group] = self._counts.get(group, 0) + 1
        return self._counts[group] <= (MAX_STRANGERS if group == _STRANGERS else MAX_PER_PEER)

    def leave(self, descriptor: int) -> str:
        """A connection has ended; the address that it came from, empty if it was not known."""
        address = self._open.pop(descriptor, "")
        if address:
            self._counts[self._group(address)] -= 1
        return address

    def _group(self, address: str) -> str:
        return address if address in self._expected else _STRANGERS
