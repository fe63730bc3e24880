"""The mutants: for every rule of PROTOCOL.md marked (!) at least one way to break it."""

from __future__ import annotations

from tests.simulation.backend_mutants import BACKEND_MUTANTS
from tests.simulation.mutants import Mutant

CORE = "pgvigil.watchdog.core"
SHELL = "tests.simulation.watchdog"
LIMIT = 20


def _m(
    name: str, rule: str, module: str, *pieces: tuple[str, str], profile: str, limit: int = LIMIT, harmless: str = ""
) -> Mutant:
    home = module if "." in module else f"{CORE}.{module}"
    return Mutant(name, rule, home, pieces, profile, limit, harmless)


MUTANTS = (
    _m(
        "clock read once for a batch of messages", "2", SHELL,
        (
            "        while (parcel := self.mail.take()) is not None:\n            self._take(*parcel)\n",
            "        self.batch_ns = self.clock.read()\n"
            "        while (parcel := self.mail.take()) is not None:\n            self._take(*parcel)\n"
            "        self.batch_ns = 0\n",
        ),
        (
            "self.core.step(self.clock.read(), ",
            "self.core.step(max(self.core.now_ns, getattr(self, 'batch_ns', 0) or self.clock.read()), ",
        ),
        profile="restart", limit=60,
    ),
    _m(
        "term not durable before the acknowledgement", "P2", "following",
        (
            "self.persist(term=term, voted_for=leader)",
            "self.record = __import__('dataclasses').replace(self.record, term=term, voted_for=leader)",
        ),
        profile="election",
    ),
    _m(
        "document not durable before the acknowledgement", "P2", "following",
        (
            "self.persist(document=document)",
            "self.record = __import__('dataclasses').replace(self.record, document=document)",
        ),
        profile="membership",
    ),
    _m(
        "effects do not wait for the disk", "P2, P11, P16", "pgvigil.watchdog.carrier",
        ("                if self._waiting:\n", "                if False:\n"),
        profile="election",
    ),
    _m(
        "promise 2 % shorter than the lease", "P2", "following",
        ("self.now_ns + message.lease_ms * NS_PER_MS", "self.now_ns + message.lease_ms * NS_PER_MS * 98 // 100"),
        profile="mixed",
    ),
    _m(
        "stepping down ends the own promise", "P3", "leading",
        ("        self.lease = None\n        self.round = None\n        self.committed_stamp",
         "        self.lease = self.promise = None\n        self.round = None\n        self.committed_stamp"),
        profile="links",
    ),
    _m(
        "leader gives itself no promise", "P3", "leading",
        ("        self.promise = Promise(self.me, lease.term, lease.boot, renewal.sequence, until_ns)\n", ""),
        profile="links",
    ),
    _m(
        "lease counted from the acknowledgement", "P4", "lease",
        ("end_ns = lease_end_ns(renewal.sent_at_ns, ", "end_ns = lease_end_ns(now_ns, "),
        profile="mixed",
    ),
    _m(
        "lease as long as L, clocks not minded", "P4", "lease",
        ("return sent_at_ns + lease_ms * NS_PER_MS * (1000 - RHO_PERMILLE) // 1000",
         "return sent_at_ns + lease_ms * NS_PER_MS"),
        profile="mixed",
    ),
    _m(
        "acknowledgements of another boot counted", "P4", "leading",
        ("(message.term, message.boot) != (lease.term, lease.boot)", "message.term != lease.term"),
        profile="resume", limit=60,
    ),
    _m(
        "half of the voters is a majority", "P4", "quorum",
        ("return voters // 2 + 1", "return (voters + 1) // 2"),
        profile="links",
    ),
    _m(
        "a vote ends the voter's promise", "P5", "following",
        ("self.vote_granted_to = sender", "self.vote_granted_to, self.promise = sender, None"),
        profile="election", limit=60,
    ),
    _m(
        "votes in spite of a live promise", "P5", "following",
        ("promise.leader != sender and promise.live(self.now_ns)", "promise.leader != sender and False"),
        profile="links",
    ),
    _m(
        "stands in spite of a live promise", "P10", "standing",
        ("            and (self.promise is None or not self.promise.live(self.now_ns))\n", ""),
        profile="links",
    ),
    _m(
        "elected without ever a lease, never steps down", "P6", "leading",
        ("elif self.state is State.ELECTED and self.now_ns >= lease.since_ns + self.lease_ns:", "elif False:"),
        profile="deaf",
        harmless="its first renewal, repeated, prolongs no promise (the other half of P6), so it blocks nobody for "
        "more than one L; the next mutant breaks both halves",
    ),
    _m(
        "elected without a lease, renews for ever", "P6", "leading",
        ("elif self.state is State.ELECTED and self.now_ns >= lease.since_ns + self.lease_ns:", "elif False:"),
        ("            self._send_renewal(lease, lease.renew(",
         "            lease.backed = True\n            self._send_renewal(lease, lease.renew("),
        profile="deaf", limit=60,
    ),
    _m(
        "renewal of a higher term leaves the gate open", "P7", "following",
        ("            self.emit(CloseGate())\n            self.emit(DropVip())\n"
         "            self.go(Trigger.HIGHER_TERM, "
         'f"{self.label(leader)}', "            self.go(Trigger.HIGHER_TERM, "
         'f"{self.label(leader)}'),
        profile="mixed",
        harmless="a higher term proves that the lease is over, and the kernel has closed the gate at its end; "
        "the rule shortens the overlap after a pause of the whole machine, which is the stated limit",
    ),
    _m(
        "releases before gate and address are down", "P8", "handing_over",
        ("        self.go(Trigger.RELEASES, hand_over.reason)\n"
         "        self.emit(CloseGate())\n        self.emit(DropVip())\n",
         "        self.go(Trigger.RELEASES, hand_over.reason)\n        self.on_vip_down()\n"),
        profile="handover",
    ),
    _m(
        "release not durable before it is sent", "P8", "handing_over",
        ("        self.persist(released_term=lease.term)\n", ""),
        profile="handover",
    ),
    _m(
        "renews after it has released", "P8", "handing_over",
        ("        self.go(Trigger.RELEASED)\n",
         "        self._send_renewal(lease, lease.renew(self.now_ns, self.lease_ns // NS_PER_MS))\n"
         "        self.go(Trigger.RELEASED)\n"),
        profile="handover",
    ),
    _m(
        "any release ends any promise", "P8", "following",
        ("            and (promise.leader, promise.term, promise.boot) == (sender, message.term, message.boot)\n"
         "            and promise.sequence <= message.sequence\n", ""),
        profile="handover",
    ),
    _m(
        "a released term is followed again", "P8", "following",
        ("if message.term == self.released_heard_term:", "if False:"),
        profile="handover",
        harmless="no lease can follow from it: the leader has stopped renewing, so what still arrives only gives "
        "a promise that costs up to one L",
    ),
    _m(
        "vote not persisted", "P11", "following",
        ("self.persist(term=message.term, voted_for=sender)",
         "self.record = __import__('dataclasses').replace(self.record, term=message.term, voted_for=sender)"),
        profile="election",
    ),
    _m(
        "own vote not persisted", "P11", "standing",
        ("self.persist(term=term, voted_for=self.me)",
         "self.record = __import__('dataclasses').replace(self.record, term=term, voted_for=self.me)"),
        profile="election",
    ),
    _m(
        "two votes in one term", "P11", "following",
        ("if message.term == self.record.term and self.record.voted_for not in (NOBODY, sender):", "if False:"),
        profile="election", limit=60,
    ),
    _m(
        "document not compared before a vote", "P11", "following",
        ("        if message.stamp < self.record.stamp:\n", "        if False:\n"),
        profile="membership", limit=60,
    ),
    _m(
        "refusal without the newer document", "P11", "following",
        ("newer = self.document if message.stamp < self.record.stamp else None", "newer = None"),
        profile="witnesses", limit=60,
    ),
    _m(
        "no pre-vote", "P11", "standing",
        ("        self.round = self._next_round(term, real=False)\n",
         "        self._stand(term)\n        return\n        self.round = self._next_round(term, real=False)\n"),
        profile="links",
    ),
    _m(
        "terms named in refusals forgotten", "P12", "standing",
        ("        self.known_term = max(self.known_term, message.known_term)\n        if not self._of_this_round",
         "        if not self._of_this_round"),
        profile="witnesses", limit=60,
    ),
    _m(
        "re-elected leader begins with a fresh lease", "P12", "leading",
        ("carried_ns = self.lease.until_ns if", "carried_ns = self.now_ns + self.lease_ns if"),
        profile="election", limit=60,
    ),
    _m(
        "promise forgotten on restart", "P14", "engine",
        ("return now_ns if clean_stop else now_ns + promised_ms * NS_PER_MS", "return now_ns"),
        profile="restart",
    ),
    _m(
        "every stop is a clean one", "P14", "handing_over",
        ("clean_stop=free and self.now_ns >= self.restart_wait_until_ns", "clean_stop=True"),
        profile="restart", limit=60,
    ),
    _m(
        "clean flag survives the start", "P14", "pgvigil.watchdog.process",
        ("boot=record.boot + 1, clean_stop=False,", "boot=record.boot + 1,"),
        profile="restart", limit=60,
    ),
    _m(
        "restart not counted as a new boot", "1, P4", "pgvigil.watchdog.process",
        ("boot=record.boot + 1, clean_stop=False,", "boot=record.boot, clean_stop=False,"),
        profile="resume", limit=60,
    ),
    _m(
        "a vote for oneself is a won term", "P15", "engine",
        ("record.won_term == record.term and", "record.voted_for == self.me and"),
        profile="election",
    ),
    _m(
        "resumes with a lease", "P15", "leading",
        ("self._begin_lease(self.record.term, None)",
         "self._begin_lease(self.record.term, self.now_ns + self.lease_ns)"),
        profile="restart",
    ),
    _m(
        "resumes a released term", "P15", "engine",
        (" and record.released_term != record.term", ""),
        profile="handover",
    ),
    _m(
        "won term not durable before the first renewal", "P15", "leading",
        ("            won_term=term,\n", ""),
        profile="election",
    ),
    _m(
        "new version not durable before it is sent", "P16", "leading",
        ("        self.persist(\n            document=document.stamped(stamp), "
         "promised_ms=max(self.record.promised_ms, document.lease_ms)\n        )  # P19\n",
         "        self.record = replace(self.record, document=document.stamped(stamp))\n"),
        profile="membership",
    ),
    _m(
        "any stored stamp counts as a commit", "P16", "leading",
        ("if stamp == document.stamp and self.is_voter(node, record_id)", "if self.is_voter(node, record_id)"),
        profile="membership",
    ),
    _m(
        "another incarnation's command is taken for the own", "P17", "commanding",
        ("return (intent.term, intent.boot) == (self.record.won_term, self.record.boot)", "return True"),
        profile="commands", limit=60,
    ),
    _m(
        "a resumed leader takes its old command for the own", "P17", "commanding",
        ("return (intent.term, intent.boot) == (self.record.won_term, self.record.boot)",
         "return intent.term == self.record.won_term"),
        profile="commands", limit=60,
    ),
    _m(
        "command started before the commit", "P17", "commanding",
        (" or not self.committed() or not self.lease_held()", " or not self.lease_held()"),
        ("        elif not self._escalate(document):\n",
         "        elif self.committed() and not self._escalate(document):\n"),
        profile="commands", limit=60,
    ),
    _m(
        "lease not checked right before a command", "P17, P21", SHELL,
        ("if self.core.state is not State.LEADER or not self.core.lease_held_at(self.clock.read()):", "if False:"),
        profile="commands", limit=60,
    ),
    _m(
        "voters from the file", "P18", "base",
        ("tuple(voter.node_id for voter in document.voters)",
         "tuple(node.node_id for node in self.settings.nodes)"),
        profile="membership", limit=60,
    ),
    _m(
        "two changes of the voters at once", "P18", "leading",
        ('        if not self.committed():\n            return "another change',
         '        if False:\n            return "another change'),
        ("and self.document is not None and self.committed()\n", "and self.document is not None\n"),
        profile="membership", limit=200,
    ),
    _m(
        "a voter that lost its record still counts", "P18", "base",
        ("return voter is not None and voter.record_id == record_id and record_id != 0",
         "return voter is not None"),
        profile="amnesia", limit=60,
    ),
    _m(
        "larger L not durable before the promise", "P19", "following",
        ("            self.persist(promised_ms=message.lease_ms)", "            pass"),
        profile="membership", limit=60,
    ),
    _m(
        "gate armed with a stale value", "P20", "pgvigil.watchdog.vip.gate",
        ("            if after_ns + timeout_ms * NS_PER_MS <= lease_end_ns + TOLERANCE_NS:", "            if True:"),
        profile="gate",
    ),
    _m(
        "second reading asks whether the lease has ended", "P20", "pgvigil.watchdog.vip.gate",
        ("            if after_ns + timeout_ms * NS_PER_MS <= lease_end_ns + TOLERANCE_NS:",
         "            if after_ns < lease_end_ns:"),
        profile="gate", limit=60,
    ),
    _m(
        "half: series not required", "P22 c, d", "half",
        ("if views.tie_breaker_ns - views.tie_breaker_since_ns < SERIES_LEASES * self.lease_ns:", "if False:"),
        profile="half", limit=60,
    ),
    _m(
        "half: series survives a failed question", "P22 c", "pgvigil.lifecheck.core.series",
        ("self.seen = Seen(0, 0, evidence)",
         "self.seen = Seen(self.seen.asked_at_ns, self.seen.since_ns, evidence)"),
        profile="half", limit=60,
    ),
    _m(
        "half: a late answer counts from its coming", "P22 c", "pgvigil.lifecheck.probes.tie_breaker",
        ("self._series.answered(asked_at_ns,", "self._series.answered(now_ns,"),
        ("        if not trouble and now_ns > asked_at_ns + self._interval_ns:\n", "        if False:\n"),
        profile="half", limit=100,
    ),
    _m(
        "half: lease counted from acknowledgements alone", "P22 c", "half",
        ("        if not self.half or not self.tie_breaker_answers_at(self.now_ns):\n", "        if not self.half:\n"),
        ("            return HalfRule(self.views.tie_breaker_ns, self.renew_ns, lease_ms, None)",
         "            return HalfRule(self.now_ns, self.renew_ns, lease_ms, None)"),
        profile="half", limit=60,
    ),
    _m(
        "half: lease not bounded by the newest answer", "P22 c", "lease",
        ("min(renewal.sent_at_ns, half.tie_breaker_ns)", "renewal.sent_at_ns"),
        profile="half", limit=60,
    ),
    _m(
        "half: L and tie-breaker change under half", "P22 b", "leading",
        ("        if self.half and wanted != document:\n", "        if False:\n"),
        ("        self._check_half(self.document, document)\n", ""),
        profile="half", limit=60,
    ),
    _m(
        "half: voters change under half", "P22 b", "leading",
        ("        if document is None or not self.half:\n            return False\n", "        return False\n"),
        ("        self._check_half(self.document, document)\n", ""),
        profile="half", limit=60,
    ),
    _m(
        "half: L changes together with the rule", "P22 b", "leading",
        ("self.propose(replace(document, quorum=QuorumRule.MAJORITY))",
         "self.propose(replace(self._proposed(document), quorum=QuorumRule.MAJORITY))"),
        ("        self._check_half(self.document, document)\n", ""),
        profile="half", limit=60,
    ),
    _m(
        "half: rule from the file", "P22 a", "half",
        ("        if not self.half or not self.tie_breaker_answers_at(self.now_ns):\n",
         "        if self.settings.quorum is not QuorumRule.HALF or not self.tie_breaker_answers_at(self.now_ns):\n"),
        ("        if asked is None or not self.half or not",
         "        if asked is None or self.settings.quorum is not QuorumRule.HALF or not"),
        profile="half", limit=60,
    ),
    _m(
        "half: dead or not heard for no time at all", "P22 d", "half",
        ("SILENCE_LEASES = 2", "SILENCE_LEASES = 0"),
        profile="half", limit=100,
    ),
    _m(
        "half: both halves stand for the same term", "P22", "half",
        ("least + (self.me - least) % TERM_STRIDE if self.half else least", "least"),
        ("own_term = asked.term % TERM_STRIDE == self.me ", "own_term = True "),
        profile="half", limit=60,
    ),
    _m(
        "half: commits", "P22 g", "leading",
        ("        if tally(self.voter_ids, having, ()) is not Tally.WON:\n            return\n",
         "        if 2 * len(having) < len(self.voter_ids):\n            return\n"),
        profile="half", limit=60,
    ),
    _m(
        "half: tie-breaker answers both halves (assumption T)", "P22 e", "tests.simulation.upstream",
        ("        return not any(self._parted(node, other) for other in self._nodes if other != node)\n",
         "        return True\n"),
        profile="half", limit=100,
    ),
    _m(
        "sleeps on although a tick has moved a deadline", "-", "pgvigil.ipc.loop",
        ("return None if ticked else nearest_ns", "return nearest_ns"),
        profile="mixed",
        harmless="the core's own deadlines are then late by up to 5 s, but the kernel closes the gate and every lease "
        "is compared with the clock before it is used",
    ),
    Mutant("clocks 6 % apart", "assumption 3", "", (), "links", 20, rate_ppm=30_000),
    *BACKEND_MUTANTS,
)  # fmt: skip


def mutant(name: str) -> Mutant:
    """The mutant of that name."""
    return next(item for item in MUTANTS if item.name == name)
