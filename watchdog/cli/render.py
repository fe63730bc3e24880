"""The status as text for people: a page, or one line.

Pure: JSON in, text out. What is old or comes from a node that is not alive is shown as unknown, because a role of two
seconds ago may be another node's by now. Tolerates missing keys: the node may run another version.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

OLD_MS = 2000
SHOWN_EVENTS = 5
SHOWN_TROUBLES = 5
SHOWN_DRIFT = 20
DASH = "-"
UNKNOWN = "unknown"

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
_COLOURS = {
    "leader": GREEN, "alive": GREEN, "open": GREEN, "up": GREEN, "running": GREEN,
    "dead": RED, "failed": RED, "missing": RED, "conflict": RED,
    "unknown": YELLOW, "candidate": YELLOW, "starting": YELLOW, "stopping": YELLOW, "backing off": YELLOW,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be known: the supervisor's pid, watchdog main's status, and why one of them is missing."""

    pid: int | None
    status: dict[str, Any] | None
    trouble: str


def wants_colour(stream: TextIO) -> bool:
    """Colour on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def page(reading: Reading, colour: bool = False) -> str:
    """The whole status, several lines."""
    if reading.status is None:
        return "\n".join(_silent(reading, colour))
    status = reading.status
    facts, nodes = _facts(status, colour), _nodes(status, colour)
    backends = _backends(status, colour)
    outside = [_reports(status, colour), _pgpool_watchdog(status, colour)]
    details = [_paths(status, colour), _checks(status, colour), *outside, _processes(status, colour)]
    blocks = [_head(status, colour), facts, nodes, backends, _drift(status, colour), *details]
    return "\n\n".join("\n".join(block) for block in [*blocks, _events(status, colour)] if block)


def _silent(reading: Reading, colour: bool) -> list[str]:
    if reading.pid is None:
        return [paint(reading.trouble, RED, colour)]
    return [
        paint(f"unknown: {reading.trouble}", YELLOW, colour),
        f"supervisor  process {reading.pid} runs",
        *(f"{name:<12}{paint(UNKNOWN, YELLOW, colour)}" for name in ("role", "leader", "lease", "virtual IP", "nodes")),
    ]


def _head(status: dict[str, Any], colour: bool) -> list[str]:
    quorum, document = _table(status, "quorum"), _table(status, "document")
    lines = [
        paint(f"{_word(status, 'label')}: {_word(status, 'sentence')}", BOLD, colour),
        f"cluster {_word(status, 'cluster')}, node {_word(status, 'node_id')}, {_word(status, 'state')}, "
        f"term {_word(status, 'term')}, quorum {_word(quorum, 'have')} of {_word(quorum, 'voters')} "
        f"({_word(quorum, 'need')} needed), document {_word(document, 'term')}.{_word(document, 'version')} "
        f"{'committed' if document.get('committed') else 'not committed'}",
    ]
    if status.get("insecure"):
        lines.append(paint("INSECURE: nothing is authenticated (insecure = true)", RED, colour))
    if status.get("waiting_for"):
        names = ", ".join(_label(status, node_id) for node_id in _items(status, "waiting_for"))
        lines.append(f"waiting for {names}; if one of them cannot come, 'pgvigil bootstrap' ends the waiting")
    lines += _half(status, colour)
    lines += _voters(status, colour)
    if status.get("restart_wait_ms"):
        lines.append(f"neither votes nor stands for another {duration(status['restart_wait_ms'])} after its start")
    return lines


def _half(status: dict[str, Any], colour: bool) -> list[str]:
    """`quorum = "half"`: what it cannot guarantee, and how the tie-breaker is."""
    half = _table(status, "half")
    if not half:
        return []
    answers = "answers" if half.get("answers") else "DOES NOT ANSWER"
    if answers != "answers" and half.get("answered_for_ms") is not None:
        answers = "answers, but not yet without a failure for three leases"
    leads = "; this node LEADS WITH HALF of the voters" if half.get("leads_by_half") else ""
    odd = "" if half.get("applies", True) else "; an odd number of voters: a majority is needed"
    if not half.get("in_force", True):
        odd = "; the cluster's document still demands a majority"
    elif not half.get("proposed", True):
        odd += "; this node's file says majority"
    return [
        paint(f"NOT GUARANTEED: {_word(half, 'not_guaranteed')}", RED, colour),
        paint(
            f"tie-breaker {_word(half, 'tie_breaker')} {answers} ({_word(half, 'evidence')}){odd}{leads}",
            YELLOW,
            colour,
        ),
    ]


def _voters(status: dict[str, Any], colour: bool) -> list[str]:
    """What of the voters needs an operator's eye."""
    voters = _table(status, "voters")
    lines = []
    if voters.get("own"):
        lines.append(paint(f"no voter: {_word(voters, 'own')}", YELLOW, colour))
    unnamed = _items(voters, "not_in_configuration")
    if unnamed:
        ids = ", ".join(str(node) for node in unnamed)
        text = f"voters that the configuration does not name: {ids}; add them to it, or 'pgvigil node remove ID'"
        lines.append(paint(text, YELLOW, colour))
    for item in _rows(voters, "going"):
        label = _label(status, item.get("id"))
        lines.append(paint(f"lost        {label} is to be removed in {duration(item.get('in_ms'))}", YELLOW, colour))
    causes = {str(item.get("id")): _word(item, "text") for item in _rows(voters, "removed")}
    for node in _items(voters, "not_voters"):
        if node != status.get("node_id"):
            why = (
                f": {causes[str(node)]}"
                if str(node) in causes
                else f"; 'pgvigil node add {_host(status, node)}' makes it one"
            )
            lines.append(f"no voter    {_label(status, node)}{why}")
    return lines


