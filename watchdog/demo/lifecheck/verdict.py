"""What a case showed against what it expects. Pure: told sentences and a judgement of the history, it asks nobody.

Besides the promises of every fault (never two answering, always back; `matrix.history` judges those) a case of
lifecheck wants: the right sentence by the right node, no wrong verdict of death by anybody, the leadership moved or
left alone as it should be, and nothing of pgvigil restarted, because a verdict must end by evidence alone.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pgvigil.watchdog.demo.lifecheck.case import Case, Move, Says, Speaker
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
    regexes = [says.regex(name) for name in struck]
    of_struck = says.speaker is Speaker.STRUCK
    spoken = [sentence for sentence in sentences if (sentence.node in struck) is of_struck]
    return next((one for one in spoken if any(regex.search(one.text) for regex in regexes)), None)


def judge(case: Case, seen: Seen) -> Found:
    """Everything that is wrong, the gravest first: two answering, then what the history says, then the verdicts."""
    said = None if case.says is None else find(case.says, seen.struck, seen.sentences)
    false = false_verdicts(case, seen)
    last = f"n{seen.history.owners[-1]}" if seen.history.owners else "nobody"
    wrong = [(fault.kind.name, fault.text) for fault in seen.history.faults]
    if case.says is not None and said is None:
        wrong.append((Wrong.UNSAID.name, f"{case.says.speaker.value} did not say {case.says.pattern!r}"))
    wrong += [(Wrong.FALSE.name, f"false verdict of {sentence}") for sentence in false]
    wrong += _moved(case, seen, last)
    if seen.restarted:
        wrong.append((Wrong.RESTARTED.name, "a process of pgvigil was restarted"))
    after_ms = None if said is None else max(0.0, (said.at_s - seen.struck_at_s) * 1000)
    return Found(said, after_ms, tuple(false), last, tuple(wrong))


def false_verdicts(case: Case, seen: Seen) -> list[Sentence]:
    """Verdicts of death that nothing excuses."""
    right = [case.excused] if case.excused else []
    right += [case.says.pattern] if case.says is not None else []
    regexes = [re.compile(text.replace("{struck}", re.escape(name))) for text in right for name in seen.struck]
    deaths = [sentence for sentence in seen.sentences if sentence.is_death]
    return [death for death in deaths if not any(regex.search(death.text) for regex in regexes)]


def _moved(case: Case, seen: Seen, last: str) -> list[tuple[str, str]]:
    if case.move is Move.MUST:
        stayed = last == seen.leader
        return [(Wrong.STAYED.name, f"the leader is {last} as before, expected another node")] if stayed else []
    given = [sentence for sentence in seen.sentences if sentence.is_hand_over]
    return [(Wrong.HANDED_OVER.name, f"moved the leader: {sentence}") for sentence in given]
