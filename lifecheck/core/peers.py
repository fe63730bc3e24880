"""What the peers' words about our pgpool-II come to.

A pgpool-II whose own node can query it may still be out of reach for everybody else: a firewall, a listen address. If
most of the peers say that they cannot query it, they are right whatever our own checks say. Their words are
heartbeats, so nothing is asked; and a node that has handed over is queried as before, so it recovers by evidence.

An accuser who is accused by most others itself does not count: where the port is closed between all nodes, nobody is
worse than the others and nobody is condemned. Only what each node finds out by its own queries counts, never a
verdict that follows from words: verdicts of that kind would take each other back in turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgvigil.ipc.frames import Health
from pgvigil.lifecheck.core.verdict import Opinion


@dataclass(frozen=True, slots=True)
class Word:
    """A node that speaks, and the nodes whose pgpool-II it cannot query."""

    node_id: int
    cannot_query: tuple[int, ...]


def judge_words(me: int, words: Sequence[Word], labels: Mapping[int, str]) -> Opinion:
    """DEAD or UNKNOWN, never ALIVE: that nobody complains is no proof. `words` has our own too, `labels` every peer.

    A peer with wrong credentials says nothing against us, and so speaks for us here.
    """
    others = len(labels)
    theirs = [word for word in words if word.node_id != me]
    accusers = [word for word in theirs if me in word.cannot_query]
    credible = [word for word in accusers if not is_accused(word.node_id, words, others)]
    speaking = len(theirs) - len(accusers) + len(credible)
    count = f"{len(credible)} of {speaking} peers cannot query it: {_names(credible, labels)}"
    if _is_majority(len(credible), speaking, others):
        return Opinion(Health.DEAD, count)
    if len(credible) < len(accusers):
        told = f"cannot be queried by {_names(accusers, labels)}, but nor can theirs by most others"
        return Opinion(Health.UNKNOWN, told)
    if accusers:
        return Opinion(Health.UNKNOWN, f"{count}; that is no majority")
    return Opinion(Health.UNKNOWN, f"none of {speaking} peers says that it cannot query it")


def is_accused(node_id: int, words: Sequence[Word], others: int) -> bool:
    """Whether most of those that speak cannot query a node's pgpool-II."""
    speaking = [word for word in words if word.node_id != node_id]
    return _is_majority(sum(node_id in word.cannot_query for word in speaking), len(speaking), others)


def _is_majority(against: int, speaking: int, others: int) -> bool:
    """More than half of those that speak, and half of all: no lone survivor of five condemns, but one of two does."""
    return 2 * against > speaking and 2 * against >= others


def _names(words: Sequence[Word], labels: Mapping[int, str]) -> str:
    return ", ".join(labels[word.node_id] for word in words)
