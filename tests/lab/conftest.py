"""What the lab tests share: a settled cluster with real services, built once per session and mended before each test.

These tests need root, network namespaces, pgpool-II and PostgreSQL; without them they fail and say what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgvigil.watchdog.demo.lab import Lab
from pgvigil.watchdog.demo.services import require_services
from pgvigil.watchdog.demo.stage import Stage


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty network: three hosts, a client, an observer; no services."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Everything running, pgvigil included. Mended by the tests that break it."""
    require_services()
    with Lab() as lab:
        stage = Stage(lab)
        stage.set_up()
        stage.start_instruments()
        stage.cluster.start(lab.nodes)
        yield stage
