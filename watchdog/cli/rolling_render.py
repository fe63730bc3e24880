"""A rolling run as text for people and as JSON for programs. Pure: a plan in, text out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pgvigil.ipc.counted import counted
from pgvigil.watchdog.cli.render import BOLD, DASH, GREEN, RED, YELLOW, duration, paint, table
from pgvigil.watchdog.rolling.plan import Phase, Plan, State, named

_COLOUR = {
    Phase.DONE: GREEN, Phase.RAN: GREEN, Phase.FAILED: RED, Phase.DETACHED: YELLOW, Phase.RUNNING: YELLOW,
    Phase.DETACHING: YELLOW, Phase.ATTACHING: YELLOW,
}  # fmt: skip


def page(plan: Plan, works: int, colour: bool) -> str:
    """The whole run; `works` is the process that works on it, 0 if none does."""
    lines = [paint(headline(plan, works), BOLD, colour)]
    if plan.sentence:
        lines.append(printable(plan.sentence))
    return "\n".join([*lines, *rules(plan), "", *backends(plan, colour)])


def headline(plan: Plan, works: int) -> str:
    """One line."""
    text = f"run {plan.run_id}: {plan.state.value}, {plan.done} of {counted(len(plan.working), 'backend')} done"
    if plan.state is not State.UNFINISHED:
        return text
    at_work = (
        f"process {works} works on it" if works > 0 else "a process works on it" if works else "nobody works on it"
    )
    return f"{text}, batch {plan.batch} of {plan.batches}, {at_work}"


def rules(plan: Plan) -> list[str]:
    """What was asked for."""
    fixed = plan.rules
    primary = "with the primary" if fixed.include_primary else "without the primary"
    at_once = f", {counted(fixed.jobs, 'command')} at once" if fixed.jobs else ""
    return [
        f"command     {printable(fixed.command)}",
        f"batch       {fixed.batch}, at least {fixed.keep} attached, {primary}, on failure {fixed.on_failure}{at_once}",
        f"limits      {duration(fixed.limit_ms)} for a command, {duration(fixed.settle_ms)} for the pgpool-IIs",
    ]


def backends(plan: Plan, colour: bool) -> list[str]:
    """The table, in the order of the batches."""
    rows = [("BATCH", "ID", "BACKEND", "ROLE", "PHASE", "TOOK", "NOTE")]
    for member in sorted(plan.members, key=lambda one: (one.batch or plan.batches + 1, one.backend_id)):
        rows.append(
            (
                str(member.batch) if member.batch else DASH,
                str(member.backend_id),
                printable(member.name),
                printable(member.role),
                member.phase.value,
                duration(member.took_ms) if member.took_ms else DASH,
                printable(member.error or member.note) or DASH,
            )
        )
    lines = table(rows, colour=False)
    if not colour:
        return lines
    phases = {phase.value: code for phase, code in _COLOUR.items()}
    return [lines[0], *(_painted(line, rows[number][4], phases) for number, line in enumerate(lines[1:], 1))]


def _painted(line: str, phase: str, phases: dict[str, str]) -> str:
    return line.replace(f" {phase} ", f" {paint(phase, phases[phase], True)} ", 1) if phase in phases else line


def advice(plan: Plan, option: str) -> str:
    """What to do with a run that stopped; `option` is the --state that was given, for a command to copy."""
    if plan.state is not State.UNFINISHED:
        return ""
    out = f"{named(plan.out)} detached" if plan.out else "nothing is detached"
    return f"{out}; 'pgvigil rolling{option} --resume' goes on, 'pgvigil rolling{option} --abandon' ends it"


def as_json(plan: Plan, **more: object) -> dict[str, Any]:
    """Everything there is to know, for programs."""
    return {"run": plan.run_id, "batches": plan.batches, "done": plan.done} | asdict(plan) | more


def printable(text: str) -> str:
    """One harmless line: a command may hold anything."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
