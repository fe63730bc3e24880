"""Entry of the command line: parse, call one command, turn every end into an exit code.

Also the entry of `python -m pgvigil.watchdog.cli`. Prints reasons to standard error and answers to standard output;
never a traceback for what an operator, a peer or the machine did.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.cli import codes, parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (`codes`)."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return codes.INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at its end once more; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return codes.PIPE_CLOSED


def _run(argv: list[str]) -> int:
    commands = parser.build()
    try:
        options = commands.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else codes.USAGE
    if options.command is None:
        commands.print_help(sys.stderr)
        return codes.USAGE
    options.argv = argv
    command = next(one for one in parser.COMMANDS if options.command in (one.name, *one.aliases))
    options.command = command.name
    function: Callable[[object], int] = getattr(importlib.import_module(command.module), command.function)
    try:
        return function(options)
    except PgvigilError as error:
        print(f"pgvigil {command.name}: {error}", file=sys.stderr)
        return codes.of_error(error)


if __name__ == "__main__":
    sys.exit(main())