def _facts(status: dict[str, Any], colour: bool) -> list[str]:
    lease, vip = _table(status, "lease"), _table(status, "vip")
    troubles = [f"trouble     {_word(item, 'reason')}" for item in _rows(status, "troubles")[:SHOWN_TROUBLES]]
    lines = [paint(trouble, YELLOW, colour) for trouble in troubles]
    leader = status.get("leader_id")
    left = lease.get("left_ms")
    lines += [
        f"leader      {paint(UNKNOWN, YELLOW, colour) if leader is None else _label(status, leader)}",
        f"lease       {'not held here' if left is None else f'{left} ms left'}, length {_word(lease, 'length_ms')} ms",
    ]
    addresses = _rows(vip, "addresses")
    if not addresses:
        pgpool = status.get("pgpool_watchdog") is not None
        return [*lines, f"virtual IP  {'left to the watchdog of pgpool-II' if pgpool else 'none configured'}"]
    for item in addresses:
        present = "up" if item.get("present") else "not here"
        lines.append(f"virtual IP  {_word(item, 'address')} {_state(present, colour)} on {_word(vip, 'interface')}")
    gate = _word(vip, "gate")
    gate_left = f", closes in {vip['gate_left_ms']} ms" if vip.get("gate_left_ms") is not None else ""
    lines.append(f"gate        {_state(gate, colour)}{gate_left}")
    lines += [paint(f"fence       {problem}", RED, colour) for problem in _items(vip, "fence_problems")]
    if vip.get("conflict"):
        lines.append(paint(f"conflict    {vip['conflict']}", RED, colour))
    return lines


def _nodes(status: dict[str, Any], colour: bool) -> list[str]:
    rows = [("", "NODE", "ROLE", "TERM", "HEALTH", "FOR", "AGE", "PGPOOL", "CAN LEAD", "PRIORITY", "EVIDENCE")]
    for item in _rows(status, "nodes"):
        trusted = is_current(item)
        electable = item.get("electable") if trusted else None
        rows.append(
            (
                "*" if item.get("self") else "",
                f"{_word(item, 'label')} ({_word(item, 'id')})",
                role_of(item) + ("" if item.get("voter", True) else ", no voter"),
                _word(item, "term") if trusted else DASH,
                _word(item, "health"),
                duration(item.get("since_ms")),
                duration(item.get("age_ms")),
                _word(item, "pgpool") if trusted else UNKNOWN,
                UNKNOWN if electable is None else ("yes" if electable else "no"),
                _word(item, "priority"),
                _word(item, "evidence") if item.get("evidence") else DASH,
            )
        )
    return table(rows, colour)


def _backends(status: dict[str, Any], colour: bool) -> list[str]:
    """The PostgreSQL servers, once the cluster has agreed on them."""
    from pgvigil.watchdog.cli import backend_render  # which uses this module

    value = _table(status, "backends")
    return backend_render.lines(value, colour) if _rows(value, "backends") else []


def _paths(status: dict[str, Any], colour: bool) -> list[str]:
    """How every peer is heard. Lifecheck reports now and then: what it has heard may be newer, and is not older."""
    rows = [("PATH", "TO", "HEARD", "LOST", "ROUND TRIP", "JITTER")]
    for item in _rows(status, "nodes"):
        for path in _rows(item, "paths"):
            lost = path.get("lost_permille")
            rows.append(
                (
                    _word(path, "interface"),
                    _word(item, "label"),
                    _heard(path),
                    f"{lost / 10:.1f} %" if isinstance(lost, int) else DASH,
                    _microseconds(path.get("round_trip_us")),
                    _microseconds(path.get("jitter_us")),
                )
            )
    return table(rows, colour) if len(rows) > 1 else []


