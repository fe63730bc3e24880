"""The part of the status that is about the world outside: reports of `pgvigil inform`, and pgpool-II's own watchdog."""

from __future__ import annotations

from pgvigil.ipc.clock import NS_PER_MS
from pgvigil.ipc.frames import Health, OutsideReport, WatchdogMember
from pgvigil.watchdog.outside import Outside
from pgvigil.watchdog.settings import Settings


def reports(outside: Outside, now_ns: int) -> list[dict[str, object]]:
    """Who said what, when, and for how long it counts."""
    return [_report(report, now_ns) for report in outside.reports(now_ns)]


def _report(report: OutsideReport, now_ns: int) -> dict[str, object]:
    return {
        "id": report.node_id,
        "health": report.health.value,
        "reason": report.reason,
        "reporter": report.reporter,
        "age_ms": max(0, (now_ns - report.said_at_ns) // NS_PER_MS),
        "left_ms": max(0, (report.until_ns - now_ns) // NS_PER_MS),
    }


def pgpool_watchdog(outside: Outside, settings: Settings, now_ns: int) -> dict[str, object] | None:
    """None unless pgpool-II's own watchdog leads here; what is not known now is null."""
    if settings.lifecheck.pgpool_watchdog is None:
        return None
    seen = outside.pgpool_watchdog(now_ns)
    if seen is None:
        return {"trouble": "lifecheck does not report", "age_ms": None, "leader": None, "quorum": None,
                "escalated": None, "delegate_ip": None, "nodes": []}  # fmt: skip
    return {
        "trouble": seen.trouble or None,
        "age_ms": (now_ns - seen.read_at_ns) // NS_PER_MS if seen.read_at_ns else None,
        "leader": seen.leader or None,
        "quorum": seen.quorum if seen.members else None,
        "escalated": seen.escalated if seen.members else None,
        "delegate_ip": seen.delegate_ip or None,
        "nodes": [_member(member) for member in seen.members],
    }


def _member(member: WatchdogMember) -> dict[str, object]:
    return {
        "pgpool_node_id": member.pgpool_id,
        "id": member.node_id or None,
        "name": member.name,
        "state": member.state,
        "priority": member.priority,
        "told": None if member.told is Health.UNKNOWN else member.told.value,
    }
