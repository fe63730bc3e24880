"""Small ways to break the rules of `quorum = "half"` (P22), and the test of `test_half_rules` that must notice."""

from __future__ import annotations

from tests.unit.core.mutants import Mutant


def _m(test: str, module: str, old: str, new: str = "pass") -> Mutant:
    return Mutant("test_p22_" + test, module, old, new)


HALF_MUTANTS = (
    _m(
        "rule_and_tie_breaker_are_those_of_the_document",
        "half",
        "self.document is not None and self.document.quorum is QuorumRule.HALF\n",
        "self.settings.quorum is QuorumRule.HALF\n",
    ),
    _m(
        "rule_and_tie_breaker_are_those_of_the_document",
        "half",
        "not document.tie_breaker or views.tie_breaker != document.tie_breaker",
        "not views.tie_breaker",
    ),
    _m(
        "the_document_tells_whom_to_ask",
        "half",
        "address = document.tie_breaker if",
        "address = self.settings.tie_breaker if",
    ),
    _m("the_document_tells_whom_to_ask", "half", "max(self.renew_ns, LEAST_INTERVAL_NS)", "self.renew_ns"),
    _m(
        "a_lease_by_half_ends_with_the_tie_breakers_answer",
        "lease",
        "min(renewal.sent_at_ns, half.tie_breaker_ns)",
        "renewal.sent_at_ns",
    ),
    _m(
        "a_lease_by_half_needs_a_series_of_three_leases",
        "half",
        "SERIES_LEASES * self.lease_ns",
        "0 * self.lease_ns",
    ),
    _m(
        "half_counts_when_the_others_had_time_to_answer",
        "lease",
        "patient = renewal.sent_at_ns + half.patience_ns <= now_ns",
        "patient = True",
    ),
    _m(
        "half_waits_two_leases_after_the_last_word_of_a_leader",
        "following",
        "self.claim_heard_ns = self.now_ns",
    ),
    _m(
        "half_waits_two_leases_after_the_last_word_of_a_leader",
        "base",
        "self.claim_heard_ns = now_ns",
        "self.claim_heard_ns = -(10**12)",
    ),
    _m("half_waits_for_a_series_of_three_leases", "half", "SERIES_LEASES = 3", "SERIES_LEASES = 1"),
    _m(
        "half_is_not_elected_by_an_old_answer",
        "half",
        "return now_ns < lease_end_ns(views.tie_breaker_ns, document.lease_ms)",
        "return True",
    ),
    _m(
        "half_waits_until_the_others_were_silent_for_two_leases",
        "half",
        "max(self.dead_since_ns[node], self.heard_ns.get(node, 0)) + least_ns",
        "self.heard_ns.get(node, 0) + least_ns",
    ),
    _m(
        "half_waits_until_the_others_were_silent_for_two_leases",
        "half",
        "self.heard_ns[sender] = self.now_ns",
    ),
    _m("a_node_that_doubts_itself_believes_nobody_dead", "half", "if self.now_ns < self.doubt_until_ns:", "if False:"),
    _m(
        "half_does_not_count_against_anybody_who_is_there",
        "half",
        "all(node in asked.yes or node in gone for node in self.voter_ids)",
        "True",
    ),
    _m("less_than_half_is_never_enough", "half", "own_term and is_half(self.voter_ids, asked.yes) and", "own_term and"),
    _m(
        "half_is_elected_without_a_word_of_the_dead",
        "quorum",
        "2 * len([voter for voter in voters if voter in yes]) >= len(voters)",
        "2 * len([voter for voter in voters if voter in yes]) > len(voters)",
    ),
    _m(
        "no_two_nodes_stand_for_the_same_term",
        "half",
        "least + (self.me - least) % TERM_STRIDE if self.half else least",
        "least",
    ),
    _m(
        "a_round_from_before_the_document_said_half_is_not_won_by_half",
        "half",
        "own_term = asked.term % TERM_STRIDE == self.me ",
        "own_term = True ",
    ),
    _m(
        "half_commits_nothing_and_changes_nothing",
        "leading",
        "if tally(self.voter_ids, having, ()) is not Tally.WON:",
        "if 2 * len(having) < len(self.voter_ids):",
    ),
    _m(
        "half_commits_nothing_and_changes_nothing",
        "leading",
        "not self.lease_held() or self.leads_by_half:",
        "not self.lease_held():",
    ),
    _m("half_runs_no_command", "commanding", "        if self.leads_by_half:\n", "        if False:\n"),
    _m(
        "a_lease_by_half_begins_anew_after_a_restart",
        "half",
        "        if not self._leaderless:\n            return None\n        return HalfRule(self.views.tie_breaker_ns, "
        "self.renew_ns, lease_ms, self._silent_voters())",
        "        return HalfRule(self.views.tie_breaker_ns, self.renew_ns, lease_ms, None)",
    ),
    _m(
        "a_renewal_from_before_l_became_smaller_gives_half_no_longer_lease",
        "lease",
        "min(renewal.lease_ms, half.lease_ms)",
        "renewal.lease_ms",
    ),
    _m(
        "a_leader_by_half_is_elected_again_after_slow_rounds",
        "leading",
        "self.lease_ns // 2 if lease.by_half else ",
        "",
    ),
    _m(
        "no_hand_over_is_asked_of_a_leader_by_half",
        "handing_over",
        "        if self.leads_by_half:  # P9\n",
        "        if False:\n",
    ),
    _m(
        "no_hand_over_is_asked_of_a_leader_by_half",
        "handing_over",
        "not self.settings.preempt or self.leads_by_half or",
        "not self.settings.preempt or",
    ),
    _m(
        "a_dead_pgpool_comes_before_a_lease_by_half",
        "engine",
        "        self.note_silence()\n",
        "        self.note_silence()\n        self.settle_by_half()\n",
    ),
    _m(
        "under_half_a_new_l_goes_by_way_of_a_majority",
        "leading",
        "        if self.half and wanted != document:\n",
        "        if False:\n",
    ),
    _m(
        "under_half_a_new_tie_breaker_goes_by_way_of_a_majority",
        "leading",
        "self.propose(replace(document, tie_breaker=wanted.tie_breaker))",
        "self.propose(wanted)",
    ),
    _m(
        "each_step_waits_for_a_majority",
        "leading",
        "if document is None or not self.committed() or not",
        "if document is None or not",
    ),
    _m(
        "under_half_the_voters_change_by_way_of_a_majority",
        "voters",
        'if self._leave_half("a change of the voters is asked for"):',
        "if False:",
    ),
    _m(
        "nothing_else_may_change_the_terms_of_half",
        "leading",
        "        self._check_half(self.document, document)\n",
        "",
    ),
    _m(
        "a_cluster_is_founded_by_a_majority_rule_and_becomes_half_afterwards",
        "founding",
        "            False,\n            (),\n        )",
        "            False,\n            (),\n            (),\n            self.settings.quorum,\n        )",
    ),
)