def _heard(path: dict[str, Any]) -> str:
    if path.get("silent_ms") is not None:
        return f"silent for {duration(path['silent_ms'])}"
    last_ms = path.get("last_heard_ms")
    return "not yet" if last_ms is None else f"in the last {duration(last_ms)}"


def _microseconds(value_us: object) -> str:
    return f"{value_us / 1000:.2f} ms" if isinstance(value_us, int) and not isinstance(value_us, bool) else DASH


def _checks(status: dict[str, Any], colour: bool) -> list[str]:
    """What each method says of this node; a single one stands in the table of nodes already."""
    own = next((item for item in _rows(status, "nodes") if item.get("self")), {})
    checks = _rows(own, "checks")
    if len(checks) < 2:
        return []
    rows = [("CHECK", "RESULT", "FOR", "EVIDENCE")]
    rows += [
        (_word(item, "method"), _word(item, "health"), duration(item.get("since_ms")), _word(item, "evidence"))
        for item in checks
    ]
    return table(rows, colour)


def _reports(status: dict[str, Any], colour: bool) -> list[str]:
    """Who said what by `pgvigil inform`."""
    reports = _rows(status, "external")
    if not reports:
        return []
    rows = [("REPORTED NODE", "AS", "BY", "AGO", "COUNTS FOR", "REASON")]
    rows += [
        (
            _label(status, item.get("id")),
            _word(item, "health"),
            _word(item, "reporter"),
            duration(item.get("age_ms")),
            duration(item.get("left_ms")),
            _word(item, "reason") if item.get("reason") else DASH,
        )
        for item in reports
    ]
    return table(rows, colour)


def _pgpool_watchdog(status: dict[str, Any], colour: bool) -> list[str]:
    """pgpool-II's own watchdog, where that leads."""
    if status.get("pgpool_watchdog") is None:
        return []
    seen = _table(status, "pgpool_watchdog")
    vip = f"virtual IP {_word(seen, 'delegate_ip')}" if seen.get("delegate_ip") else "no virtual IP"
    escalated = seen.get("escalated")
    up = UNKNOWN if escalated is None else "escalated here" if escalated is True else "not escalated here"
    lines = [
        f"watchdog of pgpool-II: leader {_word(seen, 'leader')}, quorum {_word(seen, 'quorum')}, {vip} ({up}), "
        f"read {duration(seen.get('age_ms'))} ago"
    ]
    if seen.get("trouble"):
        lines.append(paint(f"trouble     {_word(seen, 'trouble')}", RED, colour))
    rows = [("PGPOOL-II NODE", "OF", "STATE", "PRIORITY", "TOLD")]
    rows += [
        (
            f"{_word(item, 'pgpool_node_id')} {_word(item, 'name')}",
            _label(status, item["id"]) if item.get("id") else UNKNOWN,
            _word(item, "state"),
            _word(item, "priority"),
            _word(item, "told") if item.get("told") else DASH,
        )
        for item in _rows(seen, "nodes")
    ]
    return lines + (table(rows, colour) if len(rows) > 1 else [])


def _drift(status: dict[str, Any], colour: bool) -> list[str]:
    """In what nodes differ from the leader, those that this keeps out first."""
    found = sorted(_rows(status, "drift"), key=lambda item: not item.get("fatal"))
    if not found:
        return []
    lines = [paint("SETTINGS THAT DIFFER FROM THE LEADER'S", DIM, colour)]
    for item in found[:SHOWN_DRIFT]:
        out = " (keeps it out)" if item.get("fatal") else ""
        text = f"{_word(item, 'key')}: here {_word(item, 'here')}, leader {_word(item, 'leader')}{out}"
        lines.append(paint(f"{_label(status, item.get('node'))}  {text}", RED if out else YELLOW, colour))
    untold = status.get("drift_untold")
    more = len(found) - SHOWN_DRIFT if len(found) > SHOWN_DRIFT else 0
    more += untold if isinstance(untold, int) else 0
    return [*lines, f"and {more} more"] if more else lines


def is_current(item: dict[str, Any]) -> bool:
    """Whether what a node said of itself still counts."""
    age_ms = item.get("age_ms")
    return item.get("health") == "alive" and isinstance(age_ms, int) and age_ms <= OLD_MS


