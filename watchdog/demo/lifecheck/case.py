"""What a case is: a fault, whom it hits, what must be said about it and by whom, and what the cluster may do."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from dataclasses import dataclass

from pgvigil.watchdog.demo.lifecheck.ground import Setting
from pgvigil.watchdog.demo.matrix.case import Fault, Limit, Role


class Speaker(enum.Enum):
    """Who must say it."""

    STRUCK = "the node itself"
    OTHER = "another node"


class Move(enum.Enum):
    """What the verdict must do to the leadership."""

    MUST = "another node leads"
    NEVER = "the leader leads on"
    MAY = "the leader leads on unless its lease runs out, which is no verdict"


@dataclass(frozen=True, slots=True)
class Says:
    """A sentence: who says it, a pattern for it ({struck}: the name of the node hit), and where else it may stand.

    `in_status`: it is no change of a verdict, so it may stand in the status only, which is asked a few times a second.
    """

    speaker: Speaker
    pattern: str
    in_status: bool = False

    def is_said(self, node: str, text: str, struck: Collection[str]) -> bool:
        """Whether a node's words are this sentence, with the nodes hit by name."""
        speaks = (node in struck) is (self.speaker is Speaker.STRUCK)
        return speaks and matches(self.pattern, text, struck)


def matches(pattern: str, text: str, struck: Collection[str]) -> bool:
    """Whether a pattern is found in a text with {struck} read as one of the nodes hit."""
    return any(re.search(pattern.replace("{struck}", re.escape(name)), text) for name in struck)


@dataclass(frozen=True, slots=True)
class Length:
    """How long faults last: those that nobody may notice `quiet_s`, the others as their case says."""

    quiet_s: float
    is_short: bool = False


LONG_S = 300.0
LONG, SHORT = Length(LONG_S), Length(20.0, is_short=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    fault: str
    role: Role
    prepare: Fault
    says: Says | None
    """None: nobody may say anything, for as long as the fault lasts (`Length.quiet_s`)."""
    move: Move
    limit: Limit
    excused: str = ""
    """Pattern of the verdicts of death ("speaker: text") that are right besides `says`; empty: none is."""
    hold_s: float = 2.0
    """How long the fault lasts after all that was expected has happened."""
    short_s: float = 0.5
    """The same in a short run."""
    setting: Setting = Setting.PLAIN

    def lasts_s(self, length: Length) -> float:
        """How long the fault goes on after all that was expected has happened."""
        if self.says is None:
            return length.quiet_s
        return self.short_s if length.is_short else self.hold_s

    @property
    def name(self) -> str:
        return f"{self.fault}/{self.role.value}"
