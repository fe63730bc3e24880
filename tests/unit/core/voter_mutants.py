"""Small ways to break the rules of who votes (P18), and the test that must notice."""

from __future__ import annotations

from tests.unit.core.mutants import mutant as _m

VOTER_MUTANTS = (
    _m(
        "p18_voters_come_from_the_document",
        "base",
        "tuple(voter.node_id for voter in document.voters)",
        "tuple(node.node_id for node in self.settings.nodes)",
    ),
    _m("p18_a_node_that_is_not_named_only_follows", "following", "if not self.named and (", "if False and ("),
    _m(
        "p18_whoever_a_newer_document_may_name_votes_for_it",
        "following",
        "self.document is None or message.stamp <= self.record.stamp",
        "True",
    ),
    _m(
        "p18_one_change_of_the_voters_at_a_time",
        "leading",
        "if event.remove == self.me:",
        "if False:",
    ),
    _m(
        "p18_one_change_of_the_voters_at_a_time",
        "leading",
        "if bool(event.add) == bool(event.remove):",
        "if False:",
    ),
    _m(
        "p18_changes_wait_for_the_commit_of_the_own_term",
        "leading",
        'if not self.committed():\n            return "another',
        'if False:\n            return "another',
    ),
    _m(
        "p18_a_voter_is_added_with_the_record_under_which_it_follows",
        "voters",
        "document.with_voter(ask.add, self.stored[ask.add][0])",
        "document.with_voter(ask.add, 0)",
    ),
    _m(
        "p18_no_change_may_leave_the_cluster_without_a_majority",
        "leading",
        "if tally(after, having, ()) is not Tally.WON:",
        "if False:",
    ),
    _m(
        "p18_a_voter_that_lost_its_record_is_none_of_those_who_remain",
        "leading",
        "not self.is_voter(node_id, self.stored[node_id][0])",
        "False",
    ),
    _m("p18_a_late_copy_of_a_wish_changes_nothing", "voters", "if ask.epoch != document.epoch:", "if False:"),
    _m("p18_a_wish_is_passed_on_and_repeated_until_it_is_answered", "voters", "self.send(self.leader_id, ask)"),
    _m(
        "p18_a_wish_is_passed_on_and_repeated_until_it_is_answered",
        "voters",
        "wish.next_ask_ns = self.now_ns + self.renew_ns",
        "wish.next_ask_ns = wish.deadline_ns",
    ),
    _m("p18_a_wish_that_a_leader_was_asked_ends_unknown", "voters", "wish.asked = True"),
    _m(
        "p18_an_answer_counts_for_its_own_wish_only",
        "voters",
        "(message.boot, message.request_id) != (self.record.boot, wish.request_id or 0)",
        "message.boot != self.record.boot",
    ),
    _m(
        "p18_an_answer_counts_for_its_own_wish_only",
        "voters",
        "(message.boot, message.request_id) != (self.record.boot, wish.request_id or 0)",
        "message.request_id != wish.request_id",
    ),
    _m(
        "p18_a_repeated_wish_is_proposed_once_and_answered_at_the_commit",
        "voters",
        "(change.asker, change.boot, change.request_id) == asked",
        "False",
    ),
    _m(
        "p18_a_repeated_wish_is_proposed_once_and_answered_at_the_commit",
        "voters",
        "change.asker != NOBODY and change.request_id is not None",
        "False",
    ),
    _m(
        "p18_a_leader_that_leaves_hands_over_first_and_then_asks_the_next_one",
        "voters",
        "self._asked_to_hand_over(NOBODY, event.request_id, self.me)",
    ),
    _m(
        "p18_a_leader_that_leaves_hands_over_first_and_then_asks_the_next_one",
        "voters",
        "self.answer(hand_over.request_id, True, text, final=False)",
        "self.wish = None",
    ),
    _m(
        "p18_a_voter_that_lost_its_record_is_not_added_over_itself",
        "voters",
        "if known is not None and known[0] != voter.record_id != 0:",
        "if False:",
    ),
    _m(
        "p18_a_lost_voter_is_removed_when_its_time_is_over",
        "removal",
        "since_ns + limit_ms * NS_PER_MS",
        "since_ns + limit_ms * NS_PER_MS // 2",
    ),
    _m(
        "p18_a_voter_that_never_came_has_a_time_of_its_own",
        "removal",
        "rule.lost_ms if voter.record_id else rule.no_show_ms",
        "rule.lost_ms",
    ),
    _m("p18_only_certain_and_unbroken_absence_counts", "removal", "peer.health is Health.DEAD:", "True:"),
    _m(
        "p18_only_certain_and_unbroken_absence_counts",
        "removal",
        "self.absent_since_ns.pop(sender, None)",
    ),
    _m(
        "p18_only_certain_and_unbroken_absence_counts",
        "removal",
        "or self.now_ns < self.doubt_until_ns:",
        "or False:",
    ),
    _m(
        "p18_removal_leaves_a_majority_that_is_here_and_takes_one_at_a_time",
        "removal",
        "refusal = self._change_refusal(ChangeVoters(0, NOBODY, voter.node_id))",
        "refusal = None",
    ),
    _m(
        "p18_a_removed_node_is_added_again_with_the_record_it_had",
        "removal",
        "self.back_since_ns[item.node_id] + 2 * self.lease_ns",
        "self.back_since_ns[item.node_id]",
    ),
    _m(
        "p18_a_removed_node_is_added_again_with_the_record_it_had",
        "removal",
        "if item.record_id not in (0, known[0]):",
        "if False:",
    ),
    _m(
        "p18_a_removed_node_is_added_again_with_the_record_it_had",
        "removal",
        "if not item.returns or known is None",
        "if known is None",
    ),
    _m(
        "p18_a_node_that_is_stopped_asks_to_be_removed_first",
        "removal",
        "self.now_ns >= (self.stop_deadline_ns or 0)",
        "False",
    ),
    _m(
        "p18_a_node_that_is_stopped_asks_to_be_removed_first", "handing_over", "if not self.leaves_first():", "if True:"
    ),
    _m(
        "p18_an_operators_word_keeps_a_lost_node_out",
        "voters",
        "and not self._would_return(document, ask)",
        "",
    ),
    _m("p18_founding_needs_every_voter_blank", "founding", "and hello[2] and hello[3]", "and hello[3]"),
    _m("p18_founding_needs_every_voter_blank", "founding", "and hello[2] and hello[3] == self.founder", "and hello[2]"),
    _m(
        "p18_bootstrap_needs_a_majority_and_no_older_cluster",
        "founding",
        "if len(heard) < needed:",
        "if False:",
    ),
    _m(
        "p18_bootstrap_needs_a_majority_and_no_older_cluster",
        "founding",
        "            if not hello[2]:",
        "            if False:",
    ),
)
