"""The configuration files of a lab's cluster.

A real cluster has one file, identical on all nodes. The lab's hosts share one file system, so each gets its own
copy, which differs in the places (run and state folder, log, pgpool-II's pid file) and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import toml

from pgvigil.watchdog.demo.lab import VIP, Host, Lab
from pgvigil.watchdog.demo.services import Pgpool

Table = dict[str, Any]


def config_path(node: Host) -> Path:
    return node.folder / "pgvigil.toml"


def log_path(node: Host) -> Path:
    return node.folder / "pgvigil.log"


def key_path(lab: Lab) -> Path:
    return lab.root / "authkey"


def settings_of(lab: Lab, node: Host) -> Table:
    """The whole configuration of one node as nested tables."""
    run_dir, state_dir = node.folder / "run", node.folder / "state"
    return {
        "cluster": {"name": "lab", "authkey_file": str(key_path(lab))},
        "node": [_node(lab, other) for other in lab.nodes],
        "vip": {"addresses": [f"{VIP}/24"], "interface": "eth0"},
        "pgpool": {"pid_file": str(Pgpool(lab, node).pid_file)},
        "process": {
            "run_dir": str(run_dir),
            "state_dir": str(state_dir),
            "log": f"file:{log_path(node)}",
        },
    }


def _node(lab: Lab, node: Host) -> Table:
    paths = [
        {"interface": f"eth{path}", "address": lab.address_on(node, path), "port": 9694} for path in lab.paths_of(node)
    ]
    return {"id": node.number, "host": node.name, "pgpool_host": node.address, "path": paths}


def write_config(lab: Lab, node: Host, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write a node's file, with some keys changed (`{"cluster": {"lease_ms": 2000}}`); returns its path."""
    tables = settings_of(lab, node)
    for section, values in (changes or {}).items():
        tables.setdefault(section, {}).update(values)
    path = config_path(node)
    path.write_text(toml.dumps(tables), encoding="utf-8")
    return path
