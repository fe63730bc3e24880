"""failover, failback and follow-primary: what pgpool-II calls instead of the user's own script.

Reports to watchdog main of this machine and waits for what the cluster decides. Runs as pgpool-II's user, survives a
restart of watchdog main, and decides nothing. Progress goes to standard error, which is pgpool-II's log.
"""

from __future__ import annotations

import argparse
import sys

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog import placeholders
from pgvigil.watchdog.cli import codes, node

KINDS = {"failover": "down", "failback": "up", "follow-primary": "follow"}
CONNECT_MS = 10_000
"""As long as watchdog main may need to come back; then it does not run."""
MARGIN_MS = 1000
"""Watchdog main answers so long before this process gives up, so that its sentence is heard."""


def call(options: argparse.Namespace) -> int:
    """Report, wait, and return what became of it."""
    arguments = placeholders.from_words(options.value)
    if not placeholders.values_of(arguments)["d"].isdigit():
        raise ConfigError(f"%d is missing, expected the id of a backend first: {placeholders.shown_order()}")
    from pgvigil.ipc.insisting import InsistingClient, NotReached

    timeout_ms, begun_ns = int(options.timeout * 1000), boottime_ns()
    kind = KINDS[options.command]

    def content(left_ms: int) -> tuple[str, ...]:
        # A watchdog main that has started since knows by this that much may have been decided since.
        return (kind, f"timeout_ms={max(1000, left_ms - MARGIN_MS)}", f"asked_ns={begun_ns}", *arguments)

    client = InsistingClient(node.endpoint_of(node.run_dir_of(options)))
    try:
        for reply in client.ask("backend-ask", content, timeout_ms, min(timeout_ms, CONNECT_MS)):
            took_ms = (boottime_ns() - begun_ns) // NS_PER_MS
            if reply.final:
                good = "" if reply.accepted else "failed: "
                print(f"pgvigil {options.command}: {good}{reply.message} ({took_ms} ms)", file=sys.stderr)
                return codes.OK if reply.accepted else codes.FAILED
            print(f"pgvigil {options.command}: {reply.message} ({took_ms} ms)", file=sys.stderr, flush=True)
    except NotReached as error:
        print(f"pgvigil {options.command}: {error}; pgvigil does not run here", file=sys.stderr)
        return codes.NOT_RUNNING
    except CommandError as error:
        print(f"pgvigil {options.command}: unknown: {error}; see 'pgvigil backend list'", file=sys.stderr)
    finally:
        client.close()
    return codes.FAILED
