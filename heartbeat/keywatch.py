"""Which peers sign with another key: nearly always an operator's mistake, so it is said, but never for ever.

It decides what is worth a line of the log; it refuses to believe a source address, which anybody can write.
"""

from __future__ import annotations

from pgvigil.heartbeat.trouble import SAY_INTERVAL_NS
from pgvigil.ipc.clock import NS_PER_S

OTHER_KEY_INTERVAL_NS = 3600 * NS_PER_S
OTHER_KEY_OVER_NS = 5 * NS_PER_S


class KeyWatch:
    """Whose heartbeats are signed with another key: said once, then once an hour, and when it is over.

    Addresses of datagrams are easily forged, so right and wrong keys may come by turns for ever: it is over only when
    no wrong one has come for a while, and what was over is said anew once a minute at most.
    """

    def __init__(self) -> None:
        self._said_at_ns: dict[str, int] = {}
        self._newest_ns: dict[str, int] = {}
        self._over: set[str] = set()

    def other_key(self, source: str, now_ns: int) -> bool:
        """True if it is time to say it about this source."""
        self._newest_ns[source] = now_ns
        pause_ns = SAY_INTERVAL_NS if source in self._over else OTHER_KEY_INTERVAL_NS
        said_at_ns = self._said_at_ns.get(source)
        if said_at_ns is not None and now_ns - said_at_ns < pause_ns:
            return False
        self._said_at_ns[source] = now_ns
        self._over.discard(source)
        return True

    def our_key(self, source: str, now_ns: int) -> bool:
        """True if it is time to say that this source, which had another key before, has ours now."""
        newest_ns = self._newest_ns.get(source)
        if newest_ns is None or now_ns - newest_ns < OTHER_KEY_OVER_NS:
            return False
        del self._newest_ns[source]
        if source in self._over:
            return False
        self._over.add(source)
        return True
