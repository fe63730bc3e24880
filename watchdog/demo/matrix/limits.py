"""How long the service may be away in a case, and why so long. L is the lease of 1 s.

They are judged on a quiet machine. Lab tests of a shared one judge everything but speed.
"""

from __future__ import annotations

from pgvigil.watchdog.demo.matrix.case import Limit

UNNOTICED = Limit(0, "must not be noticed")
PLANNED = Limit(50, "a planned hand-over at most")
LOST = Limit(1500, "the leader is lost: L and an election")
REPAIRED = Limit(200, "the address is away until the kernel's message about it is acted upon")
DEAF = Limit(2800, "clients lose a deaf leader at once, it notices after L, and its voters are free another L later")
FLAPPING = Limit(3000, "each flap hides the leader for 300 ms, and an election that meets one takes a second round")
LOSSY = Limit(3000, "TCP's own retries of a renewal can outlast L, and an election needs several messages")
RESTARTED = Limit(3500, "the leader is lost, and the only other voter restarts and waits L before it votes (P14)")
REVIVED = Limit(
    5000, "the leader is lost, and the only other voter starts anew whole and waits L before it votes (P14)"
)
AWAY = Limit(5000, "no majority while two of three are away (2 s); before it L, after it a wait of L and an election")
SLOW_DISK = Limit(1500, "every step of an election waits for two fsyncs of 30 ms, on two nodes one after the other")
SLOW_DISK_LOST = Limit(2500, "L, and every step of an election waits for two fsyncs of 30 ms on two nodes")
SLOWER_DISK = Limit(
    4500,
    "L, rounds of votes of 200 and 400 ms that end too early, and an election of four writes of 200 ms each",
)
NO_DISK = Limit(
    9000, "no majority while two of three are away (2 s); then the back-off of a supervisor, L, an election"
)
SWAMPED = Limit(1500, "four busy processes a core: a renewal may be late and the lead lost once")
STARVED = Limit(3000, "pages of the node's programs are read again from disk, so that a renewal may be late")
