"""Small ways to break the core, one or more for each rule, and the test that must notice.

A mutant replaces one exact piece of one module's source. Nothing is written to disk: the core and the tests of the
rules are loaded anew, with the changed source, beside the real ones.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pgvigil.watchdog
import pgvigil.watchdog.core.engine

CORE = "pgvigil.watchdog.core"
FOLDER = Path(pgvigil.watchdog.core.engine.__file__).parent
TESTS = "tests.unit.core"
RULES = tuple(f"{TESTS}.{name}" for name in ("test_rules", "test_election_rules", "test_voter_rules"))
RELOADED = (CORE, f"{TESTS}.bench", *RULES)


@dataclass(frozen=True)
class Mutant:
    """`old` stands exactly once in `module`; with `new` in its place `test` must fail."""

    test: str
    module: str
    old: str
    new: str

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.test[5:]}-{self.module}-{self.old.split(chr(10))[0].strip()[:40]}"


class _Source(MetaPathFinder, Loader):
    """Finds the one module that is changed, and compiles the changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self.fullname = f"{CORE}.{mutant.module}"
        self.path = FOLDER / f"{mutant.module}.py"
        source = self.path.read_text()
        if source.count(mutant.old) != 1:
            raise LookupError(f"{mutant.module}.py has {source.count(mutant.old)} times: {mutant.old!r}")
        self.source = source.replace(mutant.old, mutant.new)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only for the changed module."""
        return ModuleSpec(fullname, self, origin=str(self.path)) if fullname == self.fullname else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def found_in(modules: Sequence[ModuleType], prefix: str) -> dict[str, ModuleType]:
    """In which module each test of these rules is; `LookupError` if two have one name."""
    found: dict[str, ModuleType] = {}
    for module in modules:
        for name in vars(module):
            if name.startswith(prefix) and found.setdefault(name, module) is not module:
                raise LookupError(f"{name} is in {found[name].__name__} and in {module.__name__}, expected one")
    return found


@contextmanager
def rules_under(mutant: Mutant, module: str, reloaded: tuple[str, ...] = RELOADED) -> Iterator[ModuleType]:
    """A module of the rule tests, or another one, loaded against the changed core."""
    finder = _Source(mutant)
    mine = [name for name in sys.modules if name.startswith(reloaded)]
    kept = {name: sys.modules.pop(name) for name in mine}
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module(module)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(reloaded)]:
            del sys.modules[name]
        sys.modules.update(kept)
        for name, old in kept.items():  # whoever imports by way of the folder must not get the changed one
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, old)


def _m(test: str, module: str, old: str, new: str = "pass") -> Mutant:
    return Mutant("test_" + test, module, old, new)


MUTANTS = (
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
