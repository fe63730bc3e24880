"""The table of commands, and the argparse parser that is made from it.

Everything that help, completion and the reference tell about a command stands in `COMMANDS`. A command's code is
named here and imported only when it is called: a status must not pay for the demo.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pgvigil
from pgvigil.watchdog.cli import codes
from pgvigil.watchdog.cli.values import backend_count, batch_size, long_seconds

DEFAULT_CONFIG = "/etc/pgvigil/pgvigil.toml"
CONFIG_VARIABLE = "PGVIGIL_CONFIG"


@dataclass(frozen=True, slots=True)
class Argument:
    """One option or positional of a command; `values` for completion: words, or "file"."""

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()
    metavar: str = ""
    flag: bool = False
    default: str | float | None = None
    optional: bool = False
    many: bool = False
    kind: Callable[[str], object] = str
    files: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command: `module` has `function(options) -> exit code`."""

    name: str
    summary: str
    text: str
    examples: tuple[tuple[str, str], ...]
    module: str
    function: str
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[str, ...] = ()


def seconds(text: str) -> float:
    """A time limit: more than 0 and at most an hour."""
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} s, expected more than 0 and at most 3600")
    return value


def node_number(text: str) -> int:
    """A node id."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 127:
        raise argparse.ArgumentTypeError(f"'{text[:40]}', expected a number of 1 to 127")
    return int(text)


def report_seconds(text: str) -> int:
    """How long a report counts: 1 s to a day."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text[:40]}' s, expected a whole number of 1 to 86400")
    return int(text)


