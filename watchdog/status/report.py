"""The status of a node as plain data, for the command line and the log.

Says "unknown" (null) rather than something stale, and gives the age of everything that was heard from others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pgvigil
from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health, NodeVerdict
from pgvigil.lifecheck.core import sentence
from pgvigil.watchdog.chronicle import plain
from pgvigil.watchdog.core.record import SENTENCES, QuorumRule
from pgvigil.watchdog.core.states import State
from pgvigil.watchdog.settings import NOT_GUARANTEED, NodeSettings
from pgvigil.watchdog.status import drift, outside
from pgvigil.watchdog.status.backends import View, listing

if TYPE_CHECKING:
    from pgvigil.watchdog.process import Main

_STATES = {
    State.BLANK: "waiting",
    State.ASKING: "candidate",
    State.VOTING: "candidate",
    State.ELECTED: "candidate",
}

TOLD_TROUBLES = 8


class Report:
    """Reads everything, changes nothing."""

    def __init__(self, main: Main) -> None:
        self._main = main

    def node_names(self) -> list[str]:
        """Names and ids by which an operator may call a node."""
        known = [f"{node.id} ({node.host})" for node in self._main.settings.nodes]
        return known + [f"{node} (a voter that the configuration does not name)" for node in self._unnamed_voters()]

    def node_named(self, name: str) -> int | None:
        """A node's id by host or id; a voter that the configuration names no more is known by its id alone."""
        found = next((node.id for node in self._main.settings.nodes if name in (node.host, str(node.id))), None)
        return next((node for node in self._unnamed_voters() if name == str(node)), None) if found is None else found

    def _unnamed_voters(self) -> list[int]:
        named = {node.id for node in self._main.settings.nodes}
        return [node for node in self._main.core.voter_ids if node not in named]

    def make(self, now_ns: int) -> dict[str, object]:
        """The whole status."""
        main, core = self._main, self._main.core
        have, need, voters = main.quorum()
        leader = core.leader_at(now_ns) or None
        return {
            "version": pgvigil.__version__,
            "node_id": main.settings.node_id,
            "label": main.settings.node.host,
            "cluster": main.settings.cluster.name,
            "insecure": main.settings.cluster.insecure,
            "now_ns": now_ns,
            "state": self._state(),
            "sentence": self._sentence(now_ns),
            "term": core.record.term,
            "leader_id": leader,
            "quorum": {"have": have, "need": need, "voters": voters},
            "lease": self._lease(now_ns),
            "waiting_for": list(core.waiting_for()) if core.document is None else [],
            "restart_wait_ms": max(0, (core.restart_wait_until_ns - now_ns) // NS_PER_MS),
            "document": {
                "term": core.record.stamp.term,
                "version": core.record.stamp.version,
                "committed": core.committed(),
            },
            "voters": self._voters(now_ns),
            "half": self._half(now_ns),
            "vip": self._vip(now_ns),
            "troubles": self._troubles(now_ns),
            "nodes": [self._node(node, now_ns) for node in main.settings.nodes],
            "backends": self.backends(now_ns),
            "external": outside.reports(main.outside, now_ns),
            **drift.section(main.drift.exchange, main.settings, now_ns),
            "pgpool_watchdog": outside.pgpool_watchdog(main.outside, main.settings, now_ns),
            "processes": [
                {
                    "name": process.name,
                    "pid": process.pid,
                    "state": process.state,
                    "restarts": process.restarts,
                    "up_ms": max(0, (now_ns - process.started_at_ns) // NS_PER_MS),
                    "last_exit": process.last_exit,
                }
                for process in main.processes
            ],
            "events": [
                {"at_ns": at_ns, "age_ms": (now_ns - at_ns) // NS_PER_MS, "text": text} for at_ns, text in main.events
            ],
        }

    def backends(self, now_ns: int) -> dict[str, object]:
        """What was agreed on the backends, and what each pgpool-II makes of them."""
        main, core = self._main, self._main.core
        document, own = core.agreed_at(now_ns), main.pools.own()
        views = {
            node.id: View(node.host, seen.backends, max(0, now_ns - seen.taken_ns) // NS_PER_MS, seen.problem)
            for node in main.settings.nodes
            if (seen := core.pools.get(node.id)) is not None
        }
        if own is not None:  # newer than what this node has told the others, and with the reasons
            views[core.me] = View(main.settings.node.host, own.seen, own.age_ms, own.trouble)
        for node in main.settings.nodes:  # who asks whether all agree has to know of those that said nothing
            if node.id in core.voter_ids and not node.witness and node.id not in views:
                views[node.id] = View(node.host, (), None, "nothing has been heard of it")
        return listing(document or core.document, document is not None, views)

    def _state(self) -> str:
        core = self._main.core
        if core.state is State.STANDBY and self._main.settings.node.witness:
            return "witness"
        if core.state is State.BLANK and core.document is None:
            return "founding"
        return _STATES.get(core.state, core.state.value)

    def _sentence(self, now_ns: int) -> str:
        core = self._main.core
        if core.state is State.BLANK and core.document is None:
            return core.waiting_sentence()
        unfit = core.unfit_reason()
        if core.state is State.STANDBY and unfit is not None and not self._main.settings.node.witness:
            return f"{core.sentence}; cannot lead now: {unfit}"
        return core.sentence

    def _lease(self, now_ns: int) -> dict[str, object]:
        core = self._main.core
        left_ms = None
        if core.lease is not None and core.lease.until_ns is not None and core.lease_held_at(now_ns):
            left_ms = (core.lease.until_ns - now_ns) // NS_PER_MS
        return {"left_ms": left_ms, "length_ms": core.lease_ns // NS_PER_MS}

    def _half(self, now_ns: int) -> dict[str, object] | None:
        """`quorum = "half"`: whether the tie-breaker answers here, and what it cannot guarantee."""
        core, seen = self._main.core, self._main.beliefs.tie_breaker
        proposed = core.settings.quorum is QuorumRule.HALF
        if not core.half and not proposed:
            return None
        address = core.document.tie_breaker if core.document is not None and core.half else core.settings.tie_breaker
        return {
            "tie_breaker": address,
            "in_force": core.half,
            "proposed": proposed,
            "answers": core.tie_breaker_answers_at(now_ns),
            "asked_ms": None if seen is None or not seen.asked_at_ns else (now_ns - seen.asked_at_ns) // NS_PER_MS,
            "answered_for_ms": (seen.asked_at_ns - seen.since_ns) // NS_PER_MS if seen and seen.asked_at_ns else None,
            "evidence": "lifecheck has not asked yet" if seen is None else seen.evidence,
            "applies": len(core.voter_ids) % 2 == 0,
            "leads_by_half": core.leads_by_half and core.lease_held_at(now_ns),
            "not_guaranteed": NOT_GUARANTEED % address,
        }

    def _voters(self, now_ns: int) -> dict[str, object]:
        """Who votes by the newest document, what of it needs an operator's eye, and who votes no more."""
        core, settings = self._main.core, self._main.settings
        document = core.document
        removed = () if document is None else document.removed
        return {
            "epoch": 0 if document is None else document.epoch,
            "ids": list(core.voter_ids),
            "not_in_configuration": self._unnamed_voters(),
            "not_voters": [node.id for node in settings.nodes if document and node.id not in core.voter_ids],
            "removed": [
                {"id": item.node_id, "cause": item.cause.value, "returns": item.returns, "text": SENTENCES[item.cause]}
                for item in removed
            ],
            "own": core.removal_sentence(),
            "removal": {
                "shutdown": settings.cluster.removal.shutdown,
                "lost_s": settings.cluster.removal.lost_s,
                "no_show_s": settings.cluster.removal.no_show_s,
            },
            "going": [
                {"id": node, "in_ms": max(0, (due_ns - now_ns) // NS_PER_MS)} for node, due_ns in core.removals_due()
            ],
        }

    def _vip(self, now_ns: int) -> dict[str, object]:
        status = self._main.vip.status()
        open_now = status.gate == "open" and status.gate_until_ns is not None
        left_ms = max(0, (status.gate_until_ns - now_ns) // NS_PER_MS) if open_now and status.gate_until_ns else None
        return {
            "wanted": status.wanted,
            "interface": status.interface,
            "addresses": [{"address": str(address), "present": present} for address, present in status.addresses],
            "gate": status.gate,
            "gate_left_ms": left_ms,
            "fence_problems": list(status.fence_problems),
            "conflict": status.conflict,
        }

    def _node(self, node: NodeSettings, now_ns: int) -> dict[str, object]:
        core = self._main.core
        common: dict[str, object] = {
            "id": node.id,
            "label": node.host,
            "priority": node.priority,
            "voter": node.id in core.voter_ids,
        }
        if node.id == core.me:
            return {**common, **self._own(now_ns)}
        return {**common, **self._peer(self._main.beliefs.verdict(node.id, now_ns), node, now_ns)}

    def _own(self, now_ns: int) -> dict[str, object]:
        main, core = self._main, self._main.core
        # The core hears once a second that verdicts went stale; who asks hears it at once.
        views = main.beliefs.views(now_ns)
        return {
            "self": True,
            "role": main.role().value,
            "term": core.record.term,
            "health": Health.ALIVE.value,
            "evidence": views.evidence,
            "since_ms": (now_ns - main.started_at_ns) // NS_PER_MS,
            "age_ms": 0,
            "pgpool": self._pgpool_word(views.pgpool, main.settings.lifecheck.checks_pgpool),
            "electable": core.named and views.pgpool is Health.ALIVE and core.unfit_reason() is None,
            "unfit": views.unfit or None,
            "checks": self._checks(now_ns),
            "paths": [],
        }

    def _checks(self, now_ns: int) -> list[dict[str, object]]:
        """What the methods of lifecheck say of this node; nothing when lifecheck has fallen silent."""
        beliefs = self._main.beliefs
        if beliefs.verdicts is None or now_ns >= beliefs.stale_at_ns():
            return []
        return [
            {
                "method": check.method,
                "health": check.health.value,
                "since_ms": max(0, (now_ns - check.since_ns) // NS_PER_MS),
                "evidence": check.evidence,
            }
            for check in beliefs.verdicts.checks
        ]

    def _troubles(self, now_ns: int) -> list[dict[str, object]]:
        """What the small processes complain about, themselves included."""
        beliefs = self._main.beliefs
        if beliefs.verdicts is None or now_ns >= beliefs.stale_at_ns():
            return []
        return [
            {"path": trouble.path, "node": trouble.node_id, "count": trouble.rejected, "reason": plain(trouble.reason)}
            for trouble in beliefs.verdicts.troubles[:TOLD_TROUBLES]
        ]

    def _labels(self) -> dict[int, str]:
        return {node.id: node.host for node in self._main.settings.nodes}

    @staticmethod
    def _pgpool_word(health: Health, checked: bool) -> str:
        """What counts as alive only because nobody looks is not called alive."""
        return health.value if checked or health is not Health.ALIVE else "not checked"

    def _peer(self, verdict: NodeVerdict | None, node: NodeSettings, now_ns: int) -> dict[str, object]:
        unknown: dict[str, object] = {
            "self": False,
            "role": "unknown",
            "term": None,
            "health": Health.UNKNOWN.value,
            "evidence": "lifecheck does not report",
            "since_ms": None,
            "age_ms": None,
            "pgpool": Health.UNKNOWN.value,
            "electable": None,
            "query": None,
            "query_evidence": None,
            "cannot_query": [],
            "paths": [],
        }
        if verdict is None:
            return unknown
        known: dict[str, object] = {
            "health": verdict.health.value,
            "evidence": sentence.evidence(verdict, self._labels()),
            "since_ms": (now_ns - verdict.since_ns) // NS_PER_MS,
            "query": verdict.query.value if verdict.query_evidence else None,
            "query_evidence": verdict.query_evidence or None,
            "paths": [
                {
                    "interface": path.interface,
                    "last_heard_ms": (now_ns - path.last_heard_at_ns) // NS_PER_MS if path.last_heard_at_ns else None,
                    "lost_permille": path.lost_permille,
                    "round_trip_us": path.round_trip_us,
                    "jitter_us": path.jitter_us,
                    "silent_ms": (now_ns - path.silent_since_ns) // NS_PER_MS if path.silent else None,
                }
                for path in verdict.paths
            ],
        }
        beat = verdict.beat
        if beat is None:
            return {**unknown, **known}
        known["age_ms"] = (now_ns - verdict.beat_at_ns) // NS_PER_MS + beat.content_age_ms
        if verdict.health is not Health.ALIVE:
            return {**unknown, **known}
        known.update(role=beat.role.value, term=beat.term, electable=beat.electable)
        known.update(cannot_query=list(beat.cannot_query))
        # The methods are the same on all nodes; whether a witness has a pgpool-II is its own affair.
        methods = self._main.settings.lifecheck.methods
        checked = bool({"process", "query", "external"} & set(methods))
        known.update(pgpool=self._pgpool_word(beat.pgpool, checked))
        return {**unknown, **known}
