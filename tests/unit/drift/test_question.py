"""When the local pgpool-II is asked for its settings, and when what it said is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgvigil.watchdog.drift.facts import Facts
from pgvigil.watchdog.drift.question import FORGET_NS, SOON_NS, USUAL_NS, Question
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.records import Parameter


@dataclass(frozen=True)
class Answer:
    value: tuple[Parameter, ...] | None
    problem: str = ""


@dataclass
class Pgpool:
    """Answers when the test says so."""

    now_ns: int = 1
    waiting: list[Callable[[Answer], None]] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)

    def ask(self, request: Request[Any], on_answer: Callable[[Any], None], limit_ms: int = 0) -> None:
        assert request.name == requests.pool_status().name and limit_ms
        self.waiting.append(on_answer)


def asked() -> tuple[Pgpool, Question]:
    pgpool = Pgpool()
    question = Question(pgpool, lambda: pgpool.now_ns, pgpool.facts.append)
    question.tick(pgpool.now_ns)
    return pgpool, question


SAID = Answer((Parameter("max_pool", "4", ""), Parameter("port", "9999", "")))


def test_it_is_asked_at_once_and_then_every_few_minutes_one_question_at_a_time() -> None:
    pgpool, question = asked()
    question.tick(10 * USUAL_NS)
    assert len(pgpool.waiting) == 1
    pgpool.waiting.pop()(SAID)
    assert pgpool.facts == [{"pgpool.conf.backends": "none", "pgpool.conf.max_pool": "4"}]
    assert question.problem == ""
    question.tick(pgpool.now_ns + USUAL_NS - 1)
    assert pgpool.waiting == []
    question.tick(pgpool.now_ns + USUAL_NS)
    assert len(pgpool.waiting) == 1


def test_without_an_answer_it_is_asked_again_soon_and_what_it_said_stands_for_a_while() -> None:
    pgpool, question = asked()
    pgpool.waiting.pop()(SAID)
    question.tick(pgpool.now_ns + USUAL_NS)
    pgpool.now_ns += USUAL_NS
    pgpool.waiting.pop()(Answer(None, "it is gone"))
    assert question.problem == "it is gone" and len(pgpool.facts) == 1
    question.tick(pgpool.now_ns + SOON_NS - 1)
    assert pgpool.waiting == []
    question.tick(pgpool.now_ns + SOON_NS)
    assert len(pgpool.waiting) == 1
    question.tick(1 + FORGET_NS)
    question.tick(2 + FORGET_NS)
    assert pgpool.facts[1:] == [{}]
