"""What a checker says when a promise of the protocol was broken."""

from __future__ import annotations


class Violation(AssertionError):
    """`checker` names who noticed."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker
