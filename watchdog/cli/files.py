"""check, keygen and demo: commands that need no running node."""

from __future__ import annotations

import argparse
import os
import sys

from pgvigil.ipc.errors import CommandError, InvariantError
from pgvigil.watchdog.cli import codes
from pgvigil.watchdog.cli.parser import config_path


def check(options: argparse.Namespace) -> int:
    """Tell all mistakes and warnings; with --print also the normal form."""
    from pgvigil.ipc.counted import counted
    from pgvigil.watchdog.config.load import examine

    path = config_path(options)
    outcome = examine(path, options.node_id)
    for problem in (*outcome.mistakes, *outcome.warnings):
        print(problem, file=sys.stderr)
    if outcome.settings is None:
        print(f"{path}: {counted(len(outcome.mistakes), 'mistake')}", file=sys.stderr)
        return codes.USAGE
    if options.print:
        from pgvigil.watchdog.config.write import normal_tables, to_toml

        if outcome.draft is None:
            raise InvariantError("settings without a draft")
        print(to_toml(normal_tables(outcome.draft)), end="")
        return codes.OK
    own = outcome.settings.node
    print(f"{path}: no mistakes, {counted(len(outcome.warnings), 'warning')}; this is node {own.id} ({own.host})")
    return codes.OK


def keygen(options: argparse.Namespace) -> int:
    """Write a fresh secret, 0600, over nothing."""
    from pgvigil.watchdog.config import keys

    text = keys.generate()
    if options.file is None:
        print(text, end="")
        return codes.OK
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise CommandError(f"{options.file} exists and is not overwritten; name another file or remove it") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot write {options.file}: {getattr(error, 'strerror', None) or error}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)  # the umask may have taken more than the mode allows
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    print(f"wrote {options.file}; copy it to every node, mode 0600")
    return codes.OK


def demo(options: argparse.Namespace) -> int:
    """The demonstration; exit code 0 only if every step held."""
    from pgvigil.watchdog.demo.demo import run_demo

    return run_demo(options.hold, scenario=options.scenario)
