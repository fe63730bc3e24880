"""Whose fault an ending was: every text here was captured from pgpool-II 4.3.5, PostgreSQL 15 and libpq 18."""

from __future__ import annotations

import pytest

from pgvigil.lifecheck.core.answers import MAX_TEXT, Answer, Ending, judge, tidy

AT = 'connection to server at "10.77.0.11", port 9999 failed: '
REFUSED_TEXT = f"{AT}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
DROPPED = "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"


def before(error: str) -> Ending:
    """An end before pgpool-II said anything."""
    return Ending(False, False, False, 1, AT + error)


def after(error: str, sqlstate: str = "") -> Ending:
    """An end behind pgpool-II's first answer."""
    return Ending(True, True, False, 10, error if sqlstate else AT + error, sqlstate)


FAULTS = [
    (Ending(True, True, False, 11), Answer.FINE),
    (Ending(False, False, False, 1, REFUSED_TEXT), Answer.REFUSED),
    (before("No route to host"), Answer.REFUSED),
    (
        Ending(True, False, False, 1, AT + "could not receive data from server: Connection reset by peer"),
        Answer.REFUSED,
    ),
    (Ending(True, False, False, 1, AT + DROPPED), Answer.REFUSED),
    (after(DROPPED), Answer.REFUSED),
    (Ending(False, False, True, 1500), Answer.HANGS),
    (Ending(True, False, True, 1509), Answer.HANGS),
    (Ending(True, True, True, 1505), Answer.SILENT_BEHIND),
    (Ending(True, False, False, 0, f"{AT}server sent an error response during SSL exchange"), Answer.FULL),
    (after("FATAL:  Sorry, too many clients already"), Answer.FULL),
    (after("FATAL:  sorry, too many clients already"), Answer.NO_BACKEND),
    (after(""), Answer.NO_BACKEND),
    (
        after(
            "FATAL:  failed to create a backend 0 connection\n"
            "DETAIL:  not executing failover because failover_on_backend_error is off"
        ),
        Answer.NO_BACKEND,
    ),
    (after("FATAL:  the database system is starting up"), Answer.NO_BACKEND),
    (after("FATAL:  das Datenbanksystem startet"), Answer.NO_BACKEND),
    (after("terminating connection due to administrator command", "57P01"), Answer.NO_BACKEND),
    (after('FATAL:  database "nosuch" does not exist'), Answer.OPERATOR),
    (after('FATAL:  role "nobody9" does not exist'), Answer.OPERATOR),
    (after('FATAL:  role "nologin9" is not permitted to log in'), Answer.OPERATOR),
    (after('FATAL:  no pg_hba.conf entry for host "10.77.0.11", user "a", database "b"'), Answer.OPERATOR),
    (
        after("FATAL:  client authentication failed\nDETAIL:  missing or erroneous pool_hba.conf file"),
        Answer.OPERATOR,
    ),
    (
        after("ERROR:  failed to authenticate with backend using SCRAM\nDETAIL:  valid password not found"),
        Answer.OPERATOR,
    ),
    (
        after('ERROR:  authentication failed\nDETAIL:  password authentication failed for user "md"'),
        Answer.OPERATOR,
    ),
    (
        after("ERROR:  backend authentication failed\nDETAIL:  backend response with kind 'E' when expecting 'R'"),
        Answer.OPERATOR,
    ),
    (after("fe_sendauth: no password supplied"), Answer.OPERATOR),
    (after('relation "nix" does not exist', "42P01"), Answer.OPERATOR),
    (before("could not create socket: Too many open files"), Answer.OURS),
]


@pytest.mark.parametrize(("ending", "answer"), FAULTS, ids=lambda item: str(getattr(item, "error", item))[-50:])
def test_whose_fault_it_was(ending: Ending, answer: Answer) -> None:
    assert judge(ending).answer is answer


def test_the_operator_reads_one_line_without_the_address() -> None:
    assert tidy(REFUSED_TEXT) == "Connection refused"
    assert tidy(f"{AT}ERROR:  authentication failed\nDETAIL:  wrong") == "authentication failed; DETAIL: wrong"
    assert len(tidy("x" * 1000)) == MAX_TEXT
    assert tidy("\n \n") == "an error without a text"


def test_a_failure_without_a_text_is_no_success() -> None:
    assert judge(Ending(False, False, False, 1, "")).answer is Answer.REFUSED
