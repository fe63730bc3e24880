"""backend list, attach, detach and promote: what the cluster has agreed on, and an operator's orders.

Asks watchdog main of this machine, which asks the leader. An order of an operator needs no consensus; it is logged as
what it is, and every pgpool-II is told.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.ipc.frames import OUTCOME_UNKNOWN
from pgvigil.watchdog.cli import backend_render, codes, inform, membership, node

MAX_REASON = 300
LIMIT_MS = 65_000
"""Watchdog main answers after 60 s at the latest."""
DONE = {"attach": "attached by {who}", "detach": "detached by {who}", "promote": "promoted by {who}"}
_CODES = {"done": codes.OK, "refused": codes.FAILED, "unknown": codes.UNKNOWN}


def backend(options: argparse.Namespace) -> int:
    """One of them."""
    _check(options)
    run_dir = node.run_dir_of(options)
    if node.may_know(run_dir) and node.supervisor_pid(run_dir) is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    if options.action == "list":
        return _list(options, run_dir)
    result = _order(options, run_dir)
    if options.json:
        print(json.dumps(asdict(result), ensure_ascii=False))
    elif result.outcome == "done":
        print(f"{result.took_ms:>6} ms  {result.message}", flush=True)
    else:
        print(f"pgvigil backend {options.action}: {result.message}", file=sys.stderr)
    return _CODES[result.outcome]


def _check(options: argparse.Namespace) -> None:
    """Mistakes in the command, found before anybody is asked."""
    action = options.action
    if action == "list" and (options.target is not None or options.reason):
        raise ConfigError("list takes neither a backend nor a reason; expected 'pgvigil backend list'")
    if action != "list" and options.target is None:
        raise ConfigError(f"{action} needs a backend; expected 'pgvigil backend {action} ID' or HOST[:PORT]")
    if options.switchover and action != "promote":
        raise ConfigError(f"--switchover with {action}, expected it with promote only")
    if len(options.reason) > MAX_REASON:
        raise ConfigError(f"the reason has {len(options.reason)} letters; expected at most {MAX_REASON}")


def _list(options: argparse.Namespace, run_dir: str) -> int:
    try:
        value = node.ask_json(run_dir, "backend-list")
    except CommandError as error:
        print(f"pgvigil backend list: {error}", file=sys.stderr)
        return codes.UNKNOWN
    print(json.dumps(value, ensure_ascii=False) if options.json else backend_render.page(value, sys.stdout))
    return codes.OK if value.get("agreed") else codes.UNKNOWN


def _order(options: argparse.Namespace, run_dir: str) -> membership.Result:
    from pgvigil.ipc.channel import ControlClient

    who = DONE[options.action].format(who=inform.reporter())
    reason = f"{who}: {options.reason}" if options.reason else who
    more = ("switchover",) if options.switchover else ()
    result, begun_ns = membership.Result(options.action), boottime_ns()
    client = ControlClient(node.endpoint_of(run_dir))
    try:
        arguments = (options.target, reason, *more)
        for reply in client.ask(f"backend-{options.action}", arguments, LIMIT_MS):
            result.take(reply)
            result.took_ms = (boottime_ns() - begun_ns) // NS_PER_MS
            if not reply.final and not options.json:
                print(f"{result.took_ms:>6} ms  {reply.message}", flush=True)
    except CommandError as error:
        result.message = f"{OUTCOME_UNKNOWN} {error}; see 'pgvigil backend list'"
    finally:
        client.close()
    return result
