"""The agreed table of backends: pure changes of the document (P23 d).

Each function takes a document and gives the next one; nothing here knows of leaders, votes or time. A change of a
backend's status always carries a new number, so whatever was asked or seen before it is known to be old. What a command
brought about is part of the very document that says how it ended: no leader can find the one without the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from pgvigil.watchdog.core.messages import SeenBackend, SeenStatus
from pgvigil.watchdog.core.quorum import majority
from pgvigil.watchdog.core.record import Backend, BackendRole, BackendStatus, Decision, DecisionKind, Document, Intent

MAX_BACKENDS = 64
KEPT_DECISIONS = 16
KEPT_INTENTS = 16
SHORT_BYTES = 200
PENDING, DONE, FAILED, UNKNOWN = "pending", "done", "failed", "unknown"
FAILOVER, FAILBACK, FOLLOW_PRIMARY = "failover", "failback", "follow_primary"
FOLLOWS = "follows the new primary"
FOLLOWED = "it follows the new primary now"
UP, DOWN = BackendStatus.UP, BackendStatus.DOWN
PRIMARY, STANDBY = BackendRole.PRIMARY, BackendRole.STANDBY

Table = Mapping[int, Sequence[SeenBackend]]  # by node


def short(text: str, limit: int = SHORT_BYTES) -> str:
    """One line that is no longer than `limit` bytes: the document has to fit into a message."""
    return " ".join(text.split()).encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def event_of(number: int, follower: int | None = None) -> str:
    """The event of a command: one per decision, and one per follower of a decision that made a primary."""
    return f"decision {number}" + ("" if follower is None else f" backend {follower}")


def value_of(arguments: Iterable[str], name: str) -> str | None:
    """The value of one of pgpool-II's placeholders."""
    return next((item[len(name) + 1 :] for item in arguments if item.startswith(f"{name}=")), None)


def id_of(arguments: Iterable[str], name: str) -> int | None:
    """The same, as a backend id."""
    value = (value_of(arguments, name) or "").strip()
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 4 else None


# --- the table from what pgpool-IIs have ------------------------------------------------------------


def first_table(views: Table, number: int) -> tuple[Backend, ...]:
    """The table that most of these views agree on; a backend is down only if every view says so."""
    listed = Counter((seen.backend_id, seen.host, seen.port) for view in views.values() for seen in _used(view))
    agreed = sorted(key for key, count in listed.items() if count >= majority(len(views)))
    known = {backend_id: (host, port) for backend_id, host, port in agreed}
    backends = [Backend(key, *known[key], UP, BackendRole.UNKNOWN, "", number) for key in known]
    return tuple(_as_seen(backend, views) for backend in backends[:MAX_BACKENDS])


def _used(view: Sequence[SeenBackend]) -> list[SeenBackend]:
    return [seen for seen in view if seen.status is not SeenStatus.UNUSED]


def _as_seen(backend: Backend, views: Table) -> Backend:
    seen = [item for view in views.values() for item in _used(view) if _same(backend, item)]
    down = bool(seen) and all(item.status is SeenStatus.DOWN for item in seen)
    reason = "it was down everywhere when it became known" if down else ""
    return replace(backend, status=DOWN if down else UP, role=_most(seen), reason=reason)


def _same(backend: Backend, seen: SeenBackend) -> bool:
    return (backend.backend_id, backend.host, backend.port) == (seen.backend_id, seen.host, seen.port)


def _most(seen: Sequence[SeenBackend]) -> BackendRole:
    roles = Counter(item.role for item in seen)
    return next((role for role, count in roles.items() if 2 * count > len(seen)), BackendRole.UNKNOWN)


def tended_table(document: Document, views: Table, members: int, dropped: Collection[int]) -> Document:
    """New backends of a majority of the members are added; `dropped` ones, that nobody lists any more, go."""
    kept = [backend for backend in document.backends if backend.backend_id not in dropped]
    listed = Counter((seen.backend_id, seen.host, seen.port) for view in views.values() for seen in _used(view))
    known = {backend.backend_id for backend in kept}
    number = document.decided + 1
    for (backend_id, host, port), count in sorted(listed.items()):
        if backend_id not in known and count >= majority(members) and len(kept) < MAX_BACKENDS:
            known.add(backend_id)
            new = _as_seen(Backend(backend_id, host, port, UP, BackendRole.UNKNOWN, "", number), views)
            second = new.role is PRIMARY and primary_of(kept) is not None
            kept.append(replace(new, role=STANDBY) if second else new)
    table = tuple(sorted(kept, key=lambda backend: backend.backend_id))
    return document if table == document.backends else replace(document, backends=table, decided=number)


def unlisted(document: Document, views: Table) -> tuple[int, ...]:
    """Backends that no view has, by id, host and port."""
    seen = [item for view in views.values() for item in _used(view)]
    return tuple(backend.backend_id for backend in document.backends if not any(_same(backend, item) for item in seen))


