"""status, switchover and bootstrap: questions and orders to watchdog main."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.ipc.frames import OUTCOME_UNKNOWN
from pgvigil.watchdog.cli import codes, node, render

SWITCHOVER_TIMEOUT_MS = 30_000
BOOTSTRAP_TIMEOUT_MS = 10_000


def status(options: argparse.Namespace) -> int:
    """Once, or live."""
    try:
        run_dir = node.run_dir_of(options)
    except node.NotAllowed as error:
        print(f"pgvigil status: {error}", file=sys.stderr)
        return codes.UNKNOWN
    if options.watch:
        from pgvigil.watchdog.cli.watch import watch

        return watch(run_dir, options.json)
    reading = read(run_dir)
    print(as_json(reading) if options.json else render.page(reading, render.wants_colour(sys.stdout)))
    return code_of(reading)


def read(run_dir: str) -> render.Reading:
    """Everything that can be known of this node now."""
    pid = node.supervisor_pid(run_dir) if node.may_know(run_dir) else 0
    if pid is None:
        return render.Reading(None, None, node.not_running(run_dir))
    try:
        return render.Reading(pid, node.ask_json(run_dir, "status"), "")
    except CommandError as error:
        return render.Reading(pid, None, str(error))


def code_of(reading: render.Reading) -> int:
    """0 only if this node runs and knows a leader with a lease."""
    if reading.pid is None:
        return codes.NOT_RUNNING
    if reading.status is None or reading.status.get("leader_id") is None:
        return codes.UNKNOWN
    return codes.OK


def as_json(reading: render.Reading) -> str:
    """Watchdog main's own JSON, with two keys more; "state" is "unknown" or "not running" without it."""
    state = "not running" if reading.pid is None else "unknown"
    value: dict[str, Any] = {"running": reading.pid is not None, "supervisor_pid": reading.pid}
    value |= reading.status or {"state": state, "sentence": reading.trouble, "leader_id": None}
    return json.dumps(value, ensure_ascii=False)


def switchover(options: argparse.Namespace) -> int:
    """Hand leadership over and tell how it goes."""
    arguments = () if options.node is None else (options.node,)
    return order(options, "switchover", arguments, SWITCHOVER_TIMEOUT_MS)


def bootstrap(options: argparse.Namespace) -> int:
    """Found the cluster with the voters that are here."""
    return order(options, "bootstrap", (), BOOTSTRAP_TIMEOUT_MS)


def order(options: argparse.Namespace, verb: str, arguments: tuple[str, ...], timeout_ms: int) -> int:
    """Pass an order on to watchdog main; `arguments` begin with the name of a node, if there are any."""
    from pgvigil.ipc.channel import ControlClient
    from pgvigil.ipc.endpoints import control_endpoint

    if len("".join(arguments[:1])) > 253:
        raise ConfigError("the name of the node is too long; expected a host or an id")
    run_dir = node.run_dir_of(options)
    if node.supervisor_pid(run_dir) is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    begun_ns = boottime_ns()
    client = ControlClient(control_endpoint(run_dir))
    try:
        for reply in client.ask(verb, arguments, timeout_ms):
            took_ms = (boottime_ns() - begun_ns) // NS_PER_MS
            if not reply.accepted:
                print(f"pgvigil {verb}: {reply.message}", file=sys.stderr)
                return codes.UNKNOWN if reply.message.startswith(OUTCOME_UNKNOWN) else codes.FAILED
            print(f"{took_ms:>6} ms  {reply.message}", flush=True)
    except CommandError as error:
        # An order that was taken may still be carried out.
        print(f"pgvigil {verb}: {error}; the outcome is unknown, see 'pgvigil status'", file=sys.stderr)
        return codes.UNKNOWN
    finally:
        client.close()
    return codes.OK
