"""What a case showed against what it expects. Pure: told sentences and a judgement of the history, it asks nobody.

Besides the promises of every fault (never two answering, always back; `matrix.history` judges those) a case of
lifecheck wants: the right sentence by the right node, no wrong verdict of death by anybody, the leadership moved or
left alone as it should be, and nothing of pgvigil restarted, because a verdict must end by evidence alone.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pgvigil.watchdog.demo.lifecheck.case import Case, Move, Says, matches
from pgvigil.watchdog.demo.lifecheck.sentences import Sentence
from pgvigil.watchdog.demo.matrix.history import Judgement


class Wrong(enum.Enum):
    """What a case of lifecheck can show that it must not; `matrix.history.Wrong` names the rest."""

    UNSAID = "nobody said it"
    FALSE = "a verdict that is false"
    STAYED = "the leader stayed"
    HANDED_OVER = "a verdict moved the leader"
    RESTARTED = "a process was restarted"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was recorded of one case. `struck_at_s` is wall clock, `struck` the names of the nodes hit."""

    struck: tuple[str, ...]
    struck_at_s: float
    leader: str
    sentences: Sequence[Sentence]
    history: Judgement
    restarted: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The sentence that was expected, if it was said, and all that is wrong: its kind and the words for it."""

    said: Sentence | None
    after_ms: float | None
    false: tuple[Sentence, ...]
    leads_at_last: str
    wrong: tuple[tuple[str, str], ...]


def find(says: Says, struck: Collection[str], sentences: Sequence[Sentence]) -> Sentence | None:
    """The first sentence that is what a case expects."""
    return next((one for one in sentences if says.is_said(one.node, one.text, struck)), None)


def judge(case: Case, seen: Seen) -> Found:
    """Everything that is wrong, the gravest first: two answering, then what the history says, then the verdicts."""
    said = None if case.says is None else find(case.says, seen.struck, seen.sentences)
    false = false_verdicts(case, seen)
    last = f"n{seen.history.owners[-1]}" if seen.history.owners else "nobody"
    wrong = [(fault.kind.name, fault.text) for fault in seen.history.faults]
    if case.says is not None and said is None:
        wrong.append((Wrong.UNSAID.name, f"not said by {case.says.speaker.value}: {case.says.pattern}"))
    wrong += [(Wrong.FALSE.name, f"false verdict of {sentence}") for sentence in false]
    wrong += _moved(case, seen, last)
    if seen.restarted:
        wrong.append((Wrong.RESTARTED.name, "a process of pgvigil was restarted"))
    after_ms = None if said is None else max(0.0, (said.at_s - seen.struck_at_s) * 1000)
    return Found(said, after_ms, tuple(false), last, tuple(wrong))


def false_verdicts(case: Case, seen: Seen) -> list[Sentence]:
    """Verdicts of death that nothing excuses."""
    return [sentence for sentence in seen.sentences if sentence.is_death and not _is_right(case, sentence, seen.struck)]


def _is_right(case: Case, death: Sentence, struck: Collection[str]) -> bool:
    if case.says is not None and case.says.is_said(death.node, death.text, struck):
        return True
    return bool(case.excused) and matches(case.excused, str(death), struck)


def _moved(case: Case, seen: Seen, last: str) -> list[tuple[str, str]]:
    if case.move is Move.MUST:
        stayed = last == seen.leader
        return [(Wrong.STAYED.name, f"the leader is {last} as before, expected another node")] if stayed else []
    given = [sentence for sentence in seen.sentences if sentence.is_hand_over]
    return [(Wrong.HANDED_OVER.name, f"moved the leader: {sentence}") for sentence in given]
