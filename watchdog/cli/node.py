"""How a command finds the node that runs on this machine and asks it.

Needs the run directory and nothing else: works with a broken configuration file, and tells "does not run" from "I may
not look".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.cli.parser import config_path
from pgvigil.watchdog.config.places import find_place
from pgvigil.watchdog.supervisor import pidfile

ASK_TIMEOUT_MS = 1000


class NotAllowed(CommandError):
    """This user may not look into the run directory."""


def run_dir_of(options: argparse.Namespace) -> str:
    """The run directory; says on standard error what was assumed."""
    place = find_place(config_path(options))
    if place.note:
        print(f"pgvigil: {place.note}", file=sys.stderr)
    if os.path.isdir(place.run_dir) and not os.access(place.run_dir, os.X_OK):
        who = "root, as the user of pgvigil, or as a member of control_group"
        raise NotAllowed(f"{place.run_dir}: permission denied; run this as {who}")
    return place.run_dir


def may_know(run_dir: str) -> bool:
    """Whether this user may look at the pid file; a member of control_group may not."""
    return os.access(run_dir, os.R_OK) or not os.path.isdir(run_dir)


def endpoint_of(run_dir: str) -> str:
    """The socket that this user may ask: the owner's, or the one for members of control_group."""
    from pgvigil.ipc.endpoints import control_endpoint, group_endpoint

    return control_endpoint(run_dir) if may_know(run_dir) else group_endpoint(run_dir)


def supervisor_pid(run_dir: str) -> int | None:
    """The running supervisor, or None; `NotAllowed` for a member of control_group, who may ask for less."""
    if os.path.isdir(run_dir) and not may_know(run_dir):
        raise NotAllowed(f"{run_dir}: permission denied; this is for root and the user of pgvigil")
    return pidfile.holder(run_dir)


def not_running(run_dir: str) -> str:
    """The sentence for a node that does not run."""
    return f"pgvigil does not run here: no process holds {pidfile.path_of(run_dir)}"


def ask_json(run_dir: str, verb: str, timeout_ms: int = ASK_TIMEOUT_MS) -> dict[str, Any]:
    """The JSON object that watchdog main answers, or `CommandError`."""
    from pgvigil.ipc.channel import ControlClient

    client = ControlClient(endpoint_of(run_dir))
    try:
        replies = list(client.ask(verb, (), timeout_ms))
    finally:
        client.close()
    reply = replies[-1]
    if not reply.accepted:
        raise CommandError(f"refused: {reply.message}")
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CommandError("watchdog main answered with something that is no JSON object; are both of one version?")
    return value