def corrected_roles(document: Document, views: Table, members: int) -> Document:
    """Roles that most members see and the table lacks: another primary that is up, and roles never known."""
    table = document.backends
    needed = majority(members)
    for backend in table:
        seen = [item for view in views.values() for item in _used(view) if _same(backend, item)]
        up = [item for item in seen if item.status is not SeenStatus.DOWN]
        primary = sum(1 for item in up if item.role is PRIMARY) >= needed
        if primary and backend.status is UP and backend.role is not PRIMARY:
            return replace(document, backends=made_primary(table, backend.backend_id))
        role = _most(seen)
        if backend.role is BackendRole.UNKNOWN and role not in (PRIMARY, BackendRole.UNKNOWN) and len(seen) >= needed:
            table = _changed(table, replace(backend, role=role))
    return replace(document, backends=table)


def _changed(table: Sequence[Backend], backend: Backend) -> tuple[Backend, ...]:
    return tuple(backend if item.backend_id == backend.backend_id else item for item in table)


def made_primary(table: Sequence[Backend], backend_id: int) -> tuple[Backend, ...]:
    """One primary: the one before it is a standby from now on."""
    return tuple(
        replace(item, role=PRIMARY)
        if item.backend_id == backend_id
        else replace(item, role=STANDBY if item.role is PRIMARY else item.role)
        for item in table
    )


def primary_of(table: Iterable[Backend]) -> Backend | None:
    """The backend whose role is primary, up or down."""
    return next((item for item in table if item.role is PRIMARY), None)


def up_primary_of(document: Document) -> Backend | None:
    """The primary, if it is up: only then there is somebody to follow."""
    primary = primary_of(document.backends)
    return primary if primary is not None and primary.status is UP else None


# --- decisions --------------------------------------------------------------------------------------


def decided(document: Document, decision: Decision) -> Document:
    """The document with one decision more; its number is on every backend whose status it changes."""
    number, backend_id = decision.number, decision.backend_id
    table = document.backends
    target = document.backend(backend_id)
    assert target is not None and number == document.decided + 1
    if decision.kind is DecisionKind.PROMOTE:
        old = primary_of(table)
        table = _changed(table, replace(target, decision=number))
        if old is not None and old.backend_id != backend_id:
            reason = f"backend {backend_id} was promoted"
            table = _changed(table, replace(old, status=DOWN, reason=reason, decision=number))
    else:
        status = DOWN if decision.kind is DecisionKind.DOWN else UP
        table = _changed(table, replace(target, status=status, reason=decision.reason, decision=number))
    made = (*document.decisions, decision)
    waited_for = {item.decision for item in table if item.status is DOWN and item.reason == FOLLOWS}
    decisions = tuple(item for item in made[:-KEPT_DECISIONS] if item.number in waited_for) + made[-KEPT_DECISIONS:]
    return replace(document, backends=table, decided=number, decisions=decisions)


def with_primary(document: Document, backend_id: int, number: int, follow: bool) -> Document:
    """A new primary; with a command to follow it, every other standby is down until it does."""
    table = made_primary(document.backends, backend_id)
    waiting = [
        replace(item, status=DOWN, reason=FOLLOWS, decision=number)
        if follow and item.backend_id != backend_id and item.role is STANDBY and _to_follow(item, number)
        else item
        for item in table
    ]
    return replace(document, backends=tuple(waiting))


def _to_follow(backend: Backend, number: int) -> bool:
    return backend.status is UP or (backend.reason == FOLLOWS and backend.decision != number)


def followers(document: Document) -> tuple[Backend, ...]:
    """Backends that are down until they follow the primary."""
    heads = {decision.number: decision.backend_id for decision in document.decisions}
    return tuple(
        item
        for item in document.backends
        if item.status is DOWN and item.reason == FOLLOWS and heads.get(item.decision) not in (None, item.backend_id)
    )


def with_intent(document: Document, intent: Intent) -> Document:
    """One command more; settled ones are forgotten first, the oldest first, pending ones and the newest of each name
    never: that there is one tells the leader that this term's escalation has begun.
    """
    intents = [*document.intents, intent]
    newest = {item.name: item for item in intents}
    settled = [item for item in intents if item.state != PENDING and newest[item.name] is not item]
    for item in settled[: max(len(intents) - KEPT_INTENTS, 0)]:
        intents.remove(item)
    return replace(document, intents=tuple(intents))


def intent_of(document: Document, event: str, name: str = "") -> Intent | None:
    """The command of an event, the newest if there are more."""
    found = [item for item in document.intents if item.event == event and name in ("", item.name)]
    return found[-1] if found else None


def settled(document: Document, old: Intent, state: str, detail: str, follow: bool, by: int) -> Document:
    """P23 d: how a command ended, and what follows from it, in one document."""
    new = replace(old, state=state, detail=short(detail))
    document = replace(document, intents=tuple(new if item == old else item for item in document.intents))
    if old.name == FAILOVER and state == DONE:
        return _after_failover(document, new, follow)
    if old.name == FOLLOW_PRIMARY:
        return _after_follow(document, new, by)
    return document