def role_of(item: dict[str, Any]) -> str:
    """The role to show."""
    return str(item.get("role") or UNKNOWN) if is_current(item) else UNKNOWN


def _processes(status: dict[str, Any], colour: bool) -> list[str]:
    rows = [("PROCESS", "PID", "STATE", "UP", "RESTARTS", "LAST EXIT")]
    rows += [
        (
            _word(item, "name"),
            _word(item, "pid") if item.get("pid") else DASH,
            _word(item, "state"),
            duration(item.get("up_ms")) if item.get("pid") else DASH,
            _word(item, "restarts"),
            _word(item, "last_exit") if item.get("last_exit") else DASH,
        )
        for item in _rows(status, "processes")
    ]
    return table(rows, colour) if len(rows) > 1 else ["processes   unknown: the supervisor has not reported"]


def _events(status: dict[str, Any], colour: bool) -> list[str]:
    events = _rows(status, "events")[-SHOWN_EVENTS:]
    if not events:
        return []
    rows = [(f"{duration(item.get('age_ms'))} ago", _word(item, "text")) for item in events]
    return [paint("EVENTS (newest last)", DIM, colour), *table(rows, colour, header=False)]


def line(reading: Reading) -> str:
    """The status in one line, without anything that changes all the time."""
    if reading.status is None:
        return reading.trouble if reading.pid is None else f"unknown: {reading.trouble}"
    status = reading.status
    quorum, vip = _table(status, "quorum"), _table(status, "vip")
    leader = status.get("leader_id")
    nodes = " ".join(
        f"{_word(item, 'label')}={role_of(item)}/{_word(item, 'health')}" for item in _rows(status, "nodes")
    )
    addresses = _rows(vip, "addresses")
    present = "none" if not addresses else "up" if all(item.get("present") for item in addresses) else "not here"
    gate = f", gate {_word(vip, 'gate')}" if addresses else ""
    return (
        f"{_word(status, 'state')}, term {_word(status, 'term')}, leader "
        f"{UNKNOWN if leader is None else _label(status, leader)}, quorum {_word(quorum, 'have')}/"
        f"{_word(quorum, 'voters')}, vip {present}{gate}, {nodes}"
    )


# --- small parts --------------------------------------------------------------------------------------------


def table(rows: Sequence[tuple[str, ...]], colour: bool, header: bool = True) -> list[str]:
    """Aligned columns; widths are counted before colour."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for number, row in enumerate(rows):
        last = len(row) - 1
        cells = [cell if column == last else cell.ljust(widths[column]) for column, cell in enumerate(row)]
        if header and number == 0:
            lines.append(paint("  ".join(cells).rstrip(), DIM, colour))
        else:
            lines.append("  ".join(_cell(cell, colour) for cell in cells).rstrip())
    return lines


def _cell(cell: str, colour: bool) -> str:
    word = cell.rstrip()
    return paint(word, _COLOURS[word], colour) + cell[len(word) :] if word in _COLOURS else cell


def _state(word: str, colour: bool) -> str:
    return paint(word, _COLOURS.get(word, ""), colour)


def paint(text: str, code: str, colour: bool) -> str:
    """Text in a colour of the terminal."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def duration(value_ms: object) -> str:
    """Milliseconds for people: "180 ms", "4.2 s", "3 min", "5 h", "12 d"."""
    if not isinstance(value_ms, int) or isinstance(value_ms, bool):
        return UNKNOWN
    if value_ms < 1000:
        return f"{value_ms} ms"
    if value_ms < 60_000:
        return f"{value_ms / 1000:.1f} s"
    seconds = value_ms // 1000
    for unit, length, limit in (("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds // length} {unit}"
    return f"{seconds // 86_400} d"


def _word(table: dict[str, Any], key: str) -> str:
    """A value as one harmless word or sentence; what comes from other nodes must not steer the terminal."""
    value = table.get(key)
    if value is None or value == "":
        return UNKNOWN
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _table(status: dict[str, Any], key: str) -> dict[str, Any]:
    value = status.get(key)
    return value if isinstance(value, dict) else {}


def _items(table: dict[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


def _rows(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [item for item in _items(table, key) if isinstance(item, dict)]


def _host(status: dict[str, Any], node_id: object) -> str:
    return next((_word(item, "label") for item in _rows(status, "nodes") if item.get("id") == node_id), str(node_id))


def _label(status: dict[str, Any], node_id: object) -> str:
    for item in _rows(status, "nodes"):
        if item.get("id") == node_id:
            return f"{_word(item, 'label')} ({node_id})"
    return f"node {node_id}"
