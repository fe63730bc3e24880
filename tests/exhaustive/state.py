"""One decision core as a value: its copy, its ageing and the key by which two equal cores are known as one.

The search keeps a core at one fixed instant, `BASE_NS`. Time passing makes every instant in it earlier; an instant that
has passed and can no longer matter becomes `BASE_NS` itself. So two cores that will behave alike from now on are equal,
whenever they came to be, and whatever one did is known for the other. Texts for people are left out of the key: no
decision reads them. An attribute of the core that this file has never heard of is kept as it is (its name tells whether
it is an instant), which may cost states but hides none. Nodes are not exchangeable, because ranks use their ids, so
there is no symmetry to use.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import fields, is_dataclass, replace
from operator import itemgetter
from typing import Any

from pgvigil.watchdog.core.base import Round
from pgvigil.watchdog.core.engine import Watchdog
from pgvigil.watchdog.core.founding import FRESH_HELLO_RENEWALS
from pgvigil.watchdog.core.lease import Lease, Promise, Renewal, lease_end_ns
from pgvigil.watchdog.core.quorum import Tally, tally

BASE_NS = 1_000_000_000_000
LONG_AGO_NS = BASE_NS - 100_000_000_000
FUTURE = ("until", "next", "deadline")

# Read by no decision, or by none in these models: all starts count as one, no document says half (P22), and nobody has
# backends (P23).
IGNORED = (
    "settings", "me", "draw", "now_ns", "started_at_ns", "sentence", "effects", "leader_heard_ns", "waiting_said",
    "warned", "_witnesses", "_voters_of", "_voter_ids", "claim_heard_ns", "heard_ns", "dead_since_ns",
    "keeps_majority_until_ns", "agreed", "told_committed", "seen", "seen_number", "next_seen_ns", "pools", "wanted",
    "waiting", "told_asks", "table_since_ns", "unlisted_since_ns", "roles_since", "led_ns", "unwatched_since_ns",
)  # fmt: skip
PLAIN = (
    "record", "state", "known_term", "leader_id", "leader_term", "released_heard_term", "vote_granted_to",
    "round_number", "stepped_back_in_round", "successor", "committed_stamp", "change_request", "views", "fence",
    "stopping", "promise", "round_ns",
)  # fmt: skip
# Instants that only matter while they lie ahead.
AHEAD = (
    "restart_wait_until_ns", "vote_granted_until_ns", "pause_until_ns", "no_stand_until_ns", "successor_until_ns",
    "next_hello_ns", "doubt_until_ns",
)  # fmt: skip
MAYBE = ("free_since_ns", "expected_wake_ns", "better_since_ns", "stop_deadline_ns")
BOXES = ("round", "lease", "stored", "hellos", "unranked_until_ns", "started_tokens", "ended_commands")
WISHES = ("hand_over", "hand_over_told")
KNOWN = frozenset((*IGNORED, *PLAIN, *AHEAD, *MAYBE, *BOXES, *WISHES))
_plain = itemgetter(*PLAIN)
_ahead = itemgetter(*AHEAD)
_maybe = itemgetter(*MAYBE)


def clone(core: Watchdog) -> Watchdog:
    """A core that can be stepped without a trace in the old one; much faster than `copy.deepcopy`."""
    twin = object.__new__(Watchdog)
    mine = twin.__dict__
    mine.update(core.__dict__)
    for name in ("stored", "hellos", "unranked_until_ns", "started_tokens", "ended_commands", "warned"):
        mine[name] = mine[name].copy()
    asked, lease = mine["round"], mine["lease"]
    if asked is not None:
        mine["round"] = Round(
            asked.round_id, asked.term, asked.real, asked.ends_at_ns, set(asked.yes), set(asked.no), {}
        )
    if lease is not None:
        mine["lease"] = _clone_lease(lease)
    for name in WISHES:
        mine[name] = copy.copy(mine[name])
    for name in mine.keys() - KNOWN:
        mine[name] = copy.deepcopy(mine[name])  # new in the core, and unknown here
    return twin


def _clone_lease(lease: Lease) -> Lease:
    twin = copy.copy(lease)
    twin._renewals = [
        Renewal(item.sequence, item.sent_at_ns, item.lease_ms, set(item.acknowledged)) for item in lease._renewals
    ]
    return twin


def age(core: Watchdog, passed_ns: int) -> None:
    """Let time pass for a core that nobody else holds, and forget the past that cannot matter any more."""
    mine = core.__dict__
    core.now_ns = core.started_at_ns = BASE_NS
    core.sentence, core.effects, core.leader_heard_ns, core.waiting_said = "", [], None, True
    core.claim_heard_ns, core.keeps_majority_until_ns, core.heard_ns, core.dead_since_ns = BASE_NS, 0, {}, {}
    core.warned.clear()
    for name in AHEAD:
        mine[name] = max(mine[name] - passed_ns, BASE_NS)
    _age_maybe(core, passed_ns)
    if core.promise is not None:
        core.promise = _aged_promise(core.promise, passed_ns)
    if core.round is not None:
        core.round.ends_at_ns = max(core.round.ends_at_ns - passed_ns, BASE_NS)
        core.round.reasons.clear()
    if core.lease is not None:
        _age_lease(core, core.lease, passed_ns)
    for wish in (core.hand_over, core.hand_over_told):
        if wish is not None:
            wish.deadline_ns, wish.reason = max(wish.deadline_ns - passed_ns, BASE_NS), ""
    core.unranked_until_ns = {
        node: at - passed_ns for node, at in core.unranked_until_ns.items() if at - passed_ns > BASE_NS
    }
    if core.vote_granted_until_ns == BASE_NS:
        core.vote_granted_to = 0
    if core.successor_until_ns == BASE_NS:
        core.successor = 0
    _age_founding(core, passed_ns)
    for name in mine.keys() - KNOWN:
        mine[name] = _aged(name, mine[name], passed_ns)


def _age_maybe(core: Watchdog, passed_ns: int) -> None:
    """Instants of the past that are compared with now after something was added to them."""
    oldest_rank_ns = BASE_NS - (len(core.settings.nodes) + 2) * core.stagger_ns
    if core.free_since_ns is not None:
        core.free_since_ns = max(core.free_since_ns - passed_ns, oldest_rank_ns)
    if core.expected_wake_ns is not None:
        core.expected_wake_ns = max(core.expected_wake_ns - passed_ns, BASE_NS - core.renew_ns - 1)
    if core.better_since_ns is not None:
        core.better_since_ns = max(core.better_since_ns - passed_ns, BASE_NS - 2 * core.lease_ns)
    if core.stop_deadline_ns is not None:
        core.stop_deadline_ns = max(core.stop_deadline_ns - passed_ns, BASE_NS)


def _aged_promise(promise: Promise, passed_ns: int) -> Promise:
    until_ns = max(promise.until_ns - passed_ns, BASE_NS)
    return promise if until_ns == promise.until_ns else replace(promise, until_ns=until_ns)


def _age_lease(core: Watchdog, lease: Lease, passed_ns: int) -> None:
    """A renewal matters while it may still prolong the lease: not behind the newest that a majority acknowledged.

    That holds as long as L is the same for all renewals of a search, as it is in every model.
    """
    lease.next_renewal_ns = max(lease.next_renewal_ns - passed_ns, BASE_NS)
    if lease.until_ns is None:
        lease.since_ns = max(lease.since_ns - passed_ns, BASE_NS - core.lease_ns)
    else:
        lease.since_ns, lease.until_ns = BASE_NS, max(lease.until_ns - passed_ns, BASE_NS)
    for renewal in lease._renewals:
        renewal.sent_at_ns -= passed_ns
    if lease.backed:
        kept: list[Renewal] = []
        for renewal in reversed(lease._renewals):
            end_ns = lease_end_ns(renewal.sent_at_ns, renewal.lease_ms)
            won = tally(core.voter_ids, renewal.acknowledged, ()) is Tally.WON
            if won and end_ns <= max(lease.until_ns or BASE_NS, BASE_NS):
                break
            if end_ns > BASE_NS:
                kept.insert(0, renewal)
        lease._renewals = kept


def _age_founding(core: Watchdog, passed_ns: int) -> None:
    """Who said hello counts only while there is no document."""
    if core.document is not None:
        core.hellos, core.next_hello_ns = {}, BASE_NS
        return
    stale_ns = BASE_NS - FRESH_HELLO_RENEWALS * core.renew_ns - 1
    core.hellos = {node: (max(hello[0] - passed_ns, stale_ns), *hello[1:]) for node, hello in core.hellos.items()}


def _aged(name: str, value: Any, passed_ns: int) -> Any:
    """An attribute that is new here: whatever is named `..._ns` in a core is an instant.

    Those that tell until when something is so, or when it is next due, only matter while they lie ahead.
    """
    if isinstance(value, dict):
        return {place: _aged(name, item, passed_ns) for place, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {item.name: _aged(item.name, getattr(value, item.name), passed_ns) for item in fields(value)}
        return replace(value, **changes)
    if not name.endswith("_ns") or not isinstance(value, int):
        return value
    return max(value - passed_ns, BASE_NS if any(word in name for word in FUTURE) else LONG_AGO_NS)


def key(core: Watchdog) -> Hashable:
    """Equal for two aged cores exactly if no event can ever tell them apart."""
    mine = core.__dict__
    return (
        _plain(mine),
        _ahead(mine),
        _maybe(mine),
        _round_key(core.round),
        _lease_key(core.lease),
        tuple(sorted(core.stored.items())),
        tuple(sorted(core.hellos.items())),
        tuple(sorted(core.unranked_until_ns.items())),
        tuple(sorted(core.started_tokens)),
        tuple(sorted(core.ended_commands.items())),
        tuple(
            None if wish is None else (wish.successor, wish.deadline_ns, wish.request_id, wish.asker, wish.stop)
            for wish in (core.hand_over, core.hand_over_told)
        ),
        tuple((name, _frozen(mine[name])) for name in sorted(mine.keys() - KNOWN)),
    )


def _round_key(asked: Round | None) -> Hashable:
    if asked is None:
        return None
    return asked.round_id, asked.term, asked.real, asked.ends_at_ns, frozenset(asked.yes), frozenset(asked.no)


def _lease_key(lease: Lease | None) -> Hashable:
    if lease is None:
        return None
    renewals = tuple(
        (item.sequence, item.sent_at_ns, item.lease_ms, frozenset(item.acknowledged)) for item in lease._renewals
    )
    return (
        lease.term,
        lease.boot,
        lease.since_ns,
        lease.sequence,
        lease.backed,
        lease.until_ns,
        lease.next_renewal_ns,
        renewals,
    )


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((place, _frozen(item)) for place, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, set):
        return frozenset(value)
    if is_dataclass(value) and not isinstance(value, type):
        return tuple((item.name, _frozen(getattr(value, item.name))) for item in fields(value))
    frozen: Hashable = value
    return frozen
