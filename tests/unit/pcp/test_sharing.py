"""PCP costs a node nothing as long as no process of it talks PCP, and little then."""

from __future__ import annotations

import subprocess
import sys

from pgvigil.watchdog.demo.bench import EVERYTHING


def loaded(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    command = (sys.executable, "-P", "-c", code)
    return set(subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=60).stdout.split())


def test_no_process_of_a_node_imports_it() -> None:
    assert not [name for name in loaded(*EVERYTHING) if name.startswith("pgvigil.watchdog.pcp")]


def test_a_session_needs_neither_openssl_nor_json() -> None:
    modules = loaded("pgvigil.watchdog.pcp.session", "pgvigil.watchdog.pcp.requests")
    assert not modules & {"hashlib", "_hashlib", "json", "socket", "ssl", "threading"}
