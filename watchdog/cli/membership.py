"""node add, node remove and node leave: who votes.

Asks watchdog main of this machine, which passes the wish on to the leader. Says done, refused or unknown and nothing in
between: a script that reads 4 asks again, which changes nothing that is so already.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.ipc.frames import OUTCOME_UNKNOWN, Reply
from pgvigil.watchdog.cli import codes
from pgvigil.watchdog.cli import node as nodes

NODE_TIMEOUT_MS = 30_000
STOP_TIMEOUT_S = 30.0
MAX_NAME = 253

_CODES = {"done": codes.OK, "refused": codes.FAILED, "unknown": codes.UNKNOWN}


@dataclass
class Result:
    """What came of it; `steps` are the sentences on the way, `outcome` is done, refused or unknown."""

    action: str
    outcome: str = "unknown"
    message: str = ""
    took_ms: int = 0
    steps: list[str] = field(default_factory=list)

    def take(self, reply: Reply) -> None:
        """One more answer."""
        if reply.final:
            unknown = reply.message.startswith(OUTCOME_UNKNOWN)
            self.outcome = "done" if reply.accepted else "unknown" if unknown else "refused"
            self.message = reply.message
        else:
            self.steps.append(reply.message)


def node(options: argparse.Namespace) -> int:
    """One change of the voters."""
    arguments = _arguments(options)
    run_dir = nodes.run_dir_of(options)
    if nodes.supervisor_pid(run_dir) is None:
        print(nodes.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    result = _ask(run_dir, options.action, arguments, quiet=options.json)
    if options.json:
        print(json.dumps(asdict(result), ensure_ascii=False))
    elif result.outcome == "done":
        print(f"{result.took_ms:>6} ms  {result.message}", flush=True)
    else:
        print(f"pgvigil node {options.action}: {result.message}", file=sys.stderr)
    if result.outcome == "done" and options.stop:
        return _stop(options)
    return _CODES[result.outcome]


def _arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """The name of the node, or nothing for leave; `ConfigError` for a mistake in the command."""
    named = options.node is not None
    if options.action == "leave" and named:
        raise ConfigError(f"leave takes no node; run it on {options.node[:MAX_NAME]}, or use 'pgvigil node remove'")
    if options.action != "leave" and not named:
        raise ConfigError(f"{options.action} needs a node; expected 'pgvigil node {options.action} NODE'")
    if options.stop and options.action != "leave":
        raise ConfigError("--stop stops this node after leave; use 'pgvigil stop' on the other one")
    if named and len(options.node) > MAX_NAME:
        raise ConfigError("the name of the node is too long; expected a host or an id")
    return (options.node,) if named else ()


def _ask(run_dir: str, action: str, arguments: tuple[str, ...], quiet: bool) -> Result:
    from pgvigil.ipc.channel import ControlClient
    from pgvigil.ipc.endpoints import control_endpoint

    result, begun_ns = Result(action), boottime_ns()
    client = ControlClient(control_endpoint(run_dir))
    try:
        for reply in client.ask(f"node-{action}", arguments, NODE_TIMEOUT_MS):
            result.take(reply)
            result.took_ms = (boottime_ns() - begun_ns) // NS_PER_MS
            if not reply.final and not quiet:
                print(f"{result.took_ms:>6} ms  {reply.message}", flush=True)
    except CommandError as error:
        # An order that was taken may still be carried out.
        result.message = f"{OUTCOME_UNKNOWN} {error}; see 'pgvigil status'"
    finally:
        client.close()
    return result


def _stop(options: argparse.Namespace) -> int:
    from pgvigil.watchdog.cli import service

    options.mode, options.timeout = "smart", STOP_TIMEOUT_S
    return service.stop(options)
