"""Rules about what lifecheck watches of the host itself: its links and its upstream servers.

A file that names what is not there would make a node unfit to lead for ever, and one that asks nobody would watch
nothing. Nothing is resolved and nobody is asked here: a check of a file must not hang on a name server.
"""

from __future__ import annotations

import shlex
import shutil

from pgvigil.watchdog.config.kinds import ip_literal
from pgvigil.watchdog.config.local import LocalNetwork
from pgvigil.watchdog.config.problems import Problems
from pgvigil.watchdog.config.reader import Draft, Section

ECHO_PROGRAM = "ping"


def upstream_is_asked(problems: Problems, draft: Draft) -> None:
    """Servers that nobody asks are a mistake of thought, and a command without %h asks each the same."""
    lifecheck = draft["lifecheck"]
    if lifecheck.get("upstream_servers") and "upstream" not in (lifecheck.get("methods") or ("upstream",)):
        wrong = 'is set, but methods has no "upstream": nobody asks these hosts'
        problems.warn(lifecheck.at("upstream_servers"), wrong, 'add "upstream"')
    command = lifecheck.get("upstream_command")
    if command is None:
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        wrong = f"cannot be split into words: {error}"
        problems.mistake(lifecheck.at("upstream_command"), wrong, "expected balanced quotes")
        return
    if not any("%h" in word.replace("%%", "") for word in words):
        wrong = "has no %h, which stands for the host to ask"
        problems.mistake(lifecheck.at("upstream_command"), wrong, 'expected a command such as "ping -q -c 1 %h"')


def host_can_be_watched(problems: Problems, draft: Draft, local: LocalNetwork) -> None:
    """What this machine lacks of it. An interface may appear later, so its absence is no mistake."""
    lifecheck = draft["lifecheck"]
    for name in lifecheck.get("interfaces") or ():
        if name not in local.interfaces:
            wrong = f"this machine has no interface {name} now, which counts as down"
            problems.warn(lifecheck.at("interfaces"), wrong, "expected some of " + ", ".join(local.interfaces[:12]))
    if "upstream" in (lifecheck.get("methods") or ()):
        _command_is_here(problems, lifecheck)


def _command_is_here(problems: Problems, lifecheck: Section) -> None:
    command = lifecheck.get("upstream_command")
    names = [server for server in lifecheck.get("upstream_servers") or () if ip_literal(server) is None]
    if command is None and names:
        wrong = f"{names[0]} is a name, asked by running {ECHO_PROGRAM}: to that, a dead name server is a dead host"
        problems.warn(lifecheck.at("upstream_servers"), wrong, "better give its address")
    if command is None and not names:
        return
    key = "upstream_servers" if command is None else "upstream_command"
    try:
        program = ECHO_PROGRAM if command is None else shlex.split(command)[0]
    except (ValueError, IndexError):
        return  # said already, by the rule above
    if shutil.which(program) is None:
        problems.mistake(lifecheck.at(key), f"{program} is not here or not executable", "expected a program")
