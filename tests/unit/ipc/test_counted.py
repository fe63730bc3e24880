"""One of a thing is not "1 things"."""

from __future__ import annotations

import pytest

from pgvigil.ipc.counted import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "no voters"), (1, "1 voter"), (2, "2 voters"), (11, "11 voters"), (21, "21 voters")]
)
def test_the_noun_follows_the_number(number: int, said: str) -> None:
    assert counted(number, "voter") == said
