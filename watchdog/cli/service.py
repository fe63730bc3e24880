"""start, stop and reload: what happens to the processes of this node."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.cli import codes, node
from pgvigil.watchdog.cli.parser import config_path
from pgvigil.watchdog.supervisor import pidfile

SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
RELOAD_LIMIT_NS = 5 * NS_PER_S
POLL_S = 0.02


def start(options: argparse.Namespace) -> int:
    """Check the configuration, then hand over to the supervisor."""
    from pgvigil.ipc.counted import counted
    from pgvigil.watchdog.config.load import examine
    from pgvigil.watchdog.config.problems import refusal
    from pgvigil.watchdog.supervisor import daemon

    outcome = examine(config_path(options), options.node_id)
    for problem in outcome.warnings:
        print(problem, file=sys.stderr)
    if outcome.settings is None:
        print(refusal(outcome.mistakes), file=sys.stderr)
        print(f"pgvigil start: {counted(len(outcome.mistakes), 'mistake')}, not started", file=sys.stderr)
        return codes.USAGE
    return daemon.start(outcome.settings, options.foreground, options.argv)


def stop(options: argparse.Namespace) -> int:
    """Signal the supervisor and wait for its end."""
    run_dir = node.run_dir_of(options)
    pid = node.supervisor_pid(run_dir)
    if pid is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    begun_ns = boottime_ns()
    deadline_ns = begun_ns + int(options.timeout * NS_PER_S)
    if not _signal_and_wait(run_dir, pid, SIGNALS[options.mode], deadline_ns):
        harder = "; 'pgvigil stop -m immediate' waits for nothing" if options.mode != "immediate" else ""
        raise CommandError(f"process {pid} has not ended within {options.timeout:g} s{harder}")
    print(f"stopped process {pid} ({options.mode}) in {(boottime_ns() - begun_ns) // NS_PER_MS} ms")
    return codes.OK


def _signal_and_wait(run_dir: str, pid: int, number: signal.Signals, deadline_ns: int) -> bool:
    """Signal exactly the process that holds the lock; true if it has gone in time, and the lock with it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if pidfile.holder(run_dir) != pid:
            return True  # it ended before the descriptor was there, which may name a stranger
        signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0, (deadline_ns - boottime_ns()) // NS_PER_MS))
    except ProcessLookupError:
        pass
    except PermissionError:
        raise CommandError(f"may not signal process {pid}; run this as root or as the user of pgvigil") from None
    finally:
        os.close(descriptor)
    return pidfile.holder(run_dir) != pid


def reload(options: argparse.Namespace) -> int:
    """Check the file here, let the supervisor read it, and tell what it said."""
    from pgvigil.ipc.counted import counted
    from pgvigil.watchdog.config.load import examine
    from pgvigil.watchdog.config.problems import refusal

    run_dir = node.run_dir_of(options)
    pid = node.supervisor_pid(run_dir)
    if pid is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    outcome = examine(config_path(options), options.node_id)
    for problem in outcome.warnings:
        print(problem, file=sys.stderr)
    before_ns = _last_reload(run_dir).get("at_ns", 0)
    # Sent also for a file with mistakes: the log of the running node must tell of the attempt.
    _signal(pid)
    if outcome.settings is None:
        print(refusal(outcome.mistakes), file=sys.stderr)
        print(f"pgvigil reload: {counted(len(outcome.mistakes), 'mistake')}, nothing was changed", file=sys.stderr)
        return codes.FAILED
    return _await_reload(run_dir, int(before_ns))


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        raise CommandError(f"process {pid} has just ended") from None
    except PermissionError:
        raise CommandError(f"may not signal process {pid}; run this as root or as the user of pgvigil") from None


def _await_reload(run_dir: str, before_ns: int) -> int:
    deadline_ns = boottime_ns() + RELOAD_LIMIT_NS
    while boottime_ns() < deadline_ns:
        answer = _last_reload(run_dir)
        if int(answer.get("at_ns", 0)) > before_ns:
            accepted = bool(answer.get("accepted"))
            print(answer.get("message") or "reloaded", file=sys.stdout if accepted else sys.stderr)
            return codes.OK if accepted else codes.FAILED
        time.sleep(POLL_S)
    print("pgvigil reload: no answer within 5 s, so the outcome is unknown; see the log", file=sys.stderr)
    return codes.UNKNOWN


def _last_reload(run_dir: str) -> dict[str, int | bool | str]:
    """Watchdog main's memory of the newest reload; empty while it does not answer, as during its restart."""
    try:
        return node.ask_json(run_dir, "last-reload", timeout_ms=500)
    except CommandError:
        return {}
