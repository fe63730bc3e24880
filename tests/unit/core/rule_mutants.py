"""Small ways to break the rules of lease, hand-over, document and commands, and the test that must notice.

`MUTANTS` are those of P1 to P21, of elections and voters too.
"""

from __future__ import annotations

from tests.unit.core.election_mutants import ELECTION_MUTANTS
from tests.unit.core.mutants import mutant as _m
from tests.unit.core.voter_mutants import VOTER_MUTANTS

LEASE_MUTANTS = (
    _m("p01_the_leader_renews_every_r_to_every_node", "leading", "self.now_ns + self.renew_ns", "self.now_ns + 1"),
    _m(
        "p01_a_renewal_due_within_the_step_is_sent_at_once",
        "leading",
        "max(lease.next_renewal_ns, self.now_ns + 1)",
        "lease.next_renewal_ns",
    ),
    _m(
        "p02_an_older_term_is_refused_and_the_newer_one_named",
        "following",
        "if message.term < self.record.term:\n            self.send(sender, RenewRefused",
        "if False:\n            self.send(sender, RenewRefused",
    ),
    _m(
        "p02_term_and_document_are_durable_before_the_acknowledgement",
        "following",
        "self.persist(term=term, voted_for=leader)",
    ),
    _m(
        "p02_term_and_document_are_durable_before_the_acknowledgement",
        "following",
        "self.persist(document=document)",
        "self.record = __import__('dataclasses').replace(self.record, document=document)",
    ),
    _m(
        "p02_term_and_document_are_durable_before_the_acknowledgement",
        "following",
        "self.send(sender, Ack(message.term, message.boot, message.sequence, self.record.stamp))",
        "self.send(sender, Ack(message.term, message.boot, message.sequence, self.record.stamp))\n"
        "        self.effects.insert(0, self.effects.pop())",
    ),
    _m(
        "p02_the_promise_runs_from_receipt_for_l",
        "following",
        "self.now_ns + message.lease_ms * NS_PER_MS",
        "self.now_ns + message.lease_ms * NS_PER_MS * 99 // 100",
    ),
    _m(
        "p02_a_higher_term_replaces_the_promise",
        "following",
        "if promise is None:\n            return  # P6",
        "if promise is None or (self.promise and self.promise.leader != sender):\n            return  # P6",
    ),
    _m(
        "p03_the_leader_keeps_its_promise_to_itself_when_it_loses_the_lease",
        "leading",
        "        self.lease = None\n",
        "        self.lease = self.promise = None\n",
    ),
    _m(
        "p03_a_smaller_lease_time_shortens_no_promise",
        "leading",
        "until_ns = max(until_ns, self.promise.until_ns)",
    ),
    _m(
        "p03_a_voter_keeps_the_longer_promise_to_a_leader_elected_again",
        "lease",
        "if old is None or old.leader != leader:",
        "if old is None or (old.leader, old.term) != (leader, term):",
    ),
    _m("p04_the_lease_counts_from_sending_and_ends_before_l", "lease", "* (1000 - RHO_PERMILLE) // 1000", ""),
    _m(
        "p04_the_lease_counts_from_sending_and_ends_before_l",
        "lease",
        "end_ns = lease_end_ns(renewal.sent_at_ns,",
        "end_ns = lease_end_ns(now_ns,",
    ),
    _m("p04_a_majority_of_the_voters_is_needed", "quorum", "return voters // 2 + 1", "return voters // 2"),
    _m(
        "p04_acknowledgements_of_another_boot_are_ignored",
        "leading",
        "(message.term, message.boot) != (lease.term, lease.boot)",
        "message.term != lease.term",
    ),
    _m(
        "p04_acknowledgements_of_another_record_are_ignored",
        "leading",
        "            self._unbound_or_lost(sender, record_id)\n            return\n",
        "            self._unbound_or_lost(sender, record_id)\n",
    ),
    _m(
        "p05_with_a_promise_votes_and_pre_votes_are_refused",
        "following",
        "if promise is not None and promise.leader != sender and promise.live(self.now_ns):",
        "if False:",
    ),
    _m(
        "p05_a_vote_neither_gives_nor_ends_a_promise",
        "following",
        "self.vote_granted_to = sender",
        "self.vote_granted_to, self.promise = sender, None",
    ),
    _m(
        "p06_a_leader_without_a_lease_steps_down",
        "leading",
        "if self.state is State.LEADER and not lease.held(self.now_ns):",
        "if False:",
    ),
    _m(
        "p06_an_elected_node_steps_down_l_after_it_won",
        "leading",
        "elif self.state is State.ELECTED and self.now_ns >= lease.since_ns + self.lease_ns:",
        "elif False:",
    ),
    _m(
        "p06_until_the_first_majority_the_first_renewal_is_repeated",
        "lease",
        "if not self.backed and self._renewals:",
        "if False:",
    ),
    _m(
        "p06_a_repeated_or_older_renewal_prolongs_nothing",
        "lease",
        "== (old.boot, old.sequence):\n        return old",
        "== (old.boot, old.sequence):\n        return Promise(leader, term, boot, sequence, until_ns)",
    ),
    _m(
        "p06_a_repeated_or_older_renewal_prolongs_nothing",
        "lease",
        "< (old.boot, old.sequence):\n        return None",
        "< (old.boot, old.sequence):\n        return Promise(leader, term, boot, sequence, until_ns)",
    ),
    _m(
        "p07_a_renewal_of_a_higher_term_closes_the_gate_at_once",
        "following",
        "State.RELEASING):\n            self.emit(CloseGate())",
        "State.RELEASING):\n            pass",
    ),
    _m(
        "p08_stop_renewing_close_drop_persist_release",
        "handing_over",
        "self.go(Trigger.RELEASES, hand_over.reason)\n        self.emit(CloseGate())",
        "self.go(Trigger.RELEASES, hand_over.reason)",
    ),
    _m("p08_stop_renewing_close_drop_persist_release", "handing_over", "self.persist(released_term=lease.term)"),
    _m(
        "p08_stop_renewing_close_drop_persist_release",
        "handing_over",
        "released_term=lease.term)\n        self.promise = None",
        "released_term=lease.term)",
    ),
    _m(
        "p08_without_the_address_gone_nothing_is_released",
        "handing_over",
        "self.hand_over = None\n        self.stop_leading()",
        "self.hand_over = None\n        self.promise = None\n        self.stop_leading()",
    ),
    _m(
        "p08_a_promise_ends_only_for_the_same_leader_term_and_boot",
        "following",
        "== (sender, message.term, message.boot)",
        "== (sender, message.term, promise.boot)",
    ),
    _m(
        "p08_a_promise_ends_only_for_the_same_leader_term_and_boot",
        "following",
        "== (sender, message.term, message.boot)",
        "== (promise.leader, message.term, message.boot)",
    ),
    _m(
        "p08_a_promise_ends_only_for_the_same_leader_term_and_boot",
        "following",
        "== (sender, message.term, message.boot)",
        "== (sender, promise.term, message.boot)",
    ),
    _m(
        "p08_a_promise_ends_only_for_the_same_leader_term_and_boot",
        "following",
        "and promise.sequence <= message.sequence",
        "",
    ),
    _m(
        "p08_a_release_counts_also_for_a_voter_that_has_voted_higher",
        "following",
        "        promise = self.promise\n        if message.term >= self.record.term or",
        "        promise = self.promise\n        if message.term < self.record.term:\n            return\n"
        "        if message.term >= self.record.term or",
    ),
    _m("p08_a_released_term_is_over", "following", "if message.term == self.released_heard_term:", "if False:"),
    _m("p08_an_overtaken_hand_over_still_answers_its_operator", "following", "self.hand_over_told = self.hand_over"),
    _m("p09_a_hand_over_needs_a_successor", "handing_over", "if peer.electable and peer.health is Health.ALIVE]", "]"),
    _m(
        "p09_the_successor_must_have_the_document",
        "handing_over",
        "if self.stored_by(peer.node_id) == stamp]",
        "]",
    ),
    _m(
        "p09_the_releasing_node_does_not_stand_for_a_while",
        "handing_over",
        "self.no_stand_until_ns = self.now_ns + self._unranked_ns()",
    ),
    _m(
        "p16_committed_means_this_stamp_in_the_own_term_by_a_majority",
        "leading",
        "if stamp == document.stamp and self.is_voter",
        "if self.is_voter",
    ),
    _m(
        "p16_a_lost_record_counts_for_no_commit",
        "leading",
        "if stamp == document.stamp and self.is_voter(node, record_id)",
        "if stamp == document.stamp",
    ),
    _m(
        "p16_a_version_is_durable_before_it_is_sent",
        "leading",
        "self.document.stamp.version + 1",
        "self.document.stamp.version",
    ),
    _m(
        "p16_what_was_sent_but_not_committed_is_unknown",
        "leading",
        '"unknown: this node',
        '"failed: this node',
    ),
    _m(
        "p17_a_command_starts_after_its_commit",
        "commanding",
        "or not self.committed() ",
        "",
    ),
    _m(
        "p17_once_is_never_started_by_another_incarnation",
        "commanding",
        "return (intent.term, intent.boot) == (self.record.won_term, self.record.boot)",
        "return intent.term == self.record.won_term",
    ),
    _m(
        "p17_once_is_never_started_by_another_incarnation",
        "commanding",
        'if intent.policy == "retry":',
        "if True:",
    ),
    _m(
        "p17_retry_is_started_again_under_a_new_token",
        "commanding",
        "token=self._next_token(document))",
        "token=intent.token)",
    ),
    _m(
        "p19_l_is_that_of_the_document",
        "base",
        "(self.settings.lease_ms if self.document is None else self.document.lease_ms)",
        "self.settings.lease_ms",
    ),
    _m(
        "p19_a_larger_l_is_durable_before_the_first_promise_of_it",
        "following",
        "self.persist(promised_ms=message.lease_ms)",
    ),
    _m(
        "p19_a_larger_l_is_durable_before_the_first_promise_of_it",
        "leading",
        "document=document.stamped(stamp), promised_ms=max(self.record.promised_ms, document.lease_ms)",
        "document=document.stamped(stamp)",
    ),
    _m(
        "p19_a_larger_l_of_another_leaders_document_is_durable_before_a_renewal_of_it",
        "leading",
        "self.persist(promised_ms=renewal.lease_ms)",
    ),
    _m(
        "p21_a_command_is_told_the_end_of_the_lease",
        "commanding",
        "StartCommand(intent, self.lease.until_ns)",
        "StartCommand(intent, self.lease.until_ns + 1)",
    ),
)

MUTANTS = (*LEASE_MUTANTS, *ELECTION_MUTANTS, *VOTER_MUTANTS)
