"""Files and machines for the tests of the configuration."""

from __future__ import annotations

from pathlib import Path

from pgvigil.watchdog.config import keys
from pgvigil.watchdog.config.load import Outcome, examine
from pgvigil.watchdog.config.local import LocalAddress, LocalNetwork

# Node 1 of the files below: one interface, and an empty second one.
MACHINE = LocalNetwork(
    ("lo", "eth0", "eth1"),
    (
        LocalAddress("lo", "127.0.0.1", 8),
        LocalAddress("eth0", "10.0.0.1", 24),
        LocalAddress("eth0", "fd00::1", 64),
        LocalAddress("eth1", "10.1.0.1", 24),
    ),
)

NODES = "".join(f'[[node]]\nid = {number}\nhost = "10.0.0.{number}"\n' for number in (1, 2, 3))
CLUSTER = '[cluster]\nname = "shop"\ninsecure = true\n'
GOOD = CLUSTER + NODES


def write_key(folder: Path, text: str | None = None, mode: int = 0o600) -> Path:
    """A key file."""
    path = folder / "authkey"
    path.write_text(keys.generate() if text is None else text, encoding="ascii")
    path.chmod(mode)
    return path


def outcome(text: str, node_id: int | None = 1, local: LocalNetwork = MACHINE, path: str = "pgvigil.toml") -> Outcome:
    """What examining this text comes to, with an empty environment."""
    return examine(path, node_id, local, environment={}, data=text.encode())


def mistakes(text: str, node_id: int | None = 1, local: LocalNetwork = MACHINE) -> list[str]:
    """The mistakes in this text, as an operator reads them."""
    return [str(problem) for problem in outcome(text, node_id, local).mistakes]


def warnings(text: str) -> list[str]:
    """The warnings about this text."""
    return [str(problem) for problem in outcome(text).warnings]
