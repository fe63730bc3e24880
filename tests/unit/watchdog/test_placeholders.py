"""Placeholders: order, checks, and that a shell gets exactly one word for each."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog import placeholders

ALL = ["0", "pg-a", " 5432", "/srv/a", " 1", "pg-b", "0", "0", "5433", "/srv/b", "pg-a", "5432"]


def test_words_of_pgpool_lose_their_quirks() -> None:
    made = placeholders.from_words([*ALL[:2], " 5432 ", '""', "-1", ""])
    assert made == ("d=0", "h=pg-a", "p=5432", "D=", "m=-1", "H=")
    assert placeholders.from_words(ALL)[-1] == "S=5432"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "%d is 'x', expected a number of -1 to 127"),
        (["0", "pg-a", "70000"], "%p is '70000', expected a number of 0 to 65535"),
        (["0", "pg-a; reboot"], "%h is 'pg-a; reboot', expected no quotes"),
        (["0", "$(id)"], "%h"),
        (["0", "-oProxyCommand"], "%h"),
        (["0", "a\nb"], "%h"),
        (["0", "pg-a", "5432", "/x" * 600], "%D has 1200 letters, expected at most 300"),
        ([*ALL, "more"], "13 values, expected at most 12: %d %h %p"),
    ],
)
def test_what_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        placeholders.from_words(words)
    assert said in str(caught.value)


def test_every_mark_becomes_one_word_and_what_is_missing_an_empty_one() -> None:
    run = " ".join(["printf '[%%s]'", *(f"%{letter}" for letter in placeholders.ORDER)])
    made = placeholders.substitute(run, ("d=0", "h=pg a", "D=/srv/x"))
    answer = subprocess.run(["/bin/sh", "-c", made], capture_output=True, text=True, timeout=10, check=True)
    assert answer.stdout == "[0][pg a][][/srv/x][-1][][][][][][][]"


@given(st.text(max_size=40))
def test_what_is_let_in_reaches_the_command_unchanged(word: str) -> None:
    try:
        value = placeholders.checked("D", word)
    except ConfigError:
        return
    made = placeholders.substitute("tool %D %%", (f"D={value}",))
    assert shlex.split(made) == ["tool", value, "%"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("x %d %% %h", None),
        ("x 'a b' \"c\" %d", None),
        (r"x \' %d", None),
        ("x %q", "%q is no placeholder"),
        ("x '%d'", "%d stands inside quotes"),
        ('x "to %h"', "%h stands inside quotes"),
        ("x `y %p`", "%p stands inside quotes"),
        ('ssh a "b \\" %p"', "%p stands inside quotes"),
    ],
)
def test_where_a_placeholder_may_stand(run: str, said: str | None) -> None:
    found = placeholders.wrong_in(run)
    assert (found is None) if said is None else (found is not None and said in found)


def test_programs_may_read_the_environment_instead() -> None:
    made = placeholders.environment(("d=2", "h=pg-c", "r=5433"))
    assert (made["PGVIGIL_BACKEND_ID"], made["PGVIGIL_BACKEND_HOST"]) == ("2", "pg-c")
    assert (made["PGVIGIL_NEW_MAIN_PORT"], made["PGVIGIL_NEW_MAIN_ID"], made["PGVIGIL_OLD_MAIN_ID"]) == (
        "5433",
        "-1",
        "",
    )
    assert len(made) == len(placeholders.ORDER)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # pgpool-II 4.3.5 without backend_data_directory, as it called failback.
        (
            "3 10.77.0.5 5435  0 10.77.0.5 0 0 5432  10.77.0.5 5432",
            "3 10.77.0.5 5435 - 0 10.77.0.5 0 0 5432 - 10.77.0.5 5432",
        ),
        ("1 db1 5432 /data 0 db0 0 0 5432 /data db0 5432", "1 db1 5432 /data 0 db0 0 0 5432 /data db0 5432"),
        ("1 db1 5432 /data 0 db0 0 0 5432 db0 5432", "1 db1 5432 /data 0 db0 0 0 5432 - db0 5432"),
        ('0 db0 5432  -1 "" 0 0 "" "" db0 5432', "0 db0 5432 - -1 - 0 0 - - db0 5432"),
        ("1 db1 5432  0 db0 0 0 5432 ", "1 db1 5432 - 0 db0 0 0 5432 - - -"),
    ],
)
def test_a_directory_that_pgpool_does_not_know_shifts_nothing(line: str, expected: str) -> None:
    told = placeholders.values_of(placeholders.from_words(line.split()))
    assert [told[letter] or "-" for letter in placeholders.ORDER] == expected.split()
