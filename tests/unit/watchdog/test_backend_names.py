"""How a backend may be called."""

from __future__ import annotations

import pytest
from tests.unit.watchdog.backends import document

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog import backend_names


@pytest.mark.parametrize(
    ("name", "found"),
    [("1", 1), ("01", 1), ("pg-b", 1), ("PG-B", 1), ("pg-b:5433", 1), ("pg-c:5434", 2), ("pg-c:5435", 3)],
)
def test_names(name: str, found: int) -> None:
    assert backend_names.find(document(count=4).backends, name).backend_id == found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pg-c", "'pg-c' is the host of several backends, expected one of 2 (pg-c:5434), 3 (pg-c:5435)"),
        ("pg-b:5432", "no backend 'pg-b:5432', expected one of 0 (pg-a:5432), 1 (pg-b:5433)"),
        ("9", "no backend '9'"),
        ("", "no backend ''"),
        ("9" * 400, "no backend"),
    ],
)
def test_what_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_names.find(document(count=4).backends, name)
    assert said in str(caught.value) and len(str(caught.value)) < 300


def test_nothing_is_found_before_the_cluster_has_agreed() -> None:
    with pytest.raises(ConfigError, match="has not agreed on any backend yet"):
        backend_names.find((), "0")


@pytest.mark.parametrize(
    ("name", "host", "port"),
    [
        ("fd00::1", "fd00::1", None),
        ("[fd00::1]:5432", "fd00::1", 5432),
        ("[fd00::1]", "fd00::1", None),
        ("a:b", "a:b", None),
        ("/run/pg:5432", "/run/pg", 5432),
    ],
)
def test_addresses_and_folders(name: str, host: str, port: int | None) -> None:
    assert backend_names.split(name) == (host, port)


def test_an_address_of_colons_is_shown_in_brackets() -> None:
    assert backend_names.address("fd00::1", 5432) == "[fd00::1]:5432"
