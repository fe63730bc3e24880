"""Broken copies of the core, and the model that must find each of them out.

A search that never finds anything proves nothing. How a rule is bent stands with the rule tests, in `MUTANTS`; here
stands which model shows that, and what it must see. The core and the search are loaded anew for each, the unbent ones
stay as they were. A bent rule that only costs time, not safety, is no case here: rule tests and simulator know those.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.unit.core.mutants import CORE, Mutant, rules_under
from tests.unit.core.rule_mutants import MUTANTS

if TYPE_CHECKING:
    from tests.exhaustive.search import Finding

SEARCH = "tests.exhaustive"
RELOADED = (CORE, SEARCH, "tests.unit.core.bench")
MOST_STATES = 1_000_000


@dataclass(frozen=True)
class Case:
    """With the mutant of `rule` whose text is `new`, `model` shows something `wrong` within `depth` steps."""

    says: str
    model: str
    depth: int
    wrong: str
    rule: str
    new: str

    @property
    def mutant(self) -> Mutant:
        """The one mutant that is meant."""
        meant = [item for item in MUTANTS if item.test == f"test_{self.rule}" and item.new == self.new]
        if len(meant) != 1:
            raise LookupError(f"{len(meant)} mutants of {self.rule} read {self.new!r}")
        return meant[0]


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
        "p11_the_vote_is_durable_before_the_grant_and_given_once", "pass",
    ),
    Case(
        "a candidate asks for votes before its own is durable",
        "election", 12, "its disk says",
        "p11_the_own_vote_is_durable_before_votes_are_asked_for", "pass",
    ),
    Case(
        "a node votes twice in a term",
        "election", 12, "voted for",
        "p11_the_vote_is_durable_before_the_grant_and_given_once", "if False:",
    ),
    Case(
        "half of the voters count as a majority",
        "election", 12, "counts as committed",
        "p04_a_majority_of_the_voters_is_needed", "return voters // 2",
    ),
    Case(
        "a promise to another node does not keep a voter from voting",
        "lease", 16, TWO,
        "p05_with_a_promise_votes_and_pre_votes_are_refused", "if False:",
    ),
    Case(
        "the lease counts from the acknowledgement",
        "lease", 16, TWO,
        "p04_the_lease_counts_from_sending_and_ends_before_l", "end_ns = lease_end_ns(now_ns,",
    ),
    Case(
        "the lease does not allow for the rates of clocks",
        "clocks", 16, TWO,
        "p04_the_lease_counts_from_sending_and_ends_before_l", "",
    ),
    Case(
        "acknowledgements of an earlier boot count",
        "resume", 14, TWO,
        "p04_acknowledgements_of_another_boot_are_ignored", "message.term != lease.term",
    ),
    Case(
        "a resumed leader has a lease at once",
        "resume", 14, "two leases run",
        "p15_a_leader_resumes_with_renewals_and_nothing_more",
        "self._begin_lease(self.record.term, self.now_ns + self.lease_ns)",
    ),
    Case(
        "a restarted voter has forgotten its promises and votes",
        "restart", 16, TWO,
        "p14_a_restarted_node_neither_votes_nor_stands", "if False:",
    ),
    Case(
        "a clean stop forgets a live promise",
        "stop", 16, TWO,
        "p14_a_clean_stop_needs_no_promise_and_no_wait", "clean_stop=self.now_ns >= self.restart_wait_until_ns",
    ),
    Case(
        "a vote for oneself counts as a won term",
        "candidate", 16, "two leaders",
        "p15_only_a_won_unreleased_term_of_an_electable_voter_is_resumed", "record.voted_for == self.me and",
    ),
    Case(
        "a vote ends a promise",
        "challenged", 18, TWO,
        "p05_a_vote_neither_gives_nor_ends_a_promise", "self.vote_granted_to, self.promise = sender, None",
    ),
    Case(
        "a release leaves before the gate is closed",
        "hand-over", 14, TWO,
        "p08_stop_renewing_close_drop_persist_release", "self.go(Trigger.RELEASES, hand_over.reason)",
    ),
    Case(
        "a term is acknowledged before it is durable",
        "candidate", 14, "before they are durable",
        "p02_term_and_document_are_durable_before_the_acknowledgement", "pass",
    ),
    Case(
        "a candidate with an older document gets votes",
        "voters", 17, "without the committed document",
        "p11_an_older_document_is_refused_with_the_newer_one", "if False:\n",
    ),
    Case(
        "an acknowledgement of an older document counts for the commit",
        "voters", 14, "counts as committed",
        "p16_committed_means_this_stamp_in_the_own_term_by_a_majority", "if self.is_voter",
    ),
    Case(
        "a version of the document is sent under the stamp of another",
        "voters", 14, "two documents under one stamp",
        "p16_a_version_is_durable_before_it_is_sent", "self.document.stamp.version",
    ),
)  # fmt: skip
