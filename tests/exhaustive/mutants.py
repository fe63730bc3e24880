"""Broken copies of the core, and the model that must find each of them out.

A search that never finds anything proves nothing. Each case bends one rule in the source of one module, loads the core
and the search anew on top of it, and leaves the unbent ones as they were. Bending a rule that only costs time, not
safety, is no case here: the rule tests and the simulator know those.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.unit.core.mutants import CORE, Mutant, rules_under

if TYPE_CHECKING:
    from tests.exhaustive.search import Finding

SEARCH = "tests.exhaustive"
RELOADED = (CORE, SEARCH, "tests.unit.core.bench")
MOST_STATES = 1_000_000


@dataclass(frozen=True)
class Case:
    """`old` stands once in `module`; with `new` instead, `model` shows `wrong` within `depth` steps."""

    says: str
    model: str
    depth: int
    wrong: str
    module: str
    old: str
    new: str = "pass"

    @property
    def mutant(self) -> Mutant:
        """As the loader of the rule tests wants it."""
        return Mutant(f"test_{self.says}", self.module, self.old, self.new)


def find(case: Case) -> tuple[Finding, Sequence[str]]:
    """Search the broken core; what was found and, if it was, the way there."""
    with rules_under(case.mutant, f"{SEARCH}.search", RELOADED) as search:
        catalogue = importlib.import_module(f"{SEARCH}.catalogue")
        story = importlib.import_module(f"{SEARCH}.story")
        model = next(model for model in catalogue.MODELS if model.name == case.model)
        searching = search.Search(model, case.depth, MOST_STATES)
        finding: Finding = searching.run()
        return finding, () if finding.wrong is None else tuple(story.story(searching.space, finding.path))


TWO = "two gates are open"

CASES = (
    Case(
        "a vote is granted before it is durable",
        "election", 12, "its disk says",
        "following", "self.persist(term=message.term, voted_for=sender)",
    ),
    Case(
        "a candidate asks for votes before its own is durable",
        "election", 12, "its disk says",
        "standing", "self.persist(term=term, voted_for=self.me)",
    ),
    Case(
        "a node votes twice in a term",
        "election", 12, "voted for",
        "following", "if message.term == self.record.term and self.record.voted_for not in (NOBODY, sender):",
        "if False:",
    ),
    Case(
        "half of the voters count as a majority",
        "election", 12, "counts as committed",
        "quorum", "return voters // 2 + 1", "return voters // 2",
    ),
    Case(
        "a promise to another node does not keep a voter from voting",
        "lease", 16, TWO,
        "following", "if promise is not None and promise.leader != sender and promise.live(self.now_ns):", "if False:",
    ),
    Case(
        "the lease counts from the acknowledgement",
        "lease", 16, TWO,
        "lease", "end_ns = lease_end_ns(renewal.sent_at_ns,", "end_ns = lease_end_ns(now_ns,",
    ),
    Case(
        "the lease does not allow for the rates of clocks",
        "clocks", 16, TWO,
        "lease", "* (1000 - RHO_PERMILLE) // 1000", "",
    ),
    Case(
        "acknowledgements of an earlier boot count",
        "resume", 14, TWO,
        "leading", "(message.term, message.boot) != (lease.term, lease.boot)", "message.term != lease.term",
    ),
    Case(
        "a resumed leader has a lease at once",
        "resume", 14, "two leases run",
        "leading", "self._begin_lease(self.record.term, None)",
        "self._begin_lease(self.record.term, self.now_ns + self.lease_ns)",
    ),
    Case(
        "promises are forgotten in a restart",
        "restart", 16, TWO,
        "engine", "return now_ns if clean_stop else now_ns + promised_ms * NS_PER_MS", "return now_ns",
    ),
    Case(
        "a vote for oneself counts as a won term",
        "candidate", 16, "two leaders",
        "engine", "record.won_term == record.term and", "record.voted_for == self.me and",
    ),
    Case(
        "a clean stop forgets a live promise",
        "stop", 16, TWO,
        "leading", "clean_stop=free and self.now_ns >= self.restart_wait_until_ns",
        "clean_stop=self.now_ns >= self.restart_wait_until_ns",
    ),
    Case(
        "a vote ends a promise",
        "challenged", 18, TWO,
        "following", "self.vote_granted_to = sender", "self.vote_granted_to, self.promise = sender, None",
    ),
    Case(
        "a version of the document is sent under the stamp of another",
        "voters", 14, "two documents under one stamp",
        "leading", "self.document.stamp.version + 1", "self.document.stamp.version",
    ),
    Case(
        "a release leaves before the gate is closed",
        "hand-over", 14, TWO,
        "leading", "self.go(Trigger.RELEASES, hand_over.reason)\n        self.emit(CloseGate())",
        "self.go(Trigger.RELEASES, hand_over.reason)",
    ),
    Case(
        "a term is acknowledged before it is durable",
        "candidate", 14, "before they are durable",
        "following", "self.persist(term=term, voted_for=leader)",
    ),
    Case(
        "a candidate with an older document gets votes",
        "voters", 17, "without the committed document",
        "following", "if message.stamp < self.record.stamp:\n", "if False:\n",
    ),
    Case(
        "an acknowledgement of an older document counts for the commit",
        "voters", 14, "counts as committed",
        "leading", "if stamp == document.stamp and self.is_voter", "if self.is_voter",
    ),
)  # fmt: skip