def port_number(text: str) -> int:
    """A TCP port."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text[:40]}', expected a number of 1 to 65535")
    return int(text)


GLOBAL = (
    Argument(("-c", "--config"), f"the configuration (default: {DEFAULT_CONFIG}, or {CONFIG_VARIABLE})",
             metavar="FILE", files=True),
    Argument(("--node-id",), "the id of this node, before any other way of finding it", metavar="N", kind=node_number),
)  # fmt: skip

PCP_REQUESTS = (
    "node-count", "node-info", "health-stats", "pool-status", "proc-count", "proc-info", "watchdog-info", "attach",
    "detach", "promote", "stop", "reload", "log-rotate", "invalidate-cache", "recovery",
)  # fmt: skip
"""Here and not with their code, which completion and help of other commands must not import."""

_SERVICE = "pgvigil.watchdog.cli.service"
_CLUSTER = "pgvigil.watchdog.cli.cluster"
_FAILOVER = "pgvigil.watchdog.cli.failover"
_FILES = "pgvigil.watchdog.cli.files"
_INFORM = "pgvigil.watchdog.cli.inform"

_CALLED = "Called by pgpool-II, as its user. Waits for what the cluster decides: 0 if it was decided and the leader's "
_ENDS = (
    "command ended well, or none is configured; 1 if not, with the reason on standard error; 2 for a mistake in the "
    "values. Values that are missing at the end are empty."
)
_VALUES = (
    Argument(("value",), "%%d %%h %%p %%D %%m %%H %%M %%P %%r %%R %%N %%S in this order", metavar="VALUE", many=True),
    Argument(("--timeout",), "how long to wait (default: 120)", metavar="SECONDS", default=120.0, kind=seconds),
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "start", "start this node",
        "Checks the configuration, starts the processes and returns when all are ready, or fails with the reason.",
        (("pgvigil start", "as a daemon"), ("pgvigil start --foreground", "under systemd or in a container")),
        _SERVICE, "start",
        (Argument(("-f", "--foreground"), "do not detach; log to standard error by default", flag=True),),
    ),
    Command(
        "stop", "stop this node",
        "smart hands leadership over first, fast drops the virtual IP and stops, immediate stops at once.",
        (("pgvigil stop", "hand over, then stop"), ("pgvigil stop -m fast --timeout 10", "do not wait for others")),
        _SERVICE, "stop",
        (
            Argument(("-m", "--mode"), "how (default: smart)", ("smart", "fast", "immediate"), default="smart"),
            Argument(("--timeout",), "how long to wait for the end (default: 30)", metavar="SECONDS", default=30.0,
                     kind=seconds),
        ),
    ),
    Command(
        "reload", "read the configuration again",
        "A file with mistakes changes nothing; they are printed here and in the log.",
        (("pgvigil reload", "after a change of the file"),),
        _SERVICE, "reload",
    ),
    Command(
        "status", "show this node and what it knows of the others",
        "Says unknown rather than something stale. Exit code 0 only if a leader with a lease is known.",
        (
            ("pgvigil status", "once"),
            ("pgvigil status --watch", "live, until Ctrl-C; a line per change if the output is a pipe"),
            ("pgvigil status --json | jq .leader_id", "for programs"),
        ),
        _CLUSTER, "status",
        (
            Argument(("--json",), "print JSON; with --watch one line per reading", flag=True),
            Argument(("-w", "--watch"), "go on until Ctrl-C", flag=True),
        ),
    ),
    Command(
        "switchover", "hand leadership to another node",
        "Asks the leader, from any node. Without NODE the best standby takes over. Refused if nobody could.",
        (("pgvigil switchover", "to the best standby"), ("pgvigil switchover pg02", "to this one, by host or id")),
        _CLUSTER, "switchover",
        (Argument(("node",), "host or id of the next leader", metavar="NODE", optional=True),),
    ),
    Command(
        "node", "add or remove a voter",
        "Changes who votes, one node at a time, when a majority has stored it. Asks the leader, from any node. A node "
        "to add must run, with the same configuration on every node. leave removes this node, which goes on without a "
        "vote (--stop: stops); a leader hands over first. Exit code 4: the outcome is unknown, ask again.",
        (
            ("pgvigil node add pg04", "after it has been started"),
            ("pgvigil node remove pg03", "by host or id; it may be down"),
            ("pgvigil node leave --stop", "take this node out and stop it"),
        ),
        "pgvigil.watchdog.cli.membership", "node",
        (
            Argument(("action",), "what to do", ("add", "remove", "leave")),
            Argument(("node",), "host or id; for add and remove", metavar="NODE", optional=True),
            Argument(("--json",), "print one JSON object at the end", flag=True),
            Argument(("--stop",), "leave: then stop this node", flag=True),
        ),
    ),
    Command(
        "inform", "report that a node's pgpool-II is alive or dead",
        "Tells lifecheck of this node, for a while; the newest report on a node counts. A report of dead makes it "
        "dead, one of alive is a reason more to believe it alive. With methods = ['external'] reports alone count, so "
        "repeat them: a node of which nobody reports is unknown, and does not lead.",
        (
            ("pgvigil inform pg02 dead --reason 'ping fails'", "by host or id"),
            ("pgvigil inform pg02 alive --for 30", "counts for 30 s; repeat it sooner"),
        ),
        _INFORM, "inform",
        (
            Argument(("node",), "host or id of the node", metavar="NODE"),
            Argument(("health",), "what it is", ("alive", "dead")),
            Argument(("--reason",), "why, for status and log", metavar="TEXT", default=""),
            Argument(("--for",), "how long it counts (default: external_timeout_s)", metavar="SECONDS",
                     kind=report_seconds),
        ),
    ),
    Command(
        "pcp", "ask or tell one pgpool-II over its control protocol",
        "Talks to the pgpool-II of this node, or to the one of --node or --host, and to nobody else: the cluster is "
        "neither asked nor told. ID is the number of a backend. An order is done when pgpool-II says so; exit code 4: "
        "it may have been carried out. User and password: pcp_user and pcp_password_file of [pgpool], or .pcppass.",
        (
            ("pgvigil pcp node-info", "all backends of this node's pgpool-II"),
            ("pgvigil pcp node-info 1 --json", "one of them, for programs"),
            ("pgvigil pcp detach 1 --graceful", "wait until its clients have gone"),
            ("pgvigil pcp promote 1 --switchover", "make it the primary and detach the old one"),
            ("pgvigil pcp reload --node pg02", "the pgpool-II of another node"),
            ("pgvigil pcp node-count --host /var/run/postgresql", "over the unix socket in this folder"),
        ),
        "pgvigil.watchdog.cli.pcp", "pcp",
        (
            Argument(("request",), "what to ask or to order", PCP_REQUESTS),
            Argument(("target",), "number of a backend or process, name of a parameter", metavar="ID", optional=True),
            Argument(("--json",), "print one JSON object", flag=True),
            Argument(("-g", "--graceful"), "detach, promote: wait until the clients have gone", flag=True),
            Argument(("--switchover",), "promote: detach the old primary too (pgpool-II 4.3 or newer)", flag=True),
            Argument(("-m", "--mode"), "stop: how (default: smart)", ("smart", "fast", "immediate")),
            Argument(("--cluster",), "stop, reload, log-rotate: all nodes of pgpool-II's own watchdog", flag=True),
            Argument(("--node",), "the pgpool-II of this node of the configuration, by host or id", metavar="NODE"),
            Argument(("--host",), "host, or folder of the unix socket; needs no configuration", metavar="HOST"),
            Argument(("--port",), "port of PCP (default: pcp_port, 9898)", metavar="PORT", kind=port_number),
            Argument(("--user",), "user of pcp.conf (default: pcp_user, then the one you are)", metavar="NAME"),
            Argument(("--password-file",), "file of mode 0600 with that user's password", metavar="FILE", files=True),
            Argument(("--timeout",), "how long it may take (default: 10; orders 60; recovery, --graceful 3600)",
                     metavar="SECONDS", kind=seconds),
        ),
    ),
    Command(
        "rolling", "run a command on the backends, batch by batch",
        "Detaches a batch of backends from every pgpool-II, runs the command for each, attaches them again when all of "
        "the batch are done, and goes on to the next batch. The primary and what is not attached are left out. Ctrl-C "
        "lets the batch end and stops; a second one ends its commands. What stopped, or was killed, goes on with "
        "--resume; a command that did not end well is then run again.",
        (
            ("pgvigil rolling --batch half --run 'refresh {host} {port}'", "the two halves one after the other"),
            ("pgvigil rolling --batch 1 --keep 2 --run 'ssh {host} upgrade'", "never fewer than two attached"),
            ("pgvigil rolling --status", "how far it is"),
            ("pgvigil rolling --resume", "go on after Ctrl-C, a failure, a reboot"),
            ("pgvigil rolling --abandon", "attach what is detached and forget the rest"),
        ),
        "pgvigil.watchdog.cli.rolling", "rolling",
        (
            Argument(("--batch",), "how many at once: half, or a number", metavar="half|N", kind=batch_size),
            Argument(("--run",), "the command for the shell; {host}, {port} and {id} are put in; --resume: another one",
                     metavar="COMMAND"),
            Argument(("--keep",), "never fewer attached than this (default: 1)", metavar="N", kind=backend_count),
            Argument(("--include-primary",), "the primary too; refused if that is a failover", flag=True),
            Argument(("--on-failure",), "a command fails, and the run stops: hold (default) keeps its whole batch "
                     "detached, leave only the backend, attach none", ("hold", "leave", "attach")),
            Argument(("--jobs",), "commands at once (default: all of the batch)", metavar="N", kind=backend_count),
            Argument(("--limit",), "for one command (default: 3600)", metavar="SECONDS", kind=long_seconds),
            Argument(("--settle",), "for every pgpool-II to agree (default: 60)", metavar="SECONDS", kind=seconds),
            Argument(("--state",), "where to keep how far it is (default: rolling.json in state_dir)", metavar="FILE",
                     files=True),
            Argument(("--dry-run",), "show the plan and change nothing", flag=True),
            Argument(("--resume",), "go on with the run that stopped", flag=True),
            Argument(("--abandon",), "attach what the run detached, and end it", flag=True),
            Argument(("--status",), "show the run", flag=True),
            Argument(("--json",), "print JSON: one line per step, the last one with the outcome", flag=True),
        ),
    ),
    Command(
        "backend", "show, attach, detach or promote a PostgreSQL server",
        "Works on what all pgpool-IIs together have agreed on; from any node. An order needs no consensus, is logged "
        "as an operator's, runs the configured command once, and reaches every pgpool-II. Name the backend by its id, "
        "HOST:PORT, or HOST if there is only one. Exit code 4: the outcome is unknown (list: no leader is known).",
        (
            ("pgvigil backend list", "agreed status, and what each pgpool-II says"),
            ("pgvigil backend detach pg-a --reason 'new disk'", "in all pgpool-IIs"),
            ("pgvigil backend attach pg-a:5432", "again"),
            ("pgvigil backend promote 1 --switchover", "run the failover command, with 1 as the new primary"),
        ),
        "pgvigil.watchdog.cli.backend", "backend",
        (
            Argument(("action",), "what to do", ("list", "attach", "detach", "promote")),
            Argument(("target",), "which backend", metavar="ID|HOST[:PORT]", optional=True),
            Argument(("--reason",), "why, for status and log", metavar="TEXT", default=""),
            Argument(("--switchover",), "promote: run the failover command for the old primary first", flag=True),
            Argument(("--json",), "print one JSON object", flag=True),
        ),
    ),
    Command(
        "failover", "report to the cluster that a backend has failed",
        _CALLED + _ENDS,
        (("failover_command = 'pgvigil failover %d %h %p \"%D\" %m %H %M %P %r \"%R\" %N %S'", "in pgpool.conf"),),
        _FAILOVER, "call", _VALUES,
    ),
    Command(
        "failback", "report to the cluster that a backend was attached",
        _CALLED + _ENDS,
        (("failback_command = 'pgvigil failback %d %h %p \"%D\" %m %H %M %P %r \"%R\" %N %S'", "in pgpool.conf"),),
        _FAILOVER, "call", _VALUES,
    ),
    Command(
        "follow-primary", "wait until a backend follows the new primary",
        _CALLED + _ENDS,
        (("follow_primary_command = 'pgvigil follow_primary %d %h %p \"%D\" ...'", "in pgpool.conf, as the others"),),
        _FAILOVER, "call", _VALUES, ("follow_primary",),
    ),
    Command(
        "recovery", "recover a backend online, with clients of the other pgpool-IIs held back",
        "Tells the pgpool-II of this node to recover backend ID (pcp_recovery_node). In native replication and "
        "snapshot isolation new clients of the other pgpool-IIs wait during the second stage, and the backend is "
        "attached everywhere before they get through. Refused before it begins if a node cannot hold its clients "
        "back. If clients got through too early, the backend is detached again and the exit code is 1.",
        (
            ("pgvigil recovery 1", "backend 1, which is down on every pgpool-II"),
            ("pgvigil recovery 1 --force", "although a node does not answer: keep its clients away yourself"),
        ),
        "pgvigil.watchdog.cli.recovery", "recovery",
        (
            Argument(("backend",), "number of the backend", metavar="ID"),
            Argument(("--json",), "print one JSON object at the end", flag=True),
            Argument(("--force",), "leave out nodes that do not answer or cannot hold", flag=True),
            Argument(("--drain",), "how long clients of other pgpool-IIs may take to leave (default: 30)",
                     metavar="SECONDS", default=30.0, kind=seconds),
            Argument(("--user",), "user of pcp.conf (default: pcp_user, then the one you are)", metavar="NAME"),
            Argument(("--password-file",), "file of mode 0600 with that user's password", metavar="FILE", files=True),
            Argument(("--timeout",), "how long pgpool-II may take (default: 3600)", metavar="SECONDS", default=3600.0,
                     kind=seconds),
        ),
    ),
    Command(
        "bootstrap", "found the cluster without the voters that are missing",
        "A new cluster waits until every voter has answered. Use this once, on one node, if one of them cannot come; "
        "never if a cluster of these nodes may exist already.",
        (("pgvigil bootstrap", "on one node only"),),
        _CLUSTER, "bootstrap",
    ),
    Command(
        "check", "check the configuration",
        "Tells every mistake at once, with file, line, key and what is expected. Starts and changes nothing.",
        (
            ("pgvigil check", "the file that start would read"),
            ("pgvigil -c new.toml --node-id 2 check --print", "another file, as node 2, with all defaults written out"),
        ),
        _FILES, "check",
        (Argument(("--print",), "print the configuration in its normal form", flag=True),),
    ),
    Command(
        "keygen", "make a shared secret",
        "Writes a file of mode 0600 and never overwrites one; without FILE the secret goes to standard output.",
        (("pgvigil keygen /etc/pgvigil/authkey", "then copy it to every node"),),
        _FILES, "keygen",
        (Argument(("file",), "where to write it", metavar="FILE", optional=True, files=True),),
    ),
    Command(
        "demo", "show it all in network namespaces of this machine",
        "Three nodes with real pgpool-II and PostgreSQL, a failure, a switchover, and a verdict. Needs root.",
        (("pgvigil demo", "one minute"), ("pgvigil demo --hold", "leave it running to look around")),
        _FILES, "demo",
        (Argument(("--hold",), "leave everything running until Ctrl-C", flag=True),
         Argument(("--scenario",), "what is played: the leader dies, or the primary", ("leader", "failover"),
                  default="leader")),
    ),
    Command(
        "completion", "print the completion of a shell",
        "To be read by the shell at its start.",
        (('eval "$(pgvigil completion bash)"', "in ~/.bashrc"), ("pgvigil completion zsh > _pgvigil", "in fpath")),
        "pgvigil.watchdog.cli.completion", "completion",
        (Argument(("shell",), "which shell", ("bash", "zsh", "fish")),),
    ),
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse that suggests what was meant."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        import difflib

        known = [str(choice) for choice in action.choices]
        close = difflib.get_close_matches(str(value)[:80], known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(known)}"
        what = "command" if action.dest == "command" else "value"
        raise argparse.ArgumentError(None, f"unknown {what} '{str(value)[:80]}'; {hint}")


def build() -> argparse.ArgumentParser:
    """The parser with all commands; `options.command` is the `Command`'s name or None."""
    listing = "\n".join(f"  {code:<5}{meaning}" for code, meaning in codes.MEANINGS.items())
    parser = Parser(
        prog="pgvigil",
        description="A watchdog for pgpool-II: one leader, one virtual IP, never two.",
        epilog=f"exit codes:\n{listing}\n\n'pgvigil COMMAND --help' shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pgvigil {pgvigil.__version__}")
    _add(parser, GLOBAL)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for command in COMMANDS:
        examples = "\n".join(f"  {line:<45} {note}" for line, note in command.examples)
        sub = commands.add_parser(
            command.name,
            aliases=list(command.aliases),
            help=command.summary,
            description=command.text,
            epilog=f"example:\n{examples}" if len(command.examples) == 1 else f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add(sub, command.arguments)
        # Suppressed, or the sub-command's default would hide what stood before the command.
        _add(sub, GLOBAL, suppress=True)
    return parser


def _add(parser: argparse.ArgumentParser, arguments: Sequence[Argument], suppress: bool = False) -> None:
    for argument in arguments:
        default = argparse.SUPPRESS if suppress else argument.default
        if argument.flag:
            parser.add_argument(*argument.names, action="store_true", help=argument.help)
        elif argument.many:
            parser.add_argument(*argument.names, nargs="*", metavar=argument.metavar, help=argument.help)
        elif argument.optional:
            parser.add_argument(*argument.names, nargs="?", metavar=argument.metavar, help=argument.help)
        else:
            parser.add_argument(
                *argument.names, default=default, type=argument.kind, choices=argument.choices or None,
                metavar=argument.metavar or None, help=argument.help,
            )  # fmt: skip


def config_path(options: argparse.Namespace) -> str:
    """The file to read: option, environment, default."""
    return str(options.config or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)
