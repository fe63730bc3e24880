"""What the configured methods need is imported before the fork, and what nobody configured is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBES = "pgvigil.lifecheck.probes"
CORE = "pgvigil.lifecheck.core"
SETTINGS = "1, (), (), ('heartbeat', 'process'), 200, 1000, None, '/run/pgvigil'"
QUERY = "QuerySettings('10.0.0.1', 9999, 'SELECT 1', 'postgres', 'pgvigil', None, 1000, 1000, 3)"
PGPOOL = "PgpoolWatchdogSettings('/tmp/.s.PGPOOLWD_CMD.9000', '/run/pgpool.pid', '', ())"

# For each way to configure lifecheck: what it needs beside what lifecheck's own process module brings.
NEEDS = {
    "": (),
    "links=LinkSettings(('eth0',), '', 500)": (f"{PROBES}.links", f"{CORE}.links"),
    "links=LinkSettings((), 'eth0', 500)": (f"{PROBES}.links", f"{CORE}.links"),
    "upstream=UpstreamSettings(('10.0.0.254',), None, 1000, 1000, 3)": (f"{PROBES}.upstream", f"{CORE}.upstream"),
    "adaptive=True": (f"{CORE}.accrual",),
    f"pgpool_watchdog={PGPOOL}": (f"{PROBES}.pgpool_watchdog", f"{CORE}.informing"),
    f"query={QUERY}": (),  # libpq is for the lifecheck process alone
}
OPTIONAL = frozenset(
    (*sum(NEEDS.values(), ()), f"{PROBES}.external", f"{PROBES}.query", f"{PROBES}.tie_breaker", "psycopg")
)


def _loaded(code: str) -> frozenset[str]:
    """Which of the optional modules are there after the code ran in a process of its own."""
    names = "import sys; print(*sys.modules)"
    command = (sys.executable, "-P", "-c", f"import pgvigil.lifecheck.process\n{code}\n{names}")
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=60)
    return OPTIONAL.intersection(done.stdout.split())


def _preloaded(settings: str) -> frozenset[str]:
    return _loaded(
        "from pgvigil.lifecheck.preload import preload\n"
        "from pgvigil.lifecheck.settings import *\n"
        f"preload(LifecheckSettings({settings}))"
    )


@pytest.mark.parametrize(("configured", "needed"), NEEDS.items())
def test_what_is_configured_is_imported_and_nothing_else(configured: str, needed: tuple[str, ...]) -> None:
    assert _preloaded(f"{SETTINGS}, {configured}") - _loaded("") == frozenset(needed)


def test_reports_from_outside_are_prepared_where_nothing_else_judges() -> None:
    alone = SETTINGS.replace("'heartbeat', 'process'", "'external',")
    assert f"{PROBES}.external" in _preloaded(alone)
    assert f"{PROBES}.external" not in _preloaded(SETTINGS)
