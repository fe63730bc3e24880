"""What stub children are told to do wrong, and what they wrote down."""

from __future__ import annotations

import re
from pathlib import Path

from tests.live.nodes import Node, wait_for


def stub_dir(node: Node) -> Path:
    """Where misbehaviour is ordered."""
    folder = node.state_dir / "stub"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def events(node: Node) -> str:
    """What the stubs wrote down."""
    file = stub_dir(node) / "events"
    return file.read_text() if file.exists() else ""


def wait_event(node: Node, pattern: str, limit_s: float = 10, times: int = 1) -> str:
    """Wait for a line that matches."""

    def found() -> str | None:
        lines = [line for line in events(node).splitlines() if re.search(pattern, line)]
        return lines[-1] if len(lines) >= times else None

    return wait_for(f"the event {pattern!r}", found, limit_s)


def event_ns(line: str) -> int:
    return int(line.split()[0])
