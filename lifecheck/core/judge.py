"""The verdicts of one node about its peers, since when they hold, and when they can change.

Events in, verdicts out: `step` takes what happened and returns the verdicts that changed; `wake` says when to step
again. The methods do the judging (`detector`), `verdict.combine` puts their opinions together; this module only keeps
the verdicts, and refuses to call a wavering sentence a change: only the health of a node, or what it says of itself,
is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgvigil.ipc.frames import Health, HeardTogether, NodeVerdict
from pgvigil.lifecheck.core.detector import HeartbeatMethod
from pgvigil.lifecheck.core.path import PathChange, Patience
from pgvigil.lifecheck.core.verdict import Method, combine, combine_health


@dataclass(frozen=True, slots=True)
class Late:
    """Our own loop was late by `lateness_ns`."""

    lateness_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """A method was told something from outside, about whomever."""


Event = HeardTogether | Late | Told
"""What a receiver passes on, our own lateness, or a word from outside."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`changed`: nodes whose health is another one now; `news`: whether watchdog main should hear at once.

    `paths` are those that have changed while their node stayed what it was.
    """

    changed: tuple[NodeVerdict, ...]
    news: bool
    paths: tuple[PathChange, ...] = ()


class Judge:
    """Step-style: `step(now, event)`, `wake()`, and `verdicts(now)` for the whole picture."""

    def __init__(
        self,
        labels: Mapping[int, str],
        interfaces: tuple[str, ...],
        methods: Sequence[str],
        patience: Patience,
        interval_ns: int,
        started_at_ns: int,
    ) -> None:
        self._node_ids = tuple(labels)
        self._heartbeats = HeartbeatMethod(labels, interfaces, patience, interval_ns, started_at_ns)
        self._methods: list[Method] = [self._heartbeats] if "heartbeat" in methods else []
        self._health = dict.fromkeys(self._node_ids, (Health.UNKNOWN, started_at_ns))
        self._words: dict[int, tuple[object, ...]] = {}
        self._wake_ns = self._next_wake()

    def add(self, method: Method) -> None:
        """Let one more method judge."""
        self._methods.append(method)

    def step(self, now_ns: int, event: Event | None = None) -> Outcome:
        """Take an event, or just the passing of time."""
        news = False
        if isinstance(event, Late):
            for method in self._told():
                method.late(event.lateness_ns)
        elif isinstance(event, HeardTogether):
            news = self._take(event, now_ns)
        touched = self._touched(now_ns, event)
        before = {node_id: self._health[node_id][0] for node_id in touched}
        changed = tuple(verdict for node_id in touched if (verdict := self._reconsider(node_id, now_ns)))
        paths = self._path_changes(before, now_ns)
        self._wake_ns = self._next_wake()
        return Outcome(changed, news or bool(changed or paths), paths)

    def _take(self, event: HeardTogether, now_ns: int) -> bool:
        news = False
        for quality in event.qualities:
            self._heartbeats.measured(event.path, quality)
        if event.quiet_at_ns:
            self._heartbeats.quiet(event.path, event.quiet_at_ns, now_ns)
        for one in event.beats:
            if self._heartbeats.heard(one.node_id, one.path, one.received_at_ns, one.beat, now_ns):
                news = self._says_something_new(one.node_id) or news
        return news

    def _path_changes(self, before: Mapping[int, Health], now_ns: int) -> tuple[PathChange, ...]:
        """Paths of nodes that neither died nor came back: their verdict says it all."""
        found: list[PathChange] = []
        for node_id, health in before.items():
            changes = self._heartbeats.path_changes(node_id, now_ns)
            if Health.DEAD not in (health, self._health[node_id][0]):
                found += changes
        return tuple(found)

    def _touched(self, now_ns: int, event: Event | None) -> tuple[int, ...]:
        """Whose verdict can have changed: before `wake` time changes none.

        A heartbeat changes its sender's, and that of peers that are silent: its sender may hear them.
        """
        if isinstance(event, Late | Told) or (self._wake_ns is not None and now_ns >= self._wake_ns):
            return self._node_ids
        if event is None:
            return ()
        senders = {one.node_id for one in event.beats}
        return tuple(node_id for node_id in self._node_ids if node_id in senders or self._heartbeats.waits(node_id))

    def wake(self) -> int | None:
        """The next instant at which a verdict can change without an event."""
        return self._wake_ns

    def _next_wake(self) -> int | None:
        return min((at for method in self._told() if (at := method.wake()) is not None), default=None)

    def _told(self) -> list[Method]:
        """The methods that judge, and heartbeats in any case: nobody hands over to a node that is silent."""
        return self._methods if self._heartbeats in self._methods else [*self._methods, self._heartbeats]

    def verdicts(self, now_ns: int) -> tuple[NodeVerdict, ...]:
        """All verdicts with their evidence of now; call `step` first."""
        return tuple(self._verdict(node_id, now_ns) for node_id in self._node_ids)

    def count(self, health: Health) -> int:
        """How many peers have this verdict."""
        return sum(known is health for known, _ in self._health.values())

    def _reconsider(self, node_id: int, now_ns: int) -> NodeVerdict | None:
        views = [view for method in self._methods if (view := method.health(node_id, now_ns)) is not None]
        health = combine_health(views)
        if health is self._health[node_id][0]:
            return None
        self._health[node_id] = (health, now_ns)
        return self._verdict(node_id, now_ns)

    def _evidence(self, node_id: int, now_ns: int) -> str:
        opinions = [opinion for method in self._methods if (opinion := method.opinion(node_id, now_ns)) is not None]
        return combine(opinions).evidence

    def _verdict(self, node_id: int, now_ns: int) -> NodeVerdict:
        health, since_ns = self._health[node_id]
        beat, beat_at_ns = self._heartbeats.beat(node_id)
        evidence, paths = self._evidence(node_id, now_ns), self._heartbeats.paths(node_id)
        confirmed_by = self._heartbeats.confirmed_by(node_id) if health is Health.DEAD else ()
        return NodeVerdict(node_id, health, since_ns, evidence, paths, beat, beat_at_ns, confirmed_by=confirmed_by)

    def _says_something_new(self, node_id: int) -> bool:
        beat, _ = self._heartbeats.beat(node_id)
        if beat is None:
            return False
        words = (beat.role, beat.term, beat.electable, beat.pgpool, beat.cannot_query)
        known = self._words.get(node_id)
        self._words[node_id] = words
        return words != known
