"""inform: a report from outside, for lifecheck of this node.

Says done only when lifecheck has the report. It judges nothing itself; what becomes of the report stands in status.
"""

from __future__ import annotations

import argparse
import os
import pwd

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.cli import cluster

INFORM_TIMEOUT_MS = 5000
MAX_REASON = 400


def inform(options: argparse.Namespace) -> int:
    """Report that a node is alive or dead."""
    if len(options.reason) > MAX_REASON:
        raise ConfigError(f"the reason has {len(options.reason)} letters; expected at most {MAX_REASON}")
    seconds = getattr(options, "for")  # a keyword of Python
    arguments = (options.node, options.health, options.reason, "" if seconds is None else str(seconds), reporter())
    return cluster.order(options, "inform", arguments, INFORM_TIMEOUT_MS)


def reporter() -> str:
    """Who says it: the user behind sudo, or the one that this process runs as."""
    name = os.environ.get("SUDO_USER", "")
    if name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
