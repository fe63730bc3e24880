"""What is written down: nothing goes back, nothing leaves before it is durable, nothing committed is lost.

Looks at the disks of all machines and at the messages that leave, never into the reasoning of a core, except for
its claim that a document is committed: that claim is what gets checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.checks.law import majority
from tests.simulation.checks.violation import Violation
from tests.simulation.host import Host

from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.events import StartCommand
from pgvigil.watchdog.core.messages import Ack, Renew
from pgvigil.watchdog.core.record import Document, QuorumRule, Record, Stamp


class Records:
    """Disks, documents and commands of one cluster."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = {host.id: host for host in hosts}
        self._contents: dict[Stamp, object] = {}
        self._documents: dict[Stamp, Document] = {}
        self._committed: dict[int, Stamp] = {}  # by term: the newest
        self._newest: Document | None = None
        self._bases: dict[int, Stamp] = {}  # by won term: the document that the winner started from
        self._claims: dict[int, Stamp] = {}
        self._starts: dict[tuple[str, str], int] = {}
        self._tokens: set[tuple[str, int]] = set()
        self.commits = 0
        self.on_commit: Callable[[Document], None] = lambda document: None

    # --- the disk ---------------------------------------------------------------------------------

    def durable(self, host: Host, old: Record | None, new: Record) -> None:
        """A record replaces another one on the disk."""
        if old is not None:
            for name in ("boot", "term", "stamp", "won_term", "released_term", "promised_ms"):
                before, after = getattr(old, name), getattr(new, name)
                if after < before:
                    raise Violation("record", f"{host.node.label}: {name} goes from {before} back to {after}")
            if new.term == old.term and old.voted_for not in (0, new.voted_for):
                raise Violation("vote", f"{host.node.label} changes its vote in term {new.term}")
            if new.won_term > old.won_term:
                self._won(host, new.won_term, old.stamp)
        if new.document is not None:
            self._check_content(host, new.document)

    def _check_content(self, host: Host, document: Document) -> None:
        if document.stamp.term == 0:
            return  # an operator's bootstrap may found beside the founder; only terms make documents unique
        self._documents[document.stamp] = document
        self._check_membership(host, document)
        self._check_half(host, document)
        terms = (document.terms_of_half, document.quorum)
        backends = (document.backends, document.decided, document.decisions)
        content = (document.epoch, terms, document.paused, document.intents, backends)
        if self._contents.setdefault(document.stamp, content) != content:
            raise Violation("document", f"{host.node.label} has another document {document.stamp} than others have")

    def _check_membership(self, host: Host, document: Document) -> None:
        """P18: whatever is newer than the newest commit differs from it by one voter at most."""
        newest = self._newest
        if newest is None or document.stamp <= newest.stamp:
            return
        before = {voter.node_id for voter in newest.voters}
        changed = before ^ {voter.node_id for voter in document.voters}
        if len(changed) > 1:
            raise Violation(
                "membership",
                f"{host.node.label}: document {document.stamp} changes {sorted(changed)} since {newest.stamp}",
            )

    def _check_half(self, host: Host, document: Document) -> None:
        """P22 b: from half to anything else, and from anything else to half, only the rule changes in one step."""
        newest = self._newest
        if newest is None or document.stamp <= newest.stamp or 1 in (len(newest.voters), len(document.voters)):
            return  # a lone voter commits with every write of its own disk, of which only the last is seen as a commit
        of_half = QuorumRule.HALF in (newest.quorum, document.quorum)
        if of_half and newest.terms_of_half != document.terms_of_half:
            raise Violation(
                "half", f"{host.node.label}: document {document.stamp} changes more than the rule since {newest.stamp}"
            )

    def _won(self, host: Host, term: int, base: Stamp) -> None:
        self._bases[term] = base
        for of_term, stamp in self._committed.items():
            if of_term < term and stamp > base:
                raise Violation(
                    "committed", f"{host.node.label} won term {term} with document {base}, but {stamp} is committed"
                )

    # --- before it leaves -------------------------------------------------------------------------

    def sends(self, host: Host, message: object) -> None:
        """P2, P15, P16, P19: what a message rests on is durable."""
        record = host.disk.record
        if isinstance(message, Ack):
            if record is None or record.term < message.term or record.stamp < message.stored:
                raise Violation("durable", f"{host.node.label} acknowledges {message} before it is durable")
        elif isinstance(message, Renew):
            ready = record is not None and record.won_term == message.term and record.stamp >= message.stamp
            if not ready or record is None or record.promised_ms < message.lease_ms:
                raise Violation("durable", f"{host.node.label} renews term {message.term} before it is durable")

    # --- commits ----------------------------------------------------------------------------------

    def stepped(self, host: Host, core: Watchdog) -> None:
        """A core that claims a commit must be right."""
        stamp = core.committed_stamp
        record = host.disk.record
        if stamp is None or self._claims.get(host.id) == stamp or record is None or record.stamp < stamp:
            return  # a lone voter commits before its own disk has the document; it acts on it only after
        self._claims[host.id] = stamp
        document = core.document
        if document is None or document.stamp != stamp:
            document = self._documents.get(stamp)  # it has proposed the next one in the very step of the commit
        if document is None:
            return
        self.commits += 1
        self._check_majority(host, document)
        for term, base in self._bases.items():
            if term > stamp.term and base < stamp:
                raise Violation(
                    "committed", f"{host.node.label} commits {stamp}, but term {term} was won with document {base}"
                )
        if stamp > self._committed.get(stamp.term, Stamp(0, 0)):
            self._committed[stamp.term] = stamp
        if self._newest is None or stamp > self._newest.stamp:
            self._newest = document
        self.on_commit(document)

    def committed_in(self, term: int) -> Stamp:
        """The newest commit of a term."""
        return self._committed.get(term, Stamp(0, 0))

    def newest_committed(self) -> Stamp:
        """What no later leader may lack."""
        return max(self._committed.values(), default=Stamp(0, 0))

    def _check_majority(self, host: Host, document: Document) -> None:
        having = 0
        for voter in document.voters:
            other = self._hosts.get(voter.node_id)
            record = None if other is None else other.disk.record
            if other is not None and voter.record_id in other.lost_records:
                having += 1  # it had acknowledged, or it does not count; either way its disk tells nothing any more
            elif record is not None and record.record_id == voter.record_id and record.stamp >= document.stamp:
                having += 1
        if having < majority(len(document.voters)):
            raise Violation(
                "committed",
                f"{host.node.label} calls document {document.stamp} committed, but {having} of "
                f"{len(document.voters)} voters have it",
            )

    # --- commands ---------------------------------------------------------------------------------

    def commands(self, host: Host, effect: StartCommand, held: bool) -> None:
        """P17, P21: at most one start per event, under a lease, after the commit."""
        intent = effect.intent
        if (intent.event, intent.token) in self._tokens:
            raise Violation("command", f"{intent.name} for {intent.event} runs twice under token {intent.token}")
        self._tokens.add((intent.event, intent.token))
        starts = self._starts[intent.name, intent.event] = self._starts.get((intent.name, intent.event), 0) + 1
        if intent.policy == "once" and starts > 1:
            raise Violation("command", f"{intent.name} for {intent.event} runs {starts} times, policy once")
        if not held:
            raise Violation("command", f"{host.node.label} starts {intent.name} for {intent.event} without a lease")
        document = None if host.disk.record is None else host.disk.record.document
        if document is None or intent not in document.intents:
            raise Violation("command", f"{host.node.label} starts {intent.name}, which its disk does not know")
        self._check_majority(host, document)
