"""What the small processes do all day, done a few times by the parent before it forks.

Python rewrites its code while it warms up, and remembers where it found methods; whatever is warm before the fork is
warm in all children and stays shared (0.4 MB in each of them). The parts that are played are pure, or descriptors that
are closed again: no network, no ZeroMQ, no log.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgvigil.heartbeat.bundle import Bundle
from pgvigil.heartbeat.hearing import Hearing
from pgvigil.heartbeat.packet import MAC_BYTES, Heartbeat, Signer
from pgvigil.heartbeat.quality import Quality
from pgvigil.heartbeat.receiver import draw_nonce
from pgvigil.heartbeat.sender import Words
from pgvigil.heartbeat.session import FreshnessTable
from pgvigil.heartbeat.trouble import Troubles
from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.frames import Beat, Health, Role
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, SignOfLife, make_pair
from pgvigil.lifecheck.core import judge
from pgvigil.lifecheck.core.path import Fixed

ROUNDS = 60  # CPython 3.11 and newer look at code for the last time after fewer calls
INTERVAL_MS = 200
DEADTIME_NS = 1_000_000_000
OURS, PEER = 1, 2


def rehearse() -> None:
    """Play all parts `ROUNDS` times; some 15 ms."""
    for argument in ("", 0):
        isinstance(argument, Mapping)  # logging asks it of single arguments; the first answer goes through all ABCs
    now_ns = boottime_ns()
    beat = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 0, (PEER,), 0)
    play = _Play(frames.BeatContent(now_ns, now_ns, beat), now_ns)
    ours, theirs = make_pair()
    child, parent = Link(ours, "rehearsal", play.complain), Link(theirs, "rehearsal", play.complain)
    loop = Loop()
    loop.watch(parent.fd, lambda: play.hear(parent))
    loop.join(SignOfLife(child, 1, lambda: frames.Alive(False, "rehearsal")))
    try:
        for _ in range(ROUNDS):
            play.once(boottime_ns())
            loop.run_once(1000)
    finally:
        loop.close()
        child.close()
        parent.close()


class _Play:
    """Sender, receiver and lifecheck of a cluster of two, without their sockets."""

    def __init__(self, content: frames.BeatContent, now_ns: int) -> None:
        self._content = content
        self._counter = 0
        self._words = Words(now_ns)
        self._signer = Signer(bytes(32))
        self._freshness = FreshnessTable((PEER,), draw_nonce)
        self._troubles = Troubles(0, OURS, self.complain)
        self._bundle = Bundle(INTERVAL_MS)
        self._quality = Quality(INTERVAL_MS * NS_PER_MS)
        self._hearing = Hearing((PEER,), INTERVAL_MS, 0, 0, now_ns)
        interval_ns = INTERVAL_MS * NS_PER_MS
        self._judge = judge.Judge({PEER: "peer"}, ("eth0",), ("heartbeat",), Fixed(DEADTIME_NS), interval_ns, now_ns)

    def complain(self, reason: str) -> None:
        """Nothing in a rehearsal is worth a line."""

    def hear(self, link: Link) -> None:
        """The parent's side of the link."""
        link.receive()

    def once(self, now_ns: int) -> None:
        """One heartbeat from its sender to a verdict, and what is said in between."""
        self._words.take(self._content)
        beat, up_for_ms, age_ms = self._words.now(now_ns)
        sent = Heartbeat(PEER, OURS, 0, 1, 1, self._freshness.announced()[0].ours, now_ns, 1, 0, 0, beat)
        template = self._signer.template(sent)
        self._counter += 1
        datagram = self._signer.sign(template.fill(now_ns, self._counter, 0, 0, up_for_ms, age_ms))
        self._signer.check(datagram)
        template.read(datagram, MAC_BYTES)
        taken = self._signer.read(datagram)
        self._freshness.is_next(taken, now_ns, now_ns)
        self._freshness.judge(taken, now_ns)
        self._troubles.due(now_ns)
        self._bundle.add(frames.Heard(PEER, 0, now_ns, taken.beat))
        self._bundle.repeat(PEER, now_ns, up_for_ms, age_ms)
        self._quality.take(now_ns, now_ns, self._counter)
        self._hearing.heard(PEER, now_ns)
        self._hearing.look(now_ns)
        together = frames.HeardTogether(self._bundle.take(), 0, now_ns, (self._quality.summary(PEER),))
        self._say(together, now_ns)
        self._judge.step(now_ns, together)
        self._judge.wake()
        self._say(frames.Verdicts(now_ns, Health.ALIVE, now_ns, "", self._judge.verdicts(now_ns), ()), now_ns)
        self._say(frames.Sessions(0, self._freshness.announced()), now_ns)
        self._say(self._content, now_ns)

    def _say(self, frame: frames.Frame, now_ns: int) -> None:
        frames.unpack(frames.pack(frame, "rehearsal", 1, now_ns))
