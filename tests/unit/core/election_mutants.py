"""Small ways to break the rules of elections and restarts (P10 to P15), and the test that must notice."""

from __future__ import annotations

from tests.unit.core.mutants import mutant as _m

ELECTION_MUTANTS = (
    _m(
        "p10_a_node_stands_after_its_rank_times_the_stagger",
        "standing",
        "self.rank() * self.stagger_ns",
        "0",
    ),
    _m(
        "p10_a_live_promise_keeps_a_node_from_standing",
        "standing",
        "and (self.promise is None or not self.promise.live(self.now_ns))",
        "",
    ),
    _m("p10_witness_sick_or_waiting_nodes_never_stand", "base", "if self.witness(self.me):", "if False:"),
    _m(
        "p10_witness_sick_or_waiting_nodes_never_stand",
        "base",
        "if self.views.pgpool is not Health.ALIVE:",
        "if False:",
    ),
    _m(
        "p10_witness_sick_or_waiting_nodes_never_stand",
        "base",
        "if self.document is not None and self.document.paused:",
        "if False:",
    ),
    _m(
        "p11_a_pre_vote_changes_nothing",
        "following",
        "self.send(sender, Granted(message.round_id, message.term, real=False))",
        "self.persist(term=message.term)\n"
        "        self.send(sender, Granted(message.round_id, message.term, real=False))",
    ),
    _m(
        "p11_the_vote_is_durable_before_the_grant_and_given_once",
        "following",
        "self.persist(term=message.term, voted_for=sender)",
    ),
    _m(
        "p11_the_vote_is_durable_before_the_grant_and_given_once",
        "following",
        "if message.term == self.record.term and self.record.voted_for not in (NOBODY, sender):",
        "if False:",
    ),
    _m(
        "p11_the_vote_is_durable_before_the_grant_and_given_once",
        "following",
        'if message.term < self.record.term:\n            return f"term',
        'if False:\n            return f"term',
    ),
    _m(
        "p11_the_own_vote_is_durable_before_votes_are_asked_for",
        "standing",
        "self.persist(term=term, voted_for=self.me)",
    ),
    _m(
        "p11_an_older_document_is_refused_with_the_newer_one",
        "following",
        "if message.stamp < self.record.stamp:\n",
        "if False:\n",
    ),
    _m(
        "p11_an_older_document_is_refused_with_the_newer_one",
        "following",
        "newer = self.document if",
        "newer = None if",
    ),
    _m(
        "p11_the_candidate_takes_the_newer_document_and_asks_again_at_once",
        "standing",
        "                self._ask_again()\n",
        "                pass\n",
    ),
    _m("p11_answers_of_other_rounds_do_not_count", "standing", "and message.round_id == asked.round_id", ""),
    _m("p11_answers_of_other_rounds_do_not_count", "standing", "and message.real == asked.real", ""),
    _m(
        "p11_answers_of_other_rounds_do_not_count",
        "standing",
        "if self._of_this_round(message) and self.is_voter(sender, record_id)",
        "if self._of_this_round(message)",
    ),
    _m(
        "p12_terms_named_in_refusals_are_remembered",
        "standing",
        "self.known_term = max(self.known_term, message.known_term)",
    ),
    _m(
        "p12_terms_named_in_refusals_are_remembered",
        "half",
        "least = max(self.known_term, self.record.term) + 1",
        "least = self.record.term + 1",
    ),
    _m(
        "p12_a_leader_that_hears_of_a_higher_term_has_itself_elected_with_the_gate_open",
        "leading",
        "self.known_term = max(self.known_term, message.known_term)",
    ),
    _m(
        "p12_a_leader_that_hears_of_a_higher_term_has_itself_elected_with_the_gate_open",
        "leading",
        "self._begin_lease(term, carried_ns)",
        "self._begin_lease(term, None)",
    ),
    _m(
        "p13_a_lost_round_is_followed_by_a_random_pause",
        "standing",
        "self.now_ns + 1 + self.draw(self.settings.round_ns)",
        "self.now_ns + 1",
    ),
    _m(
        "p13_a_lost_round_is_followed_by_a_random_pause",
        "standing",
        "if outcome is Tally.LOST:",
        "if False:",
    ),
    _m(
        "p13_a_round_ends_at_its_time_limit",
        "standing",
        "if self.round is not None and self.now_ns >= self.round.ends_at_ns:",
        "if False:",
    ),
    _m(
        "p13_the_worse_ranked_steps_back_the_better_refuses",
        "following",
        "if not self.better(sender):",
        "if False:",
    ),
    _m(
        "p13_the_worse_ranked_steps_back_the_better_refuses",
        "following",
        "self.stepped_back_in_round = self.round_number",
    ),
    _m(
        "p13_after_a_vote_pre_votes_of_others_are_refused_for_a_round",
        "following",
        "self.vote_granted_until_ns = self.now_ns + self._granted_ns(message)",
    ),
    _m(
        "p13_rounds_of_votes_that_end_too_early_grow_up_to_l",
        "standing",
        "min(2 * self.round_ns, self.lease_ns)",
        "2 * self.round_ns",
    ),
    _m(
        "p13_rounds_of_votes_that_end_too_early_grow_up_to_l",
        "standing",
        "0 if self.round_ns == self.settings.round_ns else self.round_ns // NS_PER_MS",
        "0",
    ),
    _m(
        "p13_pre_votes_write_nothing_and_keep_their_limit",
        "standing",
        "if asked.real and left_ns <= 0:",
        "if left_ns <= 0:",
    ),
    _m(
        "p13_quick_answers_make_rounds_of_votes_shorter_again",
        "standing",
        "4 * left_ns >= 3 * self.round_ns",
        "2 * left_ns >= self.round_ns",
    ),
    _m(
        "p13_a_voter_waits_for_as_long_as_the_candidate_said_it_needs",
        "following",
        "self.pause_until_ns = self.vote_granted_until_ns",
    ),
    _m(
        "p13_a_voter_waits_for_as_long_as_the_candidate_said_it_needs",
        "following",
        "min(message.round_ms * NS_PER_MS, self.lease_ns)",
        "message.round_ms * NS_PER_MS",
    ),
    _m(
        "p13_a_voter_waits_for_as_long_as_the_candidate_said_it_needs",
        "following",
        "max(told_ns * 3 // 2, self.settings.round_ns)",
        "self.settings.round_ns",
    ),
    _m("p10_the_stagger_grows_with_the_rounds", "base", "return self.round_ns // 2", "return self.settings.stagger_ns"),
    _m(
        "p12_with_slow_disks_a_leader_is_elected_again_right_after_a_renewal",
        "leading",
        "and self._time_to_be_elected_again(self.lease)",
        "",
    ),
    _m(
        "p14_a_restarted_node_neither_votes_nor_stands",
        "following",
        "if self.now_ns < self.restart_wait_until_ns:",
        "if False:",
    ),
    _m(
        "p14_a_restarted_node_neither_votes_nor_stands",
        "standing",
        "and self.now_ns >= self.restart_wait_until_ns",
        "",
    ),
    _m(
        "p14_a_resumed_leader_waits_before_it_has_itself_elected_again",
        "leading",
        "max(self.pause_until_ns, self.restart_wait_until_ns)",
        "self.pause_until_ns",
    ),
    _m(
        "p14_the_wait_is_the_largest_l_promised",
        "engine",
        "now_ns + promised_ms * NS_PER_MS",
        "now_ns + 1",
    ),
    _m(
        "p14_a_clean_stop_needs_no_promise_and_no_wait",
        "handing_over",
        "clean_stop=free and self.now_ns >= self.restart_wait_until_ns",
        "clean_stop=free",
    ),
    _m(
        "p14_a_clean_stop_needs_no_promise_and_no_wait",
        "handing_over",
        "clean_stop=free and self.now_ns >= self.restart_wait_until_ns",
        "clean_stop=self.now_ns >= self.restart_wait_until_ns",
    ),
    _m(
        "p15_the_won_term_and_the_document_are_durable_before_the_first_renewal",
        "leading",
        "            won_term=term,\n",
        "",
    ),
    _m(
        "p15_a_leader_resumes_with_renewals_and_nothing_more",
        "leading",
        "self._begin_lease(self.record.term, None)",
        "self._begin_lease(self.record.term, self.now_ns + self.lease_ns)",
    ),
    _m(
        "p15_only_a_won_unreleased_term_of_an_electable_voter_is_resumed",
        "engine",
        "record.won_term == record.term and",
        "record.voted_for == self.me and",
    ),
    _m(
        "p15_only_a_won_unreleased_term_of_an_electable_voter_is_resumed",
        "engine",
        "and record.released_term != record.term",
        "",
    ),
    _m(
        "p15_only_a_won_unreleased_term_of_an_electable_voter_is_resumed",
        "engine",
        "self.witness(self.me) or self.document is None or self.document.paused",
        "False",
    ),
)
