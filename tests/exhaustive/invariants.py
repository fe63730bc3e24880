"""What must hold in every state of every model, told by what leaves the nodes and stands on the disks, not by the core.

Some of it can be seen in one state: gates and leases that are open together. The rest needs a memory, which is part of
the state of the search: who has won which term, who has voted for whom, what is the newest committed document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.messages import Ack, Granted, Vote
from pgvigil.watchdog.core.record import Document, Record


@dataclass(frozen=True, slots=True)
class Voted:
    """A vote that has left its node."""

    record_id: int
    term: int
    to: int


@dataclass(frozen=True, slots=True)
class Leads:
    """A node sends renewals of a term, with this document."""

    node: int
    term: int
    document: Document


@dataclass(frozen=True, slots=True)
class Committed:
    """A leader holds this document for committed."""

    document: Document


Fact = Voted | Leads | Committed


@dataclass(frozen=True, slots=True)
class Memory:
    """What has been seen on the way to a state."""

    votes: frozenset[Voted] = frozenset()
    leaders: frozenset[tuple[int, int]] = frozenset()
    committed: Document | None = None


# --- one node ----------------------------------------------------------------------------------------


def facts_of(core: Watchdog, disk: Record) -> list[Fact]:
    """What a core claims. A lone voter commits before its own disk has it, so only durable claims count."""
    facts: list[Fact] = []
    document = core.document
    if core.lease is not None and document is not None:
        facts.append(Leads(core.me, core.lease.term, document))
        durable = disk.document == document
        if durable and core.committed_stamp == document.stamp:
            facts.append(Committed(document))
    return facts


def votes_in(me: int, record_id: int, effect: ev.Send) -> list[Fact]:
    """The vote in what leaves a node: a grant, or the own vote that a candidacy is."""
    message = effect.message
    if isinstance(message, Granted) and message.real:
        return [Voted(record_id, message.term, effect.to)]
    if isinstance(message, Vote):
        return [Voted(record_id, message.term, me)]
    return []


def went_back(node: int, old: Record, new: Record) -> str | None:
    """A record never goes back: term, document, boot, the largest L promised."""
    for name in ("boot", "term", "stamp", "promised_ms", "won_term", "released_term"):
        before, after = getattr(old, name), getattr(new, name)
        if before > after:
            return f"the {name} in the record of n{node} goes back from {before} to {after}"
    if old.stamp == new.stamp and old.document != new.document:
        return f"n{node} stores two documents under one stamp {new.stamp}"
    return None


def not_durable(node: int, disk: Record, effect: ev.Send) -> str | None:
    """No vote and no acknowledgement leaves a node before the disk could repeat it (P2, P11)."""
    message = effect.message
    if isinstance(message, Vote) or (isinstance(message, Granted) and message.real):
        whom = node if isinstance(message, Vote) else effect.to
        if (disk.term, disk.voted_for) != (message.term, whom):
            return f"n{node} votes for n{whom} in term {message.term}, its disk says n{disk.voted_for}, {disk.term}"
    if isinstance(message, Ack) and (disk.term < message.term or disk.stamp < message.stored):
        return f"n{node} acknowledges term {message.term} and document {message.stored} before they are durable"
    return None


# --- the cluster -------------------------------------------------------------------------------------


def two_holders(open_gates: Sequence[bool], leases: Sequence[bool]) -> str | None:
    """Never two gates open at one instant, never two leases."""
    for what, holders in (("gates are open", open_gates), ("leases run", leases)):
        if sum(holders) < 2:
            continue
        names = [f"n{place + 1}" for place, holds in enumerate(holders) if holds]
        return f"two {what}: {' and '.join(names)}"
    return None


def remember(memory: Memory, facts: Iterable[Fact], disks: Sequence[Record]) -> tuple[Memory, str | None]:
    """The memory after what has been seen, and what is wrong with it."""
    for fact in facts:
        if isinstance(fact, Voted):
            wrong = _second_vote(memory, fact)
            memory = replace(memory, votes=memory.votes | {fact})
        elif isinstance(fact, Leads):
            wrong = _second_leader(memory, fact) or _lost(memory, fact)
            memory = replace(memory, leaders=memory.leaders | {(fact.term, fact.node)})
        else:
            wrong = _badly_committed(memory, fact, disks)
            if memory.committed is None or fact.document.stamp > memory.committed.stamp:
                memory = replace(memory, committed=fact.document)
        if wrong is not None:
            return memory, wrong
    return memory, None


def _second_vote(memory: Memory, fact: Voted) -> str | None:
    for vote in memory.votes:
        if (vote.record_id, vote.term) == (fact.record_id, fact.term) and vote.to != fact.to:
            return f"record {fact.record_id} voted for n{vote.to} and for n{fact.to} in term {fact.term}"
    return None


def _second_leader(memory: Memory, fact: Leads) -> str | None:
    for term, node in memory.leaders:
        if term == fact.term and node != fact.node:
            return f"term {term} has two leaders: n{node} and n{fact.node}"
    return None


def _lost(memory: Memory, fact: Leads) -> str | None:
    """Every later leader has what was committed: the epoch counts the changes of the voters."""
    kept = memory.committed
    if kept is None or fact.term <= kept.stamp.term:
        return None
    mine = fact.document
    if mine.epoch < kept.epoch or (mine.epoch == kept.epoch and mine.voters != kept.voters):
        return f"n{fact.node} leads term {fact.term} without the committed document {kept.stamp}"
    return None


def _badly_committed(memory: Memory, fact: Committed, disks: Sequence[Record]) -> str | None:
    """Committed is what a majority of its voters has on disk, and nothing committed before is missing in it."""
    document = fact.document
    having = [disk for disk in disks if disk.stamp >= document.stamp]
    named = [disk for disk in having if document.voter(disk.node_id) is not None]
    if 2 * len(named) <= len(document.voters):
        return f"document {document.stamp} counts as committed, but only {len(named)} of its voters have it on disk"
    kept = memory.committed
    if kept is not None and kept.stamp <= document.stamp and document.epoch < kept.epoch:
        return f"document {document.stamp} was committed without the change of {kept.stamp}"
    return None
