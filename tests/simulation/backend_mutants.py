"""Mutants of the rules for decisions on backends (P23); part of the table in `mutant_table`."""

from __future__ import annotations

from tests.simulation.mutants import Mutant

LIMIT = 60


def _m(name: str, rule: str, module: str, *pieces: tuple[str, str], limit: int = LIMIT) -> Mutant:
    return Mutant(f"backends: {name}", rule, f"pgvigil.watchdog.core.{module}", pieces, "backends", limit)


BACKEND_MUTANTS = (
    _m(
        "a follower acts on what is not committed", "P23 a", "agreed",
        ("        if BLANK_STAMP < message.committed <= message.stamp:\n"
         "            self.told_committed = max(self.told_committed, message.committed)\n",
         "        self.told_committed = max(self.told_committed, message.stamp)\n"),
    ),
    _m(
        "the leader acts before the commit", "P23 a", "agreed",
        ("return agreed if leads and agreed.stamp == self.committed_stamp else None",
         "return self.document if leads else None"),
    ),
    _m(
        "followers are not told what is committed", "P23 a", "agreed",
        ("return BLANK_STAMP if half or self.committed_stamp is None else self.committed_stamp", "return BLANK_STAMP"),
    ),
    _m(
        "an ask is answered by whatever the backend is now", "P23 b", "answers",
        ("    if since is not None and since.kind is ask.kind:\n", "    if False:\n"),
        ("    if ask.decision != backend.decision:\n", "    if False:\n"),
    ),
    _m(
        "an ask waits beyond its time", "P23 b", "asking",
        ("            if self.now_ns >= wanted.until_ns:\n", "            if False:\n"),
    ),
    _m(
        "a node counts as often as it asks", "P23 c", "consensus",
        ("return sum(counts.values()) if rule.several_from_node else len(counts)", "return sum(counts.values())"),
        ("counts[node] = max(counts.get(node, 0), 1)", "counts[node] = counts.get(node, 0) + 1"),
        limit=200,
    ),
    _m(
        "a report is enough", "P23 c", "deciding",
        ("        if count < enough:\n", "        if False:\n"),
    ),
    _m(
        "a change of state keeps the old number", "P23 d", "backends",
        ("replace(target, status=status, reason=decision.reason, decision=number)",
         "replace(target, status=status, reason=decision.reason)"),
    ),
    _m(
        "what a term has begun is forgotten", "P23 d", "backends",
        (" and newest[item.name] is not item]", "]"),
    ),
)  # fmt: skip