def _after_failover(document: Document, intent: Intent, follow: bool) -> Document:
    number = number_of(intent.event)
    decision = next((item for item in document.decisions if item.number == number), None)
    old = primary_of(document.backends)
    new = document.backend(-1 if (main := id_of(intent.arguments, "m")) is None else main)
    if decision is None or old is None or new is None or new.status is not UP or new.backend_id == old.backend_id:
        return document
    if decision.kind is DecisionKind.DOWN and decision.backend_id != old.backend_id:
        return document  # a standby failed
    return with_primary(document, new.backend_id, number, follow)


def _after_follow(document: Document, intent: Intent, by: int) -> Document:
    follower = next(
        (item for item in followers(document) if event_of(item.decision, item.backend_id) == intent.event), None
    )
    if follower is None:
        return document
    if intent.state == DONE:
        return decided(
            document, Decision(document.decided + 1, DecisionKind.UP, follower.backend_id, False, by, FOLLOWED)
        )
    return not_followed(document, follower, f"follow_primary ended {intent.state}: {intent.detail}".rstrip(": "))


def not_followed(document: Document, follower: Backend, why: str) -> Document:
    """A follower stays down until an operator looks into it, or it is asked for."""
    return replace(document, backends=_changed(document.backends, replace(follower, reason=short(why))))


def number_of(event: str) -> int:
    """The decision that an event belongs to; 0 for other events."""
    words = event.split()
    return int(words[1]) if len(words) in (2, 4) and words[0] == "decision" and words[1].isdecimal() else 0


# --- arguments of commands --------------------------------------------------------------------------


def arguments_for(
    document: Document, decision: Decision, asked: Sequence[str], doubted: Collection[int] = ()
) -> tuple[str, ...]:
    """pgpool-II's placeholders for failover and failback, as the table has them; the folders as asked.

    The asker's pgpool-II may know an older primary, or none: it misses whatever happens while it looks for one. With
    that, a script would take the failed primary for a standby. A new main node that is not up by the table is none, and
    one of the `doubted` is one only if there are no others: the lowest one that is up and not doubted takes its place.
    """
    table = document.backends
    down = decision.backend_id
    old = primary_of(table)
    main = id_of(asked, "m")
    if decision.kind is DecisionKind.PROMOTE:
        down, main, asked = -1 if old is None else old.backend_id, decision.backend_id, ()
    chosen = None if main is None else document.backend(main)
    kept = list(asked)
    barred = down if decision.kind is DecisionKind.DOWN else -1
    able = [item for item in table if item.status is UP and item.backend_id != barred]
    sound = [item for item in able if item.backend_id not in doubted] or able
    if chosen not in sound:
        kept = [item for item in kept if item.split("=")[0] not in ("m", "H", "r", "R")]
        chosen = sound[0] if sound else None
    filled = _places(document.backend(down), chosen, old, old_main(document, decision))
    if old is None and value_of(kept, "P") is not None:  # the table does not know a primary
        filled = {name: value for name, value in filled.items() if name not in ("P", "N", "S")}
    others = [item for item in kept if item.split("=")[0] not in filled]
    return tuple(sorted((*others, *(f"{name}={value}" for name, value in filled.items()))))


def arguments_to_follow(document: Document, follower: Backend, primary: Backend) -> tuple[str, ...]:
    """The same for follow_primary; the old primary is that of the decision."""
    before = intent_of(document, event_of(follower.decision), FAILOVER)
    left = next(
        (item for item in document.backends if item.decision == follower.decision and item.reason != FOLLOWS), None
    )
    places = _places(follower, primary, left, None)
    if before is not None:
        places.update({name: value_of(before.arguments, name) or "" for name in ("M", "P", "N", "S")})
        if id_of(before.arguments, "m") == primary.backend_id:
            places["R"] = value_of(before.arguments, "R") or ""
    return tuple(sorted(f"{name}={value}" for name, value in places.items()))


def old_main(document: Document, decision: Decision) -> Backend | None:
    """pgpool-II's main node from before a decision: the lowest that was up."""
    was_up = [item for item in document.backends if (item.status is UP) == _kept(item, decision)]
    return was_up[0] if was_up else None


def _kept(backend: Backend, decision: Decision) -> bool:
    """Whether this very decision has left the status of a backend as it was."""
    promoted = decision.kind is DecisionKind.PROMOTE and backend.backend_id == decision.backend_id
    return backend.decision != decision.number or promoted


def _places(
    backend: Backend | None, main: Backend | None, old: Backend | None, before: Backend | None
) -> dict[str, str]:
    def of(item: Backend | None) -> tuple[str, str, str]:
        return ("-1", "", "") if item is None else (str(item.backend_id), item.host, str(item.port))

    (d, h, p), (m, main_host, r), (primary, n, s) = of(backend), of(main), of(old)
    places = {"d": d, "h": h, "p": p, "m": m, "H": main_host, "r": r, "P": primary, "N": n, "S": s}
    return {**places, "M": of(before)[0]}
