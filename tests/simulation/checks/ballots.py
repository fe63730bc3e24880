"""Terms and words: one leader per term, one vote per term and node, and every promise kept.

A promise is checked by what rests on it: the lease that an acknowledgement may have backed, counted from the first
sending of that renewal on the leader's own clock. Until it ends, or the leader has released it, the voter helps
nobody else; no restart and no lost memory ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tests.simulation.checks.law import lease_ns, majority
from tests.simulation.checks.violation import Violation
from tests.simulation.host import Host
from tests.simulation.upstream import Truth
from tests.simulation.world import World

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.events import Send
from pgvigil.watchdog.core.lease import Lease
from pgvigil.watchdog.core.messages import Ack, Granted, Release, Renew, Vote
from pgvigil.watchdog.core.record import Document, QuorumRule, Record

Renewal = tuple[int, int, int, int]  # leader, term, boot, sequence
KEPT_RENEWALS = 2000
KEPT_OF_A_LEADER = 64
ROUNDING_NS = 10
TOLERANCE_PERMILLE = 10  # clocks within 1 %, seen from true time


class Ballots:
    """Everything that was said about terms."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._leader_of: dict[int, int] = {}
        # A lone voter wins in one step, and may be killed before anything of it happens: that was no leader.
        self._known: set[tuple[int, int]] = set()  # node and term: durable, or told to somebody
        self._votes: dict[tuple[int, int], int] = {}
        self._lease_ends_ns: dict[Renewal, tuple[int, int]] = {}  # true end, L in ms
        self._latest_end_ns: dict[int, int] = {}
        self._sent: dict[int, deque[Renewal]] = {}
        self._acknowledged: dict[Renewal, set[int]] = {}  # the records that have given their word
        self._until_ns: dict[int, int | None] = {}
        self._documents: dict[int, Document | None] = {}  # by node: the one after its last step
        self._bound: dict[int, dict[int, tuple[int, int, int]]] = {}  # by record: leader -> until, term, boot
        self._released: set[tuple[int, int]] = set()
        self.elections = 0
        self.series: Callable[[int, str], tuple[Truth, ...]] = lambda node, address: ()

    def latest_end_ns(self, node_id: int) -> int | None:
        """When the last lease that this node can have by what it has sent is over, in true time."""
        return self._latest_end_ns.get(node_id)

    def stepped(self, host: Host, core: Watchdog) -> None:
        """One leader per term; leases that are backed, and no longer than they may be."""
        before = self._documents.get(host.id)
        self._documents[host.id] = core.document
        lease = core.lease
        if lease is None:
            return
        for effect in core.effects:
            if isinstance(effect, Send) and isinstance(effect.message, Renew):
                self._begin(host, core, effect.message)
        holder = self._leader_of.get(lease.term)
        if holder is None or (holder != host.id and (holder, lease.term) not in self._known):
            self._leader_of[lease.term] = host.id
            self.elections += 1
        elif holder != host.id:
            raise Violation("leader", f"term {lease.term} has two leaders: n{holder} and {host.node.label}")
        if lease.until_ns is None or lease.until_ns == self._until_ns.get(host.id):
            return
        self._until_ns[host.id] = lease.until_ns
        if not host.lost_time and len(core.voter_ids) > 1:
            self._check_length(host, host.clock.true(lease.until_ns))
            # The acknowledgement that backs the lease may let the leader change the voters in the same step.
            end_ns = host.clock.true(lease.until_ns)
            if not any(self._is_backed(host, document, lease, end_ns) for document in (core.document, before)):
                raise Violation(
                    "backing", f"{host.node.label} has a lease in term {lease.term} that no majority has backed"
                )

    def _is_backed(self, host: Host, document: Document | None, lease: Lease, until_ns: int) -> bool:
        """P4: a majority of the voters, as a set, has acknowledged a renewal of this term and boot of that length."""
        voters = () if document is None else document.voters
        half = document is not None and self._half_may(host, document, until_ns)
        for key in reversed(self._sent.get(host.id, ())):
            end_ns = self._lease_ends_ns.get(key, (0, 0))[0]
            if key[1:3] == (lease.term, lease.boot) and end_ns + ROUNDING_NS >= until_ns:
                having = self._acknowledged.get(key, set())
                count = sum(1 for voter in voters if voter.node_id == host.id or voter.record_id in having)
                if voters and (count >= majority(len(voters)) or (half and 2 * count >= len(voters))):
                    return True
        return False

    def _half_may(self, host: Host, document: Document, until_ns: int) -> bool:
        """P22: under half, a tie-breaker that really answered for three leases, and was asked L before the end."""
        if document.quorum is not QuorumRule.HALF:
            return False
        least_ns = 3 * document.lease_ms * NS_PER_MS * (1000 - TOLERANCE_PERMILLE) // 1000
        longest_ns = lease_ns(document.lease_ms) * (1000 + TOLERANCE_PERMILLE) // 1000
        return any(
            series.newest_ns - series.since_ns >= least_ns and until_ns <= series.newest_ns + longest_ns
            for series in self.series(host.id, document.tie_breaker)
        )

    def _check_length(self, host: Host, until_ns: int) -> None:
        """P4: no lease ends later than L * (1 - rho) after the sending of the newest renewal."""
        latest_ns = self._latest_end_ns.get(host.id, 0)
        if until_ns > latest_ns + ROUNDING_NS:
            late_ms = (until_ns - latest_ns) / NS_PER_MS
            raise Violation("length", f"the lease of {host.node.label} ends {late_ms:.3f} ms later than it may")

    def durable(self, host: Host, new: Record) -> None:
        """A record is on the disk, and with it who has won a term."""
        self._known.add((host.id, new.won_term))

    def granted(self, host: Host, record_id: int, candidate: int, term: int) -> None:
        """A vote leaves its voter, or a candidate asks for votes and so has voted for itself."""
        record = host.disk.record
        if record is None or record.term < term or (record.term == term and record.voted_for != candidate):
            raise Violation("vote", f"{host.node.label} votes for n{candidate} in term {term}, which is not durable")
        given = self._votes.setdefault((record_id, term), candidate)
        if given != candidate:
            raise Violation("vote", f"{host.node.label} votes for n{given} and for n{candidate} in term {term}")
        self._check_kept(host, record_id, candidate, term)
        for leader, (until_ns, of_term, boot) in self._bound.get(record_id, {}).items():
            if leader != candidate and until_ns > self._world.now_ns and (leader, of_term) not in self._released:
                left_ms = (until_ns - self._world.now_ns) / NS_PER_MS
                raise Violation(
                    "promise",
                    f"{host.node.label} helps n{candidate} while the lease of n{leader} (term {of_term}, boot {boot}) "
                    f"may run for another {left_ms:.3f} ms",
                )

    def _check_kept(self, host: Host, record_id: int, candidate: int, vote_term: int) -> None:
        """P5: a vote for the very leader that has the promise ends it no more than any other vote.

        A vote that waited for a slow disk may leave after a renewal has proved that another one won the term (P2).
        """
        until_ns, term, _ = self._bound.get(record_id, {}).get(candidate, (0, 0, 0))
        if until_ns <= self._world.now_ns or (candidate, term) in self._released or host.main is None:
            return
        if candidate == host.id and host.main.core.record.released_term >= term:
            return  # what it decided before its release may wait for the disk still; gate and address are down already
        promise = host.main.core.promise
        if promise is not None and promise.leader != candidate and promise.term >= vote_term:
            return
        kept_ns = 0 if promise is None or promise.leader != candidate else host.clock.true(promise.until_ns)
        if kept_ns + ROUNDING_NS < until_ns:
            raise Violation("promise", f"{host.node.label} forgets its promise to n{candidate} when it votes for it")

    def _begin(self, host: Host, core: Watchdog, message: Renew) -> None:
        """A core has decided on a renewal: from this instant counts the lease that may follow from it.

        The message may leave later, when the disk has written or the process goes on. A repeated renewal counts from
        its first time.
        """
        key = (host.id, message.term, message.boot, message.sequence)
        if key in self._lease_ends_ns:
            return
        end_ns = host.clock.true(core.now_ns + lease_ns(message.lease_ms))
        self._lease_ends_ns[key] = (end_ns, message.lease_ms)
        self._sent.setdefault(host.id, deque(maxlen=KEPT_OF_A_LEADER)).append(key)
        self._latest_end_ns[host.id] = max(end_ns, self._latest_end_ns.get(host.id, 0))
        if len(self._lease_ends_ns) > KEPT_RENEWALS:
            for old in list(self._lease_ends_ns)[: KEPT_RENEWALS // 2]:
                del self._lease_ends_ns[old]
                self._acknowledged.pop(old, None)

    def renews(self, host: Host, record_id: int, message: Renew) -> None:
        """A renewal leaves; the leader is its own first voter."""
        self._known.add((host.id, message.term))
        if (host.id, message.term) in self._released:
            raise Violation("release", f"{host.node.label} renews term {message.term}, which it has released")
        known = self._lease_ends_ns.get((host.id, message.term, message.boot, message.sequence))
        if known is not None:
            self._bind(record_id, host.id, known[0], message.term, message.boot)

    def acknowledges(self, host: Host, leader: int, record_id: int, message: Ack) -> None:
        """A voter has given its word: it must outlive the lease that it may back, and its length be on the disk."""
        known = self._lease_ends_ns.get((leader, message.term, message.boot, message.sequence))
        if known is None:
            return
        until_ns, lease_ms = known
        key = (leader, message.term, message.boot, message.sequence)
        self._acknowledged.setdefault(key, set()).add(record_id)
        self._bind(record_id, leader, until_ns, message.term, message.boot)
        if host.disk.record is not None and host.disk.record.promised_ms < lease_ms:
            raise Violation("durable", f"{host.node.label} promises {lease_ms} ms before that is durable")
        promise = None if host.main is None else host.main.core.promise
        if promise is None or (promise.leader, promise.term, promise.boot) != (leader, message.term, message.boot):
            return  # meanwhile it was released, or replaced by a higher term
        short_ns = until_ns - host.clock.true(promise.until_ns)
        if short_ns > ROUNDING_NS:
            raise Violation(
                "promise", f"{host.node.label} promises n{leader} {short_ns / NS_PER_MS:.3f} ms less than its lease"
            )

    def _bind(self, record_id: int, leader: int, until_ns: int, term: int, boot: int) -> None:
        bound = self._bound.setdefault(record_id, {})
        old = bound.get(leader)
        if old is not None and old[1] > term:
            return
        bound.clear()  # a renewal of a higher term proves that no older lease runs
        bound[leader] = (until_ns if old is None else max(until_ns, old[0]), term, boot)

    def releases(self, host: Host, message: Release) -> None:
        """P8: closed, dropped and durable before it is said."""
        record = host.disk.record
        if host.kernel.gate_open() or host.kernel.address:
            raise Violation("release", f"{host.node.label} releases term {message.term} and still holds the VIP")
        if record is None or record.released_term < message.term:
            raise Violation("release", f"{host.node.label} releases term {message.term}, which is not durable")
        self._released.add((host.id, message.term))

    def sends(self, host: Host, record_id: int, to: int, message: object) -> None:
        """Any message that leaves."""
        if isinstance(message, Renew):
            self.renews(host, record_id, message)
        elif isinstance(message, Ack):
            self.acknowledges(host, to, record_id, message)
        elif isinstance(message, Granted) and message.real:
            self.granted(host, record_id, to, message.term)
        elif isinstance(message, Vote):
            self.granted(host, record_id, host.id, message.term)
        elif isinstance(message, Release):
            self.releases(host, message)
